"""Run an action at every point where other code may run after data has arrived and before it is used.

`cancel_at_every_checkpoint` cancels between two steps of tasks. It misses the moments in which ordering bugs occur:
data has arrived and its reader is scheduled, but has not run yet. An `Injector` counts these moments, too: each
scheduling of a task, each step, each check of the network, and each call of `point`, which a test puts into its own
callbacks.

    injector = Injector()
    for at in injector.every_point():
        with injector.at(at, scope.cancel): ...     # a scenario; the loop ends when `at` is past its last point

Give it to `run_virtual` as an instrument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

import trio

MAX_POINTS = 20_000
"""The most points of one scenario. With more, the scenario counts as endless."""


@final
class Injector(trio.abc.Instrument):
    """Calls an action at the n-th point of a block."""

    def __init__(self) -> None:
        self.points = 0
        self._at = 0
        self._action: Callable[[], object] | None = None
        self._error: Exception | None = None

    def every_point(self, step: int = 1) -> Iterator[int]:
        """Yield 1, 2, 3 and so on, until a block has fewer points. `step`: yield only every `step`-th number, to save
        time. Raises `AssertionError` after `MAX_POINTS`.
        """
        for at in range(1, MAX_POINTS, step):
            yield at
            if self.points < at:
                return
        raise AssertionError(f"the scenario has more than {MAX_POINTS} points")

    @contextmanager
    def at(self, number: int, action: Callable[[], object]) -> Iterator[None]:
        """Count the points of the block, and call `action` at that number. Exceptions of `action` propagate out of
        the block.
        """
        self.points, self._at, self._action, self._error = 0, number, action, None
        try:
            yield
        finally:
            self._action = None
        if self._error is not None:
            raise self._error

    def point(self) -> None:
        """Count one more point."""
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
