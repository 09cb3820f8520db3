"""HTTP/1.1 without I/O: bytes to requests, answers to bytes.

h11 reads all but the plainest requests (see ``head``) because reading what strangers send is where the traps are.
Writing has none here: a status, a few fields, and a body or chunks; done by hand it costs a tenth. So that h11 need not
be told of answers it did not write, each request that it reads gets a fresh h11 connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import final

import h11

from llm_protocol.dialect import WireResponse
from llm_runtime.door.head import Head, plain_head
from llm_runtime.door.limits import BODY_BYTES, HEAD_BYTES
from llm_runtime.door.refusal import Refused

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_VERSIONS = (b"1.1", b"1.0")


@final
class Request:
    """One request, whole. Header names are in lower case; repeated fields are joined by commas."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "query", "target", "version")

    def __init__(self, head: Head, body: bytes, *, version: bytes = b"1.1", keep_alive: bool = True) -> None:
        self.method, self.target, self.headers, _ = head
        self.path, _, self.query = self.target.partition("?")
        self.version = version
        self.body = body
        self.keep_alive = keep_alive

    @property
    def wants_upgrade(self) -> bool:
        """Whether the client wants to go on as a WebSocket."""
        return self.headers.get("upgrade", "").strip().lower() == "websocket"


@final
class RequestParser:
    """Feed it bytes; ask for the next request."""

    __slots__ = ("_head", "_other", "_unread", "received")

    def __init__(self) -> None:
        self._unread = bytearray()
        self._head: Head | None = None
        self._other: _AnyRequest | None = None
        self.received = 0
        """Bytes of the request that is being read."""

    @property
    def in_body(self) -> bool:
        """Whether a head is complete and its body is not."""
        return self._head is not None or (self._other is not None and self._other.in_body)

    @property
    def awaits_continue(self) -> bool:
        """Whether the client sends the body only after it was told to go on."""
        return self._other is not None and self._other.awaits_continue

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self.received += len(data)
        if self._other is None:
            self._unread += data
        else:
            self._other.feed(data)

    def left_over(self) -> bytes:
        """What came after the last request."""
        return bytes(self._unread)

    def next(self) -> Request | None:
        """The next request if it is whole. Raises `Refused`, after which the connection cannot be read on."""
        if self._other is None and self._head is None and self._unread:
            self._begin()
        request = self._next_plain() if self._other is None else self._next_other(self._other)
        if request is not None:
            self._head = self._other = None
            self.received = len(self._unread)
        return request

    def _begin(self) -> None:
        found = plain_head(self._unread, HEAD_BYTES)
        if found is None:
            self._other = _AnyRequest()
            self._other.feed(bytes(self._unread))
            self._unread.clear()
        else:
            self._head, size = found
            _check_size(self._head.length)
            del self._unread[:size]

    def _next_plain(self) -> Request | None:
        if self._head is None or len(self._unread) < self._head.length:
            return None
        body = bytes(self._unread[: self._head.length])
        del self._unread[: self._head.length]
        return Request(self._head, body)

    def _next_other(self, reading: _AnyRequest) -> Request | None:
        request = reading.next()
        if request is not None:
            self._unread += reading.left_over()
        return request


@final
class _AnyRequest:
    """One request of any form, read by h11."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._raw_head = bytearray()

    @property
    def in_body(self) -> bool:
        return self._head is not None

    @property
    def awaits_continue(self) -> bool:
        return self._h11.they_are_waiting_for_100_continue

    def feed(self, data: bytes) -> None:
        if self._head is None and len(self._raw_head) < HEAD_BYTES:
            self._raw_head += data[:HEAD_BYTES]
        self._h11.receive_data(data)

    def left_over(self) -> bytes:
        return bytes(self._h11.trailing_data[0])

    def next(self) -> Request | None:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as exc:
                raise _malformed(exc) from None
            if isinstance(event, h11.Request):
                self._take_head(event)
            elif isinstance(event, h11.Data):
                self._body += event.data
                _check_size(len(self._body))
            elif isinstance(event, h11.EndOfMessage):
                return self._request()
            else:
                return None

    def _take_head(self, head: h11.Request) -> None:
        end = self._raw_head.find(b"\r\n\r\n")
        # h11 forgives a bare LF; a proxy before us may not see a line's end there, and then we would not agree.
        if b"\n" in (self._raw_head if end < 0 else self._raw_head[:end]).replace(b"\r\n", b""):
            raise Refused(400, "invalid_request", "A line of the head does not end in CR LF.", close=True)
        if end < 0 or end + 4 > HEAD_BYTES:  # of what comes at once, h11 takes any length
            raise _head_too_large()
        if head.http_version not in _VERSIONS:
            raise Refused(505, "http_version", "This server speaks HTTP/1.1 and WebSocket.", close=True)
        if not head.target.startswith(b"/"):
            raise Refused(400, "invalid_request", "The request target must be a path.", close=True)
        for name, value in head.headers:
            if name == b"content-length":
                _check_size(int(value))
        self._head = head
        self._raw_head.clear()

    def _request(self) -> Request:
        assert self._head is not None
        headers: dict[str, str] = {}
        for name, value in self._head.headers:
            key, text = name.decode("ascii"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        head = Head(self._head.method.decode("ascii"), self._head.target.decode("ascii"), headers, len(self._body))
        keep_alive = self._h11.their_state is not h11.MUST_CLOSE
        return Request(head, bytes(self._body), version=self._head.http_version, keep_alive=keep_alive)


def _check_size(size: int) -> None:
    if size > BODY_BYTES:
        message = f"The body is larger than {BODY_BYTES} bytes."
        raise Refused(413, "body_too_large", message, close=True)


def _malformed(exc: h11.RemoteProtocolError) -> Refused:
    status = exc.error_status_hint
    if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        return _head_too_large()
    return Refused(status, "invalid_request", "This is not an HTTP/1.1 request.", close=True)


def _head_too_large() -> Refused:
    return Refused(431, "headers_too_large", f"The head is larger than {HEAD_BYTES} bytes.", close=True)


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()


def encode_head(status: int, headers: Iterable[tuple[str, str]], *, close: bool, length: int | None) -> bytes:
    """Status line and fields. Without ``length`` the body is chunked, or with ``close`` lasts until the end."""
    lines = [_STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode(), _date(int(time()))]
    lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers]
    if length is not None:
        lines.append(b"content-length: %d\r\n" % length)
    elif not close:
        lines.append(b"transfer-encoding: chunked\r\n")
    lines.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    return b"".join(lines)


def encode_response(response: WireResponse, extra: Iterable[tuple[str, str]], *, close: bool, bare: bool) -> bytes:
    """A whole answer with the ``extra`` fields; ``bare`` leaves the body away, as HEAD wants it."""
    head = encode_head(response.status, (*response.headers, *extra), close=close, length=len(response.body))
    return head if bare else head + response.body


def encode_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
