"""HTTP/1.1 for the server, without I/O: parses requests and encodes responses.

`llm_protocol.http1` parses heads and chunks, and encodes chunks. A response is a status, a few fields, and a body or
chunks.
"""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import final

from llm_protocol.dialect import WireResponse
from llm_protocol.http1 import (
    HEAD_TOO_LARGE,
    VERSION,
    BadHttp,
    ChunkedBody,
    RequestHead,
    body_length,
    find_head,
    is_kept_alive,
    read_request_head,
)
from llm_runtime.config.server import ServerLimits
from llm_runtime.server.http_error import HttpError, body_too_large
from llm_runtime.server.limits import CHUNKS_AT_ONCE, HEAD_BYTES

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BODILESS = frozenset((204, 304))
"""Statuses of responses without a body."""

DEFAULT_BODY_BYTES = ServerLimits().max_body_bytes

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


@final
class Request:
    """One request. Header names are in lower case; repeated fields are joined by commas. ``length`` is the length of
    the body, or 0 if it is chunked. ``body`` is set when the request is complete.
    """

    __slots__ = ("body", "chunks", "headers", "keep_alive", "length", "method", "path", "query", "target", "version")

    def __init__(self, head: RequestHead) -> None:
        self.method, self.target, self.version, self.headers = head
        self.path, _, self.query = self.target.partition("?")
        length = body_length(self.headers, self.version) or 0
        self.chunks = ChunkedBody() if length < 0 else None
        self.length = max(length, 0)
        self.body = b""
        self.keep_alive = is_kept_alive(self.headers, self.version)

    @property
    def wants_upgrade(self) -> bool:
        """Whether the client asks to switch to WebSocket."""
        return self.headers.get("upgrade", "").strip().lower() == "websocket"


@final
class RequestParser:
    """Parses requests from received bytes. Call `next_head` for the head of the next request, then `next` for the
    whole request. A body of more than ``max_body`` bytes is refused.
    """

    __slots__ = ("_body", "_max_body", "_request", "_searched", "_unread", "is_busy", "received")

    def __init__(self, max_body: int = DEFAULT_BODY_BYTES) -> None:
        self._max_body = max_body
        self._unread = bytearray()
        self._searched = 0
        self._body = bytearray()
        """The content of the chunks that have arrived."""
        self._request: Request | None = None
        self.is_busy = False
        """Whether `next` returned early, to limit the time of one call, although there is more to parse."""
        self.received = 0
        """Bytes of the current request."""

    @property
    def in_body(self) -> bool:
        """Whether the head of a request is complete and its body is not."""
        return self._request is not None

    @property
    def body_bytes(self) -> int:
        """The number of bytes of the current body that have arrived."""
        request = self._request
        if request is None:
            return 0
        return len(self._body) if request.chunks is not None else min(len(self._unread), request.length)

    @property
    def awaits_continue(self) -> bool:
        """Whether the client waits for ``100 Continue`` before it sends the body."""
        request = self._request
        if request is None or self._unread or self._body or request.version != "1.1":
            return False
        return request.headers.get("expect", "").lower() == "100-continue"

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self.received += len(data)
        self._unread += data

    def left_over(self) -> bytes:
        """Return the bytes received after the last request."""
        return bytes(self._unread)

    def discard(self) -> None:
        """Free the buffers. The parser cannot be used afterwards."""
        self._unread.clear()
        self._body.clear()
        self._request = None

    def next_head(self) -> Request | None:
        """Return the head of the next request once it is complete; else ``None``. The body is still unread. Raises
        `HttpError`; after that the parser can read nothing more from the connection.
        """
        if self._request is None and self._unread:
            try:
                self._read_head()
            except BadHttp as exc:
                raise _malformed(exc) from None
        return self._request

    @property
    def unread(self) -> int:
        """The number of bytes that were received and not parsed."""
        return len(self._unread)

    def next_piece(self) -> bytes | None:
        """Return the bytes of the current request's body that have arrived: ``b""`` if there are none yet, ``None``
        after the end. They are not kept, so the body may have any size. Raises `HttpError` as `next_head` does.
        """
        request = self._request
        if request is None:
            return None
        if request.chunks is not None:
            try:
                piece = b"".join(request.chunks.read(self._unread, CHUNKS_AT_ONCE))
            except BadHttp as exc:
                raise _malformed(exc) from None
            is_whole = request.chunks.ended
        else:
            piece = bytes(self._unread[: request.length])
            del self._unread[: len(piece)]
            request.length -= len(piece)
            is_whole = request.length == 0
        if is_whole:
            self._request = None
            self.received = len(self._unread)
        return None if is_whole and not piece else piece

    def next(self) -> Request | None:
        """Return the next request once it is complete; else ``None``. Raises `HttpError` as `next_head` does, and for
        a body over the limit.
        """
        request = self.next_head()
        if request is None or not self._read_body(request):
            return None
        self._request = None
        self.received = len(self._unread)
        return request

    def _read_head(self) -> None:
        end = find_head(self._unread, self._searched, HEAD_BYTES)
        self._searched = 0 if end else len(self._unread)
        if end:
            self._request = Request(read_request_head(self._unread[:end]))
            del self._unread[:end]

    def _read_body(self, request: Request) -> bool:
        if request.chunks is not None:
            return self._read_chunks(request, request.chunks)
        if request.length > self._max_body:
            raise body_too_large(self._max_body)
        if len(self._unread) < request.length:
            return False
        request.body = bytes(self._unread[: request.length])
        del self._unread[: request.length]
        return True

    def _read_chunks(self, request: Request, chunks: ChunkedBody) -> bool:
        """Return whether the body is complete. A client may send chunks of one byte each, and parsing thousands of
        them would block other connections. So after `CHUNKS_AT_ONCE` chunks `is_busy` is set, and the next call
        continues.
        """
        try:
            parts = chunks.read(self._unread, CHUNKS_AT_ONCE)
        except BadHttp as exc:
            raise _malformed(exc) from None
        self.is_busy = bool(parts) and not chunks.ended
        self._body += b"".join(parts)
        if len(self._body) > self._max_body:
            raise body_too_large(self._max_body)
        if not chunks.ended:
            return False
        request.body = bytes(self._body)
        self._body.clear()
        return True


_CODES = {
    HEAD_TOO_LARGE: ("headers_too_large", f"The head is larger than {HEAD_BYTES} bytes."),
    VERSION: ("http_version", "This server speaks HTTP/1.1 and WebSocket."),
}


def _malformed(exc: BadHttp) -> HttpError:
    code, message = _CODES.get(exc.status) or ("invalid_request", f"This is not an HTTP/1.1 request: {exc.reason}.")
    return HttpError(exc.status, code, message, close=True)


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()


def encode_head(status: int, headers: Iterable[tuple[str, str]], *, close: bool, length: int | None) -> bytes:
    """Return the status line and fields. Without ``length`` the body is chunked or, with ``close``, ends with the
    connection. For a status without a body, there is neither a length nor chunks.
    """
    lines = [_STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode(), _date(int(time()))]
    lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers]
    if status in BODILESS:
        pass
    elif length is not None:
        lines.append(b"content-length: %d\r\n" % length)
    elif not close:
        lines.append(b"transfer-encoding: chunked\r\n")
    lines.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    return b"".join(lines)


def encode_response(response: WireResponse, extra: Iterable[tuple[str, str]], *, close: bool, bare: bool) -> bytes:
    """A complete response with the ``extra`` fields. ``close``: the head says that the connection ends after it.
    ``bare`` omits the body, as for HEAD.
    """
    head = encode_head(response.status, (*response.headers, *extra), close=close, length=len(response.body))
    return head if bare else head + response.body
