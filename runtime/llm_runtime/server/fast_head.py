"""The head of a request in its common form, which can be read in one way only. For everything else there is h11.

Common is: it came whole, and has a Host, no field twice, and at most a Content-Length to say where the body ends. To
read that takes a tenth of what h11 takes, and a connection that waits holds no parser.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PLAIN = re.compile(r"[A-Z]+ /[!-~]* HTTP/1\.1(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*)+")
_LENGTH = re.compile(r"[0-9]{1,9}")
_NOT_PLAIN = frozenset(("expect", "transfer-encoding", "upgrade"))


class FastHead(NamedTuple):
    """Request line and fields. Names are in lower case; ``length`` is that of the body."""

    method: str
    target: str
    headers: dict[str, str]
    length: int


def plain_head(data: bytes | bytearray, limit: int) -> tuple[FastHead, int] | None:
    """The head that ``data`` begins with, if it is a common one, and its bytes, which are at most ``limit``."""
    end = data.find(b"\r\n\r\n", 0, limit)
    text = data[: max(end, 0)].decode("latin-1")
    if not _PLAIN.fullmatch(text):
        return None
    line, *fields = text.split("\r\n")
    headers = {}
    for field in fields:
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip(" \t")
    length = headers.get("content-length", "0")
    if (
        len(headers) < len(fields)
        or "host" not in headers
        or not _NOT_PLAIN.isdisjoint(headers)
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
        or not _LENGTH.fullmatch(length)
    ):
        return None
    method, target, _ = line.split(" ")
    return FastHead(method, target, headers, int(length)), end + 4
