"""The circuit breaker of one provider or deployment: whether it is called at all.

Closed, it is. Too many failures open it: for a while it is not called. After that pause it is half-open: one request at
a time goes through, the probe, and its result closes the breaker or opens it for a longer pause. All transitions are in
`NEXT`; they are driven by failure kinds (`failure_effects`), never by HTTP statuses.

Three rules keep it accurate. A result counts only if its attempt began in the current state: earlier ones describe the
past. A probe that is cancelled, or not heard of for `PROBE_SECONDS`, releases its slot, so that no provider stays shut
for ever. And the pauses are short (`OPEN_PAUSES`), because a recovered provider must be used again within seconds.

A breaker is a frozen value; the time, and the randomness of the pauses, are parameters.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from math import inf

import msgspec

from llm_actors.kernel import Backoff
from llm_actors.selector.decay import DecayingCount
from llm_protocol.failures import RULES, FailureKind

FAILURES_IN_A_ROW = 5
"""This many failures without a success between them open the breaker."""

FAILURE_RATE = 0.5
"""A share of failures above this opens it too, given `LEAST_TRAFFIC`."""

LEAST_TRAFFIC = 20.0
"""The number of recent attempts from which a failure rate is meaningful. What is recent: see `LATELY_SECONDS`."""

LATELY_SECONDS = 10.0
"""The half-life of a result in the failure rate."""

OPEN_PAUSES = Backoff(first=1.0, base=2.0, factor=2.0, cap=15.0, quiet=30.0)
"""How long the breaker stays open: 1 s, then with jitter up to 2, 4, 8, 15 s. Reset after 30 s without trouble."""

PROBE_SECONDS = 10.0
"""How long a probe keeps the slot. After that it may be lost, and another one may go."""


class CircuitState(StrEnum):
    """The state of the breaker: it lets through everything, nothing, or one request at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitEvent(Enum):
    """The events that change a breaker."""

    SUCCEEDED = "an attempt succeeded"
    FAILED = "an attempt failed through the provider's fault"
    TRIPPED = "that was one failure too many"
    PAUSE_ENDED = "the pause is over"
    RESTARTED = "the selector crashed and its last state may be out of date"


NEXT: dict[tuple[CircuitState, CircuitEvent], CircuitState] = {
    (CircuitState.CLOSED, CircuitEvent.SUCCEEDED): CircuitState.CLOSED,
    (CircuitState.CLOSED, CircuitEvent.FAILED): CircuitState.CLOSED,
    (CircuitState.CLOSED, CircuitEvent.TRIPPED): CircuitState.OPEN,
    (CircuitState.CLOSED, CircuitEvent.RESTARTED): CircuitState.CLOSED,
    (CircuitState.OPEN, CircuitEvent.PAUSE_ENDED): CircuitState.HALF_OPEN,
    (CircuitState.OPEN, CircuitEvent.RESTARTED): CircuitState.HALF_OPEN,
    (CircuitState.HALF_OPEN, CircuitEvent.SUCCEEDED): CircuitState.CLOSED,
    (CircuitState.HALF_OPEN, CircuitEvent.FAILED): CircuitState.OPEN,
    (CircuitState.HALF_OPEN, CircuitEvent.RESTARTED): CircuitState.HALF_OPEN,
}


class CircuitBreaker(msgspec.Struct, frozen=True, kw_only=True):
    """One breaker. Times are on one monotonic clock, in seconds."""

    state: CircuitState = CircuitState.CLOSED
    since: float = -inf
    """When it entered its state."""
    until: float = -inf
    """Open: the end of the pause."""
    probing_since: float = -inf
    """Half-open: when the latest probe was let through, unless its slot was released."""
    pauses: int = 0
    """Consecutive pauses without a quiet time between them."""
    in_a_row: int = 0
    """Failures since the last success."""
    cause: FailureKind | None = None
    """The latest failure that counted."""
    evidence: str = ""
    """Why it entered its state, for people."""
    good: DecayingCount = DecayingCount(LATELY_SECONDS)
    bad: DecayingCount = DecayingCount(LATELY_SECONDS)

    def at(self, now: float) -> CircuitBreaker:
        """The breaker as it is at ``now``: an open one whose pause is over is half-open."""
        if self.state is not CircuitState.OPEN or now < self.until:
            return self
        return self._to(
            NEXT[self.state, CircuitEvent.PAUSE_ENDED], self.until, f"its pause is over; it was: {self.evidence}"
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
        self, kind: FailureKind | None, *, began: float, now: float, draw: float, streaming: int = 0
    ) -> CircuitBreaker:
        """After an attempt that began at ``began`` and ended at ``now``: successfully, or with a failure of ``kind``.

        ``draw`` in [0, 1) is the jitter of the pause, if there is one. ``streaming``: attempts that have begun to
        deliver recently and still do. A stream of minutes is no success before its end, but it is no silence either.
        """
        here = self.ended(began, now)
        if began < here.since or here.state is CircuitState.OPEN:
            return here
        if kind is None:
            return here._succeeded(now)
        return here._failed(kind, now, draw, streaming) if RULES[kind].breaks else here

    def ended(self, began: float, now: float) -> CircuitBreaker:
        """After an attempt that says nothing about this breaker's health: a probe releases its slot."""
        here = self.at(now)
        if here.since <= began and here.probing_since <= began and here.state is CircuitState.HALF_OPEN:
            return msgspec.structs.replace(here, probing_since=-inf)
        return here

    def tripped(self, now: float, draw: float, cause: FailureKind | None, evidence: str) -> CircuitBreaker:
        """A closed one opens because of ``evidence`` from elsewhere."""
        assert NEXT[self.state, CircuitEvent.TRIPPED] is CircuitState.OPEN
        return msgspec.structs.replace(self, cause=cause)._open(now, draw, evidence)

    def restarted(self, now: float) -> CircuitBreaker:
        """After a crash of the selector: what was open is tried again, by one probe."""
        since = self.since if self.state is CircuitState.CLOSED else now
        return self._to(NEXT[self.state, CircuitEvent.RESTARTED], since, CircuitEvent.RESTARTED.value)

    def _succeeded(self, now: float) -> CircuitBreaker:
        if self.state is CircuitState.CLOSED:
            return msgspec.structs.replace(self, in_a_row=0, good=self.good.plus(now))
        return self._to(NEXT[self.state, CircuitEvent.SUCCEEDED], now, "the probe succeeded")

    def _failed(self, kind: FailureKind, now: float, draw: float, streaming: int) -> CircuitBreaker:
        here = msgspec.structs.replace(self, in_a_row=self.in_a_row + 1, bad=self.bad.plus(now), cause=kind)
        trips = self.state is CircuitState.CLOSED and here._too_many(now, streaming)
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

    def _too_many(self, now: float, streaming: int) -> bool:
        bad = self.bad.level(now)
        traffic = bad + self.good.level(now) + streaming
        in_a_row = self.in_a_row >= max(FAILURES_IN_A_ROW, streaming)
        return in_a_row or (traffic >= LEAST_TRAFFIC and bad >= FAILURE_RATE * traffic)

    def _open(self, now: float, draw: float, evidence: str) -> CircuitBreaker:
        afresh = self.state is CircuitState.CLOSED and now - self.since > OPEN_PAUSES.quiet
        pauses = 1 if afresh else self.pauses + 1
        opened = self._to(CircuitState.OPEN, now, evidence)
        return msgspec.structs.replace(
            opened, in_a_row=self.in_a_row, until=now + OPEN_PAUSES.delay(pauses, draw), pauses=pauses
        )

    def _to(self, state: CircuitState, now: float, evidence: str) -> CircuitBreaker:
        """In ``state`` since ``now``. Counts are reset, unless the state stays the same."""
        if state is self.state:
            return msgspec.structs.replace(self, since=now, probing_since=-inf)
        return CircuitBreaker(
            state=state, since=now, pauses=self.pauses, in_a_row=0, cause=self.cause, evidence=evidence
        )
