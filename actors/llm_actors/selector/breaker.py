"""The circuit breaker of one provider: whether it is asked at all.

Closed, it is. Too many failures open it: for a while nobody asks. After the rest it is half-open: one request at a
time goes through, the probe, and what becomes of it closes the breaker or opens it for a longer rest. All changes of
state are in `NEXT`; what drives them are failure kinds (`verdicts`), never HTTP statuses.

Three rules keep it honest. An outcome counts only if its attempt began in the present state: those of before tell of
the past. A probe that is cancelled, or that is not heard of for `PROBE_SECONDS`, gives its slot back, so that no
provider can stay shut for ever. And the rests are short (`RESTS`), because what recovered must be used again within
seconds.

A breaker is a frozen value; the time, and the randomness of the rests, are parameters.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from math import inf

import msgspec

from llm_actors.kernel import Backoff
from llm_actors.selector.decay import Fading
from llm_protocol.failures import RULES, FailureKind

FAILURES_IN_A_ROW = 5
"""So many failures with no success between them open the breaker."""

FAILURE_RATE = 0.5
"""So large a share of failures opens it too, given `LEAST_TRAFFIC`."""

LEAST_TRAFFIC = 20.0
"""Attempts that must have ended lately for a rate to mean anything. What is lately: see `LATELY_SECONDS`."""

LATELY_SECONDS = 10.0
"""After so long an outcome weighs half as much in the failure rate."""

RESTS = Backoff(first=1.0, base=2.0, factor=2.0, cap=15.0, quiet=30.0)
"""How long the breaker stays open: 1 s, then with jitter up to 2, 4, 8, 15 s. Afresh after 30 s without trouble."""

PROBE_SECONDS = 10.0
"""A probe has the slot for so long. After that it may be lost, and another one may go."""


class CircuitState(StrEnum):
    """What the breaker lets through: everything, nothing, or one request at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitEvent(Enum):
    """What changes a breaker."""

    SUCCEEDED = "an attempt succeeded"
    FAILED = "an attempt failed through the provider's fault"
    TRIPPED = "that was one failure too many"
    RESTED = "the rest is over"
    RESTARTED = "its keeper crashed and what it last knew may be old"


NEXT: dict[tuple[CircuitState, CircuitEvent], CircuitState] = {
    (CircuitState.CLOSED, CircuitEvent.SUCCEEDED): CircuitState.CLOSED,
    (CircuitState.CLOSED, CircuitEvent.FAILED): CircuitState.CLOSED,
    (CircuitState.CLOSED, CircuitEvent.TRIPPED): CircuitState.OPEN,
    (CircuitState.CLOSED, CircuitEvent.RESTARTED): CircuitState.CLOSED,
    (CircuitState.OPEN, CircuitEvent.RESTED): CircuitState.HALF_OPEN,
    (CircuitState.OPEN, CircuitEvent.RESTARTED): CircuitState.HALF_OPEN,
    (CircuitState.HALF_OPEN, CircuitEvent.SUCCEEDED): CircuitState.CLOSED,
    (CircuitState.HALF_OPEN, CircuitEvent.FAILED): CircuitState.OPEN,
    (CircuitState.HALF_OPEN, CircuitEvent.RESTARTED): CircuitState.HALF_OPEN,
}


class CircuitBreaker(msgspec.Struct, frozen=True, kw_only=True):
    """One breaker. Times are on one monotonic clock, in seconds."""

    state: CircuitState = CircuitState.CLOSED
    since: float = -inf
    """When it came into its state."""
    until: float = -inf
    """Open: the end of the rest."""
    probing_since: float = -inf
    """Half-open: when the latest probe was let through, unless its slot was given back."""
    rests: int = 0
    """Rests in a row, with no quiet time between them."""
    in_a_row: int = 0
    """Failures since the last success."""
    cause: FailureKind | None = None
    """The latest failure that counted."""
    evidence: str = ""
    """Why it came into its state, for people."""
    good: Fading = Fading(LATELY_SECONDS)
    bad: Fading = Fading(LATELY_SECONDS)

    def at(self, now: float) -> CircuitBreaker:
        """The breaker as it is at ``now``: an open one whose rest is over is half-open."""
        if self.state is not CircuitState.OPEN or now < self.until:
            return self
        return self._to(
            NEXT[self.state, CircuitEvent.RESTED], self.until, f"its pause is over; it was: {self.evidence}"
        )

    def free_in(self, now: float) -> float:
        """Seconds until it lets a request through, as far as is known; 0.0: now."""
        here = self.at(now)
        if here.state is CircuitState.CLOSED:
            return 0.0
        if here.state is CircuitState.OPEN:
            return here.until - now
        return max(0.0, here.probing_since + PROBE_SECONDS - now)

    def admit(self, now: float) -> CircuitBreaker | None:
        """The breaker after letting one request through at ``now``; ``None`` if it lets none through."""
        if self.free_in(now) > 0:
            return None
        here = self.at(now)
        return here if here.state is CircuitState.CLOSED else msgspec.structs.replace(here, probing_since=now)

    def after(
        self, kind: FailureKind | None, *, began: float, now: float, draw: float, flowing: int = 0
    ) -> CircuitBreaker:
        """After an attempt that began at ``began`` and ended at ``now``: well, or with a failure of ``kind``.

        ``draw`` in [0, 1) is the jitter of the rest, should it come to one. ``flowing``: attempts that have begun to
        deliver lately and still do. A stream of minutes is no success before its end, but it is no silence either.
        """
        here = self.ended(began, now)
        if began < here.since or here.state is CircuitState.OPEN:
            return here
        if kind is None:
            return here._succeeded(now)
        return here._failed(kind, now, draw, flowing) if RULES[kind].breaks else here

    def ended(self, began: float, now: float) -> CircuitBreaker:
        """After an attempt that tells nothing of this breaker's health: a probe gives its slot back."""
        here = self.at(now)
        if here.since <= began and here.probing_since <= began and here.state is CircuitState.HALF_OPEN:
            return msgspec.structs.replace(here, probing_since=-inf)
        return here

    def tripped(self, now: float, draw: float, cause: FailureKind | None, evidence: str) -> CircuitBreaker:
        """A closed one after ``evidence`` that is not its own: it opens."""
        assert NEXT[self.state, CircuitEvent.TRIPPED] is CircuitState.OPEN
        return msgspec.structs.replace(self, cause=cause)._open(now, draw, evidence)

    def restarted(self, now: float) -> CircuitBreaker:
        """After a crash of whoever keeps it: what was shut is tried again, by one probe."""
        since = self.since if self.state is CircuitState.CLOSED else now
        return self._to(NEXT[self.state, CircuitEvent.RESTARTED], since, CircuitEvent.RESTARTED.value)

    def _succeeded(self, now: float) -> CircuitBreaker:
        if self.state is CircuitState.CLOSED:
            return msgspec.structs.replace(self, in_a_row=0, good=self.good.plus(now))
        return self._to(NEXT[self.state, CircuitEvent.SUCCEEDED], now, "the probe succeeded")

    def _failed(self, kind: FailureKind, now: float, draw: float, flowing: int) -> CircuitBreaker:
        here = msgspec.structs.replace(self, in_a_row=self.in_a_row + 1, bad=self.bad.plus(now), cause=kind)
        trips = self.state is CircuitState.CLOSED and here._too_many(now, flowing)
        event = CircuitEvent.TRIPPED if trips else CircuitEvent.FAILED
        state = NEXT[self.state, event]
        return here if state is self.state else here._open(now, draw, here._why(now))

    def _why(self, now: float) -> str:
        last = f"the last: {self.cause.value}" if self.cause else "of unknown kind"
        if self.state is CircuitState.HALF_OPEN:
            return f"the probe failed, {last}"
        if self.in_a_row >= FAILURES_IN_A_ROW:
            return f"{self.in_a_row} failures in a row, {last}"
        bad = self.bad.level(now)
        return f"{bad / (bad + self.good.level(now)):.0%} of the latest attempts failed, {last}"

    def _too_many(self, now: float, flowing: int) -> bool:
        bad = self.bad.level(now)
        traffic = bad + self.good.level(now) + flowing
        in_a_row = self.in_a_row >= max(FAILURES_IN_A_ROW, flowing)
        return in_a_row or (traffic >= LEAST_TRAFFIC and bad >= FAILURE_RATE * traffic)

    def _open(self, now: float, draw: float, evidence: str) -> CircuitBreaker:
        afresh = self.state is CircuitState.CLOSED and now - self.since > RESTS.quiet
        rests = 1 if afresh else self.rests + 1
        opened = self._to(CircuitState.OPEN, now, evidence)
        return msgspec.structs.replace(
            opened, in_a_row=self.in_a_row, until=now + RESTS.delay(rests, draw), rests=rests
        )

    def _to(self, state: CircuitState, now: float, evidence: str) -> CircuitBreaker:
        """In ``state`` since ``now``. What was counted belongs to the state before, unless it stays the same."""
        if state is self.state:
            return msgspec.structs.replace(self, since=now, probing_since=-inf)
        return CircuitBreaker(state=state, since=now, rests=self.rests, in_a_row=0, cause=self.cause, evidence=evidence)
