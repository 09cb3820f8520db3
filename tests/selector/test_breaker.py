"""The circuit breaker: one table, driven by failure kinds."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm_actors.selector.breaker import (
    FAILURES_IN_A_ROW,
    LEAST_TRAFFIC,
    LONGEST_PAUSE_SECONDS,
    NEXT,
    OPEN_PAUSES,
    PROBE_SECONDS,
    CircuitBreaker,
    CircuitEvent,
    CircuitState,
    pause_after,
)
from llm_protocol.failures import RULES, FailureKind
from support.selecting import failed

DOWN = FailureKind.SERVER_ERROR
COUNTED = {
    FailureKind.NETWORK,
    FailureKind.TLS,
    FailureKind.TIMEOUT_CONNECT,
    FailureKind.TIMEOUT_FIRST_TOKEN,
    FailureKind.TIMEOUT_IDLE,
    FailureKind.TIMEOUT_TOTAL,
    FailureKind.SERVER_ERROR,
    FailureKind.OVERLOADED,
    FailureKind.CRASHED,
}


def after(breaker: CircuitBreaker, *kinds: FailureKind | None, now: float = 0.0) -> CircuitBreaker:
    """After attempts that began and ended at ``now``."""
    for kind in kinds:
        breaker = breaker.after(kind, began=now, now=now, draw=0.5)
    return breaker


def opened(now: float = 0.0) -> CircuitBreaker:
    return after(CircuitBreaker(), *[DOWN] * FAILURES_IN_A_ROW, now=now)


@pytest.mark.parametrize("kind", FailureKind)
def test_which_kinds_count(kind: FailureKind) -> None:
    """By kind, never by status: a vendor that refuses a request, or limits it, is well."""
    breaker = after(CircuitBreaker(), *[kind] * 100)
    assert (breaker.state is CircuitState.OPEN) == (kind in COUNTED)


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not_let_them() -> None:
    almost = [DOWN] * (FAILURES_IN_A_ROW - 1)
    assert after(CircuitBreaker(), *almost, None, *almost).state is CircuitState.CLOSED
    assert after(CircuitBreaker(), *almost, None, *almost, DOWN).state is CircuitState.OPEN


def test_kinds_that_do_not_count_do_not_end_a_row_either() -> None:
    mixed = [DOWN, FailureKind.BAD_REQUEST] * FAILURES_IN_A_ROW
    assert after(CircuitBreaker(), *mixed).state is CircuitState.OPEN


def test_a_failure_rate_opens_it_given_enough_traffic() -> None:
    """Every other attempt fails, so that there is never a row."""
    breaker, states = CircuitBreaker(), []
    for number in range(30):
        breaker = after(breaker, None if number % 2 else DOWN)
        states.append(breaker.state)
    assert states.index(CircuitState.OPEN) == pytest.approx(LEAST_TRAFFIC, abs=1)


def test_a_low_failure_rate_never_opens_it() -> None:
    assert after(CircuitBreaker(), *[DOWN, None, None] * 100).state is CircuitState.CLOSED


def test_old_outcomes_fade_from_the_rate() -> None:
    breaker = after(CircuitBreaker(), *[None, DOWN] * 9)
    assert after(breaker, *[None, DOWN] * 3, now=0.0).state is CircuitState.OPEN
    assert after(breaker, *[None, DOWN] * 3, now=60.0).state is CircuitState.CLOSED


def test_open_it_lets_nobody_through_until_its_rest_is_over() -> None:
    breaker = opened()
    assert breaker.admit(0.99) is None
    assert breaker.free_in(0.4) == pytest.approx(0.6)
    assert breaker.at(1.0).state is CircuitState.HALF_OPEN


def test_half_open_it_lets_one_probe_through() -> None:
    half = opened().admit(1.0)
    assert half is not None
    assert half.admit(1.0) is None
    assert half.admit(5.0) is None


def test_a_probe_that_succeeds_closes_it_and_one_that_fails_opens_it_for_longer() -> None:
    half = opened().admit(1.0)
    assert half is not None
    assert half.after(None, began=1.0, now=2.0, draw=0.5).state is CircuitState.CLOSED
    again = half.after(DOWN, began=1.0, now=2.0, draw=0.5)
    assert again.state is CircuitState.OPEN
    assert again.until - 2.0 > 1.0


@pytest.mark.parametrize("kind", [FailureKind.CANCELLED, FailureKind.DEADLINE, FailureKind.BAD_REQUEST])
def test_a_probe_without_a_verdict_frees_the_slot(kind: FailureKind) -> None:
    half = opened().admit(1.0)
    assert half is not None
    freed = half.after(kind, began=1.0, now=2.0, draw=0.5)
    assert freed.state is CircuitState.HALF_OPEN
    assert freed.admit(2.0) is not None


def test_a_probe_that_is_never_heard_of_frees_the_slot_after_a_while() -> None:
    half = opened().admit(1.0)
    assert half is not None
    assert half.admit(1.0 + PROBE_SECONDS - 0.01) is None
    second = half.admit(1.0 + PROBE_SECONDS)
    assert second is not None
    late = second.after(FailureKind.CANCELLED, began=1.0, now=12.0, draw=0.5)
    assert late.admit(12.0) is None, "the first probe's end does not free the second one's slot"


def test_attempts_from_before_tell_of_the_past() -> None:
    """A hundred requests were in flight when it opened: their ends change nothing any more."""
    half = opened().admit(1.0)
    assert half is not None
    assert after_old(half, None).state is CircuitState.HALF_OPEN
    assert after_old(half, DOWN).state is CircuitState.HALF_OPEN
    closed = half.after(None, began=1.0, now=2.0, draw=0.5)
    for _ in range(100):
        closed = after_old(closed, DOWN)
    assert closed.state is CircuitState.CLOSED


def after_old(breaker: CircuitBreaker, kind: FailureKind | None) -> CircuitBreaker:
    return breaker.after(kind, began=0.5, now=3.0, draw=0.5)


def test_rests_grow_up_to_a_cap_and_are_short_again_after_a_quiet_time() -> None:
    breaker, now, rests = opened(), 0.0, [1.0]
    for _ in range(8):
        now = breaker.until
        half = breaker.admit(now)
        assert half is not None
        breaker = half.after(DOWN, began=now, now=now, draw=0.999)
        rests.append(breaker.until - now)
    assert rests == pytest.approx(sorted(rests))
    assert rests[1] < 2.1
    assert rests[-1] == pytest.approx(OPEN_PAUSES.cap, rel=0.01)
    assert OPEN_PAUSES.cap + PROBE_SECONDS < 30, "what recovered must be used again within 30 s"

    half = breaker.admit(breaker.until)
    assert half is not None
    closed = half.after(None, began=breaker.until, now=breaker.until, draw=0.5)
    soon, late = closed.since + 1.0, closed.since + OPEN_PAUSES.quiet + 1.0
    assert after(closed, *[DOWN] * FAILURES_IN_A_ROW, now=soon).until - soon > 5.0
    assert after(closed, *[DOWN] * FAILURES_IN_A_ROW, now=late).until - late == 1.0


def test_after_a_crash_of_its_keeper_what_was_shut_is_half_open() -> None:
    """G4: and what was open to all stays so: a crash must not shut a healthy provider."""
    assert CircuitBreaker().restarted(5.0).state is CircuitState.CLOSED
    assert opened().restarted(0.5).state is CircuitState.HALF_OPEN
    probing = opened().admit(1.0)
    assert probing is not None
    assert probing.restarted(2.0).admit(2.0) is not None, "the probe may be lost"


def test_every_kind_has_a_verdict() -> None:
    assert RULES.keys() == set(FailureKind)
    assert {kind for kind, verdict in RULES.items() if verdict.breaks} == COUNTED


def test_pauses() -> None:
    """A rate limit bars until the vendor's own time, a bad key for longer, the caller's mistakes never."""
    assert pause_after(failed(FailureKind.RATE_LIMITED, 7.0)) == 7.0
    assert pause_after(failed(FailureKind.RATE_LIMITED, 0.0)) == 0.0
    assert pause_after(failed(FailureKind.RATE_LIMITED)) == 1.0
    assert pause_after(failed(FailureKind.RATE_LIMITED, 1e9)) == LONGEST_PAUSE_SECONDS
    assert pause_after(failed(FailureKind.OVERLOADED, 3.0)) == 3.0
    assert pause_after(failed(FailureKind.OVERLOADED)) == 0.0
    assert pause_after(failed(FailureKind.AUTH)) == pause_after(failed(FailureKind.QUOTA)) > 10.0
    assert pause_after(failed(FailureKind.BAD_REQUEST, 9.0)) == 0.0


class BreakerMachine(RuleBasedStateMachine):
    """Requests begin, end, are cancelled or lost in any order, while time passes.

    The model knows only the attempts. Whatever happens: at most one probe holds the slot, and a breaker that is left
    alone long enough lets a request through.
    """

    def __init__(self) -> None:
        super().__init__()
        self.breaker = CircuitBreaker()
        self.now = 0.0
        self.running: list[float] = []
        self.probes: list[float] = []

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 5.0, PROBE_SECONDS, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        before = self.breaker.at(self.now)
        admitted = self.breaker.admit(self.now)
        if before.state is CircuitState.OPEN:
            assert admitted is None
            assert self.now < before.until <= before.since + OPEN_PAUSES.cap
        if admitted is None:
            assert self.breaker.free_in(self.now) > 0
            return
        self.breaker = admitted
        self.running.append(self.now)
        if admitted.state is CircuitState.HALF_OPEN:
            alive = [began for began in self.probes if began > self.now - PROBE_SECONDS]
            assert alive == [], "two probes at once"
            self.probes = [self.now]

    @precondition(lambda self: self.running)
    @rule(
        index=st.integers(0, 100), kind=st.none() | st.sampled_from(FailureKind), draw=st.floats(0, 1, exclude_max=True)
    )
    def end(self, index: int, kind: FailureKind | None, draw: float) -> None:
        began = self.running.pop(index % len(self.running))
        before = self.breaker.at(self.now)
        self.breaker = before.after(kind, began=began, now=self.now, draw=draw)
        self.probes = [probe for probe in self.probes if probe > began] if self.breaker.state is before.state else []
        if self.breaker.state is not before.state:
            events = [event for event in CircuitEvent if NEXT.get((before.state, event)) is self.breaker.state]
            assert events, f"{before.state} -> {self.breaker.state} is not in the table"
            assert began >= before.since
        if before.state is CircuitState.CLOSED and self.breaker.state is CircuitState.OPEN:
            assert kind in COUNTED

    @rule()
    def the_keeper_restarts(self) -> None:
        self.breaker = self.breaker.restarted(self.now)
        self.probes = []

    @precondition(lambda self: self.running)
    @rule()
    def an_attempt_is_lost(self) -> None:
        self.running.pop()

    @invariant()
    def it_never_stays_shut_for_ever(self) -> None:
        wait = self.breaker.free_in(self.now)
        assert 0 <= wait <= max(OPEN_PAUSES.cap, PROBE_SECONDS) < inf
        assert self.breaker.admit(self.now + wait + 1e-6) is not None


TestBreakerMachine = BreakerMachine.TestCase
