"""A Trio instrument that measures which tasks block the event loop, the lag of the loop, and the number of tasks.

It is off by default, because it reads the clock twice for each step of a task and each pass of the loop. Steps are
measured in CPU time of the thread, so that load from other processes is not attributed to a task. The lag is measured
in wall-clock time, because that is the delay that a waiting client notices.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import final

import msgspec
import trio

SLOW_STEP = 0.050
"""A task that uses more seconds of CPU time than this between two checkpoints is reported."""

SLOW_STEPS_KEPT = 64
"""The most reports kept; the oldest are dropped."""

BUSY_STEPS = 1000
"""A task with more steps than this within one second counts as being in a busy loop."""

BUSY_NAMES_KEPT = 64
"""The most names of busy tasks kept."""


class SlowStep(msgspec.Struct, frozen=True):
    """One step that blocked the loop: the name of the task, and the CPU time of the step in seconds."""

    task: str
    seconds: float


class SchedulerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. `max_lag` is the longest pass of the loop, in seconds, during which no I/O could be noticed."""

    tasks: int
    steps: int
    slow_steps: tuple[SlowStep, ...]
    busy_tasks: tuple[str, ...]
    max_lag: float


@final
class SchedulerInstrument(trio.abc.Instrument):
    """Measures one run of Trio. Pass it to `trio.run(..., instruments=[it])` or `trio.lowlevel.add_instrument(it)`."""

    def __init__(self, slow_step: float = SLOW_STEP, busy_steps: int = BUSY_STEPS) -> None:
        self._slow_step = slow_step
        self._busy_steps = busy_steps
        self._slow: deque[SlowStep] = deque(maxlen=SLOW_STEPS_KEPT)
        self._busy: deque[str] = deque(maxlen=BUSY_NAMES_KEPT)
        self._recent: Counter[trio.lowlevel.Task] = Counter()
        self._second = 0.0
        self._tasks = 0
        self._steps = 0
        self._max_lag = 0.0
        self._step_began = 0.0
        self._turn_began: float | None = None

    def statistics(self) -> SchedulerStatistics:
        """Return the measurements since the instrument was installed. `tasks` excludes tasks that are older than the
        instrument.
        """
        return SchedulerStatistics(
            tasks=self._tasks,
            steps=self._steps,
            slow_steps=tuple(self._slow),
            busy_tasks=tuple(self._busy),
            max_lag=self._max_lag,
        )

    def task_spawned(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self._tasks += 1

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._tasks -= 1
        self._recent.pop(task, None)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self._step_began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        seconds = time.thread_time() - self._step_began
        self._steps += 1
        if seconds > self._slow_step:
            self._slow.append(SlowStep(task.name, seconds))
        self._count(task)

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        self._turn_began = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        if self._turn_began is not None:
            self._max_lag = max(self._max_lag, time.perf_counter() - self._turn_began)

    def _count(self, task: trio.lowlevel.Task) -> None:
        now = trio.current_time()
        if now - self._second >= 1.0:
            self._second = now
            self._recent.clear()
        self._recent[task] += 1
        if self._recent[task] == self._busy_steps + 1:
            self._busy.append(task.name)
