"""A token bucket that can take things back. Pure: the time is a parameter, in seconds.

It holds at most a minute's worth and refills evenly, so that in any time ``t`` no more than ``capacity + rate * t`` is
granted. The level may go below zero: a debt, which slows what comes later.

Giving back is where buckets usually cheat. Had a charge never been made, the bucket might have been full in the
meantime and the refill lost; crediting the whole charge later would let more through than the limit allows. So what
is missing to the brim counts as the *latest* charges, the refill having paid for the older ones, and a refund gives
back only what of its own charge has not been paid for yet.
"""

from __future__ import annotations

from typing import NamedTuple, final

SLACK = 0.01
"""A bucket that lacks less than this has enough: the rounding of a day of seconds must not cost a wait."""

MINUTE = 60.0


@final
class Bucket:
    """Holds up to ``per_minute`` units, of which ``level`` are there at ``now``."""

    __slots__ = ("_at", "_charged", "_level", "capacity", "rate")

    def __init__(self, per_minute: float, level: float, now: float) -> None:
        self.capacity = float(per_minute)
        self.rate = per_minute / MINUTE
        self._level = min(level, self.capacity)
        self._at = now
        self._charged = 0.0

    def level(self, now: float) -> float:
        """What is there at ``now``; below zero it is owed."""
        if now > self._at:
            self._level = min(self.capacity, self._level + self.rate * (now - self._at))
            self._at = now
        return self._level

    def ready_at(self, cost: float, now: float, ahead: float = 0.0) -> float:
        """When there is enough for ``cost`` after ``ahead`` more was taken; ``now`` if there is already.

        A cost above the capacity is ready when the bucket is full: it leaves a debt instead of waiting for ever.
        """
        missing = ahead + min(cost, self.capacity) - self.level(now)
        if missing <= SLACK:
            return now
        return max(now, self._at) + missing / self.rate

    def charge(self, cost: float, now: float) -> Charge:
        """Take ``cost``, whether it is there or not."""
        self._level = self.level(now) - cost
        self._charged += cost
        return Charge(self, cost, self._charged)

    def lower(self, most: float, now: float) -> None:
        """Have no more than ``most``."""
        excess = self.level(now) - most
        if excess > 0:
            self.charge(excess, now)

    def pause(self, until: float, now: float) -> None:
        """Refill no more before ``until``."""
        self.level(now)
        self._at = max(self._at, until)

    def _unpaid(self, charge: Charge) -> float:
        paid = self._charged - (self.capacity - self._level)
        return min(charge.cost, max(0.0, charge.mark - paid))

    def give_back(self, charge: Charge, amount: float, now: float) -> None:
        """Undo ``amount`` of ``charge``, as far as the refill has not made up for it."""
        self.level(now)
        self._level += min(amount, self._unpaid(charge))


class Charge(NamedTuple):
    """What was taken, and where the bucket's running total stood after it."""

    bucket: Bucket
    cost: float
    mark: float

    def correct(self, real: float, now: float) -> None:
        """Make it what it should have been."""
        if real < self.cost:
            self.bucket.give_back(self, self.cost - real, now)
        elif real > self.cost:
            self.bucket.charge(real - self.cost, now)
