"""Measurements of one candidate for one type of request: its speed and availability.

They are frozen values; each attempt produces the next one (``plus``). They consist of counts and averages in which old
values lose weight: a `DecayingCount` decays with time, a `Mean` or `Series` with each new value.

Only successes measure how fast a candidate is, because errors are often quick. There is one exception: an attempt that
was abandoned before anything arrived (by its caller, at its deadline, or because a hedge was faster) took *at least*
that long. Without this, a candidate whose slow responses are all abandoned would look fast. Such a lower bound applies
until the next success.
"""

from __future__ import annotations

from math import exp2, inf
from typing import TypeAlias

import msgspec

from llm_actors.deployment import Candidate
from llm_actors.kernel import Cast
from llm_actors.selector.latency import LatencyModel
from llm_protocol.failures import AtFault, Failure
from llm_protocol.requests import RequestType
from llm_protocol.response import Usage

SMOOTHING = 0.1
"""The weight of the newest value in a `Mean` of ten or more values."""

SAMPLE_SIZE = 64
"""How many of its newest values a `Series` keeps for percentiles."""


class DecayingCount(msgspec.Struct, frozen=True):
    """An amount that halves every ``half_life`` seconds."""

    half_life: float
    amount: float = 0.0
    at: float = 0.0

    def level(self, now: float) -> float:
        """Return the amount at ``now``."""
        if not self.amount:
            return 0.0
        return self.amount * exp2(-max(0.0, now - self.at) / self.half_life)

    def plus(self, now: float, amount: float = 1.0) -> DecayingCount:
        """Return the count with ``amount`` added at ``now``."""
        if self.amount:  # as `level` does, without its call: this runs several times for each attempt
            amount += self.amount * exp2(-max(0.0, now - self.at) / self.half_life)
        return DecayingCount(self.half_life, amount, max(now, self.at))


class Mean(msgspec.Struct, frozen=True):
    """An exponentially weighted mean. The first ten values count equally. Otherwise the first value would keep most of
    the weight for long.
    """

    value: float = 0.0
    count: int = 0

    @property
    def known(self) -> float | None:
        """Return the mean, or ``None`` before the first value."""
        return self.value if self.count else None

    def plus(self, value: float) -> Mean:
        """Return the mean with one more value."""
        weight = max(SMOOTHING, 1 / (self.count + 1))
        return Mean(self.value + (value - self.value) * weight, self.count + 1)


class Series(msgspec.Struct, frozen=True):
    """A mean and the newest values."""

    mean: Mean = Mean()
    sample: tuple[float, ...] = ()

    def plus(self, value: float) -> Series:
        """Return the series with one more value."""
        return Series(self.mean.plus(value), (*self.sample[1 - SAMPLE_SIZE :], value))

    def bounded(self, least: float) -> Series:
        """Return the series with one more value of which only the lower bound ``least`` is known. If ``least`` exceeds
        the mean, it is kept among the values for percentiles. The mean does not change.
        """
        if not self.sample or least <= self.mean.value:
            return self
        return Series(self.mean, self.plus(least).sample)

    def percentile(self, percent: int, *, least: int = 1) -> float | None:
        """Return the value that ``percent`` % of the values do not exceed; ``None`` with fewer than ``least``
        values.
        """
        if len(self.sample) < least:
            return None
        rank = -(-percent * len(self.sample) // 100)  # the nearest rank, rounded up
        return sorted(self.sample)[max(0, rank - 1)]


FORGIVEN_SECONDS = 60.0
"""The half-life, in seconds, of a success or failure in the availability."""

PRIOR_SUCCESSES = 5.0
"""Successes that each candidate starts with, so that one early failure does not make it look unavailable."""

CACHED_SECONDS = 600.0
"""The half-life, in seconds, of a prompt in the fraction that came from the vendor's cache."""

SLOW_SECONDS = 5.0
"""An abandoned wait of at least this many seconds is evidence, even if nothing else is known about the candidate."""

LEAST_FOR_MEDIAN = 5
"""With fewer responses than this, their median is not used."""

LEAST_FOR_HEDGE = 20
"""With fewer responses than this, their p95 is not used: it would just be the slowest response."""

STALE_SECONDS = 600.0
"""Percentiles that are older than this many seconds are not used."""

Key: TypeAlias = tuple[Candidate, RequestType]
"""A candidate and a type of request. Types are measured separately: an embedding says nothing about a chat."""


class Observed(Cast, frozen=True, kw_only=True):
    """The result of one attempt at ``candidate``, from ``began`` to ``ended`` on the monotonic clock.

    ``failure`` is ``None`` for a success. ``unsent``: there was no connection, so the request was not sent.
    ``first_token_s`` is used only if the response was streamed. ``usage`` is the vendor's count, or our estimate if it
    gave none. ``cost`` is in US dollars, or ``None`` if unknown.
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
        """The candidate and the type of request that this result belongs to."""
        return self.candidate, self.request_type

    @property
    def duration_s(self) -> float:
        """The duration of the attempt, in seconds."""
        return max(0.0, self.ended - self.began)


class StreamBegan(Cast, frozen=True, kw_only=True):
    """The stream of an attempt has begun. ``began``: the start of the attempt; ``at``: the start of its stream."""

    candidate: Candidate
    began: float
    at: float


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """The measurements of one candidate for one type of request. Times in seconds, costs in US dollars."""

    latency: LatencyModel = LatencyModel()
    """A model of how long a successful response takes."""
    first_token: Series = Series()
    """Seconds until the first token of a streamed response."""
    whole: Series = Series()
    """Seconds until a response was complete, streamed or not."""
    cost_per_token: Mean = Mean()
    """US dollars per token of a request, prompt and response together."""
    prompted: DecayingCount = DecayingCount(CACHED_SECONDS)
    cached: DecayingCount = DecayingCount(CACHED_SECONDS)
    """Tokens of prompts, and how many of these the vendor had cached."""
    waited: float = 0.0
    """The longest abandoned wait since the last success, in seconds."""
    good: DecayingCount = DecayingCount(FORGIVEN_SECONDS)
    bad: DecayingCount = DecayingCount(FORGIVEN_SECONDS)
    seen_at: float = -inf
    """The time when the last measuring attempt ended (Trio's clock)."""

    def availability(self, now: float) -> float:
        """Return the fraction of recent attempts that did not fail by the candidate's fault, with `PRIOR_SUCCESSES`
        added to them; 1.0 if there were no failures.
        """
        good = PRIOR_SUCCESSES + self.good.level(now)
        return good / (good + self.bad.level(now))

    def latency_s(self, usage: Usage) -> float | None:
        """Return how many seconds a response of that usage takes on average, but at least the longest abandoned wait;
        ``None`` if nothing is known.
        """
        if not self.latency.since_change:
            return self.waited if self.waited >= SLOW_SECONDS else None
        return max(self.latency.seconds(usage.input_tokens, usage.output_tokens), self.waited)

    def cached_share(self, now: float) -> float:
        """Return the fraction of the tokens of recent prompts that the vendor had cached; 0.0 if nothing is known."""
        cached = self.cached.level(now)
        return min(1.0, cached / self.prompted.level(now)) if cached else 0.0

    def percentile(self, percent: int, now: float, *, stream: bool, least: int) -> float | None:
        """Return the percentile, in seconds, of the time until the first token of a stream or until a complete
        response.

        ``None`` if there were fewer than ``least`` responses or they are too old.
        """
        if now - self.seen_at > STALE_SECONDS:
            return None
        return (self.first_token if stream else self.whole).percentile(percent, least=least)

    def plus(self, seen: Observed) -> Performance:
        """Return the measurements with the result of one more attempt."""
        if seen.failure is None:
            return self._with_success(seen)
        silent = seen.first_token_s is None and not seen.failure.partial
        fault = seen.failure.rule.fault
        # A timeout is the provider's fault, so it is counted as a failure below, not as an abandoned wait.
        changed = self._with_wait(seen) if silent and fault is AtFault.CALLER else self
        if fault is not AtFault.PROVIDER:
            return changed
        return msgspec.structs.replace(changed, bad=self.bad.plus(seen.ended), seen_at=seen.ended)

    def forgiven(self) -> Performance:
        """Return the measurements without the failures, because the candidate has recovered."""
        return msgspec.structs.replace(self, bad=DecayingCount(FORGIVEN_SECONDS))

    def _with_success(self, seen: Observed) -> Performance:
        first, usage = seen.first_token_s if seen.stream else None, seen.usage
        latency = self.latency.after(
            seen.ended,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            took_s=seen.duration_s,
            first_token_s=None if usage.reasoning_tokens else first,  # the time may or may not include hidden reasoning
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
        """Return the measurements with an attempt that was abandoned before anything arrived."""
        waited = seen.duration_s
        first = self.first_token.bounded(waited) if seen.stream else self.first_token
        whole = self.whole if seen.stream else self.whole.bounded(waited)
        return msgspec.structs.replace(self, first_token=first, whole=whole, waited=max(self.waited, waited))
