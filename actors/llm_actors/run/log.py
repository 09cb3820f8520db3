"""The run log: an answer as an append-only list of events.

One writer appends; any number of followers read, each with a cursor of its own, from the start or from later, at
their own pace. A slow follower therefore costs nothing but the log itself, which is bounded in bytes, and the
writer never waits for anyone. The position of an event in the log is its sequence number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import final

import trio

from llm_protocol.events import DELTAS, TERMINAL, Event, Failed, Finished, ItemDone, MemberDelta

LOG_LIMIT_BYTES = 8 * 1024 * 1024
"""Default bound of one log, in bytes as `weigh` counts them (8 MiB)."""

_TEXTS = (*DELTAS, MemberDelta)

EVENT_BYTES = 120
"""What an event costs beside its text: the struct and the string's header."""


class LogLimitExceeded(Exception):  # noqa: N818  (it says what happened, as trio's TooSlowError does)
    """The event does not fit into the log any more; it was not appended."""


def weigh(event: Event) -> int:
    """Bytes an event is counted as. Whole parts repeat the text of their deltas and share no memory with it."""
    if isinstance(event, _TEXTS):
        return EVENT_BYTES + len(event.text)
    if isinstance(event, ItemDone):
        part = event.part
        size = len(getattr(part, "text", "") or "") + len(getattr(part, "arguments", "") or "")
        return EVENT_BYTES + size + len(getattr(part, "data", b"") or b"")
    return EVENT_BYTES


@final
class RunLog:
    """Append-only, byte-bounded, ends with exactly one ``Finished`` or ``Failed``.

    ``on_late`` is called once for each event that comes after the end.
    """

    __slots__ = ("_grown", "_on_deserted", "_watchers", "events", "followers", "limit_bytes", "on_late", "size")

    def __init__(self, *, limit_bytes: int = LOG_LIMIT_BYTES, on_deserted: Callable[[], None] | None = None) -> None:
        self.events: list[Event] = []
        self.size = 0
        self.followers = 0
        self.limit_bytes = limit_bytes
        self.on_late: Callable[[], None] | None = None
        self._on_deserted = on_deserted
        self._grown: trio.Event | None = None
        self._watchers: list[Callable[[], None]] = []

    @property
    def end(self) -> Finished | Failed | None:
        """The terminal event, once there is one."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, TERMINAL) else None

    def append(self, event: Event) -> None:
        """Add the next event and wake the followers. An event after the end is dropped, and reported to ``on_late``.

        Raises `LogLimitExceeded` when the log is full; the terminal event always fits.
        """
        if self.end is not None:
            # Not a bug of the writer: a cancelled run is closed at once, and a task that Trio had already scheduled
            # with data from the network still runs its step.
            if self.on_late is not None:
                self.on_late()
            return
        self.size += weigh(event)
        if self.size > self.limit_bytes and not isinstance(event, TERMINAL):
            raise LogLimitExceeded
        self.events.append(event)
        if self._grown is not None:
            self._grown.set()
            self._grown = None
        for wake in self._watchers:
            wake()

    def follow(self, start: int = 0, wake: Callable[[], None] | None = None) -> Follower:
        """A follower whose next event is the one at ``start``; to be used as a context manager, and closed by
        leaving it.

        ``wake`` is called, synchronously, at each append: for a reader that waits for several logs at once.
        """
        return Follower(self, start, wake)

    def _attach(self, wake: Callable[[], None] | None) -> None:
        self.followers += 1
        if wake is not None:
            self._watchers.append(wake)

    def _detach(self, wake: Callable[[], None] | None) -> None:
        self.followers -= 1
        if wake is not None:
            self._watchers.remove(wake)
        if self.followers == 0 and self._on_deserted is not None:
            deserted, self._on_deserted = self._on_deserted, None  # it leads back to the run: a circle to be collected
            if self.end is None:
                deserted()

    async def wait_past(self, length: int) -> None:
        """Wait until the log is longer than ``length``. Cancelling it leaves nothing behind."""
        while len(self.events) <= length:
            self._grown = self._grown or trio.Event()
            await self._grown.wait()


@final
class Follower:
    """A cursor into a log. While it is open the run has a reader; when the last one closes, the run may be
    cancelled.
    """

    __slots__ = ("_log", "_open", "_wake", "position")

    def __init__(self, log: RunLog, start: int, wake: Callable[[], None] | None) -> None:
        self._log = log
        self._wake = wake
        self._open = True
        self.position = start
        log._attach(wake)

    def take(self) -> Sequence[Event]:
        """What is there now and was not taken yet, without waiting; may be empty."""
        events = self._log.events[self.position :]
        self.position += len(events)
        return events

    @property
    def at_end(self) -> bool:
        """Whether the log has ended and all of it was taken."""
        return self._log.end is not None and self.position >= len(self._log.events)

    async def next(self) -> Sequence[Event]:
        """Wait for events and take them all; empty only when the log has ended.

        The wait is bounded by the run's own deadline, which always ends the log.
        """
        if self.at_end:
            await trio.lowlevel.checkpoint()
            return ()
        await self._log.wait_past(self.position)
        return self.take()

    def close(self) -> None:
        """Stop following. Closing twice is harmless."""
        if self._open:
            self._open = False
            self._log._detach(self._wake)
            self._wake = None  # it may lead back here

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
