"""The whole tree on a virtual clock, in front of vendors that misbehave by script.

    async with world(a=[status(500), answer], b=[answer]) as w:
        asked = await w.ask(on_broken_stream="buffer")
        assert asked.who == "b"
        await w.settled()          # every book is at zero

The candidates are ``a/m-a``, ``b/m-b`` and so on, in that order. `answer` says `ANSWER` as each is asked, streamed or
whole, and goes on where a prefilled turn ends. Each vendor counts other tokens and has another price, so that it
shows whose usage and cost were reported.
"""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Never

import msgspec
import trio
import trio.testing

from llm_actors.catalog import Candidate
from llm_actors.kernel import ChildSpec, running
from llm_actors.limiter import LimiterStatistics, statistics
from llm_actors.orchestrator import accept
from llm_actors.provider import ProviderWires
from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.dialect import ClientDialect
from llm_protocol.events import Event, Failed, Finished, Restarted, TextDelta
from llm_protocol.failures import Failure
from llm_protocol.policy import Attempts, Limits, Policy, Timeouts
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_protocol.response import LLMResponse, Usage
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Provider
from llm_runtime.extensions import NO_EXTENSIONS, Extensions
from llm_runtime.providers import provider_spec, supervised
from llm_runtime.tree import Tree
from support.peer import Call, Hangup, Peer, Script, Step, close, reply, sse, stall
from support.selecting import success
from support.upstream import CANARY, JSON

WORDS = ("One ", "two ", "three ", "four ", "five")
ANSWER = "".join(WORDS)
BEGUN = 2
"""Words that a stream has delivered when it breaks."""

LIMITS = Limits(max_concurrency=4)
TIMEOUTS = Timeouts(connect=2, first_token=5, idle=5, total=30)
ATTEMPTS = Attempts()
EVENT_STREAM = {"content-type": "text/event-stream"}


def tokens(name: str) -> Usage:
    """What the vendor ``name`` counts for an answer."""
    rank = ord(name) - ord("a") + 1
    return Usage(input_tokens=10 * rank, output_tokens=rank)


def cost_of(provider: str, model: str, usage: Usage) -> float | None:
    """A dollar a token at ``a``, two at ``b``, and so on; ``z`` has no known price."""
    billed_in, billed_out = usage.billed_input_tokens, usage.billed_output_tokens
    tokens = usage.input_tokens if billed_in is None else billed_in
    tokens += usage.output_tokens if billed_out is None else billed_out
    return None if provider == "z" else float(tokens * (ord(provider) - ord("a") + 1))


# -- what vendors say ------------------------------------------------------------------------------------------------


def _usage(name: str) -> dict[str, int]:
    usage = tokens(name)
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }


def _chunk(model: str, delta: object = None, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return msgspec.json.encode({"id": "c1", "model": model, "choices": [choice]}).decode()


def said(call: Call) -> Any:
    """The body of the request."""
    assert call.request is not None
    return msgspec.json.decode(call.request.body)


def begun(model: str, words: Sequence[str] = WORDS[:BEGUN]) -> list[str]:
    """The events of a stream that has begun."""
    return [_chunk(model, {"role": "assistant", "content": ""}), *(_chunk(model, {"content": word}) for word in words)]


def _left(body: Any) -> list[str]:
    """The words that are still to be said: all, or what follows the prefilled turn."""
    last = body["messages"][-1]
    if last["role"] != "assistant":
        return list(WORDS)
    assert ANSWER.startswith(last["content"]), "only what was said is prefilled"
    return re.findall(r"\s*\S+\s*", ANSWER[len(last["content"]) :])


def answering(*, gap: float = 0.0, late: float = 0.0) -> Step:
    """The whole answer, ``gap`` seconds between its events and ``late`` ones before its head."""

    async def step(call: Call) -> None:
        if late:
            await trio.sleep(late)
        body = said(call)
        model, words = body["model"], _left(body)
        name = model.removeprefix("m-")
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "".join(words)}, "finish_reason": "stop"}
            whole = {"id": "c1", "model": model, "choices": [choice], "usage": _usage(name)}
            await reply(msgspec.json.encode(whole), headers=JSON)(call)
            return
        usage = msgspec.json.encode({"id": "c1", "model": model, "choices": [], "usage": _usage(name)}).decode()
        await sse(*begun(model, words), _chunk(model, finish="stop"), usage, "[DONE]", gap=gap)(call)

    return step


answer: Step = answering()


def status(code: int, body: object = None, **headers: str) -> Step:
    """An error answer; ``retry_after`` becomes ``retry-after``."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return reply(msgspec.json.encode(body or {"error": {"message": "no"}}), code, {**JSON, **said})


def error(kind: str) -> dict[str, object]:
    """An error body with this code."""
    return {"error": {"message": "no", "type": kind, "code": kind}}


def breaking(*more: str, end: bool = False, words: int = BEGUN) -> Step:
    """The next words of a stream, and then ``more`` events; ``end``: a proper end of the body all the same."""

    async def step(call: Call) -> None:
        body = said(call)
        await sse(*begun(body["model"], _left(body)[:words]), *more, end=end)(call)

    return step


def reset() -> Step:
    """A reset instead of an end, on the socket pairs of `Vendor.dial`."""

    async def step(call: Call) -> None:
        assert isinstance(call.peer, Vendor)
        # A Unix socket that is closed with something unread resets its other end, as TCP does with an RST.
        os.write(call.peer.other_end[call.socket], b"x")
        call.socket.close()
        await trio.lowlevel.checkpoint()
        raise Hangup

    return step


NAMED_CALL = """{"choices": [{"index": 0, "delta": {"tool_calls": [
    {"index": 0, "id": "t1", "type": "function", "function": {"name": "look", "arguments": ""}}
]}}]}""".replace("\n", "")
"""An event that announces a call of a tool, and nothing of what it is called with."""


class Vendor(Peer):
    """A `Peer` over socket pairs that tells the time. The first ``bad_dials`` are refused, or time out if ``dead``."""

    def __init__(self, *scripts: Script, bad_dials: float = 0, dead: bool = False) -> None:
        super().__init__(*scripts)
        self._bad_dials = bad_dials
        self._dead = dead
        self.failed_dials = 0
        self.asked_at: list[float] = []
        self.most_at_once = 0
        self.other_end: dict[trio.socket.SocketType, int] = {}

    async def _listen(self) -> None:
        """Only over socket pairs: a client of another process could find a port, which may have been its server's."""

    async def dial(self, host: str, port: int) -> trio.SocketStream:
        if self.failed_dials < self._bad_dials:
            self.failed_dials += 1
            await trio.sleep(math.inf if self._dead else 0)
            raise ConnectionRefusedError
        await trio.lowlevel.checkpoint()
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
        self.other_end[ours.socket] = theirs.socket.fileno()
        self._nursery.start_soon(self._serve, ours)
        return theirs

    def _count(self, *, connections: int = 0, requests: int = 0, aborted: int = 0) -> None:
        super()._count(connections=connections, requests=requests, aborted=aborted)
        if requests > 0:
            self.asked_at.append(trio.current_time())
            self.most_at_once = max(self.most_at_once, self.open_requests)

    @property
    def calls(self) -> int:
        """How often it was asked, or tried to be."""
        return len(self.requests) + self.failed_dials


def by_model(**scripts: Script) -> Step:
    """What each model says, by what follows ``m-`` in its name."""

    async def step(call: Call) -> None:
        script = scripts[said(call)["model"].removeprefix("m-")]
        for each in [script] if callable(script) else script:
            await each(call)

    return step


# -- the tree --------------------------------------------------------------------------------------------------------


class Asked:
    """One request that has ended, as its follower saw it."""

    def __init__(self, run: Run, events: Sequence[Event], took: float) -> None:
        self.run = run
        self.events = events
        self.took = took
        end = run.log.end
        assert isinstance(end, Finished | Failed), "a run ends with a terminal event"
        self.failure: Failure | None = end.failure if isinstance(end, Failed) else None
        assert end.response is not None
        self.response: LLMResponse = end.response
        self.decision: dict[str, Any] = end.response.decision

    @property
    def text(self) -> str:
        """The text that the follower has at the end."""
        pieces: list[str] = []
        for event in self.events:
            if isinstance(event, Restarted):
                pieces.clear()
            elif isinstance(event, TextDelta):
                pieces.append(event.text)
        return "".join(pieces)

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The decision record's attempts."""
        return list(self.decision.get("attempts", ()))

    @property
    def calls(self) -> int:
        """How many of them reached out."""
        return sum(1 for attempt in self.attempts if attempt.get("asked", True))

    def called(self, name: str) -> int:
        """How many of them reached out to the vendor ``name``."""
        return sum(1 for one in self.attempts if one["provider"] == name and one.get("asked", True))

    def outcomes(self) -> list[str]:
        """``provider:outcome`` of each attempt."""
        return [f"{attempt['provider']}:{attempt['outcome']}" for attempt in self.attempts]


class World:
    """A running tree and its vendors."""

    def __init__(self, tree: Tree, vendors: Mapping[str, Vendor]) -> None:
        self.tree = tree
        self.vendors = vendors
        self.runs: list[Run] = []
        self.candidates = tuple(f"{name}/m-{name}" for name in vendors)

    def __getitem__(self, name: str) -> Vendor:
        return self.vendors[name]

    @property
    def calls(self) -> int:
        return sum(vendor.calls for vendor in self.vendors.values())

    def request(
        self, *, model: str = "auto", deadline_s: float | None = 60.0, prompt: str = "Count.", **policy: Any
    ) -> ChatRequest:
        """``policy``: the fields of `Policy`; ``candidates`` are all of them unless the model is named."""
        if model == "auto":
            policy.setdefault("candidates", self.candidates)
            policy.setdefault("strategy", "fallback")
        messages = (Message.of("user", prompt),)
        return ChatRequest(model=model, messages=messages, deadline_s=deadline_s, policy=Policy(**policy))

    async def submit(self, *, stream: bool = True, **policy: Any) -> Run:
        """A run that was accepted. Raises `LLMClientError`."""
        run = Run(self.request(**policy), stream=stream)
        await self.hand_in(run)
        return run

    async def hand_in(self, run: Run) -> None:
        """Accept ``run``. Raises `LLMClientError`."""
        self.runs.append(run)
        await accept(self.tree.orchestrator, run)

    async def ask(self, *, stream: bool = True, **policy: Any) -> Asked:
        """Ask and wait for the end, whatever it is."""
        began = trio.current_time()
        run = await self.submit(stream=stream, **policy)
        return await self.see(run, began)

    async def see(self, run: Run, began: float) -> Asked:
        """Follow ``run`` to its end."""
        events: list[Event] = []
        with run.follow() as follower:
            while found := await follower.next():
                events.extend(found)
        return Asked(run, events, trio.current_time() - began)

    def season(self, name: str, *, usual: float) -> None:
        """The candidate of ``name`` has often answered, its first token after ``usual`` seconds, and earned hedges."""
        candidate, now = Candidate(name, f"m-{name}"), trio.current_time()
        for _ in range(40):
            self.tree.selector.admit(candidate, now)
            self.tree.selector.observe(success(candidate, now, took=usual, first=usual), 0.5)

    async def statistics(self) -> LimiterStatistics:
        """The limiter's."""
        return await statistics(self.tree.services.limiter)

    def task_count(self) -> int:
        """How many tasks there are, without those of the vendors, which serve kept connections."""
        serving = sum(vendor.open_connections for vendor in self.vendors.values())
        return trio.lowlevel.current_statistics().tasks_living - serving

    async def settled(self) -> None:
        """Every book is at zero, within a second: leases, slots, lines, upstream requests, probes."""
        with trio.fail_after(1):
            await trio.testing.wait_all_tasks_blocked()
            for vendor in self.vendors.values():
                await vendor.until(lambda vendor=vendor: vendor.open_requests == 0)  # type: ignore[misc]
        statistics = await self.statistics()
        assert (statistics.leases, statistics.waiting) == (0, 0)
        assert {name for name, each in statistics.providers.items() if each.in_flight or each.waiting} == set()
        now = trio.current_time()
        circuits = self.tree.selector.circuits
        breakers = [circuits.provider(name, now) for name in self.vendors]
        breakers += [circuits.deployment(candidate, now) for candidate, _ in circuits.not_closed(now)]
        assert [each for each in breakers if each.probing_since > -math.inf] == []


@asynccontextmanager
async def world(
    *,
    limits: Limits | Mapping[str, Limits] = LIMITS,
    timeouts: Timeouts = TIMEOUTS,
    attempts: Attempts = ATTEMPTS,
    routes: Mapping[str, Policy] | None = None,
    prefill: str = "",
    draw: float | None = None,
    branches: Sequence[ChildSpec[Never]] = (),
    models: tuple[str, ...] = (),
    extensions: Extensions = NO_EXTENSIONS,
    kinds: Mapping[str, LLMProvider] | None = None,
    dialects: Mapping[str, ClientDialect] | None = None,
    **vendors: Sequence[Script] | Vendor,
) -> AsyncIterator[World]:
    """Run the tree around a block. ``prefill`` names the vendors whose models go on with a text. ``models``: what each
    vendor has in place of its one model. ``kinds``: the wires of those that do not speak OpenAI's. ``dialects`` replace
    those of their kinds.

    ``draw`` replaces the chance of the plan and the ranking. ``branches`` of the tree's root start last, such as a
    server. Afterwards no connection is open.
    """
    peers = {name: each if isinstance(each, Vendor) else Vendor(*each) for name, each in vendors.items()}
    config = Config(
        providers={
            name: Provider(
                kind=(kinds or {}).get(name, LLMProvider.OPENAI_COMPATIBLE),
                base_url=f"http://{name}.test" if name in (kinds or {}) else f"http://{name}.test/v1",
                api_key=Secret(CANARY),
                models=models or (f"m-{name}",),
                limits=limits if isinstance(limits, Limits) else limits[name],
                timeouts=timeouts,
            )
            for name in peers
        },
        attempts=attempts,
        routes=dict(routes or {}),
    )
    specs = {name: provider_spec(name, provider) for name, provider in config.providers.items()}
    for name, dialect in (dialects or {}).items():
        specs[name] = msgspec.structs.replace(specs[name], wires=ProviderWires(dialect))
    providers = [supervised(spec, dial=peers[name].dial) for name, spec in specs.items()]
    tree = Tree(config, providers, cost_of, extensions=extensions, servers=branches)
    chance = tree.services.draw if draw is None else lambda: draw
    tree.setup.services = msgspec.structs.replace(
        tree.services, accepts_prefill=lambda candidate: candidate.provider in prefill, draw=chance
    )
    async with trio.open_nursery() as nursery:
        for vendor in peers.values():
            nursery.start_soon(_open, vendor, started := trio.Event())
            await started.wait()
        async with running(tree.root):
            yield World(tree, peers)
        with trio.fail_after(1):
            for vendor in peers.values():
                await vendor.until(lambda vendor=vendor: vendor.open_connections == 0)  # type: ignore[misc]
        nursery.cancel_scope.cancel()


async def _open(vendor: Vendor, started: trio.Event) -> None:
    async with vendor:
        started.set()
        await trio.sleep_forever()


__all__ = [
    "ANSWER", "BEGUN", "EVENT_STREAM", "LIMITS", "NAMED_CALL", "TIMEOUTS", "WORDS", "Asked", "Vendor", "World",
    "answer", "answering", "begun", "breaking", "close", "cost_of", "error", "reset", "said", "stall", "status",
    "tokens", "world",
]  # fmt: skip
