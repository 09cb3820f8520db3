"""Encode spans for OTLP, OpenTelemetry's protocol: each span as the bytes of a message ``Span`` of version 1 of the
protocol. Pure.

The SDK's classes need about ten times as much of Python's time for the same bytes; see `docs/decisions`, 0016.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from llm_runtime.telemetry.spans import SpanData, Value

_KINDS: Final = {"internal": 1, "server": 2, "client": 3}
_ERROR: Final = 2
"""The status code of a span that failed."""

_KEPT_CHARACTERS: Final = 64
"""The longest value whose encoding is kept for the next spans."""

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1

# The first byte of a field is its number times 8, plus the form of its value.
_BYTES: Final = 2
_TRACE_ID: Final = b"\x0a\x10"  # field 1, 16 bytes
_SPAN_ID: Final = b"\x12\x08"  # field 2, 8 bytes
_PARENT_ID: Final = b"\x22\x08"  # field 4, 8 bytes
_NAME: Final = 5
_KIND_AND_TIMES: Final = struct.Struct("<BBBQBQ")  # fields 6, 7 and 8
_ATTRIBUTE: Final = 9
_STATUS: Final = 15
_FLAGS: Final = struct.Struct("<BBI")  # field 16
_DOUBLE: Final = struct.Struct("<Bd")

_HAS_IS_REMOTE: Final = 0x100
"""The flag of spans that says that `_IS_REMOTE` is known."""

_IS_REMOTE: Final = 0x200
"""The flag of spans whose parent is in another process."""


def encode_spans(
    span: SpanData, trace_id: int, span_id: int, parent_id: int, draw: Callable[[int], int], longest: int
) -> list[bytes]:
    """Return the encoding of each span in ``span``, and then of ``span`` itself. ``parent_id`` is the id of a span in
    another process, or 0. ``draw`` returns a random number of the given number of bits, for the ids of the spans in
    ``span``. Attributes are cut off after ``longest`` characters.
    """
    found: list[bytes] = []
    parent = _PARENT_ID + parent_id.to_bytes(8, "big") if parent_id else b""
    flags = _HAS_IS_REMOTE | _IS_REMOTE if parent_id else _HAS_IS_REMOTE
    _add(found, span, trace_id.to_bytes(16, "big"), span_id, parent, flags, draw, longest)
    return found


def _add(
    found: list[bytes],
    span: SpanData,
    trace_id: bytes,
    span_id: int,
    parent: bytes,
    flags: int,
    draw: Callable[[int], int],
    longest: int,
) -> None:
    own = span_id.to_bytes(8, "big")
    for each in span.inner:
        _add(found, each, trace_id, draw(64) or 1, _PARENT_ID + own, _HAS_IS_REMOTE, draw, longest)
    times = (0x39, round(span.began_at * 1e9), 0x41, round(span.ended_at * 1e9))
    parts = [
        _TRACE_ID, trace_id, _SPAN_ID, own, parent, _named(_NAME, span.name),
        _KIND_AND_TIMES.pack(0x30, _KINDS[span.kind], *times),
    ]  # fmt: skip
    for name, value in span.attributes.items():
        if type(value) is str and len(value) > _KEPT_CHARACTERS:
            parts.append(_attribute(name, value[:longest]))
        elif type(value) is float:
            parts.append(_attribute(name, value))
        else:
            parts.append(_kept_attribute(name, value))
    if span.error:
        parts.append(_kept_attribute("error.type", span.error))
    parts.append(_status(span.error))
    parts.append(_FLAGS.pack(0x85, 0x01, flags))
    found.append(b"".join(parts))


def field(number: int, value: bytes) -> bytes:
    """Return a field whose value is a message, a text or bytes."""
    size = len(value)
    head = number << 3 | _BYTES
    return bytes((head, size)) + value if size < 0x80 else bytes((head,)) + _varint(size) + value


@lru_cache(256)
def _named(number: int, name: str) -> bytes:
    return field(number, name.encode())


@lru_cache(8 * len(_KINDS))
def _status(error: str) -> bytes:
    return field(_STATUS, field(2, error.encode()) + bytes((0x18, _ERROR)) if error else b"")


def _attribute(name: str, value: Value) -> bytes:
    encoded = _value(value)
    return field(_ATTRIBUTE, _named(1, name) + field(2, encoded)) if encoded else b""


_kept_attribute: Final = lru_cache(1024, typed=True)(_attribute)


def _value(value: Value) -> bytes:
    """Return a message ``AnyValue``; nothing for a number that the protocol does not have."""
    if isinstance(value, str):
        return field(1, value.encode())
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & (2**64 - 1)) if _LOWEST <= value <= _HIGHEST else b""
    if isinstance(value, float):
        return _DOUBLE.pack(0x21, value)
    return field(5, b"".join(field(1, _value(each)) for each in value))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
