"""Cancel a scenario at every step it takes, one step per run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

MAX_STEPS = 1000


class _CancelAtStep(trio.abc.Instrument):
    def __init__(self, step: int) -> None:
        self.left = step
        self.scope = trio.CancelScope()
        self._task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def cancel_at_every_step(scenario: Callable[[], Awaitable[object]], check: Callable[[], None]) -> int:
    """Run ``scenario`` with a cancel before its first step, then its second, and so on until it ends before the cancel.

    ``check`` is called after each run. Steps are those of the calling task; what it starts is cancelled with it.
    Returns the number of runs that were cancelled.
    """
    for step in range(1, MAX_STEPS):
        instrument = _CancelAtStep(step)
        trio.lowlevel.add_instrument(instrument)
        try:
            with instrument.scope:
                await scenario()
        finally:
            trio.lowlevel.remove_instrument(instrument)
        check()
        if instrument.left > 0:
            return step - 1
    raise AssertionError(f"the scenario took more than {MAX_STEPS} steps")
