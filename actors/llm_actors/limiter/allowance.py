"""What vendors have reported about their limits: how much is left, and which deployments must wait. Pure.

An `Allowance` is the estimate of what a vendor's limit has left, modelled as a token bucket, because most vendors use
one. Its units are requests or tokens. It exists only after a vendor has reported that little is left, or has asked to
wait. The configured limits are separate (`window.py`) and always apply, too. `DeploymentHolds` are for vendors that
have asked to wait before more requests for one model, but accept other models.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple, final

from llm_actors.limiter.window import MINUTE

SLACK = 0.01
"""A request may be sent even if up to this many units are missing: rounding of seconds must not cause a wait."""


@final
class Allowance:
    """A token bucket that holds up to ``per_minute`` units and refills evenly. At the time ``at``, in seconds, it
    contains ``level`` units.
    """

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, per_minute: float, level: float, at: float) -> None:
        self._capacity = float(per_minute)
        self._rate = per_minute / MINUTE
        self._level = min(level, self._capacity)
        self._at = at

    def level(self, now: float) -> float:
        """Return the units at ``now``. A negative number is a debt."""
        if now > self._at:
            self._level = min(self._capacity, self._level + self._rate * (now - self._at))
            self._at = now
        return self._level

    def is_full(self, now: float) -> bool:
        """Return whether the bucket is full, so that it delays no request."""
        return self.level(now) >= self._capacity

    def ready_at(self, cost: float, now: float, ahead: float = 0.0) -> float:
        """Return when ``cost`` units can be taken after ``ahead`` other units were taken; ``now`` if that is possible
        at once.
        """
        missing = ahead + min(cost, self._capacity) - self.level(now)
        return now if missing <= SLACK else max(now, self._at) + missing / self._rate

    def take(self, cost: float, now: float) -> None:
        """Take ``cost`` units, even if that makes a debt. A negative cost is put back."""
        self._level = min(self._capacity, self.level(now) - cost)

    def lower(self, most: float, now: float) -> None:
        """Reduce the units to ``most`` if there are more."""
        self._level = min(self.level(now), most)

    def pause(self, until: float, now: float) -> None:
        """Set the bucket to contain one unit at ``until``, and to refill only from then on."""
        self.lower(1.0, now)
        self._at = max(self._at, until)


MAX_HOLDS = 1_024
"""The most holds. With more, the one that ends first is dropped. The number is bounded because callers can invent
model names.
"""

LONGEST_HOLD_SECONDS = 300.0
"""The longest hold, in seconds. After it the deployment is tried again, and its vendor may ask to wait again."""


class Deployment(NamedTuple):
    """A provider and the vendor's own name of one of its models."""

    provider: str
    model: str


@final
class DeploymentHolds:
    """All holds. Times are in seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[Deployment, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def hold(self, of: Deployment, seconds: float, now: float) -> None:
        """Send no request to ``of`` for ``seconds``. This never shortens a hold."""
        self._until[of] = max(self.until(of), now + min(seconds, LONGEST_HOLD_SECONDS))
        if len(self._until) > MAX_HOLDS:
            self._until = {each: until for each, until in self._until.items() if until > now}
        if len(self._until) > MAX_HOLDS:
            del self._until[min(self._until, key=self._until.__getitem__)]

    def until(self, of: Deployment) -> float:
        """Return when the hold ends or ended; minus infinity if there was none."""
        return self._until.get(of, -inf)
