"""What is known of one candidate from its own attempts: the `PerformanceTracker` of this runtime, as a frozen value.

Only successes tell how fast a candidate is: errors are often quick. The exception is an attempt that was given up,
by its caller, its deadline or in favour of a faster hedge, while nothing had come: it took *at least* that long.
Without that a candidate whose every slow answer is cut off would look fast. Such a bound holds until the next success,
so that a candidate which recovered is not slow for long.
"""

from __future__ import annotations

from math import inf

import msgspec

from llm_actors.catalog import Candidate
from llm_actors.kernel import Cast
from llm_actors.selector.decay import Fading, Mean, Series
from llm_actors.selector.failure_effects import FAILURE_EFFECTS
from llm_protocol.failures import Failure, FailureKind

FORGIVEN_SECONDS = 60.0
"""After so long a success or failure weighs half as much in the success rate."""

PRIOR_SUCCESSES = 5.0
"""Successes that a candidate is credited with, so that one early failure is not a rate."""

TYPICAL_TOKENS = 200
"""The length of the answer for which candidates' times are compared."""

LEAST_WRITING_SECONDS = 0.01
"""A stream that was over sooner after its first token came in one piece and tells no throughput."""

SLOW_SECONDS = 5.0
"""Waiting so long in vain tells something of a candidate of which nothing else is known."""

LEAST_FOR_MEDIAN = 5
"""Answers before their median is used."""

LEAST_FOR_HEDGE = 20
"""Answers before their p95 is: with fewer it is just the slowest."""

STALE_SECONDS = 600.0
"""Percentiles that are older are not used."""

# Not the timeouts: those are failures of the candidate, and are held against it as such.
_GIVEN_UP = frozenset({FailureKind.CANCELLED, FailureKind.DEADLINE})


class Observed(Cast, frozen=True, kw_only=True):
    """How one attempt at ``candidate`` went, from ``began`` to ``ended`` on the monotonic clock.

    ``failure`` is ``None`` for a success. ``unsent``: there was no connection to send it over. ``first_token_s`` is
    meant only where the answer was streamed. ``cost`` is in US dollars, ``None`` where it is not known.
    """

    candidate: Candidate
    began: float
    ended: float
    stream: bool
    failure: Failure | None = None
    unsent: bool = False
    first_token_s: float | None = None
    output_tokens: int = 0
    cost: float | None = None

    @property
    def duration_s(self) -> float:
        """From the beginning to the end."""
        return max(0.0, self.ended - self.began)


class Proof(Cast, frozen=True, kw_only=True):
    """The attempt at ``candidate`` that began at ``began`` has begun to deliver a stream at ``at``."""

    candidate: Candidate
    began: float
    at: float


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """The books of one candidate. Times in seconds, costs in US dollars."""

    first_token: Series = Series()
    """Of streamed answers."""
    whole: Series = Series()
    """Until the answer was complete, streamed or not."""
    throughput: Mean = Mean()
    """Tokens a second: while the answer was written, or over all its time where it came as a whole."""
    cost: Mean = Mean()
    """Of a request."""
    waited: float = 0.0
    """The longest wait in vain since the last success."""
    good: Fading = Fading(FORGIVEN_SECONDS)
    bad: Fading = Fading(FORGIVEN_SECONDS)
    seen_at: float = -inf
    """When an attempt last ended that told something."""

    def availability(self, now: float) -> float:
        """The share of attempts that did not fail through the candidate's fault, of late; 1.0 if nothing is known."""
        good = PRIOR_SUCCESSES + self.good.level(now)
        return good / (good + self.bad.level(now))

    @property
    def latency_s(self) -> float | None:
        """How long a typical answer takes on average; ``None`` before there was one."""
        if not self.whole.sample:
            return self.waited if self.waited >= SLOW_SECONDS else None
        if self.throughput.count:
            usual = self.first_token.mean.value + TYPICAL_TOKENS / self.throughput.value
        else:
            usual = self.whole.mean.value
        return max(usual, self.waited)

    def percentile(self, percent: int, now: float, *, stream: bool, least: int) -> float | None:
        """Of the time to the first token of a stream, or to a whole answer; ``None`` with too few or old ones."""
        if now - self.seen_at > STALE_SECONDS:
            return None
        return (self.first_token if stream else self.whole).percentile(percent, least=least)

    def plus(self, seen: Observed) -> Performance:
        """The books with one more attempt."""
        if seen.failure is None:
            return self._with_success(seen)
        silent = seen.first_token_s is None and not seen.failure.partial
        changed = self._with_wait(seen) if silent and seen.failure.kind in _GIVEN_UP else self
        if not FAILURE_EFFECTS[seen.failure.kind].blamed:
            return changed
        return msgspec.structs.replace(changed, bad=self.bad.plus(seen.ended), seen_at=seen.ended)

    def forgiven(self) -> Performance:
        """The books without their failures: the trouble that caused them is over."""
        return msgspec.structs.replace(self, bad=Fading(FORGIVEN_SECONDS))

    def _with_success(self, seen: Observed) -> Performance:
        first = seen.first_token_s if seen.stream else None
        speed = _tokens_per_second(seen, first)
        return msgspec.structs.replace(
            self,
            first_token=self.first_token if first is None else self.first_token.plus(first),
            whole=self.whole.plus(seen.duration_s),
            throughput=self.throughput if speed is None else self.throughput.plus(speed),
            cost=self.cost if seen.cost is None else self.cost.plus(seen.cost),
            waited=0.0,
            good=self.good.plus(seen.ended),
            seen_at=seen.ended,
        )

    def _with_wait(self, seen: Observed) -> Performance:
        """With an attempt that was given up before anything came: it would have taken longer."""
        waited = seen.duration_s
        first = self.first_token.bounded(waited) if seen.stream else self.first_token
        whole = self.whole if seen.stream else self.whole.bounded(waited)
        return msgspec.structs.replace(self, first_token=first, whole=whole, waited=max(self.waited, waited))


def _tokens_per_second(seen: Observed, first_token_s: float | None) -> float | None:
    writing = seen.duration_s - (first_token_s or 0.0)
    if seen.output_tokens < 1 or writing < LEAST_WRITING_SECONDS:
        return None
    return seen.output_tokens / writing
