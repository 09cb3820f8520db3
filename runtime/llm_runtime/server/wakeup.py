"""A wakeup for a task that waits for any of several things."""

from __future__ import annotations

from typing import final

import trio


@final
class WakeupEvent:
    """Call `wake` any number of times; `wait` returns once for all calls since its last return."""

    __slots__ = ("_task", "_woken")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._woken = False

    def wake(self) -> None:
        """Wake the waiting task. Never waits."""
        self._woken = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> None:
        """Wait for a call of `wake`. Returns at once if there was one since the last return. Has no time limit."""
        if self._woken:
            await trio.lowlevel.checkpoint()
        else:
            assert self._task is None, "only one task may wait at a time"
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        self._woken = False

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
