"""Limiters of several processes with one ledger: whole actors on a virtual clock, and the real script between them."""

from __future__ import annotations

from contextlib import suppress
from itertools import count

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.kernel import ActorCrashed
from llm_actors.limiter import LimiterRef, Reservation, reserve, statistics
from llm_actors.limiter.shared.redis import MAX_BATCH
from llm_actors.limiter.window import MINUTE
from llm_actors.testing import Crash, cancel_at_every_checkpoint
from llm_protocol.errors import RateLimitError
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Limits
from llm_protocol.response import Usage
from support.ledger import EPOCH, SERVER, VirtualScript, virtual_ledger
from support.sharing import claim, replica, replicas

A, B, ME = (f"{{llm-runtime}}:limits:{name}" for name in ("provider:a", "provider:b", "caller:me"))

RTT = 0.002


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> VirtualScript:
    return virtual_ledger(monkeypatch, latency_s=RTT)


async def at_rest(ref: LimiterRef) -> None:
    seen = await statistics(ref)
    assert (seen.leases, seen.waiting) == (0, 0)
    assert all(each.in_flight == 0 == each.waiting for each in seen.providers.values())


async def test_a_grant_is_told_when_the_ledger_has_confirmed_it(
    autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    async with replica(SERVER, {"a": Limits(tokens_per_minute=600)}) as ref:
        begun = trio.current_time()
        room = await reserve(ref, ("a",), tokens=60)
        assert trio.current_time() - begun == pytest.approx(RTT)
        assert ledger.redis.used(A, "t") == 60
        room.settle(Usage(input_tokens=5, output_tokens=5))
        await trio.sleep(RTT)
        assert ledger.redis.used(A, "t") == 10
        room = await reserve(ref, ("a",), tokens=60)
        room.refund(FailureKind.TIMEOUT_CONNECT)
        await trio.sleep(RTT)
        assert ledger.redis.used(A, "t") == 10
        await at_rest(ref)


async def test_what_nothing_limits_asks_nobody(autojump_clock: MockClock, ledger: VirtualScript) -> None:
    async with replica(SERVER, {"a": Limits()}) as ref:
        runs, begun = ledger.redis.runs, trio.current_time()
        for _ in range(10):
            await claim(ref)
        assert trio.current_time() == begun
        assert ledger.redis.runs == runs


async def test_together_they_keep_to_the_rate(autojump_clock: MockClock, ledger: VirtualScript) -> None:
    """Three processes press on one limit for a minute."""
    went: list[float] = []

    async def press(ref: LimiterRef) -> None:
        while True:
            with trio.fail_after(600):
                (await reserve(ref, ("a",), tokens=1)).settle(None)
            went.append(trio.current_time())

    async with replicas(3, SERVER, {"a": Limits(requests_per_minute=60)}) as refs:
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for ref in refs:
                for _ in range(5):
                    nursery.start_soon(press, ref)
            await trio.sleep(180)
            nursery.cancel_scope.cancel()
        assert 170 <= len(went) <= 180
        assert 15 <= sum(int(at) == int(begun) for at in went) <= 15 + 3
        for at in went:
            assert sum(at <= other < at + MINUTE for other in went) <= 60
        for ref in refs:
            await at_rest(ref)


@pytest.mark.parametrize("names", [("a",), ("a", "b")], ids=["one-candidate", "two-candidates"])
async def test_a_large_one_is_not_starved_by_small_ones_elsewhere(
    names: tuple[str, ...], autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    """It waits no longer than about twice what the limit alone would make it wait."""

    async def press(ref: LimiterRef, name: str) -> None:
        while True:
            with trio.fail_after(600):
                (await reserve(ref, (name,), tokens=10)).settle(None)

    limits = Limits(tokens_per_minute=600)
    async with replicas(2, SERVER, {"a": limits, "b": limits}) as (small, large):
        async with trio.open_nursery() as nursery:
            for name in ("a", "b"):
                nursery.start_soon(press, small, name)
            await trio.sleep(20)
            begun = trio.current_time()
            with trio.fail_after(300):
                await reserve(large, names, tokens=300)
            assert 15 <= trio.current_time() - begun <= 65
            nursery.cancel_scope.cancel()


async def test_it_goes_to_another_candidate_instead_of_waiting(
    autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    limits = Limits(requests_per_minute=1)
    async with replicas(2, SERVER, {"a": limits, "b": limits}) as (first, second):
        assert (await reserve(first, ("a",), tokens=1)).provider == "a"
        begun = trio.current_time()
        assert (await reserve(second, ("a", "b"), tokens=1)).provider == "b"
        assert trio.current_time() - begun < 0.1
        with trio.fail_after(90):
            assert (await reserve(second, ("a", "b"), tokens=1)).provider in ("a", "b")
        assert 60 <= trio.current_time() - begun <= 62


async def test_what_cannot_be_had_before_the_deadline_is_refused_at_once(
    autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    async with replicas(2, SERVER, {"a": Limits(requests_per_minute=1)}) as (first, second):
        (await reserve(first, ("a",), tokens=1)).settle(None)
        begun = trio.current_time()
        with trio.fail_after(10), pytest.raises(RateLimitError) as caught:
            await reserve(second, ("a",), tokens=1)
        assert trio.current_time() - begun < 0.1
        assert caught.value.failure.retry_after == pytest.approx(61, abs=1)
        await at_rest(second)


async def test_priority_and_order_in_ones_own_line_outlive_a_refusal(
    autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    """What the ledger sends back stands where it stood: before its equals, and behind who is more important."""
    order: list[str] = []

    async def wait_for(ref: LimiterRef, name: str, tokens: int, caller: str, priority: int) -> None:
        with trio.fail_after(600):
            room = await reserve(ref, ("a",), tokens=tokens, caller=caller, priority=priority)
        order.append(name)
        room.settle(None)

    async with replicas(2, SERVER, {"a": Limits(tokens_per_minute=600, burst=1.0)}) as (first, second):
        (await reserve(first, ("a",), tokens=400)).settle(None)
        async with trio.open_nursery() as nursery:
            for name, tokens, caller, priority in (
                ("large", 300, "x", 5),
                ("small x", 1, "x", 5),
                ("small y", 1, "y", 5),
                ("small z", 1, "z", 5),
            ):
                nursery.start_soon(wait_for, second, name, tokens, caller, priority)
                await trio.lowlevel.checkpoint()
            await trio.sleep(3)
            assert not order
            nursery.start_soon(wait_for, second, "urgent", 1, "z", 0)
    assert order.index("urgent") < order.index("large")
    assert order.index("large") < min(order.index(f"small {who}") for who in "xyz")


async def test_a_burst_keeps_its_order_over_many_batches(autojump_clock: MockClock, ledger: VirtualScript) -> None:
    """All are granted by the own books at once, more than one batch can tell; the ledger has room for a few."""
    went: list[tuple[float, int]] = []

    async def wait_for(ref: LimiterRef, number: int) -> None:
        with trio.fail_after(600):
            (await reserve(ref, ("a",), tokens=1)).settle(None)
        went.append((trio.current_time(), number))

    total = 2 * MAX_BATCH + 50
    async with replica(SERVER, {"a": Limits(requests_per_minute=6000)}) as ref:
        await trio.sleep(60)  # its own books are full; the ledger, which was never asked, has one
        async with trio.open_nursery() as nursery:
            for number in range(total):
                nursery.start_soon(wait_for, ref, number)
                await wait_all_tasks_blocked() if number % 50 == 0 else await trio.lowlevel.checkpoint()
    assert [number for _, number in sorted(went)] == list(range(total))


async def test_a_callers_limits_are_shared_too(autojump_clock: MockClock, ledger: VirtualScript) -> None:
    callers = {"me": Limits(max_concurrency=1)}
    async with replicas(2, SERVER, {"a": Limits(), "b": Limits()}, callers) as (first, second):
        holder = await reserve(first, ("a",), tokens=1, caller="me")
        await reserve(second, ("b",), tokens=1, caller="you")
        async with trio.open_nursery() as nursery:
            got: list[Reservation] = []
            nursery.start_soon(_keep, second, got, "b", "me")
            await trio.sleep(2)
            assert not got
            holder.settle(None)
            await trio.sleep(0.2)
            assert len(got) == 1


async def test_a_slot_that_one_gives_back_is_anothers(autojump_clock: MockClock, ledger: VirtualScript) -> None:
    async with replicas(2, SERVER, {"a": Limits(max_concurrency=2)}) as (first, second):
        rooms = [await reserve(ref, ("a",), tokens=1) for ref in (first, second)]
        async with trio.open_nursery() as nursery:
            got: list[Reservation] = []
            nursery.start_soon(_keep, second, got, "a")
            await trio.sleep(3)
            assert not got
            rooms[0].settle(None)
            await trio.sleep(0.2)
            assert len(got) == 1
            assert ledger.redis.slots(A) == 2


async def _keep(ref: LimiterRef, got: list[Reservation], name: str, caller: str = "") -> None:
    with trio.fail_after(600):
        got.append(await reserve(ref, (name,), tokens=1, caller=caller))


async def test_the_slots_of_a_process_that_dies_are_free_after_15_seconds(
    autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    providers = {"a": Limits(max_concurrency=1)}
    async with replica(SERVER, providers) as living:
        async with replica(SERVER, providers) as dead:
            await reserve(dead, ("a",), tokens=1)
            await trio.sleep(60)
        begun = trio.current_time()
        with trio.fail_after(30):
            await reserve(living, ("a",), tokens=1)
        assert 9 <= trio.current_time() - begun <= 15.5


async def test_slots_of_the_time_alone_are_told_when_the_ledger_is_there(
    autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    """A long request that began while the server was away counts for the others from when it is back."""
    ledger.is_up = False
    async with replicas(2, SERVER, {"a": Limits(max_concurrency=1)}) as (first, second):
        holder = await reserve(first, ("a",), tokens=1)
        ledger.is_up = True
        await trio.sleep(2)
        assert (await statistics(second)).shared
        async with trio.open_nursery() as nursery:
            got: list[Reservation] = []
            nursery.start_soon(_keep, second, got, "a")
            await trio.sleep(40)
            assert not got
            holder.settle(None)
            await trio.sleep(15.2)
            assert len(got) == 1


async def test_a_retry_after_that_one_hears_holds_the_others(autojump_clock: MockClock, ledger: VirtualScript) -> None:
    async with replicas(2, SERVER, {"a": Limits(requests_per_minute=600)}) as (first, second):
        await trio.sleep(10)
        begun = trio.current_time()
        (await reserve(first, ("a",), tokens=1)).refund(FailureKind.RATE_LIMITED, retry_after=20.0)
        await trio.sleep(0.1)
        with trio.fail_after(60):
            await reserve(second, ("a",), tokens=1)
        assert 20 <= trio.current_time() - begun <= 21
        await at_rest_but(second, 1)


async def at_rest_but(ref: LimiterRef, leases: int) -> None:
    assert (await statistics(ref)).leases == leases


async def test_estimates_that_are_far_too_high_do_not_slow_the_line(
    autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    """What comes back is there for the next one, here and elsewhere, and not only after a wait that was true
    before it came back."""
    went: list[float] = []

    async def press(ref: LimiterRef) -> None:
        while True:
            with trio.fail_after(600):
                room = await reserve(ref, ("a",), tokens=100)
            await trio.sleep(0.1)
            room.settle(Usage(input_tokens=5, output_tokens=5))
            went.append(trio.current_time())

    async with replicas(2, SERVER, {"a": Limits(tokens_per_minute=600)}) as refs:
        async with trio.open_nursery() as nursery:
            for ref in refs:
                for _ in range(3):
                    nursery.start_soon(press, ref)
            await trio.sleep(120)
            nursery.cancel_scope.cancel()
    assert len(went) >= 60, "129 fit by what is used, 21 by the estimates"


async def test_a_crash_costs_no_slots_and_its_leases_still_settle(
    autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    """The next incarnation has the same name in the ledger, so that its slots count once."""
    providers = {"a": Limits(max_concurrency=2, tokens_per_minute=600)}
    async with replica(SERVER, providers, faults={2: Crash()}) as ref:
        with trio.fail_after(60):
            room = await reserve(ref, ("a",), tokens=50)
            with suppress(ActorCrashed):
                await statistics(ref)
            begun = trio.current_time()
            other = await reserve(ref, ("a",), tokens=1)
            assert trio.current_time() - begun < 1
        assert ledger.redis.slots(A) == 2
        assert ledger.redis.used(A, "t") == 51
        room.refund(FailureKind.TIMEOUT_CONNECT)
        other.refund(FailureKind.TIMEOUT_CONNECT)
        await trio.sleep(RTT * 3)
        assert ledger.redis.used(A, "t") == 0
        assert ledger.redis.slots(A) == 0
        await at_rest(ref)


async def test_a_lost_answer_is_charged_once_and_never_refunded(
    autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    """Nobody knows whether it was done: it goes, is not claimed again, and nothing is given back for it."""
    async with replica(SERVER, {"a": Limits(tokens_per_minute=600)}) as ref:
        ledger.loses_answers = True
        begun = trio.current_time()
        room = await reserve(ref, ("a",), tokens=50)
        assert trio.current_time() - begun <= RTT + 1e-6
        assert not (await statistics(ref)).shared
        assert ledger.redis.used(A, "t") == 50
        ledger.loses_answers = False
        await trio.sleep(2)
        assert (await statistics(ref)).shared
        room.refund(FailureKind.TIMEOUT_CONNECT)
        await trio.sleep(10)
        assert ledger.redis.used(A, "t") == 50
        await at_rest(ref)


async def test_a_bug_in_what_follows_an_answer_is_a_crash_and_not_a_server_that_is_away(
    autojump_clock: MockClock, ledger: VirtualScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = count()

    def broken(*_: object) -> object:
        if next(numbers) == 0:
            raise ZeroDivisionError
        return original(*_)  # type: ignore[arg-type]

    async with replica(SERVER, {"a": Limits(tokens_per_minute=600)}) as ref:
        from llm_actors.limiter.rate_limiter import RateLimiter

        original = RateLimiter.confirm
        monkeypatch.setattr(RateLimiter, "confirm", broken)
        with trio.fail_after(30):
            await claim(ref)
        await trio.sleep(5)
        await at_rest(ref)


def test_cancelled_anywhere_the_books_and_the_server_are_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """with a ledger: claims, places, slots and a wait, cancelled at every checkpoint."""
    found: list[float] = []

    async def scenario(scope: trio.CancelScope) -> None:
        ledger = virtual_ledger(monkeypatch)
        limits = Limits(requests_per_minute=60, tokens_per_minute=600, max_concurrency=1)
        async with replicas(2, SERVER, {"a": limits}, {"me": Limits(max_concurrency=1)}) as refs:
            with scope:
                async with trio.open_nursery() as nursery:
                    for ref, caller, seconds in ((refs[0], "me", 0.5), (refs[0], "you", 0.1), (refs[1], "me", 0.3)):
                        nursery.start_soon(request, ref, caller, seconds)
            await trio.sleep(30)
            for ref in refs:
                await at_rest(ref)
            assert not any(ledger.redis.slots(key) for key in ledger.redis.hashes)
            await claim(refs[1])
            found.append(ledger.redis.used(A, "t"))

    async def request(ref: LimiterRef, caller: str, seconds: float) -> None:
        with await reserve(ref, ("a",), tokens=5, caller=caller) as room:
            await trio.sleep(seconds)
            room.sent()
            room.settle(None)

    assert cancel_at_every_checkpoint(scenario) > 20
    assert min(found) < max(found)


async def test_who_leaves_while_the_ledger_is_asked_gives_back_what_it_charges(
    autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    async with replica(SERVER, {"a": Limits(tokens_per_minute=600, max_concurrency=1)}) as ref:
        with trio.move_on_after(RTT * 0.75):
            await reserve(ref, ("a",), tokens=50)
            pytest.fail("it was not to be answered yet")
        await wait_all_tasks_blocked()
        await trio.sleep(RTT * 3)
        assert ledger.redis.hashes[A]["t"].endswith(f"{EPOCH:.0f} 0"), "it was charged, and given back"
        assert ledger.redis.slots(A) == 0
        await at_rest(ref)


@pytest.mark.parametrize("every", [7, 1], ids=["every-7th", "every"])
async def test_a_ledger_that_crashes_is_away_and_the_limiter_goes_on(
    every: int, autojump_clock: MockClock, ledger: VirtualScript, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for it or loses a slot. It is tried again after pauses that grow."""
    ledger.crashes_every = every
    async with replica(SERVER, {"a": Limits(max_concurrency=5)}) as ref:

        async def ask() -> None:
            for _ in range(40):
                assert await claim(ref) < 0.1
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert ref.statistics().crashes == 0
        await at_rest(ref)
        if every == 1:
            before = ledger.redis.runs
            await trio.sleep(300)
            assert ledger.redis.runs - before < 12
        ledger.crashes_every = 0
        await trio.sleep(120)
        assert (await statistics(ref)).shared
        assert await claim(ref) < 0.1
        await at_rest(ref)
    told = [record.message for record in caplog.records if "is unavailable" in record.message]
    assert "the shared ledger crashed: LookupError" in told[0]
    assert "CANARY" not in caplog.text
