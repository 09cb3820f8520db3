"""Follow a run on behalf of one client, in a task that waits for several things: events of the run, bytes, time.

The server adds one thing to a run's log: if it has to stop before the response is complete, the client still receives a
typed end, with the part that exists.

The task waits for a `WakeupEvent`, which wakes it once for all that has happened meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self, final

import trio

from llm_actors.run import Run
from llm_protocol.events import Event, Failed, Finished, MemberFailed, MemberStarted
from llm_protocol.failures import Failure, FailureKind

_NO_ANSWER = (MemberStarted, MemberFailed, Failed)

CLOSING = "The runtime is shutting down."
CRASHED = "The runtime crashed; try again."


class Progress(Protocol):
    """How much of a stored response is in the file or in Redis. The id and the end are sent to the client only when
    this allows it. The events between them are not held back.
    """

    @property
    def begun(self) -> bool:
        """Whether the id may be sent."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the end may be sent."""
        ...

    def hurry(self) -> None:
        """Wake the task that writes, because a client waits for the end of the response."""
        ...

    def watch(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` whenever more may be sent."""
        ...

    def unwatch(self, wake: Callable[[], None]) -> None:
        """Remove a callback of `watch`."""
        ...


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


@final
class RunSubscription:
    """Follows a run from its creation to `close`, which may cancel the run (see `Run`).

    ``wake`` is called when there are new events; for a ``whole`` response only at its end. With ``progress``, no
    event is returned before its ``begun`` is set, and the end not before its ``ended`` is set.
    """

    __slots__ = ("_follower", "_held", "_left", "_progress", "_shut", "_wake", "begun", "end", "run")

    def __init__(
        self,
        run: Run,
        wake: Callable[[], None],
        left: Callable[[RunSubscription], None],
        *,
        whole: bool,
        progress: Progress | None = None,
    ) -> None:
        self.run = run
        self.end: Finished | Failed | None = None
        self.begun = False
        """Whether a provider has begun to respond. Events of members do not count."""
        self._wake = wake
        self._left = left
        self._shut: FailureKind | None = None
        self._follower = run.follow(wake=wake, at_end=whole)
        self._progress = progress
        self._held: tuple[Event, ...] = ()
        if progress is not None:
            progress.watch(wake)

    def close(self) -> None:
        """Stop following. A second call does nothing."""
        if self._progress is not None:
            self._progress.unwatch(self._wake)
        self._follower.close()
        self._left(self)
        # a reference back to this object: the cycle would keep the run's log until garbage collection
        self._wake = _nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def take(self) -> Sequence[Event]:
        """Return the events that have arrived since the last call. The call that returns the last event also sets
        `end`.
        """
        progress = self._progress
        if progress is not None and self.is_held:
            return ()
        events = self._follower.take()
        if progress is not None:
            events = self._but_for_the_end(events, progress)
        if self._shut is not None and not self._follower.at_end:
            events = (*events, self._cut_short(self._shut))
        if events and isinstance(last := events[-1], (Finished, Failed)):
            self.end = last
        if not self.begun:
            for event in events:
                if not isinstance(event, _NO_ANSWER):
                    self.begun = True
                    break
        return events

    @property
    def is_held(self) -> bool:
        """Whether nothing may be sent to the client yet, not even the id."""
        return self._progress is not None and not self._progress.begun and self._shut is None

    def _but_for_the_end(self, events: Sequence[Event], progress: Progress) -> Sequence[Event]:
        """Return ``events`` without the end, if ``progress`` does not allow it yet."""
        events, self._held = (*self._held, *events), ()
        if events and isinstance(events[-1], (Finished, Failed)) and not progress.ended and self._shut is None:
            events, self._held = events[:-1], events[-1:]
            progress.hurry()
        return events

    def shut(self, kind: FailureKind = FailureKind.SHUTTING_DOWN) -> None:
        """End this response now, with a failure of this ``kind``: the server is closing, or the runtime has crashed."""
        self._shut = kind
        self.run.cancel(_reason(kind), kind)  # cancelling may take a moment, and this response must not wait
        self._wake()

    def _cut_short(self, kind: FailureKind) -> Failed:
        failure = Failure(kind=kind, message=_reason(kind), partial=bool(self.run.log.events))
        return Failed(failure=failure, response=self.run.folded())


def _nothing() -> None:
    """Do nothing: the default for ``wake``."""


def _reason(kind: FailureKind) -> str:
    return CRASHED if kind is FailureKind.CRASHED else CLOSING
