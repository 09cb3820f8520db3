"""HTTP/1.1 without I/O: bytes to requests, answers to bytes.

h11 reads all but the plainest requests (see ``head``) because reading what strangers send is where the traps are.
Writing has none here: a status, a few fields, and a body or chunks; done by hand it costs a tenth. So that h11 need not
be told of answers it did not write, each request that it reads gets a fresh h11 connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import final

import h11

from llm_protocol.dialect import WireResponse
from llm_runtime.config.server import ServerLimits
from llm_runtime.server.fast_head import FastHead, plain_head
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.limits import CHUNKS_AT_ONCE, HEAD_BYTES

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

DEFAULT_BODY_BYTES = ServerLimits().max_body_bytes

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_VERSIONS = (b"1.1", b"1.0")


@final
class Request:
    """One request. Header names are in lower case; repeated fields are joined by commas. ``length`` is that of the
    body as far as the head says it; ``body`` and ``keep_alive`` are filled in when the request is whole.
    """

    __slots__ = ("body", "headers", "keep_alive", "length", "method", "path", "query", "target", "version")

    def __init__(self, head: FastHead, *, version: bytes = b"1.1") -> None:
        self.method, self.target, self.headers, self.length = head
        self.path, _, self.query = self.target.partition("?")
        self.version = version
        self.body = b""
        self.keep_alive = True

    @property
    def wants_upgrade(self) -> bool:
        """Whether the client wants to go on as a WebSocket."""
        return self.headers.get("upgrade", "").strip().lower() == "websocket"


@final
class RequestParser:
    """Feed it bytes; ask for the head of the next request, then for all of it. A body of more than ``max_body`` bytes
    is refused.
    """

    __slots__ = ("_max_body", "_other", "_request", "_unread", "received")

    def __init__(self, max_body: int = DEFAULT_BODY_BYTES) -> None:
        self._max_body = max_body
        self._unread = bytearray()
        self._request: Request | None = None
        self._other: _AnyRequest | None = None
        self.received = 0
        """Bytes of the request that is being read."""

    @property
    def in_body(self) -> bool:
        """Whether a head is complete and its body is not."""
        return self._request is not None

    @property
    def body_bytes(self) -> int:
        """How much of the body is here."""
        if self._request is None:
            return 0
        return min(len(self._unread), self._request.length) if self._other is None else self._other.body_bytes

    @property
    def awaits_continue(self) -> bool:
        """Whether the client sends the body only after it was told to go on."""
        return self._other is not None and self._other.awaits_continue

    @property
    def is_busy(self) -> bool:
        """Whether `next` stopped though there is more to read, so that one call takes no longer than it should."""
        return self._other is not None and self._other.is_busy

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

    def discard(self) -> None:
        """Free what was read. The parser is of no use afterwards."""
        self._unread.clear()
        self._request = self._other = None

    def next_head(self) -> Request | None:
        """The next request when its head is here, its body still unread. Raises `HttpError`, after which the connection
        cannot be read on.
        """
        if self._request is None and self._other is None and self._unread:
            self._begin()
        if self._request is None and self._other is not None:
            self._request = self._other.read_head()
        return self._request

    def next(self) -> Request | None:
        """The next request if it is complete. Raises `HttpError` as `next_head` does, and for a body over the limit."""
        request = self.next_head()
        if request is None or not self._read_body(request):
            return None
        self._request = self._other = None
        self.received = len(self._unread)
        return request

    def _begin(self) -> None:
        found = plain_head(self._unread, HEAD_BYTES)
        if found is None:
            self._other = _AnyRequest()
            self._other.feed(bytes(self._unread))
            self._unread.clear()
        else:
            head, size = found
            self._request = Request(head)
            del self._unread[:size]

    def _read_body(self, request: Request) -> bool:
        if request.length > self._max_body:
            raise _body_too_large(self._max_body)
        if self._other is not None:
            if not self._other.read_body(request, self._max_body):
                return False
            self._unread += self._other.left_over()
            return True
        if len(self._unread) < request.length:
            return False
        request.body = bytes(self._unread[: request.length])
        del self._unread[: request.length]
        return True


@final
class _AnyRequest:
    """One request of any form, read by h11."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._body = bytearray()
        self._raw_head: bytearray | None = bytearray()
        self.is_busy = False

    @property
    def body_bytes(self) -> int:
        return len(self._body)

    @property
    def awaits_continue(self) -> bool:
        return self._h11.they_are_waiting_for_100_continue

    def feed(self, data: bytes) -> None:
        if self._raw_head is not None and len(self._raw_head) < HEAD_BYTES:
            self._raw_head += data[:HEAD_BYTES]
        self._h11.receive_data(data)

    def left_over(self) -> bytes:
        return bytes(self._h11.trailing_data[0])

    def read_head(self) -> Request | None:
        event = self._next_event()
        if not isinstance(event, h11.Request):
            return None
        assert self._raw_head is not None
        _check_head(event, bytes(self._raw_head))
        self._raw_head = None
        return _request(event)

    def read_body(self, request: Request, limit: int) -> bool:
        """Whether the body is here to its end. A client may send chunks of one byte, and to read thousands of them
        takes long enough that others would notice: after `CHUNKS_AT_ONCE`, `is_busy` is set and the rest is for the
        next call.
        """
        for _ in range(CHUNKS_AT_ONCE):
            event = self._next_event()
            if isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > limit:
                    raise _body_too_large(limit)
            elif isinstance(event, h11.EndOfMessage):
                request.body = bytes(self._body)
                request.keep_alive = self._h11.their_state is not h11.MUST_CLOSE
                return True
            else:
                self.is_busy = False
                return False
        self.is_busy = True
        return False

    def _next_event(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as exc:
            raise _malformed(exc) from None


def _check_head(head: h11.Request, raw: bytes) -> None:
    """Refuse heads that h11 accepts and another server might read differently: a request could be smuggled past it."""
    end = raw.find(b"\r\n\r\n")
    lines = (raw if end < 0 else raw[:end]).split(b"\r\n")
    if any(b"\n" in line for line in lines):
        raise _invalid("A line of the head does not end in CR LF.")
    if end < 0 or end + 4 > HEAD_BYTES:  # of what comes at once, h11 takes any length
        raise _head_too_large()
    if _CONTROL.search(raw, 0, end):
        raise _invalid("The head has control characters.")
    if any(line[:1] in (b" ", b"\t") for line in lines):
        raise _invalid("A header field continues on a second line.")
    if head.http_version not in _VERSIONS:
        raise HttpError(505, "http_version", "This server speaks HTTP/1.1 and WebSocket.", close=True)
    if not head.target.startswith(b"/"):
        raise _invalid("The request target must be a path.")
    names = [name for name, _ in head.headers]
    if b"transfer-encoding" in names:
        if b"content-length" in names:  # RFC 9112, 6.1: one of the two is a lie, and so may be what follows the body
            raise _invalid("The request has both Content-Length and Transfer-Encoding.")
        if head.http_version == b"1.0":
            raise _invalid("HTTP/1.0 has no Transfer-Encoding.")


def _request(head: h11.Request) -> Request:
    headers: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    length = int(headers.get("content-length", "0"))
    found = FastHead(head.method.decode("ascii"), head.target.decode("ascii"), headers, length)
    return Request(found, version=head.http_version)


def _body_too_large(limit: int) -> HttpError:
    return HttpError(413, "body_too_large", f"The body is larger than {limit} bytes.", close=True)


def _invalid(message: str) -> HttpError:
    return HttpError(400, "invalid_request", message, close=True)


def _malformed(exc: h11.RemoteProtocolError) -> HttpError:
    status = exc.error_status_hint
    if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        return _head_too_large()
    return HttpError(status, "invalid_request", "This is not an HTTP/1.1 request.", close=True)


def _head_too_large() -> HttpError:
    return HttpError(431, "headers_too_large", f"The head is larger than {HEAD_BYTES} bytes.", close=True)


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
