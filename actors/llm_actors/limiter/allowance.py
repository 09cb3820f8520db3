"""What a vendor seems to have left, as a token bucket, since most vendors use one. Pure: the time is a parameter.

It exists only after a vendor reported that little is left, or asked to wait. Our own limits are separate (`window.py`),
and apply whatever a vendor reports.
"""

from __future__ import annotations

from typing import final

from llm_actors.limiter.window import MINUTE

SLACK = 0.01
"""A bucket that lacks less than this counts as full enough: rounding of seconds must not cause a wait."""


@final
class Allowance:
    """Holds up to ``per_minute`` units and refills evenly. It contains ``level`` units at the time ``at``,
    in seconds.
    """

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, per_minute: float, level: float, at: float) -> None:
        self._capacity = float(per_minute)
        self._rate = per_minute / MINUTE
        self._level = min(level, self._capacity)
        self._at = at

    def level(self, now: float) -> float:
        """The units at ``now``; negative if there is a debt."""
        if now > self._at:
            self._level = min(self._capacity, self._level + self._rate * (now - self._at))
            self._at = now
        return self._level

    def is_full(self, now: float) -> bool:
        """Whether it no longer delays any request."""
        return self.level(now) >= self._capacity

    def ready_at(self, cost: float, now: float, ahead: float = 0.0) -> float:
        """When there are enough units for ``cost`` after ``ahead`` more were taken; ``now`` if there are already."""
        missing = ahead + min(cost, self._capacity) - self.level(now)
        return now if missing <= SLACK else max(now, self._at) + missing / self._rate

    def take(self, cost: float, now: float) -> None:
        """Take ``cost``, even into debt; a negative one is returned."""
        self._level = min(self._capacity, self.level(now) - cost)

    def lower(self, most: float, now: float) -> None:
        """Reduce the units to at most ``most``."""
        self._level = min(self.level(now), most)

    def pause(self, until: float, now: float) -> None:
        """Contain one unit at ``until``, and refill only from then on."""
        self.lower(1.0, now)
        self._at = max(self._at, until)
