"""Decompress request bodies (gzip, deflate, zstd). The size limit of a body applies after decompression, too."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

if sys.version_info >= (3, 14):  # imported here, because a request may find no free file descriptor for an import
    from compression import zstd
else:
    from backports import zstd

from llm_runtime.server.http_error import HttpError, body_too_large
from llm_runtime.server.limits import CONTENT_ENCODINGS, CONTENT_MEMBERS, ZSTD_WINDOW_BYTES

_SLICE_BYTES = 64 * 1024


class _Decompressor(Protocol):
    """The interface that the zlib and zstd decompressors share."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def decoded(body: bytes, encodings: str, limit: int) -> bytes:
    """Undo ``encodings``, starting with the last. Never produces more than ``limit`` bytes. Raises `HttpError`."""
    names = [name for each in encodings.split(",") if (name := each.strip().lower()) not in ("", "identity")]
    if len(names) > CONTENT_ENCODINGS:
        raise _unknown(encodings)
    for name in reversed(names):
        body = _inflated(body, _DECODERS.get(name) or _refuse(encodings), limit)
    return body


def _inflated(body: bytes, start: Callable[[bytes], _Decompressor], limit: int) -> bytes:
    try:
        found = _members(body, start, limit)
    except HttpError:
        raise
    except Exception as exc:  # zlib and zstd raise different exceptions
        raise _broken(str(exc)) from None
    if found is None:
        raise _broken("it is truncated")
    if len(found) > limit:
        raise body_too_large(limit)
    return bytes(found)


def _members(body: bytes, start: Callable[[bytes], _Decompressor], limit: int) -> bytearray | None:
    """Return the content of all members of ``body``, cut off one byte above ``limit``; ``None`` if the last member is
    truncated. Raises `HttpError` for more than `CONTENT_MEMBERS`.
    """
    found = bytearray()
    at = members = 0
    while at < len(body) and len(found) <= limit:
        if members == CONTENT_MEMBERS:
            raise _broken(f"it has more than {CONTENT_MEMBERS} compressed parts")
        members += 1
        member = start(body[at : at + 2])
        # In slices: a decompressor copies what follows its member.
        while at < len(body) and len(found) <= limit and not member.eof:
            piece = body[at : at + _SLICE_BYTES]
            found += member.decompress(piece, limit + 1 - len(found))
            at += len(piece)
        if not member.eof and len(found) <= limit:
            return None
        at -= len(member.unused_data)
    return found


def _broken(why: str) -> HttpError:
    return HttpError(400, "invalid_request", f"The body cannot be decompressed: {why}.")


def _gzip(_: bytes) -> _Decompressor:
    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)


def _deflate(body: bytes) -> _Decompressor:
    """A decompressor for ``deflate``: zlib format by the standard, raw deflate from some clients."""
    has_head = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return zlib.decompressobj(wbits=zlib.MAX_WBITS if has_head else -zlib.MAX_WBITS)


def _zstd(_: bytes) -> _Decompressor:
    window_log = ZSTD_WINDOW_BYTES.bit_length() - 1
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window_log})


_DECODERS: dict[str, Callable[[bytes], _Decompressor]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}


def _refuse(encodings: str) -> Callable[[bytes], _Decompressor]:
    raise _unknown(encodings)


def _unknown(encodings: str) -> HttpError:
    message = f"The content encoding {encodings[:100]!r} is not supported; use gzip, deflate, zstd or none."
    return HttpError(415, "unsupported_encoding", message, headers=(("accept-encoding", "gzip, deflate, zstd"),))
