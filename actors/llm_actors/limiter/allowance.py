"""What a vendor seems to have left: a token bucket, since most vendors use one. Pure: the time is a parameter.

It exists only after a vendor said something: that little is left, or to come back later. Our own limits are another
matter (`window.py`), and hold whatever a vendor says.
"""

from __future__ import annotations

from typing import final

from llm_actors.limiter.window import MINUTE

SLACK = 0.01
"""A bucket that lacks less than this has enough: the rounding of seconds must not cost a wait."""


@final
class Allowance:
    """Holds up to ``per_minute`` units and refills evenly. ``level`` of them are there at ``at``, seconds."""

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, per_minute: float, level: float, at: float) -> None:
        self._capacity = float(per_minute)
        self._rate = per_minute / MINUTE
        self._level = min(level, self._capacity)
        self._at = at

    def level(self, now: float) -> float:
        """What is there at ``now``; below zero it is owed."""
        if now > self._at:
            self._level = min(self._capacity, self._level + self._rate * (now - self._at))
            self._at = now
        return self._level

    def is_full(self, now: float) -> bool:
        """Whether it holds nobody back any more."""
        return self.level(now) >= self._capacity

    def ready_at(self, cost: float, now: float, ahead: float = 0.0) -> float:
        """When there is enough for ``cost`` after ``ahead`` more was taken; ``now`` if there is already."""
        missing = ahead + min(cost, self._capacity) - self.level(now)
        return now if missing <= SLACK else max(now, self._at) + missing / self._rate

    def take(self, cost: float, now: float) -> None:
        """Take ``cost``, whether it is there or not; a negative one is given back."""
        self._level = min(self._capacity, self.level(now) - cost)

    def lower(self, most: float, now: float) -> None:
        """Have no more than ``most``."""
        self._level = min(self.level(now), most)

    def pause(self, until: float, now: float) -> None:
        """Have one unit at ``until``, and refill only from then on."""
        self.lower(1.0, now)
        self._at = max(self._at, until)
