"""The circuit breaker of one provider or deployment.

A closed breaker lets all requests through. Too many failures open it; then it lets none through for a pause. After the
pause it is half-open: it lets one request at a time through, the probe. The result of the probe closes the breaker, or
opens it for a longer pause. `NEXT` lists all transitions. Kinds of failures drive them, not HTTP statuses:
`llm_protocol.failures.RULES` lists the effects of each kind. The failure itself may say more, for example with a
Retry-After.

Three rules keep it accurate. A result counts only if its attempt began in the current state of the breaker. A probe
that is cancelled, or has no result after `PROBE_SECONDS`, releases its slot, so that no breaker stays open forever. The
pauses are short (`OPEN_PAUSES`), because a recovered provider must be used again within seconds.

A breaker is a frozen value. Time and jitter are parameters.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from math import inf

import msgspec

from llm_actors.kernel import Backoff
from llm_actors.selector.performance import DecayingCount
from llm_protocol.failures import RULES, AtFault, Failure, FailureKind, Scope

FAILURES_IN_A_ROW = 5
"""This many failures without a success between them open the breaker. While more streams than this are delivering, it
takes as many failures as there are such streams.
"""

FAILURE_RATE = 0.5
"""This fraction of failures or a larger one opens the breaker, too, if there were `LEAST_TRAFFIC` recent attempts."""

LEAST_TRAFFIC = 20.0
"""With fewer recent attempts than this, the fraction of failures does not count. `LATELY_SECONDS` defines "recent"."""

LATELY_SECONDS = 10.0
"""Seconds after which the weight of a result in the fraction of failures has halved."""

OPEN_PAUSES = Backoff(first=1.0, base=2.0, factor=2.0, cap=15.0, quiet=30.0)
"""How long the breaker stays open: 1 s, then with jitter up to 2, 4, 8, 15 s. After 30 s without failures, 1 s
again."""

PROBE_SECONDS = 10.0
"""A probe without a result for this many seconds is taken to be lost, and another one may be made."""


class CircuitState(StrEnum):
    """The state of a breaker: it lets through everything, nothing, or one request at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitEvent(Enum):
    """The events that change a breaker."""

    SUCCEEDED = "an attempt succeeded"
    FAILED = "an attempt failed through the provider's fault"
    TRIPPED = "there were too many failures"
    PAUSE_ENDED = "the pause is over"
    RESTARTED = "the selector crashed, so the state may be out of date"


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
    """When the breaker entered its state."""
    until: float = -inf
    """While open: the end of the pause."""
    probing_since: float = -inf
    """While half-open: when the latest probe was let through. ``-inf``: its slot is free."""
    pauses: int = 0
    """How many times in a row the breaker has opened without a period free of failures in between."""
    in_a_row: int = 0
    """Failures since the last success."""
    cause: FailureKind | None = None
    """The kind of the latest failure that counted."""
    evidence: str = ""
    """Why the breaker entered its state, in words."""
    good: DecayingCount = DecayingCount(LATELY_SECONDS)
    bad: DecayingCount = DecayingCount(LATELY_SECONDS)

    def at(self, now: float) -> CircuitBreaker:
        """Return the breaker as it is at ``now``: an open one whose pause is over is half-open."""
        if self.state is not CircuitState.OPEN or now < self.until:
            return self
        return self._to(
            NEXT[self.state, CircuitEvent.PAUSE_ENDED],
            self.until,
            f"the pause is over; it opened after: {self.evidence}",
        )

    def free_in(self, now: float) -> float:
        """Return the seconds until the breaker lets a request through, as far as is known; 0.0: now."""
        here = self.at(now)
        if here.state is CircuitState.CLOSED:
            return 0.0
        if here.state is CircuitState.OPEN:
            return here.until - now
        return max(0.0, here.probing_since + PROBE_SECONDS - now)

    def admit(self, now: float) -> CircuitBreaker | None:
        """Return the breaker with one more request let through at ``now``; ``None`` if it lets none through."""
        if self.free_in(now) > 0:
            return None
        here = self.at(now)
        return here if here.state is CircuitState.CLOSED else msgspec.structs.replace(here, probing_since=now)

    def after(
        self, kind: FailureKind | None, *, began: float, now: float, draw: float, streaming: int = 0
    ) -> CircuitBreaker:
        """Return the breaker with the result of one more attempt, from ``began`` to ``now``. ``kind`` is ``None`` for a
        success.

        ``draw``, in [0, 1), is the jitter of a pause. ``streaming``: how many streams began within the last
        `LATELY_SECONDS` and are still delivering. They are not successes yet, but they count as traffic that does not
        fail.
        """
        if kind is None and self.state is CircuitState.CLOSED:
            return self if began < self.since else self._succeeded(now)
        here = self.ended(began, now)
        if began < here.since or here.state is CircuitState.OPEN:
            return here
        if kind is None:
            return here._succeeded(now)
        return here._failed(kind, now, draw, streaming) if RULES[kind].breaks else here

    def ended(self, began: float, now: float) -> CircuitBreaker:
        """Return the breaker after an attempt from ``began`` to ``now`` whose result does not count. If the attempt was
        the probe of a half-open breaker, another probe is allowed.
        """
        here = self.at(now)
        if here.since <= began and here.probing_since <= began and here.state is CircuitState.HALF_OPEN:
            return msgspec.structs.replace(here, probing_since=-inf)
        return here

    def tripped(self, now: float, draw: float, cause: FailureKind | None, evidence: str) -> CircuitBreaker:
        """Return this breaker, which must be closed, opened because of ``evidence`` from other breakers."""
        assert NEXT[self.state, CircuitEvent.TRIPPED] is CircuitState.OPEN
        return msgspec.structs.replace(self, cause=cause)._open(now, draw, evidence)

    def restarted(self, now: float) -> CircuitBreaker:
        """Return the breaker after a crash of the selector: an open breaker becomes half-open."""
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
        last = f"the last: {self.cause.value}" if self.cause else "of an unknown kind"
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
        """Return the breaker in ``state`` since ``now``. If the state changes, the counts are reset."""
        if state is self.state:
            return msgspec.structs.replace(self, since=now, probing_since=-inf)
        return CircuitBreaker(
            state=state, since=now, pauses=self.pauses, in_a_row=0, cause=self.cause, evidence=evidence
        )


LONGEST_PAUSE_SECONDS = 300.0
"""The longest pause, in seconds, that a Retry-After causes. Then the vendor is tried again, and may ask to wait
again."""

_FORBIDDEN = 403


def pause_after(failure: Failure) -> float:
    """Return for how many seconds nothing in the scope of ``failure`` is called. The vendor's Retry-After is used."""
    rule = failure.rule
    if rule.fault is not AtFault.PROVIDER:
        return 0.0
    pause = rule.pause_s if failure.retry_after is None else failure.retry_after
    return min(max(pause, 0.0), LONGEST_PAUSE_SECONDS)


def scope_of(failure: Failure, *, unsent: bool) -> Scope:
    """Return what ``failure`` is evidence against: its deployment or its provider. ``unsent``: the attempt could not
    connect.
    """
    kind, rule = failure.kind, failure.rule
    if kind is FailureKind.NETWORK and not unsent:
        return Scope.DEPLOYMENT  # the connection worked, so the problem may be this model's alone
    if kind is FailureKind.AUTH and failure.upstream_status == _FORBIDDEN:
        return Scope.DEPLOYMENT  # the key works, but not for this model, which is one that a caller may have named
    if rule.limit_owner == "provider" and failure.account_wide is not None:
        return Scope.PROVIDER if failure.account_wide else Scope.DEPLOYMENT
    return rule.scope
