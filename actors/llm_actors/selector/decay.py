"""Counts and averages in which old values lose weight. Each is a small frozen value; ``plus`` returns the next one.

`DecayingCount` decays with time. `Mean` and `Series` decay with each new value.
"""

from __future__ import annotations

from math import exp2

import msgspec

SMOOTHING = 0.1
"""The weight of the newest value in a `Mean` of ten or more values."""

SAMPLE_SIZE = 64
"""How many of its newest values a `Series` keeps for percentiles."""


class DecayingCount(msgspec.Struct, frozen=True):
    """An amount that halves every ``half_life`` seconds."""

    half_life: float
    amount: float = 0.0
    at: float = 0.0

    def level(self, now: float) -> float:
        """Return the amount at ``now``."""
        if not self.amount:
            return 0.0
        return self.amount * exp2(-max(0.0, now - self.at) / self.half_life)

    def plus(self, now: float, amount: float = 1.0) -> DecayingCount:
        """Return the count with ``amount`` added at ``now``."""
        if self.amount:  # as `level` does, without its call: this runs several times for each attempt
            amount += self.amount * exp2(-max(0.0, now - self.at) / self.half_life)
        return DecayingCount(self.half_life, amount, max(now, self.at))


class Mean(msgspec.Struct, frozen=True):
    """An exponentially weighted mean. The first ten values count equally. Otherwise the first value would keep most of
    the weight for long.
    """

    value: float = 0.0
    count: int = 0

    @property
    def known(self) -> float | None:
        """Return the mean, or ``None`` before the first value."""
        return self.value if self.count else None

    def plus(self, value: float) -> Mean:
        """Return the mean with one more value."""
        weight = max(SMOOTHING, 1 / (self.count + 1))
        return Mean(self.value + (value - self.value) * weight, self.count + 1)


class Series(msgspec.Struct, frozen=True):
    """A mean and the newest values."""

    mean: Mean = Mean()
    sample: tuple[float, ...] = ()

    def plus(self, value: float) -> Series:
        """Return the series with one more value."""
        return Series(self.mean.plus(value), (*self.sample[1 - SAMPLE_SIZE :], value))

    def bounded(self, least: float) -> Series:
        """Return the series with one more value of which only the lower bound ``least`` is known. If ``least`` exceeds
        the mean, it is kept among the values for percentiles. The mean does not change.
        """
        if not self.sample or least <= self.mean.value:
            return self
        return Series(self.mean, self.plus(least).sample)

    def percentile(self, percent: int, *, least: int = 1) -> float | None:
        """Return the value that ``percent`` % of the values do not exceed; ``None`` with fewer than ``least``
        values.
        """
        if len(self.sample) < least:
            return None
        rank = -(-percent * len(self.sample) // 100)  # the nearest rank, rounded up
        return sorted(self.sample)[max(0, rank - 1)]
