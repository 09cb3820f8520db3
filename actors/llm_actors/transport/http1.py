"""HTTP/1.1 without I/O: a request, its origin and its encoding as bytes, and the parsing of a response.

Text that could end a line early or is ambiguous is refused before a byte is sent. Framing belongs to the transport: a
caller cannot set the headers that say where a message ends.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, final
from urllib.parse import urlsplit

from llm_actors.transport.errors import RequestRefused
from llm_protocol.http1 import (
    FRAMING_HEADERS,
    BadHttp,
    ChunkedBody,
    ResponseHead,
    body_length,
    find_head,
    is_kept_alive,
    read_response_head,
    whole_chunks,
)

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_TARGET: Final = re.compile(r"/[\x21\x22\x24-\x7e]*")
_HOST: Final = re.compile(r"[0-9A-Za-z._-]+|[0-9A-Fa-f:.]+")


class Origin(NamedTuple):
    """Scheme, host and port: the destination of a connection. A connection may be reused only for the same origin."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str) -> tuple[Origin, str]:
    """Split ``https://host[:port][/base]`` into its origin and its base path (without a slash at the end).

    Raises `ValueError`, with a message that says what is right, for any other scheme, for credentials, a query, a
    fragment, or a host that is not ASCII.
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("a base URL must start with https:// or http://")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("a base URL must not have credentials, a query or a fragment")
    host = parts.hostname or ""
    if not _HOST.fullmatch(host):
        raise ValueError("a base URL must have a host in ASCII, such as https://api.example.com/v1")
    base = parts.path.rstrip("/")
    if base and not _TARGET.fullmatch(base):
        raise ValueError("the path of a base URL must be percent-encoded ASCII")
    return Origin(parts.scheme, host, parts.port or DEFAULT_PORTS[parts.scheme]), base


class StreamedBody(NamedTuple):
    """A body that is sent piece by piece. ``receive`` returns the next piece, ``b""`` at the end; it may raise
    anything but ``errors.WIRE_ERRORS``. ``length`` is its size in bytes; ``None``: it is sent in chunks.
    """

    receive: Callable[[], Awaitable[bytes]]
    length: int | None = None


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. ``target`` is the path with its query, as sent on the wire. ``any_encoding``: the response is
    passed on unchanged, so its body may be compressed although that was not requested.

    Its repr shows neither header values, nor the query, nor the body, which may contain keys and prompts.
    """

    method: str
    origin: Origin
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | StreamedBody = b""
    any_encoding: bool = False

    def __repr__(self) -> str:
        path = self.target.partition("?")[0]
        size = self.body.length if isinstance(self.body, StreamedBody) else len(self.body)
        return f"<HttpRequest {self.method} {self.origin}{path} {'?' if size is None else size} B>"


def encode(request: HttpRequest, *, absolute: bool = False, proxy_authorization: str | None = None) -> bytes:
    """Return head and body as one piece, for one write; for a streamed body only the head. For a proxy that forwards
    the request: ``absolute`` writes the target as a complete URL, and ``proxy_authorization`` is the value of that
    header.

    Raises :class:`RequestRefused` for anything that HTTP/1.1 cannot express, and for a header that only the transport
    may set.
    """
    origin = request.origin
    if not _TOKEN.fullmatch(request.method):
        raise RequestRefused(origin, "the HTTP method has characters that HTTP does not allow in it")
    if not _TARGET.fullmatch(request.target):
        raise RequestRefused(origin, "the path of the request is not percent-encoded ASCII")
    target = f"{origin}{request.target}" if absolute else request.target
    lines = [f"{request.method} {target} HTTP/1.1\r\nhost: {origin.authority}\r\naccept-encoding: identity\r\n"]
    if proxy_authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy_authorization}\r\n")
    for name, value in request.headers.items():
        if not _TOKEN.fullmatch(name):
            raise RequestRefused(origin, "the name of a header has characters that HTTP does not allow in it")
        if name.lower() in FRAMING_HEADERS:
            raise RequestRefused(origin, f"the header {name} is set by the runtime; omit it")
        if not _VALUE.fullmatch(value):
            raise RequestRefused(origin, f"the header {name} has a character that is not printable ASCII")
        lines.append(f"{name}: {value}\r\n")
    body = request.body
    if isinstance(body, StreamedBody):
        chunked = body.length is None
        lines.append("transfer-encoding: chunked\r\n" if chunked else f"content-length: {body.length}\r\n")
    elif body or request.method != "GET":  # RFC 9110, 8.6: a GET without a body says nothing of its length
        lines.append(f"content-length: {len(body)}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("ascii") + (b"" if isinstance(body, StreamedBody) else body)


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
