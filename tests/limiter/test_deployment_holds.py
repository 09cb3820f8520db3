"""What a vendor says of one model holds that model, not the others beside it, here and in other processes."""

from __future__ import annotations

from itertools import count

import pytest
import trio
from trio.testing import MockClock

from llm_actors.limiter import LimiterRef, Reservation, reserve, statistics
from llm_actors.limiter.allowance import LONGEST_HOLD_SECONDS, MAX_HOLDS, Deployment, DeploymentHolds
from llm_actors.testing import Crash
from llm_protocol.dialect import RateLimits
from llm_protocol.errors import RateLimitError
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Limits
from support.ledger import SERVER, VirtualScript, virtual_ledger
from support.sharing import replica, replicas

PER_MINUTE = {"a": Limits(requests_per_minute=6_000), "b": Limits(requests_per_minute=6_000)}
A = "{llm-runtime}:limits:provider:a"


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> VirtualScript:
    return virtual_ledger(monkeypatch, latency_s=0.002)


async def room(ref: LimiterRef, *deployments: str) -> Reservation:
    names, models = zip(*(each.split("/") for each in deployments), strict=True)
    with trio.fail_after(300):
        return await reserve(ref, names, tokens=1, models=models)


async def slow_down(ref: LimiterRef, deployment: str, seconds: float = 20.0) -> None:
    (await room(ref, deployment)).refund(FailureKind.RATE_LIMITED, retry_after=seconds, of_model=True)
    await trio.sleep(0.1)


async def assert_held(ref: LimiterRef, deployment: str, seconds: float) -> None:
    begun = trio.current_time()
    with pytest.raises(RateLimitError) as caught:
        await room(ref, deployment)
    failure = caught.value.failure
    assert trio.current_time() - begun < 0.1
    assert f"{failure.provider}/{failure.model}" == deployment
    assert failure.limited_by == "provider"
    assert failure.retry_after == pytest.approx(seconds, abs=0.7)


async def test_a_models_retry_after_holds_it_alone(autojump_clock: MockClock) -> None:
    async with replica(None, PER_MINUTE) as ref:
        await slow_down(ref, "a/ill")
        begun = trio.current_time()
        (await room(ref, "a/well")).settle(None)
        assert (await room(ref, "a/ill", "b/ill")).provider == "b", "whoever is not held is asked"
        assert trio.current_time() == begun
        await assert_held(ref, "a/ill", 19.9)
        await trio.sleep(20)
        assert (await room(ref, "a/ill", "b/ill")).provider == "a"


async def test_who_waits_for_it_hears_of_it_at_once_and_others_move_up(autojump_clock: MockClock) -> None:
    async with replica(None, {"a": Limits(max_concurrency=1)}) as ref:
        holder = await room(ref, "a/ill")
        async with trio.open_nursery() as nursery:

            async def well() -> None:
                (await room(ref, "a/well")).settle(None)

            for _ in range(3):
                nursery.start_soon(assert_held, ref, "a/ill", 20)
                nursery.start_soon(well)
            await trio.sleep(0.05)
            holder.refund(FailureKind.RATE_LIMITED, retry_after=20.0, of_model=True)
            begun = trio.current_time()
        assert trio.current_time() == begun
        seen = await statistics(ref)
        assert (seen.leases, seen.waiting, seen.providers["a"].in_flight) == (0, 0, 0)


async def test_headers_hold_what_they_are_about(autojump_clock: MockClock) -> None:
    said = {"requests_remaining": 0, "requests_reset_s": 30.0}
    async with replica(None, PER_MINUTE) as ref:
        (await room(ref, "a/one")).settle(None, RateLimits(per_model=True, **said))  # type: ignore[arg-type]
        begun = trio.current_time()
        (await room(ref, "a/two")).settle(None)
        assert trio.current_time() == begun
        await assert_held(ref, "a/one", 30)
        (await room(ref, "b/one")).settle(None, RateLimits(**said))  # type: ignore[arg-type]
        (await room(ref, "b/two")).settle(None)
        assert 30 <= trio.current_time() - begun <= 31


async def test_a_hold_outlives_the_limiter(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with replica(None, PER_MINUTE, faults={3: Crash()}) as ref:
        await slow_down(ref, "a/ill")
        await assert_held(ref, "a/ill", 19.9)
        assert "limiter crashed" in caplog.text
        await assert_held(ref, "a/ill", 19.9)


async def test_other_processes_hear_of_it(autojump_clock: MockClock, ledger: VirtualScript) -> None:
    async with replicas(2, SERVER, PER_MINUTE) as (first, second):
        await slow_down(first, "a/ill")
        begun = trio.current_time()
        (await room(second, "a/well")).settle(None)
        assert trio.current_time() - begun < 0.1
        await assert_held(second, "a/ill", 19.9)
        runs = ledger.redis.runs
        await assert_held(second, "a/ill", 19.9)
        assert ledger.redis.runs == runs, "now it knows"
        assert (await room(second, "a/ill", "b/ill")).provider == "b"
        await trio.sleep(20.5)
        (await room(second, "a/ill")).settle(None)
        await trio.sleep(0.1)
        assert not any(field.startswith("m:") for field in ledger.redis.hashes[A])
        seen = await statistics(second)
        assert seen.providers["a"].in_flight == 0


async def test_one_that_was_refused_there_leaves_nothing_behind(
    autojump_clock: MockClock, ledger: VirtualScript
) -> None:
    """Neither a charge nor a slot."""
    async with replicas(2, SERVER, {"a": Limits(requests_per_minute=60, max_concurrency=1)}) as (first, second):
        await slow_down(first, "a/ill")
        await assert_held(second, "a/ill", 19.9)
        assert ledger.redis.used(A, "r") == 1
        await trio.sleep(6)
        assert ledger.redis.slots(A) == 0
        assert (await room(second, "a/well")).provider == "a"


async def test_invented_models_fill_neither_memory_nor_redis(autojump_clock: MockClock, ledger: VirtualScript) -> None:
    async with replica(SERVER, {"a": Limits(max_concurrency=5)}) as ref:
        for number in range(300):
            (await room(ref, f"a/{number}")).refund(FailureKind.RATE_LIMITED, retry_after=100.0, of_model=True)
        (await room(ref, f"a/{'x' * 300}")).refund(FailureKind.RATE_LIMITED, retry_after=100.0, of_model=True)
        await trio.sleep(1)
        assert sum(field.startswith("m:") for field in ledger.redis.hashes[A]) == 256
        assert "m:299" in ledger.redis.hashes[A]


def test_holds_are_bounded_and_never_shortened() -> None:
    holds, numbers = DeploymentHolds(), count()
    held = Deployment("a", "held")
    holds.hold(held, 1e9, 0.0)
    holds.hold(held, 1.0, 0.0)
    assert holds.until(held) == LONGEST_HOLD_SECONDS
    for _ in range(2 * MAX_HOLDS):
        holds.hold(Deployment("a", str(next(numbers))), 10.0, 0.0)
    assert holds.until(held) == LONGEST_HOLD_SECONDS
    assert len(holds) == MAX_HOLDS
