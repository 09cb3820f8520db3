"""The account of one provider or one caller: its two buckets, what is in flight, and when its vendor said to pause.

What a vendor says only ever narrows: its headers lower a level or begin a pause, and raise nothing, so that headers
that lie, are missing or come out of order can cost throughput but never break a limit of ours.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple, final

from llm_actors.limiter.bucket import Bucket, Charge
from llm_protocol.dialect import RateLimits
from llm_protocol.policy import Limits

FRESH_REQUESTS = 1.0
FRESH_SECONDS = 10.0
"""A new bucket of tokens holds the refill of so many seconds, and a new bucket of requests holds one request: a
program that is started again and again does not burst, and its first request does not wait."""

RESET_SECONDS = 60.0
"""The longest pause that a "nothing left" header begins: vendors that count by the day are asked once a minute."""

RETRY_AFTER_SECONDS = 3600.0
"""The longest pause that a Retry-After begins."""

NEWS_SECONDS = 1.0
"""A pause that ends no later than this after the one already known is the same one, told by another answer."""

PACE_PER_MINUTE = 600
"""Requests per minute with which a line is let go after a pause, where neither we nor the vendor named a rate."""


class Charges(NamedTuple):
    """What one reservation took of one account."""

    requests: Charge | None
    tokens: Charge | None


@final
class LimitState:
    """Books of one provider or one caller. Times are in seconds on one monotonic clock."""

    __slots__ = ("_learned", "deferred_until", "held_until", "in_flight", "limits", "requests", "tokens")

    def __init__(self, limits: Limits, now: float, *, full: bool = False) -> None:
        """``full``: start with a minute's worth, for whoever was known to be quiet until now."""
        self.limits = limits
        self.in_flight = 0
        self.held_until = -inf
        self.deferred_until = -inf
        self.requests = _bucket(limits.requests_per_minute, FRESH_REQUESTS, now, full=full)
        self.tokens = _bucket(limits.tokens_per_minute, _fresh_tokens(limits), now, full=full)
        self._learned = False

    @property
    def has_slot(self) -> bool:
        """Whether the concurrency limit leaves room for one more."""
        most = self.limits.max_concurrency
        return most is None or self.in_flight < most

    def ready_at(self, tokens: int, now: float, *, ahead: int = 0, tokens_ahead: float = 0.0) -> float:
        """When the rates allow a request of ``tokens`` after those ahead; ``now`` if they do already."""
        self._forget_if_recovered(now)
        at = max(now, self.held_until, self.deferred_until)
        if self.requests is not None:
            at = max(at, self.requests.ready_at(1, now, ahead))
        if self.tokens is not None:
            at = max(at, self.tokens.ready_at(tokens, now, tokens_ahead))
        return at

    def has_room(self, tokens: int, now: float) -> bool:
        """Whether a request of ``tokens`` may go now."""
        return self.has_slot and self.ready_at(tokens, now) <= now

    def take(self, tokens: int, now: float) -> Charges:
        """One request of ``tokens`` goes."""
        self.in_flight += 1
        requests = self.requests.charge(1, now) if self.requests is not None else None
        return Charges(requests, self.tokens.charge(tokens, now) if self.tokens is not None else None)

    def defer(self, seconds: float, now: float) -> None:
        """Let nothing go for ``seconds``, because other processes are using what there is."""
        self.deferred_until = max(self.deferred_until, now + seconds)

    def look_again(self, now: float) -> None:
        """Something has come back of which other processes had the rest."""
        self.deferred_until = now

    def go_alone(self, now: float) -> None:
        """What the others have used is no longer known: there is no more than in a new account."""
        self.deferred_until = now
        if self.requests is not None:
            self.requests.lower(FRESH_REQUESTS, now)
        if self.tokens is not None:
            self.tokens.lower(_fresh_tokens(self.limits), now)

    def hold(self, seconds: float, now: float, per_minute: int | None = None) -> bool:
        """Let nothing go for ``seconds``, and then no more than the rate: ours, else ``per_minute``, else a default.

        Return whether that is news to those who wait.
        """
        until = now + seconds
        news = until > self.held_until + NEWS_SECONDS
        self.held_until = max(self.held_until, until)
        if self.requests is None:
            self.requests, self._learned = Bucket(max(1, per_minute or PACE_PER_MINUTE), 1.0, now), True
        self.requests.lower(1.0, now)
        self.requests.pause(until, now)
        return news

    def _forget_if_recovered(self, now: float) -> None:
        """A bucket that was made for a pause has done its work when it is full."""
        if self._learned and self.requests is not None and self.requests.level(now) >= self.requests.capacity:
            self.requests, self._learned = None, False

    def correct(self, said: RateLimits, now: float, jitter: float) -> bool:
        """Believe a vendor's headers as far as they narrow. Return whether they began a pause, or a longer one."""
        news = False
        for bucket, left, reset in (
            (self.requests, said.requests_remaining, said.requests_reset_s),
            (self.tokens, said.tokens_remaining, said.tokens_reset_s),
        ):
            if left is None:
                continue
            if bucket is not None:
                bucket.lower(max(0, left), now)
            if left <= 0 and reset is not None and reset > 0:
                news |= self.hold(min(reset, RESET_SECONDS) + jitter, now, said.requests_limit)
        return news

    def restart(self, now: float) -> None:
        """Nothing is known to be in flight, and nothing is there. Debts and pauses stay."""
        self.in_flight = 0
        for bucket in (self.requests, self.tokens):
            if bucket is not None:
                bucket.lower(0.0, now)


def _fresh_tokens(limits: Limits) -> float:
    return (limits.tokens_per_minute or 0) * FRESH_SECONDS / 60


def _bucket(per_minute: int | None, fresh: float, now: float, *, full: bool) -> Bucket | None:
    if per_minute is None:
        return None
    return Bucket(per_minute, per_minute if full else fresh, now)
