"""The response as its reader sees it: status, headers, and the body piece by piece or whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

import trio

from llm_actors.threads import run_large
from llm_actors.transport.errors import BodyTooLarge, UnsupportedEncoding
from llm_actors.transport.http1 import Origin

MAX_BODY_BYTES: Final = 64 * 1024 * 1024  # for read(): a page of images in base64 fits

_ENCODINGS: Final = frozenset(("gzip", "br", "deflate", "zstd", "compress"))

JOIN_FACTOR: Final = 16  # joining bytes is so much faster than decoding them


class Headers(Mapping[str, str]):
    """Case-insensitive header fields. Values of a repeated field are joined by a comma. The repr shows names only."""

    __slots__ = ("_values", "fields")

    def __init__(self, values: Mapping[str, str]) -> None:
        """``values`` contains the fields under their names in lower case."""
        self._values = values
        self.fields = tuple(values.items())

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self)}>"


class HttpResponse:
    """A response whose head has arrived. It can be read until the end of the block of `Transport.send` that returned
    it. After that, ``receive`` raises `trio.ClosedResourceError`.
    """

    __slots__ = ("headers", "origin", "receive", "resent", "status")

    def __init__(self, status: int, headers: Headers, origin: Origin, receive: Callable[[], Awaitable[bytes]]) -> None:
        """``receive`` is the connection's own method, so that no further layer lies between a chunk and its reader."""
        self.status = status
        self.headers = headers
        self.resent = False
        """Whether the request was sent a second time, because a reused connection had been closed before the
        response.
        """
        self.origin = origin
        self.receive = receive

    def end(self) -> None:
        """Make further reads fail, because the connection's next bytes belong to another response."""
        self.receive = _ended

    async def read(self, limit: int = MAX_BODY_BYTES, *, cut: bool = False) -> bytes:
        """Return the rest of the body. A body of more than ``limit`` bytes raises :class:`BodyTooLarge`, or with
        ``cut`` is cut off after ``limit`` bytes. Raises the exceptions of ``receive``.
        """
        declared = None if cut else self.headers.get("content-length")
        if declared is not None and _is_number_above(declared, limit):
            raise BodyTooLarge(self.origin, f"the response's body has more than {limit} bytes")
        parts: list[bytes] = []
        size = 0
        while part := await self.receive():
            size += len(part)
            if size > limit and cut:
                parts.append(part[: len(part) - (size - limit)])
                break
            if size > limit:
                raise BodyTooLarge(self.origin, f"the response's body has more than {limit} bytes")
            parts.append(part)
        if len(parts) == 1:
            return parts[0]
        return await run_large(size // JOIN_FACTOR, b"".join, parts)

    def __repr__(self) -> str:
        return f"<Response {self.status} from {self.origin}>"


def refuse_encodings(origin: Origin, status: int, encodings: str) -> None:
    """Raise `UnsupportedEncoding` for a body in any other encoding than ``identity``."""
    for encoding in encodings.lower().split(","):
        name = encoding.strip(" \t")
        if name not in ("", "identity"):
            shown = name if name in _ENCODINGS else "unknown"
            reason = f"the response ({status}) is compressed ({shown}) though only identity was accepted"
            raise UnsupportedEncoding(origin, reason, status=status)


def _is_number_above(text: str, limit: int) -> bool:
    """Whether ``text`` is a whole number above ``limit``. It may have any length, unlike an argument of ``int``."""
    digits = text.lstrip("0")
    return text.isascii() and text.isdecimal() and (len(digits) > 18 or int(digits or 0) > limit)


async def _ended() -> bytes:
    raise trio.ClosedResourceError("the response cannot be read after the end of its async with block")
