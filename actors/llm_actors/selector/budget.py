"""The budgets of retries and hedges: the attempts beyond the first attempt of a request.

If a provider is overloaded, all callers retry, and the retries keep it overloaded. So each request adds a fraction of
one extra attempt to the budget. Requests and extra attempts decay with the same half-life, so over a time longer than
that the extra attempts stay below that fraction of the requests.
"""

from __future__ import annotations

from typing import final

from llm_actors.selector.decay import DecayingCount

RETRY_HALF_LIFE_SECONDS = 10.0
"""The half-life, in seconds, of an attempt in the retry budget. It is short, because the budget must follow the
traffic.
"""

RETRY_SHARE = 0.2
"""Extra attempts for each request, retries and hedges together."""

RETRY_FLOOR = 10.0
"""Extra attempts that are always allowed, however little traffic there is.

Without a floor, a program with a handful of requests in progress could not recover from one lost connection, and a
single request could never make its three attempts. With ten, five concurrent requests can make their two extra attempts
each. Under load the floor does no harm: it refills at less than one attempt a second, and with more than fifty recent
requests `RETRY_SHARE` allows more than ten.
"""

HEDGE_SHARE = 0.05
"""Hedges for each request: at most one request in twenty is hedged. There is no floor, because no request fails for
lack of a hedge.
"""

HEDGE_HALF_LIFE_SECONDS = 600.0
"""The half-life, in seconds, of an attempt in the hedge budget. It is long, so that occasional requests allow a hedge
too."""


@final
class CallBudget:
    """The extra attempts at one deployment: at most ``share`` of its recent requests, or ``floor`` if that is more."""

    def __init__(self, share: float, *, floor: float, half_life: float) -> None:
        self._share = share
        self._floor = floor
        self._requests = DecayingCount(half_life)
        self._extra = DecayingCount(half_life)

    def count(self, now: float) -> None:
        """Count the first attempt of a request."""
        self._requests = self._requests.plus(now)

    def room(self, now: float) -> float:
        """Return how many extra attempts may be made at ``now``."""
        allowed = max(self._floor, self._share * self._requests.level(now))
        return max(0.0, allowed - self._extra.level(now))

    def spend(self, now: float) -> bool:
        """Take one extra attempt from the budget. Return False if none is left."""
        if self.room(now) < 1.0:
            return False
        self._extra = self._extra.plus(now)
        return True


def retry_budget() -> CallBudget:
    """Return a new budget for retries and hedges together."""
    return CallBudget(RETRY_SHARE, floor=RETRY_FLOOR, half_life=RETRY_HALF_LIFE_SECONDS)


def hedge_budget() -> CallBudget:
    """Return a new budget for hedges alone. Hedges must fit both budgets."""
    return CallBudget(HEDGE_SHARE, floor=0.0, half_life=HEDGE_HALF_LIFE_SECONDS)
