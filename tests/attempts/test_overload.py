"""More requests than a provider has time for, on a virtual clock: who cannot be answered in time is told so at once."""

from __future__ import annotations

from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_protocol.failures import FailureKind
from llm_protocol.policy import Limits
from support.attempts import Asked, World, answer, answering, world

SLOTS = 10
SERVICE_SECONDS = 0.5
CAPACITY = SLOTS / SERVICE_SECONDS
DEADLINE = 3.0


async def offer(w: World, rate: float, seconds: float, **policy: object) -> list[Asked]:
    """Requests at random moments; as they ended, in no order."""
    asked: list[Asked] = []
    draw, end = Random(1), trio.current_time() + seconds

    async def one() -> None:
        asked.append(await w.ask(stream=False, deadline_s=DEADLINE, **policy))

    async with trio.open_nursery() as nursery:
        while trio.current_time() < end:
            nursery.start_soon(one)
            await trio.sleep(draw.expovariate(rate))
    return asked


@pytest.mark.parametrize("limited", [True, False])
async def test_at_three_times_the_capacity_the_slots_stay_busy_and_no_call_is_wasted(
    limited: bool, autojump_clock: MockClock
) -> None:
    """Whether the limiter's line or the provider's slots are what is full."""
    slow = answering(late=SERVICE_SECONDS)
    async with world(a=[slow], limits=Limits(max_concurrency=SLOTS)) as w:
        if not limited:
            w.tree.services.limits.pop("a")  # type: ignore[attr-defined]
        before = w.calls
        asked = await offer(w, 3 * CAPACITY, 30.0)
        calls = w.calls - before
        answered = [each for each in asked if each.failure is None]
        refused = [each for each in asked if each.failure is not None and each.failure.kind is FailureKind.OVERLOADED]
        assert len(answered) >= 0.9 * CAPACITY * 30.0
        assert calls - len(answered) <= 0.05 * calls
        assert len(answered) + len(refused) >= 0.98 * len(asked)
        assert sorted(each.took for each in refused)[int(0.95 * len(refused))] < 0.02
        assert all(each.failure is not None and (each.failure.retry_after or 0.0) >= 1.0 for each in refused)
        calm = await offer(w, 0.5 * CAPACITY, 5.0)
        assert [each for each in calm if each.failure is not None] == []
        await w.settled()


async def test_who_is_refused_by_the_first_is_taken_to_another_that_has_time(autojump_clock: MockClock) -> None:
    slow = answering(late=SERVICE_SECONDS)
    async with world(a=[slow], b=[answer], limits=Limits(max_concurrency=SLOTS)) as w:
        asked = await offer(w, 3 * CAPACITY, 10.0, select="order")
    assert {None if each.failure is None else each.failure.kind for each in asked} == {None}
    assert w["a"].calls >= 0.8 * CAPACITY * 10.0
    assert w["b"].calls >= CAPACITY * 10.0


async def test_nobody_is_refused_while_nothing_is_known(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=1.0)], limits=Limits(max_concurrency=1)) as w, trio.open_nursery() as nursery:
        asked: list[Asked] = []

        async def one() -> None:
            asked.append(await w.ask(stream=False, deadline_s=20.0))

        for _ in range(9):
            nursery.start_soon(one)
    assert [each.failure for each in asked] == [None] * 9


async def test_a_request_with_little_time_may_try_where_nobody_waits(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=0.5)], limits=Limits(max_concurrency=4)) as w:
        for _ in range(20):
            await w.ask(stream=False)
        asked = await w.ask(stream=False, deadline_s=0.1)
    assert asked.failure is not None
    assert (asked.failure.kind, asked.calls) == (FailureKind.DEADLINE, 1)


async def test_a_burst_of_2500_with_nothing_limited_is_answered(autojump_clock: MockClock) -> None:
    """256 are worked on at a time. The others wait, for there is time enough."""
    async with world(a=[answering(late=0.2)], limits=Limits()) as w:
        asked: list[Asked] = []

        async def one() -> None:
            asked.append(await w.ask(stream=False, deadline_s=60.0))

        async with trio.open_nursery() as nursery:
            for _ in range(2_500):
                nursery.start_soon(one)
        assert {None if each.failure is None else each.failure.kind for each in asked} == {None}
        assert w["a"].most_at_once <= 256
        assert w.tree.services.loads["a"].serving == w.tree.services.loads["a"].waiting == 0


async def test_waiting_for_a_slot_can_be_cancelled_and_takes_none(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=1.0)], limits=Limits(max_concurrency=1)) as w:
        w.tree.services.limits.pop("a")  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.ask)
            await trio.sleep(0.1)
            with trio.move_on_after(0.2):
                await w.ask()
            await wait_all_tasks_blocked()
            load = w.tree.services.loads["a"]
            assert (load.serving, load.waiting) == (1, 0)
        assert (load.serving, load.waiting) == (0, 0)


async def test_the_wait_for_a_slot_is_bounded_by_wait_s(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=4.0)], limits=Limits(max_concurrency=1, wait_s=2.0)) as w:
        w.tree.services.limits.pop("a")  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.ask)
            await trio.sleep(0.1)
            begun = trio.current_time()
            asked = await w.ask(stream=False, deadline_s=60.0)
            assert trio.current_time() - begun == pytest.approx(2.0)
            assert asked.failure is not None
            assert (asked.failure.kind, asked.failure.limited_by) == (FailureKind.OVERLOADED, "provider")
            assert "wait_s)" in asked.failure.message
            nursery.cancel_scope.cancel()
