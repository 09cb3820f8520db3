"""The state of the limits of one provider or one caller: usage, requests in progress, and holds.

A vendor's headers can only reduce the capacity: they lower an allowance or begin a hold. Headers that are wrong,
missing or out of order can cost throughput, but never break a configured limit.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple, final

from llm_actors.limiter.allowance import Allowance
from llm_actors.limiter.results import LimitStatistics
from llm_actors.limiter.window import Charge, Window
from llm_protocol.dialect import RateLimits
from llm_protocol.policy import PROVIDER_WAIT_SECONDS, Limits

RESET_SECONDS = 60.0
"""The longest hold, in seconds, after a header that says "nothing left". So a vendor with daily limits is tried once a
minute."""

RETRY_AFTER_SECONDS = 3600.0
"""The longest hold, in seconds, after a Retry-After."""

NEWS_SECONDS = 1.0
"""A hold that ends at most this many seconds after the current hold counts as the same hold."""

PACE_PER_MINUTE = 600
"""Requests per minute after a hold, if neither the configuration nor the vendor gives a rate."""


class Charges(NamedTuple):
    """The charges of one reservation."""

    requests: Charge | None
    tokens: Charge | None
    estimate: int


@final
class LimitState:
    """The state of the limits of one provider or one caller. Times are in seconds on one monotonic clock."""

    __slots__ = (
        "_vendor_requests", "_vendor_tokens", "deferred_until", "held_until", "in_flight", "limits", "requests",
        "tokens", "tokens_in_flight", "wait_s",
    )  # fmt: skip

    def __init__(self, limits: Limits, usual_wait_s: float = PROVIDER_WAIT_SECONDS) -> None:
        """``usual_wait_s``: the seconds that a request may wait for these limits if they have no ``wait_s``."""
        self.limits = limits
        self.wait_s = usual_wait_s if limits.wait_s is None else limits.wait_s
        self.in_flight = 0
        self.tokens_in_flight = 0
        """The estimated tokens of requests in progress. Some of them may be returned."""
        self.held_until = -inf
        self.deferred_until = -inf
        self.requests = _window(limits.requests_per_minute, limits.burst)
        self.tokens = _window(limits.tokens_per_minute, limits.burst)
        self._vendor_requests: Allowance | None = None
        self._vendor_tokens: Allowance | None = None

    def change(self, limits: Limits, usual_wait_s: float = PROVIDER_WAIT_SECONDS) -> None:
        """Replace the limits. Usage, requests in progress and holds stay."""
        self.limits = limits
        self.wait_s = usual_wait_s if limits.wait_s is None else limits.wait_s
        self.requests = _changed(self.requests, limits.requests_per_minute, limits.burst)
        self.tokens = _changed(self.tokens, limits.tokens_per_minute, limits.burst)

    @property
    def has_slot(self) -> bool:
        """Whether the concurrency limit allows one more request."""
        most = self.limits.max_concurrency
        return most is None or self.in_flight < most

    def ready_at(self, tokens: int, now: float, *, ahead: int = 0, tokens_ahead: float = 0.0) -> float:
        """Return when rates and holds allow a request of ``tokens`` tokens; ``now`` if it is allowed at once. ``ahead``
        requests with ``tokens_ahead`` tokens in total are to be sent before it.
        """
        self._forget_full_allowances(now)
        at = max(now, self.held_until, self.deferred_until)
        if self.requests is not None:
            at = max(at, self.requests.ready_at(1, now, ahead))
        if self.tokens is not None:
            at = max(at, self.tokens.ready_at(tokens, now, tokens_ahead))
        if self._vendor_requests is not None:
            at = max(at, self._vendor_requests.ready_at(1, now, ahead))
        if self._vendor_tokens is not None:
            at = max(at, self._vendor_tokens.ready_at(tokens, now, tokens_ahead))
        return at

    def expected_at(self, tokens: int, now: float, *, ahead: int = 0, tokens_ahead: float = 0.0) -> float:
        """Return the result of `ready_at` as if the requests in progress used none of their tokens: the earliest
        possible time.
        """
        return self.ready_at(tokens, now, ahead=ahead, tokens_ahead=tokens_ahead - self.tokens_in_flight)

    def has_room(self, tokens: int, now: float) -> bool:
        """Return whether a request of ``tokens`` may be sent now."""
        return self.has_slot and self.ready_at(tokens, now) <= now

    def take(self, tokens: int, now: float) -> Charges:
        """Charge a request of ``tokens`` that is sent now, and return the charges."""
        self._begin(tokens)
        requests = self.requests.charge(1, now) if self.requests is not None else None
        charged = self.tokens.charge(tokens, now) if self.tokens is not None else None
        self._correct_allowances(1, tokens, now)
        return Charges(requests, charged, tokens)

    def move(self, charges: Charges, at: float, now: float) -> Charges:
        """Return the charges, moved to the time ``at``, because the request is sent later than the time for which it
        was charged.
        """
        requests, tokens, estimate = charges
        if requests is not None:
            requests = requests.window.move(requests, at, now)
        if tokens is not None:
            tokens = tokens.window.move(tokens, at, now)
        return Charges(requests, tokens, estimate)

    def settle(self, charges: Charges, now: float, *, request_back: bool, tokens: int | None) -> None:
        """Settle a request that has ended. ``request_back``: the request does not count as one.
        ``tokens``: the tokens that the request used, if known.
        """
        self.in_flight -= 1
        self.tokens_in_flight -= charges.estimate
        if charges.requests is not None and request_back:
            charges.requests.correct(0, now)
        if charges.tokens is not None and tokens is not None:
            charges.tokens.correct(tokens, now)
        self._correct_allowances(-request_back, 0 if tokens is None else tokens - charges.estimate, now)

    def _correct_allowances(self, requests: int, tokens: int, now: float) -> None:
        if self._vendor_requests is not None:
            self._vendor_requests.take(requests, now)
        if self._vendor_tokens is not None:
            self._vendor_tokens.take(tokens, now)

    def _forget_full_allowances(self, now: float) -> None:
        if self._vendor_requests is not None and self._vendor_requests.is_full(now):
            self._vendor_requests = None
        if self._vendor_tokens is not None and self._vendor_tokens.is_full(now):
            self._vendor_tokens = None

    def defer(self, seconds: float, now: float) -> None:
        """Grant no request for ``seconds``, because other processes use up the limits."""
        self.deferred_until = max(self.deferred_until, now + seconds)

    def end_deferral(self, now: float) -> None:
        """End the effect of `defer`, because capacity was returned or the other processes cannot be reached."""
        self.deferred_until = now

    def hold(self, seconds: float, now: float, per_minute: int | None = None) -> bool:
        """Send no request for ``seconds``. After that, limit the requests per minute to the configured number, else to
        ``per_minute``, else to `PACE_PER_MINUTE`.

        Return whether this changes anything for queued requests.
        """
        until = now + seconds
        news = until > self.held_until + NEWS_SECONDS
        self.held_until = max(self.held_until, until)
        if self._vendor_requests is None:
            rate = self.limits.requests_per_minute or max(1, per_minute or PACE_PER_MINUTE)
            self._vendor_requests = Allowance(rate, 1.0, now)
        self._vendor_requests.pause(until, now)
        return news

    def correct(self, reported: RateLimits, now: float, jitter: float) -> bool:
        """Apply a vendor's headers if they reduce the capacity. Return whether that begins or extends a hold."""
        self._vendor_requests = _narrowed(self._vendor_requests, self.requests, reported.requests_remaining, now)
        self._vendor_tokens = _narrowed(self._vendor_tokens, self.tokens, reported.tokens_remaining, now)
        seconds = exhausted_for(reported)
        return seconds > 0 and self.hold(seconds + jitter, now, reported.requests_limit)

    def left(self, now: float) -> tuple[int | None, int | None]:
        """Return how many requests and tokens may still be sent in this window. ``None`` means no limit."""
        return _left(self.requests, self._vendor_requests, now), _left(self.tokens, self._vendor_tokens, now)

    def statistics(self, waiting: int, now: float) -> LimitStatistics:
        """Return the counters and gauges. ``waiting``: how many requests wait for these limits."""
        requests_left, tokens_left = self.left(now)
        return LimitStatistics(
            in_flight=self.in_flight,
            waiting=waiting,
            requests_left=requests_left,
            tokens_left=tokens_left,
            held_s=max(0.0, self.held_until - now),
        )

    def restart(self) -> None:
        """Forget the requests in progress, after a restart. Usage, debts and holds stay."""
        self.in_flight = self.tokens_in_flight = 0

    def adopt(self, charges: Charges) -> None:
        """Count a request that is still in progress after a restart."""
        self._begin(charges.estimate)

    def _begin(self, tokens: int) -> None:
        self.in_flight += 1
        self.tokens_in_flight += tokens


def exhausted_for(reported: RateLimits) -> float:
    """Return for how many seconds nothing is left, according to a vendor's headers. Returns 0 if capacity is left,
    or if that is unknown.
    """
    requests = reported.requests_remaining, reported.requests_reset_s
    tokens = reported.tokens_remaining, reported.tokens_reset_s
    resets = [reset for left, reset in (requests, tokens) if left is not None and left <= 0 and reset and reset > 0]
    return min(max(resets, default=0.0), RESET_SECONDS)


def _window(limit: int | None, burst: float) -> Window | None:
    return None if limit is None else Window(limit, max(1, int(limit * burst)))


def _changed(window: Window | None, limit: int | None, burst: float) -> Window | None:
    new = _window(limit, burst)
    if window is None or new is None:
        return new
    window.limit, window.burst = new.limit, new.burst
    return window


def _narrowed(allowance: Allowance | None, window: Window | None, left: int | None, now: float) -> Allowance | None:
    if left is None:
        return allowance
    if allowance is not None:
        allowance.lower(max(0, left), now)
    elif window is not None and left < window.limit:
        return Allowance(window.limit, max(0, left), now)
    return allowance


def _left(window: Window | None, allowance: Allowance | None, now: float) -> int | None:
    if window is None:
        return None
    left = window.left(now)
    return left if allowance is None else max(0, min(left, int(allowance.level(now))))
