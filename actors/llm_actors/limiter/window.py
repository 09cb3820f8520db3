"""Usage (requests or tokens) in a sliding window of 60 seconds, kept as one-second counters. Pure: the time is a
parameter.

A unit that is used in second ``s`` counts until ``s + KEEP_SECONDS``, so no 60 seconds contain more than the limit.
Usage beyond an estimate is known only afterwards, and may exceed the limit. The excess becomes a debt, which takes
free capacity before any request does. `ledger.lua` does the same arithmetic for several processes.
"""

from __future__ import annotations

from bisect import insort
from typing import NamedTuple, final

MINUTE = 60.0

KEEP_SECONDS = 61.5
"""Seconds for which usage counts, from the beginning of its second: that second, the minute after it, and half a second
more. The half second is needed because a request reaches its vendor some time after it was counted, and a later request
may reach it faster, for example over an open connection.
"""

LAP_SECONDS = int(KEEP_SECONDS)
"""Units of second ``s`` that are used again as soon as they become free count in second ``s + LAP_SECONDS``."""


@final
class Window:
    """At most ``limit`` units in any 60 seconds, and at most ``burst`` of them in one second."""

    __slots__ = ("_burst_second", "_burst_used", "_owed", "_seconds", "_total", "_used", "burst", "limit")

    def __init__(self, limit: int, burst: int) -> None:
        self.limit = limit
        self.burst = burst
        self._seconds: list[int] = []
        """The keys of ``_used`` in order. A key may be in the future, for a request that is sent a little later."""
        self._used: dict[int, int] = {}
        self._total = 0
        self._owed = 0
        self._burst_second = -1
        self._burst_used = 0

    def left(self, now: float) -> int:
        """Return how many units may be used before the window is full. The burst limit is not considered."""
        self._expire(now)
        return max(0, self.limit - self._total - self._owed)

    def ready_at(self, cost: int, now: float, ahead: float = 0) -> float:
        """Return when there is capacity for ``cost`` units after ``ahead`` other units were used; ``now`` if there is
        already.

        A request above the limit may be sent when the window is empty. It leaves a debt instead of waiting forever.
        """
        self._expire(now)
        missing = ahead + min(cost, self.limit) + self._total + self._owed - self.limit
        at = now if missing <= 0 else self._free_at(missing, now)
        used = min(self._burst_used, self.burst) if self._burst_second == int(now) else 0
        # The first request of a second may be larger than the burst limit.
        if (before := used + ahead) > 0 and (burst := before + min(cost, self.burst)) > self.burst:
            at = max(at, int(now) + -(-burst // self.burst) - 1)
        return at

    def charge(self, cost: int, now: float) -> Charge:
        """Count ``cost`` units, for which there must be capacity."""
        self._expire(now)
        second, placed = int(now), min(cost, self.limit)
        self._add(second, placed)
        self._owed += cost - placed
        if self._burst_second != second:
            self._burst_second, self._burst_used = second, 0
        self._burst_used += cost
        return Charge(self, second, placed, cost)

    def overrun(self, cost: int, now: float) -> None:
        """Count ``cost`` units even if there is no capacity for them. Units without capacity delay later requests."""
        self._expire(now)
        self._owed += cost
        self._pay(int(now))

    def give_back(self, charge: Charge, amount: int, now: float) -> None:
        """Return ``amount`` units of ``charge`` to the second in which they were counted, if they still count there."""
        self._expire(now)
        if charge.second in self._used:  # until it expires, no debt of the charge itself has been paid
            from_owed = min(amount, charge.cost - charge.placed, self._owed)
            self._owed -= from_owed
            self._take_out(charge, amount - from_owed)
        if charge.second == self._burst_second:
            self._burst_used = max(0, self._burst_used - amount)
        self._pay(int(now))

    def move(self, charge: Charge, at: float, now: float) -> Charge:
        """Return the charge, moved to the time ``at``, because the request is sent later than the time at which it was
        counted.
        """
        self._expire(now)
        if int(at) <= charge.second:
            return charge
        placed = self._take_out(charge, charge.placed)
        self._add(int(at), placed)
        return Charge(self, int(at), placed, charge.cost)

    def _take_out(self, charge: Charge, amount: int) -> int:
        taken = min(amount, charge.placed, self._used.get(charge.second, 0))
        if taken:
            self._used[charge.second] -= taken
            self._total -= taken
        return taken

    def _expire(self, now: float) -> None:
        while self._seconds and self._seconds[0] + KEEP_SECONDS <= now:
            second = self._seconds.pop(0)
            self._total -= self._used.pop(second)
            self._pay(second + LAP_SECONDS)

    def _pay(self, second: int) -> None:
        """Turn as much of the debt into usage as there is capacity for."""
        paid = min(self._owed, max(0, self.limit - self._total))
        self._owed -= paid
        self._add(second, paid)

    def _add(self, second: int, units: int) -> None:
        if units <= 0:
            return
        if second not in self._used:
            self._used[second] = 0
            insort(self._seconds, second)
        self._used[second] += units
        self._total += units

    def _free_at(self, missing: float, now: float) -> float:
        """Return when ``missing`` units will have become free.

        Requests ahead and debts use units as soon as these become free; such units are free again a lap later.
        """
        free = self.limit - self._total
        laps = -(-missing // self.limit) - 1
        missing -= laps * self.limit
        at = 0.0
        for second, units in (*((second, self._used[second]) for second in self._seconds), (int(now), free)):
            at = second + laps * LAP_SECONDS + KEEP_SECONDS
            missing -= units
            if missing <= 0:
                break
        return at


class Charge(NamedTuple):
    """How one request was counted: ``placed`` units in ``second``, and the rest of ``cost`` as a debt."""

    window: Window
    second: int
    placed: int
    cost: int

    def correct(self, real: int, now: float) -> None:
        """Correct the charge to ``real`` units."""
        if real < self.cost:
            self.window.give_back(self, self.cost - real, now)
        elif real > self.cost:
            self.window.overrun(real - self.cost, now)
