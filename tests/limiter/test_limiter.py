"""The limiter actor, on a virtual clock: what callers see, and what is left when they go or it crashes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from unittest.mock import patch

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.kernel import Backoff, Intensity, MailboxSpec, Parked, Supervisor, running
from llm_actors.limiter import LimiterRef, Reservation, limiter_child, reserve, statistics
from llm_actors.limiter.messages import Leave
from llm_actors.limiter.reservation import LEASE_GRACE, LEASE_SECONDS
from llm_actors.limiter.window import KEEP_SECONDS
from llm_actors.testing import Crash, Delay, Fault, cancel_at_every_checkpoint, with_faults
from llm_protocol.dialect import RateLimits
from llm_protocol.errors import QueueFullError, RateLimitError
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Limits
from llm_protocol.response import Usage
from support.limits import patient

NONE = Limits()
ONE = Limits(max_concurrency=1)
RPM60 = Limits(requests_per_minute=60)


@asynccontextmanager
async def limiter(
    providers: Mapping[str, Limits],
    callers: Mapping[str, Limits] | None = None,
    *,
    faults: Mapping[int, Fault] | None = None,
) -> AsyncIterator[LimiterRef]:
    spec = with_faults(limiter_child(patient(providers), patient(callers or {})), faults or {})
    root = Supervisor([spec], backoff=Backoff.none(), intensity=Intensity(100, 1.0))
    async with running(root):
        yield root.ref(spec)


async def assert_at_rest(ref: LimiterRef) -> None:
    seen = await statistics(ref)
    assert (seen.leases, seen.waiting) == (0, 0)
    assert all(each.in_flight == 0 == each.waiting for each in seen.providers.values())


class Steps(trio.abc.Instrument):
    """How often the limiter's tasks ran."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += "limiter" in task.name.lower()


async def test_RateLimiter_waits_if_needed_per_provider(autojump_clock: MockClock) -> None:  # noqa: N802
    """`RateLimiter`: the second request to one provider waits for its rate; another provider's does not."""
    one = Limits(requests_per_minute=60, burst=0.01)
    async with limiter({"openai": one, "cohere": one}) as ref:
        begun = trio.current_time()
        for names in (("openai",), ("cohere",)):
            with await reserve(ref, names, tokens=10) as room:
                room.settle(Usage(input_tokens=5, output_tokens=5))
        assert trio.current_time() == begun
        with await reserve(ref, ("openai",), tokens=10) as room:
            assert trio.current_time() - begun == pytest.approx(1.0, abs=0.02)
            assert room.provider == "openai"
        await assert_at_rest(ref)


async def test_without_limits_nothing_waits_and_what_is_in_flight_is_known(autojump_clock: MockClock) -> None:
    async with limiter({"a": NONE}) as ref:
        begun = trio.current_time()
        rooms = [await reserve(ref, ("a",), tokens=10**9) for _ in range(300)]
        assert (await statistics(ref)).providers["a"].in_flight == 300
        for room in rooms:
            room.settle(None)
        assert trio.current_time() == begun
        await assert_at_rest(ref)


async def test_a_reservation_is_one_call_and_one_cast(autojump_clock: MockClock) -> None:
    async with limiter({"a": ONE}) as ref:
        with await reserve(ref, ("a",), tokens=1) as room:
            room.settle(None, RateLimits(requests_remaining=3))
            room.refund(FailureKind.NETWORK)
        await wait_all_tasks_blocked()
        assert ref.statistics().accepted == 2


async def test_what_cannot_be_served_by_the_deadline_is_refused_at_once(autojump_clock: MockClock) -> None:
    async with limiter({"a": Limits(requests_per_minute=1)}) as ref:
        (await reserve(ref, ("a",), tokens=1)).settle(None)
        begun = trio.current_time()
        with trio.fail_after(10), pytest.raises(RateLimitError) as caught:
            await reserve(ref, ("a",), tokens=1)
        assert trio.current_time() == begun
        assert caught.value.failure.retry_after == pytest.approx(61, abs=1)
        with pytest.raises(RateLimitError):
            await reserve(ref, ("a",), tokens=1)  # no deadline: the 30 s of any call
        await assert_at_rest(ref)


async def test_the_full_line_is_refused_with_its_own_error(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_actors.limiter.waiting.MAX_WAITING", 0)
    async with limiter({"a": ONE}) as ref:
        with await reserve(ref, ("a",), tokens=1):
            with pytest.raises(QueueFullError):
                await reserve(ref, ("a",), tokens=1)


@pytest.mark.parametrize(
    ("how", "requests", "tokens"),
    [
        ("left before it was sent", 6, 600),
        ("left after it was sent", 5, 550),
        ("crashed after it was sent", 5, 550),
        ("settled", 5, 580),
        ("connect timeout", 6, 600),
        ("rate limited", 5, 600),
        ("cut", 5, 550),
    ],
)
async def test_leaving_the_scope_puts_the_books_right(
    how: str, requests: int, tokens: int, autojump_clock: MockClock
) -> None:
    async with limiter({"a": Limits(requests_per_minute=6, tokens_per_minute=600)}) as ref:
        try:
            with await reserve(ref, ("a",), tokens=50) as room:
                _use(room, how)
        except ZeroDivisionError:
            assert how.startswith("crashed")
        left = (await statistics(ref)).providers["a"]
        assert (left.requests_left, left.tokens_left) == (requests, tokens)
        await assert_at_rest(ref)


def _use(room: Reservation, how: str) -> None:
    if how != "left before it was sent":
        room.sent()
    match how:
        case "crashed after it was sent":
            raise ZeroDivisionError
        case "settled":
            room.settle(Usage(input_tokens=15, output_tokens=5))
        case "connect timeout":
            room.refund(FailureKind.TIMEOUT_CONNECT)
        case "rate limited":
            room.refund(FailureKind.RATE_LIMITED)
        case "cut":
            room.refund(FailureKind.TRUNCATED)


@pytest.mark.parametrize("how", ["header", "retry-after"])
async def test_a_vendor_is_heard_before_the_freed_slot_is_given_away(how: str, autojump_clock: MockClock) -> None:
    async with limiter({"a": ONE}) as ref:
        holder, begun = await reserve(ref, ("a",), tokens=1), trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_reserve_and_leave, ref)
            await wait_all_tasks_blocked()
            if how == "header":
                holder.settle(None, RateLimits(requests_remaining=0, requests_reset_s=20.0))
            else:
                holder.refund(FailureKind.OVERLOADED, retry_after=20.0)
        assert 20 <= trio.current_time() - begun <= 21


async def _reserve_and_leave(ref: LimiterRef) -> None:
    with await reserve(ref, ("a",), tokens=1):
        pass


async def test_a_retry_after_holds_everyone_else_too(autojump_clock: MockClock) -> None:
    async with limiter({"a": NONE, "b": NONE}) as ref:
        begun = trio.current_time()
        with await reserve(ref, ("a",), tokens=1) as room:
            room.refund(FailureKind.RATE_LIMITED, retry_after=20)
        assert (await reserve(ref, ("a", "b"), tokens=1)).provider == "b"
        await reserve(ref, ("a",), tokens=1)
        assert 20 <= trio.current_time() - begun <= 21


# A limiter that crashes


async def test_a_cancelled_waiter_leaves_the_line_and_takes_nothing(autojump_clock: MockClock) -> None:
    async with limiter({"a": ONE}) as ref:
        with await reserve(ref, ("a",), tokens=1):
            with trio.move_on_after(5):
                await reserve(ref, ("a",), tokens=1, priority=0)
            assert (await statistics(ref)).waiting == 0
        with await reserve(ref, ("a",), tokens=1):
            pass
        await assert_at_rest(ref)


async def test_cancelled_in_the_moment_of_the_grant_gives_it_back(autojump_clock: MockClock) -> None:
    """The grant and the cancellation come in the same instant, in either order."""
    async with limiter({"a": ONE}) as ref:
        for seed in range(20):
            holder = await reserve(ref, ("a",), tokens=1)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_reserve_and_hold, ref)
                    await wait_all_tasks_blocked()
                    holder.settle(None)
                    for _ in range(seed % 5):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            await assert_at_rest(ref)


async def _reserve_and_hold(ref: LimiterRef) -> None:
    with await reserve(ref, ("a",), tokens=1):
        await trio.sleep_forever()


async def test_a_crash_keeps_the_leases_and_costs_waiters_only_their_place(autojump_clock: MockClock) -> None:
    """Nobody sees the crash; the slot that is out stays out until its holder ends it."""
    served: list[str] = []

    async def wait_for(name: str) -> None:
        with await reserve(ref, ("a",), tokens=1):
            served.append(name)

    async with limiter({"a": ONE}, faults={4: Crash()}) as ref:
        holder = await reserve(ref, ("a",), tokens=1)
        async with trio.open_nursery() as nursery:
            for name in ("b", "c"):
                nursery.start_soon(wait_for, name)
            await wait_all_tasks_blocked()
            ref.cast(Leave(0))  # the fourth message: the actor crashes
            await wait_all_tasks_blocked()
            assert (await statistics(ref)).waiting == 2
            assert (await statistics(ref)).providers["a"].in_flight == 1
            assert not served
            holder.settle(None)
        assert sorted(served) == ["b", "c"]
        assert ref.statistics().in_hand == 0
        await assert_at_rest(ref)


async def test_a_crash_in_the_middle_of_a_settlement_loses_no_slot(autojump_clock: MockClock) -> None:
    """The message in hand is lost with the crash; the next incarnation reads it off the holder's ticket."""
    async with limiter({"a": ONE}, faults={2: Crash()}) as ref:
        (await reserve(ref, ("a",), tokens=1)).settle(None)
        await trio.sleep(1)
        await assert_at_rest(ref)
        with trio.fail_after(1):
            await reserve(ref, ("a",), tokens=1)
        assert (await statistics(ref)).expired == 0


async def test_what_ends_while_the_limiter_is_parked_has_ended_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    spec = with_faults(limiter_child({"a": Limits(max_concurrency=2)}), {3: Crash()})
    parking = Supervisor([spec], intensity=Intensity(0, 30.0), park=True)
    async with running(parking):
        ref = parking.ref(spec)
        ended, held = [await reserve(ref, ("a",), tokens=1) for _ in range(2)]
        ref.cast(Leave(0))
        await wait_all_tasks_blocked()
        assert parking.parked
        ended.settle(None)
        with pytest.raises(Parked):
            await reserve(ref, ("a",), tokens=1)
        await trio.sleep(1.1)
        assert (await statistics(ref)).leases == 1
        held.settle(None)
        await assert_at_rest(ref)


async def test_a_reservation_that_waits_survives_any_number_of_crashes_over_others(autojump_clock: MockClock) -> None:
    """And it is refused at once when they are so many that the limiter is parked."""
    spec = with_faults(limiter_child({"a": ONE}), {each: Crash() for each in range(3, 40, 3)})
    parking = Supervisor([spec], backoff=Backoff.none(), park=True)
    async with running(parking):
        ref = parking.ref(spec)
        holder = await reserve(ref, ("a",), tokens=1)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            ended: list[str] = []

            async def wait() -> None:
                try:
                    with await reserve(ref, ("a",), tokens=1):
                        ended.append("served")
                except Parked:
                    ended.append("parked")

            nursery.start_soon(wait)
            for crashes in range(1, 7):
                assert ended == []
                while parking.tree().children[0].mailbox.accepted < 3 * crashes:
                    ref.cast(Leave(0))
                    await wait_all_tasks_blocked()
        assert ended == ["parked"]
        assert trio.current_time() == begun
        holder.settle(None)


async def test_a_settlement_that_finds_the_mailbox_full_is_logged_and_made_up_for(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost silently."""
    spec = msgspec.structs.replace(limiter_child({"a": NONE}), mailbox=MailboxSpec(1))
    spec = with_faults(spec, {4: Delay(0.1)})  # the first settlement, behind which the others wait
    root = Supervisor([spec])
    async with running(root):
        ref = root.ref(spec)
        rooms = [await reserve(ref, ("a",), tokens=1) for _ in range(3)]
        for room in rooms:
            room.settle(None)
        assert sum("stays open until" in record.message for record in caplog.records) == 1
        await trio.sleep(LEASE_SECONDS - 1)
        assert (await statistics(ref)).leases == 1
        await trio.sleep(2)
        await assert_at_rest(ref)


async def test_a_lease_outlives_its_holders_deadline(autojump_clock: MockClock) -> None:
    async with limiter({"a": ONE}) as ref:
        with trio.fail_after(5000):
            lost = await reserve(ref, ("a",), tokens=1)
        with trio.fail_after(10_000):
            begun = trio.current_time()
            await reserve(ref, ("a",), tokens=1)
        assert trio.current_time() - begun == pytest.approx(5000 + LEASE_GRACE, abs=1)
        lost.settle(None)
        assert (await statistics(ref)).providers["a"].in_flight == 1


async def test_a_lease_outlives_its_holders_deadline_however_early_it_must_be_granted(
    autojump_clock: MockClock,
) -> None:
    async with limiter({"a": ONE}) as ref:
        with trio.move_on_after(2 * LEASE_SECONDS):
            begin_by = trio.current_time() + 10
            with await reserve(ref, ("a",), tokens=1, deadline=begin_by):
                await trio.sleep(LEASE_SECONDS + 2 * LEASE_GRACE)
                assert (await statistics(ref)).leases == 1
        await assert_at_rest(ref)


async def test_a_restart_remembers_what_was_used(autojump_clock: MockClock) -> None:
    """The window is handed over."""
    async with limiter({"a": Limits(requests_per_minute=20, burst=1.0)}, faults={41: Crash()}) as ref:
        begun = trio.current_time()
        for _ in range(20):
            (await reserve(ref, ("a",), tokens=1)).settle(None)
        ref.cast(Leave(0))
        await wait_all_tasks_blocked()
        with trio.fail_after(90):
            await reserve(ref, ("a",), tokens=1)
        assert trio.current_time() - begun == pytest.approx(KEEP_SECONDS, abs=0.1)


# Pauses


@pytest.mark.parametrize("limits", [NONE, Limits(requests_per_minute=600)])
async def test_a_thousand_waiters_are_woken_in_order_without_polling_or_burst(
    limits: Limits, autojump_clock: MockClock
) -> None:
    """The vendor says nothing is left for 30 s."""
    steps, served = Steps(), list[tuple[int, float]]()

    async def wait_for(number: int) -> None:
        with trio.fail_after(300):
            room = await reserve(ref, ("a",), tokens=1)
            room.settle(None)
            served.append((number, trio.current_time() - begun))

    async with limiter({"a": limits}) as ref:
        with await reserve(ref, ("a",), tokens=1) as room:
            room.settle(None, RateLimits(requests_remaining=0, requests_reset_s=30.0, requests_limit=600))
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(wait_for, number)
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(steps)
            await trio.sleep(29.9)
            assert steps.count == 0, "it sleeps while nothing can be done"
            assert not served
        trio.lowlevel.remove_instrument(steps)
        served.sort(key=lambda each: (each[1], each[0]))
        times = [at for _, at in served]
        assert [number for number, _ in served] == list(range(1000))
        assert 30 <= times[0] <= 31
        assert all(later - earlier > 0.09 for earlier, later in pairwise(times[:600])), "the pace after a pause"
        assert all(sum(at <= other < at + 60 for other in times) <= 601 for at in times)
        assert times[-1] == pytest.approx(130, abs=2)
        assert steps.count < 5 * len(served)


async def test_several_limiters_do_not_come_back_in_step(autojump_clock: MockClock) -> None:
    """The end of a pause has a jitter."""
    ends = set()
    for _ in range(5):
        async with limiter({"a": NONE}) as ref:
            with await reserve(ref, ("a",), tokens=1) as room:
                room.settle(None, RateLimits(requests_remaining=0, requests_reset_s=20.0))
            begun = trio.current_time()
            await reserve(ref, ("a",), tokens=1)
            ends.add(trio.current_time() - begun)
    assert len(ends) == 5
    assert all(20 <= end <= 20.5 for end in ends)


# Cancellation, and clocks that jump


def test_cancelled_anywhere_the_books_balance() -> None:
    """Two requests, a wait, a settlement and a refund, cancelled at every checkpoint."""

    async def scenario(scope: trio.CancelScope) -> None:
        async with limiter({"a": Limits(requests_per_minute=60, max_concurrency=1)}, {"me": ONE}) as ref:
            with scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(request, ref, "me", 1.0)
                    nursery.start_soon(request, ref, "me", 0.5)
                    nursery.start_soon(request, ref, "you", 0.0)
            await assert_at_rest(ref)
            checked.append(scope.cancelled_caught)

    async def request(ref: LimiterRef, caller: str, seconds: float) -> None:
        with await reserve(ref, ("a",), tokens=5, caller=caller) as room:
            await trio.sleep(seconds)
            room.sent()
            await trio.sleep(seconds)
            room.settle(None) if seconds else room.refund(FailureKind.NETWORK)

    checked: list[bool] = []
    steps = cancel_at_every_checkpoint(scenario)
    assert steps > 20
    assert len(checked) == steps + 1
    assert any(checked)


async def test_the_wall_clock_may_jump(autojump_clock: MockClock) -> None:
    """A day forward or an hour back changes no wait and no window."""
    for jump in (86_400.0, -3_600.0):
        async with limiter({"a": Limits(requests_per_minute=60, burst=0.01)}) as ref:
            (await reserve(ref, ("a",), tokens=1)).settle(None)
            begun, wall = trio.current_time(), time.time
            with patch("time.time", lambda wall=wall, jump=jump: wall() + jump):
                await reserve(ref, ("a",), tokens=1)
            assert trio.current_time() - begun == pytest.approx(1.0, abs=0.02)


async def test_after_a_suspended_hour_timers_fire_once_and_no_storm_follows(mock_clock: MockClock) -> None:
    ends: list[bool] = []

    async def wait_for() -> None:
        with trio.move_on_after(600):
            with await reserve(ref, ("a",), tokens=1) as room:
                room.settle(None)
            ends.append(True)
            return
        ends.append(False)

    async with limiter({"a": RPM60}) as ref:
        async with trio.open_nursery() as nursery:
            for _ in range(400):
                nursery.start_soon(wait_for)
            await wait_all_tasks_blocked()
            mock_clock.jump(3600)
        assert len(ends) == 400
        assert ends.count(True) <= 61
        await assert_at_rest(ref)
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        mock_clock.jump(100)
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(steps)
        assert steps.count <= 2
        with await reserve(ref, ("a",), tokens=1):
            pass


# Fairness through the actor


async def test_priorities_and_callers_reach_the_line(autojump_clock: MockClock) -> None:
    order: list[str] = []

    async def wait_for(caller: str, priority: int) -> None:
        with await reserve(ref, ("a",), tokens=1, caller=caller, priority=priority):
            order.append(f"{caller}{priority}")

    async with limiter({"a": ONE}) as ref:
        holder = await reserve(ref, ("a",), tokens=1)
        async with trio.open_nursery() as nursery:
            for caller, priority in (("x", 5), ("x", 5), ("x", 5), ("y", 5), ("y", 0)):
                nursery.start_soon(wait_for, caller, priority)
                await wait_all_tasks_blocked()
            holder.settle(None)
    assert order == ["y0", "x5", "x5", "y5", "x5"] or order == ["y0", "x5", "y5", "x5", "x5"]
