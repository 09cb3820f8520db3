"""What a passthrough request is charged that the vendor did not receive, or may have."""

from __future__ import annotations

from math import inf

import trio
from trio.testing import MockClock

from llm_actors.orchestrator import pass_through
from llm_actors.provider import PassthroughRequest
from llm_protocol.errors import CrashedError
from llm_protocol.policy import Limits, Timeouts
from support.attempts import Vendor, World, answer, world
from support.peer import pause, reply, stall

LIMITS = Limits(requests_per_minute=10)


class Taker:
    """A client that reads everything; with ``bug``, reading raises."""

    def __init__(self, *, bug: bool = False) -> None:
        self._bug = bug

    async def begin(self, status: int, headers: tuple[tuple[str, str], ...], length: int | None) -> None:
        if self._bug:
            raise ZeroDivisionError

    async def send(self, data: bytes) -> None:
        pass


async def send(w: World, taker: Taker) -> None:
    message = PassthroughRequest(method="GET", path="/v1/files", headers=(), body=b"", taker=taker)
    passed = await pass_through(w.tree.services, "a", message, caller="", request_id="r")
    if passed.failure is not None and passed.failure.kind is CrashedError.kind:
        raise CrashedError(passed.failure)


async def left(w: World) -> int | None:
    await w.settled()
    return (await w.statistics()).providers["a"].requests_left


async def test_cancelled_before_it_was_sent_it_does_not_count(autojump_clock: MockClock) -> None:
    async with world(a=Vendor(answer, bad_dials=inf, dead=True), limits=LIMITS) as w:
        with trio.move_on_after(0.5):
            await send(w, Taker())
        assert await left(w) == 10


async def test_cancelled_after_it_was_sent_it_counts(autojump_clock: MockClock) -> None:
    async with world(a=[stall()], limits=LIMITS) as w:
        with trio.move_on_after(0.5):
            await send(w, Taker())
        assert await left(w) == 9


async def test_after_a_crash_it_counts_as_it_was_sent(autojump_clock: MockClock) -> None:
    async with world(a=[reply(b"{}")], limits=LIMITS) as w:
        try:
            await send(w, Taker(bug=True))
        except CrashedError:
            assert await left(w) == 9
        else:
            raise AssertionError


async def test_one_that_takes_an_hour_keeps_its_place_within_the_limits(autojump_clock: MockClock) -> None:
    patient = Timeouts(idle=7_200, total=7_200)
    async with world(a=[[pause(3_000), reply(b"{}")]], limits=Limits(max_concurrency=1), timeouts=patient) as w:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, w, Taker())
            await trio.sleep(2_500)
            assert (await w.statistics()).providers["a"].in_flight == 1
        assert (await w.statistics()).expired == 0
        await w.settled()
