"""How many calls may be made beyond the asked-for ones: retries and hedges.

When a provider is in trouble, every caller retries, and the retries are what keeps it there. So extra calls are
paid from the traffic: each request allows a share of one. Both sides fade alike, so over any longer time the
extra calls stay below that share of the requests.
"""

from __future__ import annotations

from typing import final

from llm_actors.selector.decay import Fading

RETRY_HALF_LIFE_SECONDS = 10.0
"""After so long a call weighs half as much in the retry budget: what is allowed must follow the traffic closely."""

RETRY_SHARE = 0.2
"""Extra calls, retries and hedges together, for each request."""

RETRY_FLOOR = 10.0
"""Extra calls that are allowed however little traffic there is.

A share of next to nothing is nothing: without a floor a program with a handful of requests in flight could not get
over one lost connection, and a single request could never make its three attempts. Ten lets five concurrent requests
make all of theirs. It weighs nothing where it could hurt: it refills at less than one call a second, and from fifty
recent requests on the share is larger anyway.
"""

HEDGE_SHARE = 0.05
"""Hedges for each request: at most one request in twenty is asked twice. There is no floor: nothing fails without."""

HEDGE_HALF_LIFE_SECONDS = 600.0
"""Longer, so that a program with a request now and then can earn a hedge at all."""


@final
class CallBudget:
    """The extra calls to one provider: at most ``share`` of its recent requests, or ``floor`` where that is more."""

    def __init__(self, share: float, *, floor: float, half_life: float) -> None:
        self._share = share
        self._floor = floor
        self._requests = Fading(half_life)
        self._extra = Fading(half_life)

    def count(self, now: float) -> None:
        """A request was made, for the first time."""
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
