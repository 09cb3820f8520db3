"""A request and its origin, and the one place where a request is encoded as bytes.

Text that could end a line early or is ambiguous is refused before a byte is sent. Framing belongs to the transport: a
caller cannot set the headers that say where a message ends.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from llm_actors.transport.errors import RequestRefused
from llm_protocol.http1 import FRAMING_HEADERS

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
