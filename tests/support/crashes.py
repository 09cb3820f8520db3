"""A whole runtime under load on a virtual clock, while one of its actors crashes again and again.

Every caller says what it needs: ``plain`` nothing but its provider, ``cached`` asks the cache, ``limited`` has a
provider with limits, ``listed`` names a model that only the vendor's list has, ``covered`` has a limited and an
unlimited candidate. `Load.outcomes` then says what each kind of caller got.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Never, final
from unittest.mock import patch

import msgspec
import trio
import trio.testing

from llm_actors.kernel import ChildSpec
from llm_actors.limiter import statistics as limiter_statistics
from llm_protocol.content import Message
from llm_protocol.errors import LLMClientError
from llm_protocol.policy import Limits, Policy
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_protocol.secret import Secret
from llm_runtime import runtime as runtime_module
from llm_runtime.config import Config, Provider
from llm_runtime.providers import Supervised, supervised
from llm_runtime.runtime import Runtime
from support.attempts import ANSWER, Vendor, answering, status
from support.peer import Call, reply
from support.upstream import CANARY, JSON

STREAMS = 50
"""Streams that are open at any moment."""

PER_SECOND = 50
"""Whole answers that are asked for each second."""

GAP_SECONDS = 0.1
"""Between the words of a stream: one takes about 0.7 s."""

PATIENCE_SECONDS = 20.0
"""The deadline of every request. Nobody should come near it."""

LIMITED = Limits(max_concurrency=500, requests_per_minute=60_000)

KINDS = {
    "plain": ("a/m-a",),
    "cached": ("a/m-a",),
    "limited": ("b/m-b",),
    "covered": ("b/m-b", "a/m-a"),
    "listed": (),
}

_speak = answering(gap=GAP_SECONDS)


@final
class Load:
    """What the callers of one runtime got."""

    def __init__(self, runtime: Runtime, vendors: dict[str, Vendor]) -> None:
        self.runtime = runtime
        self.vendors = vendors
        self.outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.slowest: dict[str, float] = dict.fromkeys(KINDS, 0.0)
        self.lists = True
        """Whether the vendor ``c`` tells which models it has."""
        self._numbers = count()

    async def step(self, call: Call) -> None:
        """What every vendor does."""
        assert call.request is not None
        if not call.request.target.endswith("/models"):
            await _speak(call)
        elif not self.lists:
            await status(503)(call)
        else:
            listed = {"object": "list", "data": [{"id": "m-c", "object": "model"}]}
            await reply(msgspec.json.encode(listed), headers=JSON)(call)

    async def ask(self, kind: str, *, stream: bool) -> str:
        """One request. Returns ``ok`` or the kind of its failure."""
        began = trio.current_time()
        try:
            run = await self.runtime.submit(self.request(kind), stream=stream)
            with run.follow() as follower:
                while await follower.next():
                    pass
            end = run.log.end
            assert end is not None
            failure = getattr(end, "failure", None)
            if failure is None:
                assert end.response is not None
                assert end.response.content == ANSWER
        except LLMClientError as exc:
            failure = exc.failure
        outcome = "ok" if failure is None else failure.kind.value
        self.outcomes[kind][outcome] += 1
        self.slowest[kind] = max(self.slowest[kind], trio.current_time() - began)
        return outcome

    def request(self, kind: str) -> ChatRequest:
        """One that such a caller sends."""
        number = next(self._numbers)
        policy: dict[str, Any] = {"strategy": "fallback", "cache": "read" if kind == "cached" else "off"}
        if KINDS[kind]:
            policy["candidates"] = KINDS[kind]
        # Every other cached request was asked before.
        text = f"Count {number % 20 if kind == 'cached' else number}."
        return ChatRequest(
            model="m-c" if kind == "listed" else "auto",
            messages=(Message.of("user", text),),
            deadline_s=PATIENCE_SECONDS,
            policy=Policy(**policy),
        )

    async def run(self, seconds: float) -> None:
        """Keep `STREAMS` streams open and ask `PER_SECOND` times a second, for so long; then wait for what is left."""
        end = trio.current_time() + seconds
        kinds = tuple(KINDS)

        async def streams(kind: str) -> None:
            while trio.current_time() < end:
                await self.ask(kind, stream=True)
                await trio.sleep(0.01)

        async def whole(kind: str) -> None:
            await self.ask(kind, stream=False)

        async with trio.open_nursery() as nursery:
            for number in range(STREAMS):
                nursery.start_soon(streams, kinds[number % len(kinds)])
            while trio.current_time() < end:
                nursery.start_soon(whole, kinds[next(self._numbers) % len(kinds)])
                await trio.sleep(1 / PER_SECOND)

    async def settled(self) -> None:
        """Every book is at zero, within a second: runs, leases, slots, lines, upstream requests."""
        with trio.fail_after(1):
            await trio.testing.wait_all_tasks_blocked()
            for vendor in self.vendors.values():
                await vendor.until(lambda vendor=vendor: vendor.open_requests == 0)  # type: ignore[misc]
        tree = self.runtime._tree
        statistics = await limiter_statistics(tree.services.limiter)
        assert (statistics.leases, statistics.waiting) == (0, 0)
        assert not any(each.in_flight or each.waiting for each in statistics.providers.values())
        assert tree.services.metrics.running == 0
        assert tree.orchestrator.statistics().in_hand == 0


@asynccontextmanager
async def loaded_runtime(
    *, lists: bool = True, limited: str = "b", servers: Sequence[ChildSpec[Never]] = ()
) -> AsyncIterator[Load]:
    """A runtime in front of vendors ``a`` (no limits), ``b`` (limits) and ``c`` (its models come from its list)."""

    async def step(call: Call) -> None:
        await load.step(call)

    vendors = {name: Vendor(step) for name in "abc"}
    config = Config(
        providers={
            name: Provider(
                kind=LLMProvider.OPENAI_COMPATIBLE,
                base_url=f"http://{name}.test/v1",
                api_key=Secret(CANARY),
                models=() if name == "c" else (f"m-{name}",),
                limits=LIMITED if name in limited else Limits(),
            )
            for name in vendors
        }
    )

    def dialled(spec: Any) -> Supervised:
        return supervised(spec, dial=vendors[spec.name].dial)

    async with trio.open_nursery() as nursery:
        for vendor in vendors.values():
            nursery.start_soon(_open, vendor, started := trio.Event())
            await started.wait()
        try:
            with patch.object(runtime_module, "supervised", dialled):
                runtime = Runtime(config, servers=lambda _: servers)
            load = Load(runtime, vendors)
            load.lists = lists
            async with runtime.running():
                yield load
        finally:
            nursery.cancel_scope.cancel()


async def _open(vendor: Vendor, started: trio.Event) -> None:
    async with vendor:
        started.set()
        await trio.sleep_forever()
