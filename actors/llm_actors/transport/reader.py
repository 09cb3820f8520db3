"""Parse one response from received bytes, without I/O: interim heads, the head, and the body to its end."""

from __future__ import annotations

from typing import Final, final

from llm_protocol.http1 import (
    BadHttp,
    ChunkedBody,
    ResponseHead,
    body_length,
    find_head,
    is_kept_alive,
    read_response_head,
    whole_chunks,
)

MAX_HEADERS: Final = 256
MAX_INTERIM_HEADS: Final = 16
"""The most heads with a status of 1xx before the final head."""

_CHUNKED: Final = -1
_BODILESS: Final = frozenset((204, 304))


class IncompleteResponse(Exception):  # noqa: N818
    """The stream ended before the response did."""


@final
class ResponseReader:
    """Parses one response. Feed it the received bytes, and ``b""`` at the end of the stream; then read from it.

    Every method raises `BadHttp` for bytes that are not HTTP/1.1, and `IncompleteResponse` if the stream ends too
    early.
    """

    __slots__ = (
        "_buffer",
        "_chunks",
        "_eof",
        "_interim",
        "_is_head",
        "_left",
        "_searched",
        "ended",
        "framed",
        "keeps",
        "starved",
    )

    def __init__(self, method: str) -> None:
        self._is_head = method == "HEAD"
        self._buffer = bytearray()
        self._searched = 0
        self._interim = 0
        self._eof = False
        self._chunks: ChunkedBody | None = None
        self._left: int | None = 0
        """The missing bytes of the body; ``None`` if the body lasts until the stream ends."""
        self.framed = False
        """Whether the response itself states where its body ends."""
        self.keeps = False
        """Whether the server allows the connection to be reused."""
        self.ended = False
        """Whether the body was read to its end."""
        self.starved = True
        """Whether nothing can be read before more is fed."""

    @property
    def has_surplus(self) -> bool:
        """Whether there were surplus bytes after the response."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self.starved = False
        if data:
            self._buffer += data
        else:
            self._eof = True

    def read_stream(self, data: bytes) -> bytes | None:
        """Return the content of ``data`` if it needs no buffering: it consists of complete chunks, and nothing is
        unread. In any other case return ``None`` and consume nothing.
        """
        if self._buffer or self._chunks is None or not self._chunks.at_boundary:
            return None
        return whole_chunks(data) or None

    def read_head(self) -> ResponseHead | None:
        """The head, or ``None`` while it is incomplete."""
        while end := find_head(self._buffer, self._searched):
            if self._buffer.count(b"\n", 0, end) > MAX_HEADERS + 2:
                raise BadHttp(f"more than {MAX_HEADERS} headers")
            head = read_response_head(self._buffer[:end])
            del self._buffer[:end]
            self._searched = 0
            if head.status >= 200:
                self._begin_body(head)
                return head
            self._skip(head.status)
        self._searched = len(self._buffer)
        self._need_more()
        return None

    def read_body(self) -> bytes:
        """Return the part of the body that has arrived; ``b""`` if there is none, because of `starved` or `ended`.

        Bytes that precede an error are returned first.
        """
        if self.ended:
            return b""
        if self._chunks is not None:
            parts = self._chunks.read(self._buffer)
            self.ended = self._chunks.ended
            data = parts[0] if len(parts) == 1 else b"".join(parts)
        else:
            data = bytes(self._buffer if self._left is None else self._buffer[: self._left])
            del self._buffer[: len(data)]
            if self._left is None:
                self.ended = self._eof
            else:
                self._left -= len(data)
                self.ended = self._left == 0
        if self.ended:
            return data
        if not data:
            self._need_more()
        elif not self._buffer and not self._eof:
            self.starved = True
        return data

    def _begin_body(self, head: ResponseHead) -> None:
        length = body_length(head.headers, head.version)
        # Servers often get these bodies wrong; a stray body cannot be told from the next response.
        bodiless = self._is_head or head.status in _BODILESS
        self.framed = length is not None and not bodiless
        self.keeps = is_kept_alive(head.headers, head.version)
        if bodiless:
            self.ended = True
        elif length == _CHUNKED:
            self._chunks = ChunkedBody()
        else:
            self._left = length
            self.ended = length == 0

    def _skip(self, status: int) -> None:
        if status == 101:
            raise BadHttp("a protocol switch that was not requested")
        self._interim += 1
        if self._interim > MAX_INTERIM_HEADS:
            raise BadHttp(f"more than {MAX_INTERIM_HEADS} interim responses")

    def _need_more(self) -> None:
        if self._eof:
            raise IncompleteResponse
        self.starved = True
