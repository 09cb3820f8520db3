"""Equal requests share a flight only as far as each is tried as its own policy says."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from llm_actors.limiter import reserve
from llm_actors.run import Run
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Attempts, AttemptsPatch, Limits, Timeouts, TimeoutsPatch
from support.attempts import ANSWER, Asked, World, answer, answering, status, world


async def both(w: World, later_s: float, first: dict[str, Any], second: dict[str, Any]) -> tuple[Asked, Asked]:
    """The same question twice, the second ``later_s`` seconds later."""
    found: dict[int, Asked] = {}

    async def one(at: int, how: dict[str, Any]) -> None:
        await trio.sleep(at * later_s)
        found[at] = await w.ask(cache="read", **how)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, 0, first)
        nursery.start_soon(one, 1, second)
    await w.settled()
    return found[0], found[1]


OTHERS: list[dict[str, Any]] = [
    {"attempts": AttemptsPatch(max=5)},
    {"timeouts": TimeoutsPatch(first_token=1)},
    {"hedge": True},
    {"priority": 0},
]


@pytest.mark.parametrize("other", OTHERS)
async def test_who_is_to_be_tried_otherwise_shares_no_flight(autojump_clock: MockClock, other: dict[str, Any]) -> None:
    async with world(a=[answering(late=0.5)]) as w:
        first, second = await both(w, 0.1, {}, other)
        assert w.calls == 2

    assert (first.text, second.text) == (ANSWER, ANSWER)
    assert {first.decision["cache"], second.decision["cache"]} == {"miss"}


async def test_a_followers_timeout_is_its_own(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=3.0)], b=[answer]) as w:
        first, second = await both(w, 0.1, {}, {"timeouts": TimeoutsPatch(first_token=1)})

    assert (first.response.provider, second.response.provider) == ("a", "b")
    assert second.took < 2.5


async def test_a_flight_that_fails_is_tried_again_by_who_has_attempts_left(autojump_clock: MockClock) -> None:
    """The second comes when the first attempt of two has failed; its own two are still to come."""
    twice = Attempts(max=2, wait_min_s=2, wait_max_s=2)
    async with world(a=[status(500), status(500), answer], attempts=twice) as w:
        first, second = await both(w, 1.0, {}, {})
        assert w.calls == 3

    assert first.failure is not None
    assert second.failure is None
    assert second.text == ANSWER


async def test_who_was_there_from_the_beginning_fails_with_it(autojump_clock: MockClock) -> None:
    async with world(a=[status(500), status(500), answer], attempts=Attempts(max=2)) as w:
        first, second = await both(w, 0.0, {}, {})
        assert w.calls == 2

    assert first.failure is not None
    assert second.failure is not None


@pytest.mark.parametrize(
    "policy", [{}, {"max_tokens": 10_000}, {"strategy": "panel", "members": 1}, {"strategy": "race", "members": 2}]
)
async def test_who_has_more_time_does_not_fail_by_the_deadline_of_another(
    policy: dict[str, Any], autojump_clock: MockClock
) -> None:
    async with world(a=[answering(late=5.0)], b=[answering(late=5.0)], timeouts=Timeouts(first_token=60)) as w:
        first, second = await both(w, 0.1, {"deadline_s": 2.0, **policy}, {"deadline_s": 30.0, **policy})

    assert first.failure is not None
    assert first.took <= 2.0
    assert second.failure is None
    assert second.text == ANSWER


async def test_what_cannot_be_helped_is_not_tried_again(autojump_clock: MockClock) -> None:
    async with world(a=[status(500), status(400), answer], attempts=Attempts(max=2)) as w:
        first, second = await both(w, 1.0, {}, {})
        assert w.calls == 2

    assert first.failure is not None
    assert second.failure is not None


async def test_one_of_those_who_share_is_told_what_it_took(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=1.0)]) as w:
        first, second = await both(w, 0.1, {}, {})
        total = sum(w.tree.services.metrics.cost.values())

    assert sorted(one.decision["cache"] for one in (first, second)) == ["coalesced", "miss"]
    assert sum(one.response.cost or 0 for one in (first, second)) == total
    assert sum(one.decision["spent"]["cost"] for one in (first, second)) == total
    assert first.response.usage == second.response.usage


async def test_who_leaves_first_pays_nothing_and_the_next_does(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=1.0)]) as w:
        began = trio.current_time()
        leader = await w.submit(cache="read")
        follower = await w.submit(cache="read")
        with leader.follow():
            with follower.follow():
                await trio.sleep(0.5)
                leader.cancel("enough")
                other = await w.see(follower, began)
        left = await w.see(leader, began)
        total = sum(w.tree.services.metrics.cost.values())

    assert left.response.cost == left.decision["spent"]["cost"] == 0.0
    assert other.response.cost == other.decision["spent"]["cost"] == total > 0


async def test_when_all_leave_the_last_is_told_what_it_took(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=5.0)]) as w:
        began = trio.current_time()
        runs = [await w.submit(cache="read") for _ in range(3)]
        with runs[0].follow(), runs[1].follow(), runs[2].follow():
            for run in runs:
                await trio.sleep(0.5)
                run.cancel("enough")
        left = [await w.see(run, began) for run in runs]
        await w.settled()
        total = sum(w.tree.services.metrics.cost.values())

    assert [one.response.cost for one in left] == [0.0, 0.0, total]
    assert total > 0


@pytest.mark.parametrize("cache", ["off", "read"])
async def test_who_is_told_that_there_is_no_time_left_is_told_so_once(autojump_clock: MockClock, cache: str) -> None:
    """An answer takes two seconds, so after eight of ten it is too late to begin; nobody else had another deadline."""
    limits = Limits(max_concurrency=1)
    async with world(a=[answering(late=2.0)], limits=limits) as w:
        for at in range(10):
            await w.ask(stream=False, prompt=f"{at}?")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, w)
            await trio.testing.wait_all_tasks_blocked()
            asked = await w.ask(stream=False, prompt="Now?", deadline_s=10.0, cache=cache)
            nursery.cancel_scope.cancel()

    assert asked.failure is not None
    assert asked.failure.kind is FailureKind.DEADLINE
    assert asked.took < 9.0


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cached_response_that_is_larger_than_the_log_fails_as_a_new_one_does(
    stream: bool, autojump_clock: MockClock
) -> None:
    """The cache is in a file, and the limit was lowered."""
    failures = []
    async with world(a=[answer]) as w:
        await w.ask(cache="read", stream=stream)
        for cache in ("read", "off"):
            run = Run(w.request(cache=cache), stream=stream, log_limit_bytes=300)
            await w.hand_in(run)
            failures.append((await w.see(run, trio.current_time())).failure)
    assert [each and each.kind for each in failures] == [FailureKind.LOG_LIMIT] * 2
    assert [each and each.partial for each in failures] == [failures[0] and failures[0].partial] * 2


async def hold(w: World) -> None:
    with await reserve(w.tree.services.limiter, ("a",), tokens=1):
        await trio.sleep_forever()
