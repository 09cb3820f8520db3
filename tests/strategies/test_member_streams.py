"""The members' own streams: opt-in, beside the answer, in the same numbering."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any, cast

import msgspec
import pytest
import trio
from trio.testing import MockClock

from llm_actors.orchestrator import accept
from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.events import MemberDelta, MemberDone, MemberEvent, MemberFailed, MemberStarted, TextDelta
from llm_protocol.policy import Policy
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_runtime.config import Config, Provider, Server
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from support.attempts import WORDS, status, world
from support.panels import ask, members, outcomes, saying, start
from support.peer import Peer
from support.server import FakeEngine, OpenServer
from support.ws import connected, text_of

PREFIX = "llm-runtime:member."
OPT_IN: dict[str, Any] = {"llm_runtime": {"stream_members": True}}
ROUTE = Policy(strategy="panel", members=("a/m-a", "b/m-b", "c/m-c"), synthesiser="a/m-a")


@asynccontextmanager
async def server(route: Policy = ROUTE) -> AsyncIterator[OpenServer]:
    """All of the daemon but its process, with the route ``panel``: two members answer, one fails, one synthesises."""
    scripts = {
        "a": [saying("one ", "by a"), saying("made ", "of ", "two")],
        "b": [saying("two ", "by b", gap=0.01)],
        "c": [status(401)],
    }
    async with AsyncExitStack() as stack:
        peers = {name: await stack.enter_async_context(Peer(*each)) for name, each in scripts.items()}
        kind = LLMProvider.OPENAI_COMPATIBLE
        providers = {
            name: Provider(kind=kind, base_url=f"{peer.url}/v1", models=(f"m-{name}",)) for name, peer in peers.items()
        }
        addresses: list[ListenAddress] = []
        config = Config(providers=providers, routes={"panel": route})
        settings = Server(port=0, drain_s=0.5)
        runtime = Runtime(config, servers=lambda it: server_child(settings, it, addresses.append))
        async with runtime.running():
            opened = OpenServer(addresses[-1], cast("FakeEngine", runtime), runtime._tree.root)
            yield opened
            for client in opened.clients:
                client.close()


def are_numbered(events: list[dict[str, Any]]) -> bool:
    """From 0, each one more than the last; only a delta that joins several has the number of its last."""
    steps = [(after["sequence_number"] - before["sequence_number"], after) for before, after in pairwise(events)]
    return events[0]["sequence_number"] == 0 and all(
        step == 1 or (step > 1 and after["type"].endswith((".delta", ".deltas"))) for step, after in steps
    )


def of_members(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of members. What several said in one frame becomes one event each."""
    found: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == PREFIX + "deltas":
            found += [event | {"type": PREFIX + "delta"} | delta for delta in event["deltas"]]
        elif event["type"].startswith(PREFIX):
            found.append(event)
    return found


def said(events: Iterable[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """What each member's events tell; neighbouring deltas may be joined."""
    found: dict[str, list[tuple[str, str]]] = {}
    for event in of_members(events):
        kind, text, those = event["type"], event.get("delta", ""), found.setdefault(event["member"], [])
        if those and text and those[-1][0] == kind:
            text = those.pop()[1] + text
        those.append((kind, text))
    return found


async def test_a_client_that_opted_in_sees_the_members_interleaved_with_right_numbers() -> None:
    async with server() as opened, connected(opened) as client:
        await client.create(model="panel", **OPT_IN)
        events = await client.response()

    assert are_numbered(events)
    assert text_of(events) == "made of two"
    told = of_members(events)
    started = {event["member"]: event["request_id"] for event in told if event["type"] == PREFIX + "started"}
    assert {name: ident.rpartition("_")[2] for name, ident in started.items()} == {
        "a/m-a": "a",
        "b/m-b": "b",
        "c/m-c": "c",
    }
    deltas = [event for event in told if event["type"] == PREFIX + "delta"]
    assert "".join(event["delta"] for event in deltas if event["member"] == "b/m-b") == "two by b"
    done = {event["member"]: event for event in told if event["type"] == PREFIX + "done"}
    assert {name: event["text"] for name, event in done.items()} == {"a/m-a": "one by a", "b/m-b": "two by b"}
    assert done["a/m-a"]["usage"]["input_tokens"] == 10
    [failed] = [event for event in told if event["type"] == PREFIX + "failed"]
    assert failed["member"] == "c/m-c"
    assert failed["error"]["code"] == "provider_auth"


async def test_the_answers_are_in_the_response() -> None:
    async with server() as opened, connected(opened) as client:
        await client.create(model="panel")
        events = await client.response()

    told = events[-1]["response"]["llm_runtime"]
    assert [(each["member"], each["outcome"], each.get("content")) for each in told["members"]] == [
        ("a/m-a", "ok", "one by a"),
        ("b/m-b", "ok", "two by b"),
        ("c/m-c", "auth", None),
    ]
    assert told["decision"]["synthesis"] == {"by": "a/m-a", "outcome": "ok"}
    assert "members" not in told["decision"]
    assert events[-1]["response"]["usage"]["input_tokens"] >= 10 + 20 + 10


@pytest.mark.parametrize("more", [{}, {"llm_runtime": {"stream_members": False}}, {"llm_runtime": {"priority": 3}}])
async def test_a_plain_client_sees_the_answer_alone(more: dict[str, Any]) -> None:
    async with server() as opened, connected(opened) as client:
        await client.create(model="panel", **more)
        events = await client.response()

    assert all(event["type"].startswith("response.") for event in events)
    assert are_numbered(events)
    assert text_of(events) == "made of two"


async def test_a_client_that_comes_back_gets_the_rest_with_the_same_numbers() -> None:
    async with server() as opened, connected(opened) as client:
        await client.create(model="panel", **OPT_IN)
        events = await client.response()
        told = [event for event in events if event["type"].startswith(PREFIX)]
        ident = events[0]["response"]["id"]
        numbers = [event["sequence_number"] for event in events]  # a delta that joins several has that of its last
        for after in (max(number for number in numbers if number <= most) for most in (0, 3, 7)):
            await client.send({"type": "response.resume", "response_id": ident, "starting_after": after})
            again = await client.response()
            assert again[0]["sequence_number"] > after
            assert again[-1] == events[-1]
            rest = [event for event in told if event["sequence_number"] > after]
            assert said(again) == said(rest)


@pytest.mark.parametrize("over", ["http", "websocket"])
async def test_a_route_can_tell_its_members_streams_and_a_request_can_say_otherwise(over: str) -> None:
    """The tellings of the route and of the request are the same to the encoder: what is in the run's log."""
    route = msgspec.structs.replace(ROUTE, stream_members=True)
    cases: list[tuple[dict[str, Any], bool]] = [({}, True), ({"llm_runtime": {"stream_members": False}}, False)]
    for more, is_told in cases:
        async with server(route) as opened, connected(opened) as client:
            if over == "websocket":
                await client.create(model="panel", **more)
                events = await client.response()
            else:
                body = {"model": "panel", "input": "hi", "stream": True} | more
                events = (await opened.request("POST", "/v1/responses", body)).events[:-1]
        assert bool(of_members(events)) == is_told
        assert are_numbered(events)
        assert text_of(events) == "made of two"


async def test_over_http_it_is_the_same() -> None:
    body = {"model": "panel", "input": "hi", "stream": True}
    async with server() as opened:
        plain = await opened.request("POST", "/v1/responses", body)
    async with server() as opened:
        asked = await opened.request("POST", "/v1/responses", body | OPT_IN)

    assert PREFIX.encode() not in plain.body
    assert asked.body.count(PREFIX.encode() + b"started") >= 3


@pytest.mark.parametrize("more", [{}, OPT_IN])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v2/chat"])
async def test_other_wires_have_the_answer_alone(path: str, more: dict[str, Any]) -> None:
    body = {"model": "panel", "stream": True, "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
    async with server() as opened:
        reply = await opened.request("POST", path, body | more)

    assert reply.status == 200
    assert b"made " in reply.body
    assert b"by b" not in reply.body
    assert PREFIX.encode() not in reply.body


async def test_progress_is_told_while_members_work(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one", late=2)], b=[saying(*WORDS, gap=1)]) as w:
        run = await start(w, strategy="panel", synthesiser="longest", stream_members=True)
        with run.follow() as follower:
            seen: list[object] = []
            while not any(isinstance(event, MemberDelta) for event in seen):
                seen.extend(await follower.next())
            assert run.log.end is None
            while await follower.next():
                pass

    ended = [event for event in run.log.events if isinstance(event, MemberDone)]
    assert [event.member for event in ended] == ["a/m-a", "b/m-b"]


async def test_members_come_before_the_answer_and_each_ends_once(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one"), saying("made")], b=[saying("two")], c=[status(401)]) as w:
        asked = await ask(w, strategy="panel", stream_members=True, quorum=2)

    last_member = max(at for at, event in enumerate(asked.events) if isinstance(event, MemberEvent))
    first_word = next(at for at, event in enumerate(asked.events) if isinstance(event, TextDelta))
    assert last_member < first_word
    starts = [event.member for event in asked.events if isinstance(event, MemberStarted)]
    ends = [event.member for event in asked.events if isinstance(event, MemberDone | MemberFailed)]
    assert sorted(starts) == sorted(ends) == ["a/m-a", "b/m-b", "c/m-c"]


async def test_what_members_say_leaves_room_for_the_answer(autojump_clock: MockClock) -> None:
    """A member whose stream would fill more than half of the run's log is ended, with the failure ``log_limit``."""
    async with world(a=[saying(*["word "] * 200)], b=[saying("two")]) as w:
        policy = Policy(strategy="panel", members=w.candidates, stream_members=True)
        request = ChatRequest(messages=(Message.of("user", "hi"),), policy=policy)
        run = Run(request, stream=True, log_limit_bytes=20_000)
        await accept(w.tree.orchestrator, run)
        asked = await w.see(run, trio.current_time())
        await w.settled()

    assert outcomes(asked) == {"a/m-a": "log_limit", "b/m-b": "ok"}
    assert asked.response.content == "two"


async def test_nobody_is_told_of_members_unasked(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")], b=[saying("two")]) as w:
        asked = await ask(w, strategy="panel")

    assert not any(isinstance(event, MemberEvent) for event in asked.events)
    assert members(asked)["a/m-a"]["outcome"] == "ok"
