"""An action at every point where something may happen between data and its consumer.

`cancel_at_every_checkpoint` cancels between two steps of tasks. That leaves out the moments in which bugs of ordering
live: data has come and its reader is scheduled, but has not run yet. An `Injector` counts those too: each scheduling
of a task, each step, each look at the network, and each call of `point`, which a test puts into its own callbacks.

    injector = Injector()
    for at in injector.every_point():
        with injector.at(at, scope.cancel): ...     # a scenario; it ends by itself when `at` is past its last point

Give it to `run_virtual` as an instrument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

import trio

MAX_POINTS = 20_000
"""Points of one scenario; more than this and it is taken to be endless."""


@final
class Injector(trio.abc.Instrument):
    """Calls an action at the n-th point of a block."""

    def __init__(self) -> None:
        self.points = 0
        self._at = 0
        self._action: Callable[[], object] | None = None
        self._error: Exception | None = None

    def every_point(self, step: int = 1) -> Iterator[int]:
        """Yield 1, 2, 3 and so on, until a block has fewer points. `step`: skip some, to save time."""
        for at in range(1, MAX_POINTS, step):
            yield at
            if self.points < at:
                return
        raise AssertionError(f"the scenario has more than {MAX_POINTS} points")

    @contextmanager
    def at(self, number: int, action: Callable[[], object]) -> Iterator[None]:
        """Count the points of the block, and call `action` at that number. What it raises comes out of the block."""
        self.points, self._at, self._action, self._error = 0, number, action, None
        try:
            yield
        finally:
            self._action = None
        if self._error is not None:
            raise self._error

    def point(self) -> None:
        """One more point."""
        if self._action is None:
            return
        self.points += 1
        if self.points == self._at:
            try:
                self._action()
            except Exception as exc:  # Trio would log it and drop the instrument
                self._error = exc

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self.point()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self.point()

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        self.point()
