"""The estimate of what a vendor's limit has left, modelled as a token bucket, because most vendors use one. Its units
are requests or tokens. Pure.

An allowance exists only after a vendor has reported that little is left, or has asked to wait. The configured limits
are separate (`window.py`) and always apply, too.
"""

from __future__ import annotations

from typing import final

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
