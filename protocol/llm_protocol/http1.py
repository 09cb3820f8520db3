"""HTTP/1.1 without I/O (RFC 9112): heads and chunks. The server, the client and the fake provider share this code.

Parsing is strict: whatever is ambiguous is refused, because an attacker may rely on another interpretation. A common
head is recognised by one regular expression, at a tenth of the cost of h11. Any other head is parsed line by line,
which gives the reason for a refusal. The tests compare both ways with h11.

Nothing here buffers: callers own the `bytearray` that collects the peer's bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, final

HEAD_BYTES: Final = 64 * 1024
"""The default size limit of a head, and of the trailer of a chunked body, in bytes."""

CHUNK_LINE_BYTES: Final = 4096
"""The size limit, in bytes, of the line before a chunk: its size and extensions."""

FRAMING_HEADERS: Final = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Fields that only the transport may set, because they decide where a message ends and where it goes."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELD = re.compile(rf"({_TOKEN}):[ \t]*((?:[^\0\n\r\x0b\x0c]*[^\0\s])?)[ \t]*")
_FIELDS = rf"(?:\r\n{_TOKEN}:[\t -~\x80-\xff]*)*"
_COMMON_REQUEST = re.compile(rf"[A-Z]+ /[!-~]* HTTP/1\.1{_FIELDS}")
_COMMON_RESPONSE = re.compile(rf"HTTP/1\.1 [2-9][0-9][0-9](?: [\t -~\x80-\xff]*)?{_FIELDS}")
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_STATUS_LINE = re.compile(r"HTTP/([0-9])\.([0-9]) ([0-9]{3})(?: [^\0\n\r\x0b\x0c]*)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LENGTH = re.compile(r"[0-9]{1,20}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\0\r\n]*|[ \t]*)\r\n")
_WHOLE_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_LINE_END = re.compile(r"\r?\n")

LAST_CHUNK: Final = b"0\r\n\r\n"
"""The end of a chunked body without a trailer."""

_BAD_CHUNK = "illegal chunk header"

NOT_HTTP: Final = 400
HEAD_TOO_LARGE: Final = 431
NOT_IMPLEMENTED: Final = 501
VERSION: Final = 505


class BadHttp(Exception):  # noqa: N818  (the peer's fault, reported by the reader)
    """The peer's bytes are not unambiguous HTTP/1.1, or exceed a limit.

    ``reason`` is a constant phrase that quotes none of the peer's bytes. ``status`` is the HTTP status with which a
    server responds.
    """

    def __init__(self, reason: str, status: int = NOT_HTTP) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class RequestHead(NamedTuple):
    """Request line and fields. Names are in lower case, values of a repeated field joined by commas."""

    method: str
    target: str
    version: str
    headers: dict[str, str]


class ResponseHead(NamedTuple):
    """Status line and fields, as in `RequestHead`."""

    status: int
    version: str
    headers: dict[str, str]


def find_head(data: bytearray, start: int = 0, limit: int = HEAD_BYTES) -> int:
    """Return the length of the head at the start of ``data``, including its blank line; 0 if it is incomplete.

    ``start``: how much of ``data`` was searched before. Raises `BadHttp` for a head over ``limit`` bytes, and for bytes
    that cannot begin a head, so that no reader waits for the rest of them.
    """
    if data and data[0] <= 0x20:
        raise BadHttp("the message begins with white space or a control character")
    start = max(0, start - 2)
    usual, short = data.find(b"\n\r\n", start, limit), data.find(b"\n\n", start, limit)
    if usual >= 0 and not 0 <= short < usual:
        return usual + 3
    if short >= 0:
        return short + 2
    if len(data) >= limit:
        raise BadHttp(f"the head has more than {limit} bytes", HEAD_TOO_LARGE)
    return 0


def read_request_head(raw: bytes | bytearray) -> RequestHead:
    """Parse a whole head. Parsing is strict, because a proxy in front must have understood the head in the same way.
    Raises `BadHttp`.
    """
    text = raw.decode("latin-1")
    if _COMMON_REQUEST.fullmatch(text, 0, len(text) - 4) and text.endswith("\r\n\r\n"):
        line, *lines = text[:-4].split("\r\n")
        method, target, _ = line.split(" ")
        head = RequestHead(method, target, "1.1", _common_fields(lines))
    else:
        head = _read_any_request_head(text)
    if head.version == "1.1" and "host" not in head.headers:
        raise BadHttp("the Host field is missing")
    if "," in head.headers.get("host", ""):
        raise BadHttp("there is more than one Host field")
    return head


def read_response_head(raw: bytes | bytearray) -> ResponseHead:
    """Read a complete head, which may be an interim one (1xx). As RFC 9112 requires of clients, lines may end in LF
    alone and may be folded. Raises `BadHttp`.
    """
    text = raw.decode("latin-1")
    if _COMMON_RESPONSE.fullmatch(text, 0, len(text) - 4) and text.endswith("\r\n\r\n"):
        line, *lines = text[:-4].split("\r\n")
        return ResponseHead(int(line[9:12]), "1.1", _common_fields(lines))
    line, *lines = _LINE_END.split(text)[:-2]
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise BadHttp("illegal status line")
    major, minor, status = found.groups()
    if major not in "01" or (major, minor) == ("0", "9"):
        raise BadHttp("not HTTP/1.1")
    return ResponseHead(int(status), f"{major}.{minor}", _read_fields(_unfold(lines)))


def body_length(headers: Mapping[str, str], version: str) -> int | None:
    """Return the length of the body by Content-Length; -1 if it is chunked; ``None`` if neither is given.

    Raises `BadHttp` for ambiguous heads: both fields, lengths that differ, an unknown transfer encoding.
    """
    encoding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if encoding is None and length is None:
        return None
    if encoding is not None:
        if encoding.lower() != "chunked":
            raise BadHttp("a transfer encoding other than chunked", NOT_IMPLEMENTED)
        if length is not None:  # RFC 9112, 6.1: this may be request smuggling
            raise BadHttp("both Content-Length and Transfer-Encoding")
        if version != "1.1":
            raise BadHttp("Transfer-Encoding in HTTP/1.0")
        return -1
    assert length is not None
    if _LENGTH.fullmatch(length):
        return int(length)
    lengths = {value.strip(" \t") for value in length.split(",")}
    if len(lengths) > 1:
        raise BadHttp("conflicting Content-Length fields")
    (length,) = lengths
    if not _LENGTH.fullmatch(length):
        raise BadHttp("bad Content-Length")
    return int(length)


def is_kept_alive(headers: Mapping[str, str], version: str) -> bool:
    """Whether the sender of this head allows the connection to be reused."""
    connection = headers.get("connection")
    if connection is None or version != "1.1":
        return version == "1.1"
    return "close" not in (option.strip(" \t") for option in connection.lower().split(","))


@final
class ChunkedBody:
    """Takes the content of a chunked body out of a buffer, up to the end of the body."""

    __slots__ = ("_in_trailer", "_left", "_trailer", "ended")

    def __init__(self) -> None:
        self._left = 0
        """Bytes of the chunk that are still missing, its line end included; 0 between two chunks."""
        self._in_trailer = False
        self._trailer = 0
        self.ended = False

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte is the first of a chunk's line."""
        return not (self._left or self._in_trailer or self.ended)

    def read(self, buffer: bytearray, most: int = HEAD_BYTES) -> list[bytes]:
        """The pieces of content at the beginning of ``buffer``, of at most ``most`` chunks; they are removed from it.

        Raises `BadHttp` if no chunk follows. What precedes the error is returned first, and the next call raises.
        """
        parts: list[bytes] = []
        at = 0
        try:
            while not self.ended and len(parts) < most and (size := self._read_piece(buffer, at, parts)):
                at += size
        except BadHttp:
            if not parts:
                raise
        del buffer[:at]
        return parts

    def _read_piece(self, buffer: bytearray, at: int, parts: list[bytes]) -> int:
        """Read a line, some content or a chunk's line end. Returns the number of bytes read; 0 if there are too few."""
        if self._left == 0:
            return self._read_line(buffer, at)
        size = min(self._left - 2, len(buffer) - at)
        if size > 0:
            with memoryview(buffer) as view:
                parts.append(bytes(view[at : at + size]))
        elif self._left <= 2:
            end = bytes(buffer[at : at + self._left])
            if not b"\r\n"[2 - self._left :].startswith(end):
                raise BadHttp("malformed chunk footer")
            size = len(end)
        self._left -= size
        return size

    def _read_line(self, buffer: bytearray, at: int) -> int:
        """Read the line of a chunk or of the trailer. Returns the number of bytes read; 0 while the line is
        incomplete.
        """
        limit = HEAD_BYTES - self._trailer if self._in_trailer else CHUNK_LINE_BYTES
        end = buffer.find(b"\n", at, at + limit) + 1
        if not end:
            if len(buffer) - at >= limit:
                raise BadHttp("the trailer is too large", HEAD_TOO_LARGE) if self._in_trailer else BadHttp(_BAD_CHUNK)
            return 0
        line = bytes(buffer[at:end])
        if self._in_trailer:
            self._trailer += len(line)
            self.ended = line == b"\r\n"
            if not self.ended and not (line.endswith(b"\r\n") and _FIELD.fullmatch(line[:-2].decode("latin-1"))):
                raise BadHttp("illegal trailer")
            return len(line)
        found = _CHUNK_LINE.fullmatch(line)
        if found is None:
            raise BadHttp(_BAD_CHUNK)
        size = int(found[1], 16)
        self._in_trailer = size == 0
        self._left = size + 2 if size else 0
        return len(line)


def whole_chunks(data: bytes) -> bytes | None:
    """Return the content of ``data`` if it consists of complete chunks without extensions, none of them the last
    chunk (size 0); else ``None``. This is the common case of a stream, and needs no copy into a buffer.
    """
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        head = _WHOLE_CHUNK.match(data, at)
        if head is None:
            return None
        begin = head.end()
        at = begin + int(head[1], 16)
        if at == begin or data[at : at + 2] != b"\r\n":
            return None
        parts.append(data[begin:at])
        at += 2
    return parts[0] if len(parts) == 1 else b"".join(parts)


def encode_chunk(data: bytes) -> bytes:
    """Return ``data`` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _common_fields(lines: list[str]) -> dict[str, str]:
    return _joined([(name, value.strip(" \t")) for name, _, value in [line.partition(":") for line in lines]])


def _read_fields(lines: list[str]) -> dict[str, str]:
    fields: list[tuple[str, str]] = []
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise BadHttp("illegal header line")
        fields.append((found[1], found[2]))
    return _joined(fields)


def _joined(fields: list[tuple[str, str]]) -> dict[str, str]:
    """The fields by their names in lower case. The values of a repeated field are joined by commas."""
    headers: dict[str, str] = {}
    for name, value in fields:
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _unfold(lines: list[str]) -> list[str]:
    """Join continuation lines to the fields they belong to."""
    whole: list[str] = []
    for line in lines:
        if line[:1] not in (" ", "\t"):
            whole.append(line)
        elif whole:
            whole[-1] += " " + line.lstrip(" \t")
        else:
            raise BadHttp("continuation line at start of headers")
    return whole


def _read_any_request_head(text: str) -> RequestHead:
    lines = text.split("\r\n")
    if any("\n" in line for line in lines):
        raise BadHttp("a line of the head does not end in CR LF")
    line, *fields = lines[:-2]
    if _CONTROL.search(text):
        raise BadHttp("the head has control characters")
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise BadHttp("illegal request line")
    method, target, major, minor = found.groups()
    if (major, minor) not in (("1", "1"), ("1", "0")):
        raise BadHttp("an HTTP version other than 1.1 and 1.0", VERSION)
    if any(field[:1] in (" ", "\t") for field in fields):
        raise BadHttp("a header field continues on a second line")
    if not target.startswith("/"):
        raise BadHttp("the request target is not a path")
    return RequestHead(method, target, f"{major}.{minor}", _read_fields(fields))
