"""A virtual clock that moves a little at each reading.

`trio.testing.MockClock` does not move between two jumps, so two readings of it may be equal, which never happens with a
real clock. Code that compares such readings (``received_at < pinged_at``) would pass its tests and fail in real use.
"""

from __future__ import annotations

from math import inf
from typing import final

import trio
from trio._core._run import GLOBAL_RUN_CONTEXT
from trio.testing import MockClock

FOREVER_SECONDS = 999_999_999.0


@final
class MovingClock(trio.abc.Clock):
    """Jumps like a `MockClock`, and is ``step`` seconds later at each reading.

    It jumps to the next deadline when all tasks have been waiting for ``autojump_threshold`` real seconds.
    """

    def __init__(self, *, autojump_threshold: float = 0.0, step: float = 1e-9) -> None:
        self._threshold = autojump_threshold
        self._step = step
        self._now = 0.0

    def start_clock(self) -> None:
        """See `trio.abc.Clock`."""
        GLOBAL_RUN_CONTEXT.runner.clock_autojump_threshold = self._threshold  # as MockClock does; it is not public

    def current_time(self) -> float:
        """See `trio.abc.Clock`."""
        self._now += self._step
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """See `trio.abc.Clock`."""
        return 0.0 if deadline <= self._now else FOREVER_SECONDS

    def _autojump(self) -> None:
        """Called by Trio's run loop."""
        jump = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if 0 < jump < inf:
            self._now += jump


MockClock.register(
    MovingClock
)  # Trio's run loop asserts that a clock which jumps is a MockClock, and forbids subclasses
