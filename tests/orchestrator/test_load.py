"""Who gets a provider's slot: in turn between callers, by priority, and without losing one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.orchestrator.load import ProviderLoad, Slot


@contextmanager
def held(slot: Slot | None) -> Iterator[None]:
    assert slot is not None, "it was free"
    try:
        yield
    finally:
        slot.give_back()


async def served_order(*waiters: tuple[str, str, int]) -> list[str]:
    """The names in which those (name, caller, priority) get the one slot, who came in this order."""
    load, order = ProviderLoad(1), list[str]()

    async def wait(name: str, caller: str, priority: int) -> None:
        slot = await load.take(inf, caller=caller, priority=priority)
        assert slot is not None
        with held(slot):
            order.append(name)
            assert load.serving == 1
            await trio.sleep(1)

    first = load.take_nowait()
    assert first is not None
    async with trio.open_nursery() as nursery:
        with held(first):
            for each in waiters:
                nursery.start_soon(wait, *each)
                await wait_all_tasks_blocked()
    assert load.serving == 0
    return order


async def test_callers_take_turns(autojump_clock: MockClock) -> None:
    """One who sends many does not make another wait for all of them."""
    order = await served_order(("a1", "a", 5), ("a2", "a", 5), ("a3", "a", 5), ("a4", "a", 5), ("b1", "b", 5))
    assert order.index("b1") <= 1
    assert [each for each in order if each != "b1"] == ["a1", "a2", "a3", "a4"]


async def test_the_more_important_goes_first(autojump_clock: MockClock) -> None:
    assert await served_order(("late", "a", 9), ("usual", "a", 5), ("urgent", "a", 1)) == ["urgent", "usual", "late"]


async def test_who_waits_in_vain_leaves_at_its_time(autojump_clock: MockClock) -> None:
    load = ProviderLoad(1)
    with held(load.take_nowait()):
        begun = trio.current_time()
        assert await load.take(begun + 3, caller="", priority=5) is None
        assert trio.current_time() == begun + 3
        assert load.take_nowait() is None
    assert load.serving == 0
    with held(load.take_nowait()):
        assert load.serving == 1


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_turn_in_the_pass_of_a_cancellation_is_not_lost(cancel_first: bool, autojump_clock: MockClock) -> None:
    load = ProviderLoad(1)
    holder = load.take_nowait()
    assert holder is not None
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with held(await load.take(inf, caller="", priority=5)):
                await trio.sleep(1)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        if cancel_first:
            nursery.cancel_scope.cancel()
        holder.give_back()
        nursery.cancel_scope.cancel()
    assert load.serving == 0
    assert load.take_nowait() is not None
