"""How many restarts are too many, and how long to wait before the next one. Pure: time and jitter are parameters."""

from __future__ import annotations

from collections import deque
from typing import final

import msgspec


class Intensity(msgspec.Struct, frozen=True):
    """A supervisor gives up after more than `restarts` restarts within any `period` seconds."""

    restarts: int = 5
    period: float = 30.0

    def __post_init__(self) -> None:
        if self.restarts < 0:
            raise ValueError(f"restarts must not be negative: {self.restarts}")
        if not self.period > 0:
            raise ValueError(f"the period must be longer than 0 s: {self.period}")


@final
class RestartWindow:
    """The failures of the last `period` seconds. As in OTP, a failure counts once, however many siblings it
    restarts.
    """

    def __init__(self, intensity: Intensity) -> None:
        self._intensity = intensity
        self._ticks: deque[float] = deque()

    def admit(self, now: float) -> bool:
        """Count one failure. Return False if it is one too many."""
        self._ticks.append(now)
        while self._ticks[0] < now - self._intensity.period:
            self._ticks.popleft()
        return len(self._ticks) <= self._intensity.restarts

    def clear(self) -> None:
        """Forget all failures."""
        self._ticks.clear()


class Backoff(msgspec.Struct, frozen=True):
    """How many seconds to wait before each restart: first `first`, then up to `base`, `base * factor`, … up to `cap`.

    All waits but the first are chosen at random between half of that time and the whole of it. After `quiet` seconds
    without a failure the sequence starts again.
    """

    base: float = 0.1
    factor: float = 2.0
    cap: float = 30.0
    quiet: float = 60.0
    first: float = 0.0

    def __post_init__(self) -> None:
        if self.base < 0 or self.cap < self.base or self.factor < 1 or self.quiet <= 0 or self.first < 0:
            raise ValueError(f"a backoff must have 0 <= base <= cap, factor >= 1, quiet > 0 and first >= 0, not {self}")

    @classmethod
    def none(cls) -> Backoff:
        """Return a backoff without waits: every restart is at once, as in Erlang/OTP."""
        return cls(base=0.0, cap=0.0)

    def delay(self, failures: int, draw: float) -> float:
        """Return the seconds to wait after the `failures`-th failure in a row. `draw`, in [0, 1), is the jitter."""
        if failures <= 1:
            return self.first
        longest = min(self.cap, self.base * self.factor ** min(failures - 2, 64))
        return longest * (1 + draw) / 2


@final
class Streak:
    """Failures in a row, forgotten after a quiet period."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0
        self._last = 0.0

    def next_delay(self, now: float, draw: float) -> float:
        """Count a failure at `now` and return how long to wait."""
        if now - self._last > self._backoff.quiet:
            self._failures = 0
        self._last = now
        self._failures += 1
        return self._backoff.delay(self._failures, draw)

    def clear(self) -> None:
        """Forget all failures."""
        self._failures = 0
