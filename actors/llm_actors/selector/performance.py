"""Measurements of one candidate for requests of one type: the `PerformanceTracker` of this runtime.

A frozen value; each attempt makes the next one.

Only successes measure how fast a candidate is: errors are often quick. The exception is an attempt that was abandoned,
by its caller, its deadline or in favour of a faster hedge, while nothing had arrived: it took *at least* that long.
Without it a candidate whose slow responses are all cut off would look fast. Such a bound applies until the next
success, so a candidate that recovered is not considered slow for long.
"""

from __future__ import annotations

from math import inf
from typing import TypeAlias

import msgspec

from llm_actors.deployment import Candidate
from llm_actors.kernel import Cast
from llm_actors.selector.decay import DecayingCount, Mean, Series
from llm_actors.selector.latency import LatencyModel
from llm_protocol.failures import AtFault, Failure
from llm_protocol.requests import RequestType
from llm_protocol.response import Usage

FORGIVEN_SECONDS = 60.0
"""The half-life of a success or failure in the success rate."""

PRIOR_SUCCESSES = 5.0
"""Successes that a candidate is credited with, so that one early failure is not a rate."""

CACHED_SECONDS = 600.0
"""The half-life of a prompt in the share that comes from the vendor's cache."""

SLOW_SECONDS = 5.0
"""Waiting this long in vain is evidence about a candidate of which nothing else is known."""

LEAST_FOR_MEDIAN = 5
"""The number of responses from which their median is used."""

LEAST_FOR_HEDGE = 20
"""The number of responses from which their p95 is used: with fewer it is just the slowest."""

STALE_SECONDS = 600.0
"""Percentiles that are older are not used."""

Key: TypeAlias = tuple[Candidate, RequestType]
"""Each type of request is measured separately: an embedding says nothing about a chat."""


class Observed(Cast, frozen=True, kw_only=True):
    """How one attempt at ``candidate`` went, from ``began`` to ``ended`` on the monotonic clock.

    ``failure`` is ``None`` for a success. ``unsent``: there was no connection to send it over. ``first_token_s`` is
    meant only where the answer was streamed. ``usage`` is the vendor's count, or ours where it gave none. ``cost`` is
    in US dollars, ``None`` where it is not known.
    """

    candidate: Candidate
    request_type: RequestType
    began: float
    ended: float
    stream: bool
    failure: Failure | None = None
    unsent: bool = False
    first_token_s: float | None = None
    usage: Usage = Usage()
    cost: float | None = None

    @property
    def key(self) -> Key:
        """Whose books it goes into."""
        return self.candidate, self.request_type

    @property
    def duration_s(self) -> float:
        """The duration of the attempt."""
        return max(0.0, self.ended - self.began)


class StreamBegan(Cast, frozen=True, kw_only=True):
    """The attempt at ``candidate`` that began at ``began`` has begun to deliver a stream at ``at``."""

    candidate: Candidate
    began: float
    at: float


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """The measurements of one candidate for one type of request. Times in seconds, costs in US dollars."""

    latency: LatencyModel = LatencyModel()
    """How long a successful response takes."""
    first_token: Series = Series()
    """The first token of streamed responses."""
    whole: Series = Series()
    """Until the response was complete, streamed or not."""
    cost_per_token: Mean = Mean()
    """The cost of a whole request, prompt and response together."""
    prompted: DecayingCount = DecayingCount(CACHED_SECONDS)
    cached: DecayingCount = DecayingCount(CACHED_SECONDS)
    """Tokens of prompts, and those of them that the vendor had cached."""
    waited: float = 0.0
    """The longest wait in vain since the last success."""
    good: DecayingCount = DecayingCount(FORGIVEN_SECONDS)
    bad: DecayingCount = DecayingCount(FORGIVEN_SECONDS)
    seen_at: float = -inf
    """When an attempt last ended with a meaningful result."""

    def availability(self, now: float) -> float:
        """The recent share of attempts that did not fail through the candidate's fault; 1.0 if nothing is known."""
        good = PRIOR_SUCCESSES + self.good.level(now)
        return good / (good + self.bad.level(now))

    def latency_s(self, usage: Usage) -> float | None:
        """How long a response of that usage takes on average; ``None`` before there was one."""
        if not self.latency.since_change:
            return self.waited if self.waited >= SLOW_SECONDS else None
        return max(self.latency.seconds(usage.input_tokens, usage.output_tokens), self.waited)

    def cached_share(self, now: float) -> float:
        """The share of a prompt that the vendor had cached recently; 0.0 if nothing is known."""
        cached = self.cached.level(now)
        return min(1.0, cached / self.prompted.level(now)) if cached else 0.0

    def percentile(self, percent: int, now: float, *, stream: bool, least: int) -> float | None:
        """The percentile of the time to a stream's first token, or to a whole response; ``None`` with too few or old
        ones.
        """
        if now - self.seen_at > STALE_SECONDS:
            return None
        return (self.first_token if stream else self.whole).percentile(percent, least=least)

    def plus(self, seen: Observed) -> Performance:
        """The measurements with one more attempt."""
        if seen.failure is None:
            return self._with_success(seen)
        silent = seen.first_token_s is None and not seen.failure.partial
        fault = seen.failure.rule.fault
        # Timeouts are the candidate's fault and counted as such.
        changed = self._with_wait(seen) if silent and fault is AtFault.CALLER else self
        if fault is not AtFault.PROVIDER:
            return changed
        return msgspec.structs.replace(changed, bad=self.bad.plus(seen.ended), seen_at=seen.ended)

    def forgiven(self) -> Performance:
        """The measurements without their failures: the trouble that caused them is over."""
        return msgspec.structs.replace(self, bad=DecayingCount(FORGIVEN_SECONDS))

    def _with_success(self, seen: Observed) -> Performance:
        first, usage = seen.first_token_s if seen.stream else None, seen.usage
        latency = self.latency.after(
            seen.ended,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            took_s=seen.duration_s,
            first_token_s=None if usage.reasoning_tokens else first,  # which may or may not include hidden reasoning
        )
        rate = None if seen.cost is None or not usage.total_tokens else seen.cost / usage.total_tokens
        return msgspec.structs.replace(
            self,
            latency=latency,
            first_token=self.first_token if first is None else self.first_token.plus(first),
            whole=self.whole.plus(seen.duration_s),
            cost_per_token=self.cost_per_token if rate is None else self.cost_per_token.plus(rate),
            prompted=self.prompted.plus(seen.ended, usage.input_tokens),
            cached=self.cached.plus(seen.ended, usage.cached_tokens),
            waited=0.0,
            good=self.good.plus(seen.ended),
            seen_at=seen.ended,
        )

    def _with_wait(self, seen: Observed) -> Performance:
        """With an attempt that was abandoned before anything arrived: it would have taken longer."""
        waited = seen.duration_s
        first = self.first_token.bounded(waited) if seen.stream else self.first_token
        whole = self.whole if seen.stream else self.whole.bounded(waited)
        return msgspec.structs.replace(self, first_token=first, whole=whole, waited=max(self.waited, waited))
