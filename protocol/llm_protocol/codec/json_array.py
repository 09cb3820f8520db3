"""Read and write a JSON array of objects, one object at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from llm_protocol.codec.json import TooLarge, WireError
from llm_protocol.codec.sse import MAX_EVENT_BYTES
from llm_protocol.dialect import Frame

_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')
_FIRST = re.compile(rb"[^ \t\r\n,\[\]]")


class JsonArrayDecoder:
    """Splits an array into its objects. Examines each byte once, and keeps at most one object."""

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_bytes
        self._object = bytearray()
        self._at = 0  # how much of it has been examined
        self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the objects that ``data`` completes. Raises `WireError`."""
        self._object += data
        while self._object_begun():
            end = self._find_end()
            if end is None:
                if len(self._object) > self._limit:
                    raise TooLarge(f"an object of the array is longer than {self._limit} bytes")
                break
            found = bytes(self._object[:end])
            del self._object[:end]
            self._at = 0
            yield found

    def _object_begun(self) -> bool:
        if self._at:
            return True
        first = _FIRST.search(self._object)  # `lstrip` would copy the whole rest for each object
        if first is None:
            self._object.clear()
            return False
        if first[0] != b"{":
            raise WireError("the array contains something other than an object")
        del self._object[: first.start()]
        return True

    def _find_end(self) -> int | None:
        """The end of the object, or ``None`` if it has not arrived yet."""
        while True:
            hit = (_INSIDE if self._in_string else _OUTSIDE).search(self._object, self._at)
            if hit is None:
                self._at = len(self._object)
                return None
            self._at = hit.end()
            mark = hit[0]
            if mark == b"\\":
                if self._at == len(self._object):  # the escaped character has not arrived yet
                    self._at -= 1
                    return None
                self._at += 1
            elif mark == b'"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if mark in b"{[" else -1
                if self._depth == 0:
                    return self._at


class JsonArrayEncoder:
    """Encodes the frames of a response as one JSON array. Call `end` after the last frame."""

    def __init__(self) -> None:
        self._begun = False

    def encode(self, frames: Iterable[Frame]) -> bytes:
        """The bytes of the next frames."""
        return b"".join(self._separator() + frame.data for frame in frames)

    def end(self) -> bytes:
        """Return the end of the array."""
        return b"\n]" if self._begun else b"[]"

    def _separator(self) -> bytes:
        before = b"\n,\r\n" if self._begun else b"["
        self._begun = True
        return before
