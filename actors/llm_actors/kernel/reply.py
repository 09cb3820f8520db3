"""A one-shot reply: one value or error, one waiting task.

It does what a memory channel of capacity one would do per call, at a fraction of the cost, because a reply
has one waiter and one answer. The first of answer and abandonment wins; what comes later is dropped.
"""

from __future__ import annotations

from typing import Generic, TypeVar, cast, final

import trio

R = TypeVar("R")


@final
class Reply(Generic[R]):
    """The place where one caller waits for one answer."""

    __slots__ = ("_error", "_task", "_value", "abandoned", "answered")

    def __init__(self) -> None:
        self.answered = False
        self.abandoned = False
        self._value: R | None = None
        self._error: Exception | None = None
        self._task: trio.lowlevel.Task | None = None

    @property
    def settled(self) -> bool:
        """Whether an answer would come too late."""
        return self.answered or self.abandoned

    def send(self, value: R) -> bool:
        """Answer. Return whether a caller was there to take it."""
        self._value = value
        return self._settle()

    def fail(self, error: Exception) -> bool:
        """Let the caller's wait raise `error`. Return whether a caller was there to take it."""
        self._error = error
        return self._settle()

    def _settle(self) -> bool:
        if self.settled:
            return False
        self.answered = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
        return True

    def abandon(self) -> None:
        """Say that nobody waits any more."""
        self.abandoned = not self.answered

    async def wait(self) -> R:
        """Wait for the answer, once. A checkpoint in any case; cancelling it abandons the reply."""
        if self.answered:
            await trio.lowlevel.checkpoint()
        else:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._forget_waiter)
        if self._error is not None:
            raise self._error
        return cast("R", self._value)

    def _forget_waiter(self, _: object) -> trio.lowlevel.Abort:
        # At once, and not when the cancelled task runs: what is decided before that must know that nobody waits.
        self._task = None
        self.abandon()
        return trio.lowlevel.Abort.SUCCEEDED
