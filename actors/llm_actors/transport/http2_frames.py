"""The lengths of HTTP/2 frames, checked before a frame has arrived."""

from __future__ import annotations

from typing import Final, final

import h2.exceptions

MAX_FRAME_BYTES: Final = 16 * 1024
"""The largest frame that HTTP/2 allows by default, in bytes."""

_FRAME_HEAD_BYTES: Final = 9


@final
class FrameLengths:
    """Refuses a frame that is too long as soon as its head arrives. ``h2`` would first wait for the whole frame, which
    may have 16 MiB.
    """

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0  # of the frame that has begun

    def check(self, data: bytes) -> None:
        """Check the next bytes of the server. Raises ``h2.exceptions.FrameTooLargeError``."""
        at = 0
        while at < len(data):
            if self._left:
                size = min(self._left, len(data) - at)
                self._left -= size
            else:
                size = min(_FRAME_HEAD_BYTES - len(self._head), len(data) - at)
                self._head += data[at : at + size]
                if len(self._head) == _FRAME_HEAD_BYTES:
                    self._left, self._head = int.from_bytes(self._head[:3]), b""
            if self._left > MAX_FRAME_BYTES:
                raise h2.exceptions.FrameTooLargeError
            at += size
