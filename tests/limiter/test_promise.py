"""The promise of a limit, kept by whole actors and judged where requests arrive: in no 60 seconds are there more."""

from __future__ import annotations

from random import Random

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from llm_actors.limiter import LimiterRef, reserve, statistics
from llm_actors.testing import Crash
from llm_protocol.errors import RateLimitError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import Limits
from llm_protocol.response import Usage
from support.ledger import EPOCH, SERVER, VirtualScript, virtual_ledger
from support.sharing import replica, replicas

WAIT = 40.0
LIMITS = Limits(requests_per_minute=30, tokens_per_minute=3000, max_concurrency=8, wait_s=WAIT)
SECONDS = 240.0
UNTOLD = (FailureKind.TIMEOUT_CONNECT, FailureKind.PARKED)


class Vendor:
    """Notes when each request arrived, with its estimate of tokens or what it used, if that was less."""

    def __init__(self) -> None:
        self.arrivals: list[float] = []
        self.tokens: list[tuple[float, int]] = []
        self.refused: list[Failure] = []
        self.answered = self.unsent = 0
        self.longest_wait = 0.0

    def most_requests(self, over: float = 60.0) -> int:
        return max((sum(at <= one < at + over for one in self.arrivals) for at in self.arrivals), default=0)

    def most_tokens(self) -> int:
        return max((sum(n for one, n in self.tokens if at <= one < at + 60) for at, _ in self.tokens), default=0)


async def ask(ref: LimiterRef, vendor: Vendor, draw: Random) -> None:
    estimate, takes, how = draw.choice((1, 20, 150, 400)), draw.choice((0.0, 0.3, 5.0, 50.0)), draw.random()
    begun = trio.current_time()
    try:
        with trio.fail_after(600):
            room = await reserve(ref, ("a",), tokens=estimate, caller=draw.choice("xyz"))
    except RateLimitError as exc:
        vendor.refused.append(exc.failure)
        return
    finally:
        vendor.longest_wait = max(vendor.longest_wait, trio.current_time() - begun)
    if how < 0.2:
        room.refund(draw.choice(UNTOLD))
        vendor.unsent += 1
        return
    at, used = trio.current_time(), draw.randrange(estimate + 1)
    vendor.arrivals.append(at)
    vendor.answered += 1
    with room:
        room.sent()
        await trio.sleep(takes)
        if how < 0.4:
            used = estimate  # nobody knows how much it was
        else:
            room.settle(Usage(input_tokens=used, output_tokens=0))
    vendor.tokens.append((at, used))


async def load(refs: list[LimiterRef], vendor: Vendor, draw: Random) -> None:
    """Arrivals at three times the limit, some of them in bursts."""
    asked = 0
    async with trio.open_nursery() as nursery:
        end = trio.current_time() + SECONDS
        while trio.current_time() < end:
            for _ in range(draw.choice((1, 1, 1, 12))):
                nursery.start_soon(ask, draw.choice(refs), vendor, Random(draw.random()))
                asked += 1
            await trio.sleep(draw.expovariate(1.5 / 2))
    assert asked == vendor.answered + len(vendor.refused) + vendor.unsent
    assert all(each.limit_owner == "provider" and (each.retry_after or 0) >= 1 for each in vendor.refused)
    for ref in refs:
        seen = await statistics(ref)
        assert (seen.leases, seen.waiting) == (0, 0)
        assert seen.providers["a"].in_flight == 0


async def problem(ledger: VirtualScript, draw: Random, *, away: bool) -> None:
    """The server's clock is set, and where that is asked for, the server is away now and then."""
    off = 0.0
    while True:
        await trio.sleep(draw.uniform(5, 40))
        if draw.random() < 0.5:
            off += draw.choice((-86_400.0, -30.0, 2.0, 45.0, 86_400.0))
            ledger.redis.now = lambda off=off: EPOCH + off + trio.current_time()  # type: ignore[misc]
        elif away:
            ledger.is_up = not ledger.is_up


PROFILE = settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with-redis"])
@PROFILE
@given(seed=st.integers(0, 2**32 - 1))
def test_no_60_seconds_hold_more_than_the_limit(shared: bool, seed: int) -> None:
    """Under arrivals, refunds, crashes of the limiter, a server that comes and goes and whose clock is set."""
    vendor, draw = Vendor(), Random(seed)
    faults = {draw.randrange(5, 900): Crash() for _ in range(6)}

    async def live() -> None:
        with pytest.MonkeyPatch.context() as patch:
            ledger = virtual_ledger(patch, latency_s=0.002)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: problem(ledger, draw, away=True))
                async with replica(SERVER if shared else None, {"a": LIMITS}, faults=faults) as ref:
                    await load([ref], vendor, Random(seed + 1))
                nursery.cancel_scope.cancel()

    trio.run(live, clock=MockClock(autojump_threshold=0))
    assert vendor.most_requests() <= 30
    assert vendor.most_tokens() <= 3000
    assert vendor.answered >= 30 * (SECONDS / 62 - 1), "and nearly all of it is used"
    assert vendor.longest_wait <= WAIT * 2, "a crash begins the wait anew, once"


@settings(PROFILE, max_examples=2)  # each takes about eight seconds
@given(seed=st.integers(0, 2**32 - 1))
def test_four_replicas_keep_to_the_limit_and_one_more_each(seed: int) -> None:
    """With one Redis, whose clock is set meanwhile."""
    vendor, draw = Vendor(), Random(seed)

    async def live() -> None:
        with pytest.MonkeyPatch.context() as patch:
            ledger = virtual_ledger(patch, latency_s=0.002)
            async with trio.open_nursery() as nursery:
                async with replicas(4, SERVER, {"a": LIMITS}) as refs:
                    nursery.start_soon(lambda: problem(ledger, draw, away=False))
                    await load(refs, vendor, Random(seed + 1))
                nursery.cancel_scope.cancel()

    trio.run(live, clock=MockClock(autojump_threshold=0))
    assert vendor.most_requests() <= 30 + 4
    assert vendor.most_tokens() <= 3000 + 4 * 400
    assert vendor.answered >= 30 * (SECONDS / 62 - 1)
    assert vendor.longest_wait <= WAIT + 1
