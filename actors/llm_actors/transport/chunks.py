"""The common case of a chunked body: what arrives is whole chunks. For everything else there is h11."""

from __future__ import annotations

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")


def whole_chunks(data: bytes) -> bytes | None:
    """The content of ``data`` if that is nothing but whole chunks; ``None`` otherwise.

    The last chunk, of size 0, is not one of those, nor is one with an extension.
    """
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        head = _SIZE.match(data, at)
        if head is None:
            return None
        begin = head.end()
        at = begin + int(head[1], 16)
        if at == begin or data[at : at + 2] != b"\r\n":
            return None
        parts.append(data[begin:at])
        at += 2
    return parts[0] if len(parts) == 1 else b"".join(parts)
