"""Decode and encode server-sent events. The decoder gives the same events for any split of the bytes.

The decoder follows the WHATWG rules. Lines end in LF, CR or CRLF and in nothing else (U+2028 and the like are text). A
leading BOM is dropped. Several ``data:`` lines of one event are joined by LF. Comments, ``id:`` and ``retry:`` are
ignored. The decoder deviates from the rules in two ways. At the end of the body, it emits an event whose last line is
complete even without the blank line after it, because some servers leave that line out. And it keeps the beginning of a
body that is not SSE in `surplus`, because some servers send an error in plain JSON or HTML in place of the stream.

Bytes that are not UTF-8 become U+FFFD.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from llm_protocol.codec.json import TooLarge
from llm_protocol.dialect import Frame

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""The limit in bytes for one line, and for the data of one event."""

LINE_COST = 64
"""The bytes that each data line counts in addition to its text, for the memory of the line object."""

STRAY_LIMIT = 64 * 1024
"""The most bytes kept of lines that are not SSE."""

_BOM = b"\xef\xbb\xbf"
_LINE_ENDS = (b"\n", b"\r")
_FIELDS = (b"data", b"event", b"id", b"retry")
_IGNORED = (b":", b"id:", b"retry:")
_BARE_FIELDS = frozenset((b"id", b"retry"))


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One event. ``event`` is its name, ``""`` if the stream gave none."""

    event: str
    data: str


class SseDecoder:
    """Decodes bytes as they arrive. Time is linear in the input; memory is limited by ``max_event_bytes``."""

    __slots__ = ("_after_cr", "_data", "_event", "_first_line", "_limit", "_size", "_stray", "_tail")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._tail = bytearray()  # the current line, incomplete
        self._after_cr = False  # a LF that comes next belongs to the CR before it
        self._first_line = True
        self._event = ""
        self._data: list[bytes] = []
        self._size = 0
        self._stray = bytearray()

    @property
    def surplus(self) -> bytes:
        """The beginning of a body that is not SSE, with LF as line ends; complete only after `end`."""
        return bytes(self._stray)

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that ``data`` completes. Raises `TooLarge` if a line or event is too long; the decoder cannot be
        used afterwards.
        """
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 0x0A:
                data = data[1:]
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        lines = data.splitlines()  # for bytes, it splits at LF, CR and CRLF only
        unfinished = None if data.endswith(_LINE_ENDS) else lines.pop()
        if self._tail and lines:
            self._extend_tail(lines[0])
            lines[0] = bytes(self._tail)
            self._tail.clear()
        found: list[ServerSentEvent] = []
        for line in lines:
            if line.startswith(b"data: "):  # here, not in `_take`: this runs for each token
                self._first_line = False
                self._add_data(line[6:])
            elif line:
                self._take(line)
            elif self._data:
                event = self._made()
                if event.data:  # by the standard, an event without data is not dispatched
                    found.append(event)
            else:
                self._event, self._first_line = "", False
        if unfinished:
            self._extend_tail(unfinished)
        return found

    def end(self) -> list[ServerSentEvent]:
        """End of the body. Returns the event whose last line is complete, if any; a partial line is dropped."""
        if self._tail:
            line = bytes(self._tail).removeprefix(_BOM if self._first_line else b"")
            self._tail.clear()
            if not line.startswith(_FIELDS) and not any(field.startswith(line) for field in _FIELDS):
                self._take(line)
        last = self._made() if self._data else None
        return [last] if last and last.data else []

    def _extend_tail(self, piece: bytes) -> None:
        if len(self._tail) + len(piece) > self._limit:
            self._overflow()
        self._tail += piece

    def _take(self, line: bytes) -> None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BOM)
        if line.startswith(b"data:"):
            self._add_data(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b"event:"):
            self._event = line[6:].removeprefix(b" ").decode("utf-8", "replace")
        elif line == b"data":
            self._add_data(b"")
        elif line == b"event":
            self._event = ""
        elif line and not line.startswith(_IGNORED) and line not in _BARE_FIELDS:
            room = STRAY_LIMIT - len(self._stray)
            self._stray += (line + b"\n")[: max(room, 0)]

    def _add_data(self, value: bytes) -> None:
        self._size += len(value) + LINE_COST
        if self._size > self._limit:
            self._overflow()
        self._data.append(value)

    def _made(self) -> ServerSentEvent:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        event = ServerSentEvent(self._event, data.decode("utf-8", "replace"))
        self._data.clear()
        self._size = 0
        self._event = ""
        return event

    def _overflow(self) -> None:
        self._tail.clear()
        self._data.clear()
        raise TooLarge(f"a server-sent event is longer than {self._limit} bytes")


def encode_sse(frames: Iterable[Frame]) -> bytes:
    """The bytes of ``frames``, whose data must be one line each (JSON always is)."""
    return b"".join(
        [
            b"data: %b\n\n" % data if event is None else b"event: %b\ndata: %b\n\n" % (event.encode(), data)
            for event, data in frames
        ]
    )
