"""How many calls may be made beyond the first attempts: retries and hedges.

If a provider is in trouble, all callers retry, and the retries keep it there. So extra calls are paid for by the
traffic: each request allows a share of one. Both sides decay alike, so over any longer time the extra calls stay below
that share of the requests.
"""

from __future__ import annotations

from typing import final

from llm_actors.selector.decay import DecayingCount

RETRY_HALF_LIFE_SECONDS = 10.0
"""The half-life of a call in the retry budget: the budget must follow the traffic closely."""

RETRY_SHARE = 0.2
"""Extra calls, retries and hedges together, for each request."""

RETRY_FLOOR = 10.0
"""Extra calls that are allowed however little traffic there is.

Without a floor, a program with a handful of requests in flight could not recover from one lost connection, and a single
request could never make its three attempts. Ten lets five concurrent requests make all of theirs. It is harmless under
load: it refills at less than one call a second, and from fifty recent requests on the share is larger anyway.
"""

HEDGE_SHARE = 0.05
"""Hedges for each request: at most one request in twenty is hedged. There is no floor: nothing fails
without a hedge.
"""

HEDGE_HALF_LIFE_SECONDS = 600.0
"""A longer half-life, so that a program with occasional requests can earn a hedge at all."""


@final
class CallBudget:
    """The extra calls to one provider: at most ``share`` of its recent requests, or ``floor`` where that is more."""

    def __init__(self, share: float, *, floor: float, half_life: float) -> None:
        self._share = share
        self._floor = floor
        self._requests = DecayingCount(half_life)
        self._extra = DecayingCount(half_life)

    def count(self, now: float) -> None:
        """Count the first attempt of a request."""
        self._requests = self._requests.plus(now)

    def room(self, now: float) -> float:
        """Extra calls that could be made at ``now``."""
        allowed = max(self._floor, self._share * self._requests.level(now))
        return max(0.0, allowed - self._extra.level(now))

    def spend(self, now: float) -> bool:
        """Take one extra call from the budget; False if there is none left."""
        if self.room(now) < 1.0:
            return False
        self._extra = self._extra.plus(now)
        return True


def retry_budget() -> CallBudget:
    """A budget for retries and hedges together."""
    return CallBudget(RETRY_SHARE, floor=RETRY_FLOOR, half_life=RETRY_HALF_LIFE_SECONDS)


def hedge_budget() -> CallBudget:
    """A budget for hedges alone, within the other one."""
    return CallBudget(HEDGE_SHARE, floor=0.0, half_life=HEDGE_HALF_LIFE_SECONDS)
