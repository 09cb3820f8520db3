"""The run log: a response as an append-only list of events.

One writer appends. Any number of followers read at their own pace, each with its own cursor, from the start or from a
later position. The writer never waits for a follower. A slow follower needs no memory besides the log, whose size is
limited.

The position of an event is the number of events before it, and never changes. Older deltas are joined, because an event
takes far more memory than the text of a token. The length of each piece is kept, so a reader can still begin inside a
joined delta.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import final

import trio

from llm_protocol.codec.json import encode_json
from llm_protocol.content import Image
from llm_protocol.events import (
    ANY_DELTAS,
    DELTAS,
    TERMINAL,
    AnyDelta,
    Event,
    Failed,
    FieldsAdded,
    Finished,
    ItemDone,
    Restarted,
    count_pieces,
    cut,
    is_continued_by,
    join,
    keeps_lengths,
    without_lengths,
)

LOG_LIMIT_BYTES = 8 * 1024 * 1024
"""The default size limit of a log, in bytes as `weigh` counts them: 8 MiB."""

NEWEST_EVENTS = 64
"""The number of the newest events of a log that are not joined."""

JOINED_CHARACTERS = 16 * 1024
"""The approximate limit on the length of a joined delta. A longer delta would be copied too often while it grows."""

EVENT_BYTES = 160
"""The memory of an event without its text, in bytes: the struct, the headers of its strings, its place in the log."""


class LogLimitExceeded(Exception):  # noqa: N818  (it says what happened, as trio's TooSlowError does)
    """The log is full; the event was not appended."""


def weigh(event: Event) -> int:
    """Return the size of an event, in bytes."""
    if isinstance(event, ANY_DELTAS):
        return EVENT_BYTES + _text_bytes(event.text) + len(event.lengths)
    if isinstance(event, ItemDone):
        part = event.part
        if isinstance(part, Image):
            return EVENT_BYTES + len(part.data or b"")
        extra = getattr(part, "extra", None)
        weight = EVENT_BYTES + (len(encode_json(extra)) if extra else 0)
        return weight + _text_bytes(getattr(part, "text", "") or getattr(part, "arguments", "") or "")
    if isinstance(event, FieldsAdded):
        return EVENT_BYTES + len(encode_json(event.fields))
    return EVENT_BYTES


def _text_bytes(text: str) -> int:
    """Return the memory, in bytes, of the characters of a text: up to four bytes each if it is not ASCII."""
    return len(text) if text.isascii() else sys.getsizeof(text)


@final
class RunLog:
    """An append-only list of events, limited in size, that ends with exactly one ``Finished`` or ``Failed``.

    ``on_end`` is called with the end, before the followers are woken. ``on_late`` is called for each event that is
    appended after the end.
    """

    __slots__ = (
        "_end_watchers", "_ended", "_grown", "_joined", "_joined_count", "_newest", "_on_deserted", "_starts",
        "_unrepeated", "_watchers", "end", "followers", "limit_bytes", "on_append", "on_end", "on_late", "size",
    )  # fmt: skip

    def __init__(self, *, limit_bytes: int = LOG_LIMIT_BYTES, on_deserted: Callable[[], None] | None = None) -> None:
        self.end: Finished | Failed | None = None
        """The terminal event, once there is one."""
        self.size = 0
        """The current size, in bytes as `weigh` counts them."""
        self.followers = 0
        self.limit_bytes = limit_bytes
        self.on_end: Callable[[Finished | Failed], None] | None = None
        self.on_late: Callable[[], None] | None = None
        self.on_append: Callable[[Event], None] | None = None
        """Called with each appended event. For code that observes the run without being a follower."""
        self._joined: list[Event] = []
        self._starts: list[int] = []  # the position of each event in _joined
        self._joined_count = 0
        """The number of events that were joined into ``_joined``: the position of the first of ``_newest``."""
        self._newest: list[Event] = []
        self._unrepeated = 0
        """The bytes of deltas whose complete part has not arrived yet."""
        self._on_deserted = on_deserted
        self._grown: trio.Event | None = None
        self._ended: trio.Event | None = None
        self._watchers: list[Callable[[], None]] = []
        self._end_watchers: list[Callable[[], None]] = []

    def __len__(self) -> int:
        """The number of events: the position of the next one."""
        return self._joined_count + len(self._newest)

    @property
    def events(self) -> list[Event]:
        """All events. Older deltas are joined."""
        return [*self._joined, *self._newest]

    def append(self, event: Event) -> None:
        """Append an event and wake the followers. An event after the end is dropped, and ``on_late`` is called. A
        joined delta of another log counts as one event.

        Raises `LogLimitExceeded` if the log is full; the terminal event always fits.
        """
        if self.end is not None:
            # This is not a bug of the writer. A cancelled run is closed at once, but a task that Trio has already
            # scheduled with data from the network still runs up to its next checkpoint.
            if self.on_late is not None:
                self.on_late()
            return
        if isinstance(event, TERMINAL):
            self.end = event
            if self.on_end is not None:
                self.on_end(event)
        else:
            if isinstance(event, ANY_DELTAS) and event.lengths:
                event = without_lengths(event)
            self._charge(event)
        self._newest.append(event)
        if len(self._newest) >= 2 * NEWEST_EVENTS:
            self._join_oldest()
        if self.on_append is not None:
            self.on_append(event)
        if self._watchers or self._grown is not None or self.end is not None:
            self._wake()

    def _wake(self) -> None:
        if self._grown is not None:
            self._grown.set()
            self._grown = None
        for wake in self._watchers:
            wake()
        if self.end is not None:
            if self._ended is not None:
                self._ended.set()
            for wake in self._end_watchers:
                wake()

    def restore(self, events: Iterable[Event]) -> None:
        """Append the events of another log from this position on (see `read`), and wake the followers. The positions
        stay the same. After this, append only the end to the log.
        """
        for event in events:
            self._joined.append(event)
            self._starts.append(self._joined_count)
            self._joined_count += count_pieces(event)
            self.size += weigh(event)
            if isinstance(event, TERMINAL):
                self.end = event
                if self.on_end is not None:
                    self.on_end(event)
        self._wake()

    def _charge(self, event: Event) -> None:
        """Count the size of an event. A complete part repeats its deltas, so only the excess over these is counted.
        Otherwise a response could exceed the limit at its end, after all of it was delivered.
        """
        weight = weigh(event)
        repeated = 0
        if isinstance(event, ItemDone) and not isinstance(event.part, Image):
            repeated = min(self._unrepeated, weight - EVENT_BYTES)
        if self.size + weight - repeated > self.limit_bytes:
            raise LogLimitExceeded
        self.size += weight - repeated
        if isinstance(event, DELTAS):
            self._unrepeated += weight - EVENT_BYTES
        elif isinstance(event, Restarted):
            self._unrepeated = 0
        else:
            self._unrepeated -= repeated

    def _join_oldest(self) -> None:
        """Join the deltas among all but the newest events."""
        moving = self._newest[:-NEWEST_EVENTS]
        del self._newest[:-NEWEST_EVENTS]
        for event in _with_runs_joined(moving):
            last = self._joined[-1] if self._joined else None
            if last is not None and _can_grow(last, event):
                assert isinstance(last, ANY_DELTAS), "only deltas may be joined"
                assert isinstance(event, ANY_DELTAS), "only deltas may be joined"
                grown = self._joined[-1] = join((last, event))
                self.size += weigh(grown) - weigh(last)
            else:
                self._joined.append(event)
                self._starts.append(self._joined_count)
                self.size += weigh(event) if isinstance(event, ANY_DELTAS) else 0
            self._joined_count += count_pieces(event)
        self.size -= sum(weigh(event) for event in moving if isinstance(event, ANY_DELTAS))

    def read(self, start: int = 0) -> list[Event]:
        """Return the events from position ``start`` on. If that position is inside a joined delta, the first event is
        the rest of that delta.
        """
        if start >= self._joined_count:
            return self._newest[start - self._joined_count :]
        at = bisect_right(self._starts, start) - 1
        found = [*self._joined[at:], *self._newest]
        first, skip = found[0], start - self._starts[at]
        if skip:
            assert isinstance(first, ANY_DELTAS), "only deltas may be joined"
            found[0] = cut(first, skip)[1]
        return found

    def follow(self, start: int = 0, wake: Callable[[], None] | None = None, *, at_end: bool = False) -> Follower:
        """Return a follower whose next event is the one at ``start``. Use it as a context manager, which closes it.

        ``wake`` is called synchronously after each append; with ``at_end`` only after the last one. A reader that
        follows several logs needs ``wake``, because it cannot wait in one of them.
        """
        return Follower(self, start, wake, at_end=at_end)

    def _attach(self, wake: Callable[[], None] | None, *, at_end: bool) -> None:
        self.followers += 1
        if wake is not None:
            (self._end_watchers if at_end else self._watchers).append(wake)

    def _detach(self, wake: Callable[[], None] | None, *, at_end: bool) -> None:
        self.followers -= 1
        if wake is not None:
            (self._end_watchers if at_end else self._watchers).remove(wake)
        if self.followers == 0 and self._on_deserted is not None:
            # break the reference cycle through the run, so that no garbage collection is needed
            deserted, self._on_deserted = self._on_deserted, None
            if self.end is None:
                deserted()

    async def wait_ended(self) -> None:
        """Wait for the terminal event. The events before it do not wake the waiting task."""
        if self.end is None:
            self._ended = self._ended or trio.Event()
            await self._ended.wait()

    async def wait_past(self, length: int) -> None:
        """Wait until the log has more than ``length`` events. Cancelling this leaves nothing behind."""
        while len(self) <= length:
            if self._grown is None:  # every waiting follower waits for the same event
                self._grown = trio.Event()
            await self._grown.wait()


def _with_runs_joined(events: Iterable[Event]) -> Iterator[Event]:
    """Return the events in order, with adjacent short deltas of one text joined."""
    run: list[AnyDelta] = []
    for event in events:
        if run and _can_grow(run[0], event):
            assert isinstance(event, ANY_DELTAS), "only deltas may be joined"
            run.append(event)
            continue
        if run:
            yield join(run)
            run = []
        if isinstance(event, ANY_DELTAS) and keeps_lengths(event):
            run.append(event)
        else:
            yield event
    if run:
        yield join(run)


def _can_grow(last: Event, event: Event) -> bool:
    """Return whether ``event`` may be joined to ``last``."""
    return (
        isinstance(last, ANY_DELTAS)
        and isinstance(event, ANY_DELTAS)
        and is_continued_by(last, event)
        and keeps_lengths(last)
        and keeps_lengths(event)
        and len(last.text) < JOINED_CHARACTERS
    )


@final
class Follower:
    """A cursor into a log. When the last open follower of a run is closed, the run may be cancelled."""

    __slots__ = ("_is_at_end", "_log", "_open", "_wake", "position")

    def __init__(self, log: RunLog, start: int, wake: Callable[[], None] | None, *, at_end: bool = False) -> None:
        self._log = log
        self._wake = wake
        self._is_at_end = at_end
        """Whether ``wake`` is called for the end only."""
        self._open = True
        self.position = start
        log._attach(wake, at_end=at_end)

    def take(self) -> Sequence[Event]:
        """Return the events that were not taken yet, without waiting. There may be none. Old deltas are joined."""
        events = self._log.read(self.position)
        self.position = max(self.position, len(self._log))
        return events

    @property
    def at_end(self) -> bool:
        """Whether the log has ended and all its events were taken."""
        return self._log.end is not None and self.position >= len(self._log)

    async def next(self) -> Sequence[Event]:
        """Wait for events and return all of them. The result is empty only if the log has ended. Cancelling this
        loses no event.

        The deadline of the run limits the wait, because it ends the log.
        """
        if self.at_end:
            await trio.lowlevel.checkpoint()
            return ()
        await self._log.wait_past(self.position)
        return self.take()

    def close(self) -> None:
        """Stop following. A second call does nothing."""
        if self._open:
            self._open = False
            self._log._detach(self._wake, at_end=self._is_at_end)
            self._wake = None  # it may refer to this object: break the cycle

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
