"""Vectors in JSON: read and written one by one, so that no step is long however many there are.

An answer of 60 MB of numbers would hold the interpreter for a fifth of a second in one call of the decoder, and as
long again when it is written for the client.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from llm_protocol.codec.json import WireError
from llm_protocol.codec.json_limits import LIMITS, check_json
from llm_protocol.codec.media import unbase64

Vector: TypeAlias = tuple[float, ...]

VECTOR_LIMITS = LIMITS._replace(values=10_000_000)
"""What an answer of vectors may have: OpenAI's largest, 2,048 vectors of 3,072 numbers, has six million."""

MAX_DIMENSIONS = 100_000
"""Numbers of one vector."""

_PLACE = "#"
"""Begins the text that stands for a vector that was cut out; base64 has no such character."""

_LIST = rb"\[[-+0-9.eE, \t\r\n]{128,}+\]"
_NUMBERS = re.compile(_LIST)
_TEXT_OR_NUMBERS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|' + _LIST, re.DOTALL)
"""Texts are passed over whole, also one without an end: it would be looked through again from each quote in it."""
_DECODER = msgspec.json.Decoder(Vector)
_ENCODER = msgspec.json.Encoder()


def cut_vectors(body: bytes) -> tuple[bytes, list[Vector]]:
    """The body with a short text in the place of each long list of numbers, and those lists; see `vector_of`.
    Raises `WireError` for a list that is none, and `TooLarge` for too many numbers.
    """
    check_json(body, VECTOR_LIMITS)
    if _NUMBERS.search(body) is None:
        return body, []
    pieces: list[bytes] = []
    vectors: list[Vector] = []
    at = 0
    for found in _TEXT_OR_NUMBERS.finditer(body):
        numbers = found[0]
        if numbers.startswith(b"["):
            pieces += (body[at : found.start()], b'"%b%d"' % (_PLACE.encode(), len(vectors)))
            at = found.end()
            vectors.append(_decoded(numbers))
    pieces.append(body[at:])
    return b"".join(pieces), vectors


def _decoded(numbers: bytes) -> Vector:
    if numbers.count(b",") >= MAX_DIMENSIONS:
        raise WireError(f"a vector of more than {MAX_DIMENSIONS} numbers")
    try:
        return _DECODER.decode(numbers)
    except msgspec.DecodeError:
        raise WireError("a vector is not a list of numbers") from None


def vector_of(value: Vector | str, vectors: list[Vector]) -> Vector:
    """A vector of the answer: as it stands there, one that was cut out, or base64 of little-endian float32. Raises
    `WireError`.
    """
    if not isinstance(value, str):
        return value
    if value.startswith(_PLACE):
        place = value[1:]
        if not (place.isascii() and place.isdecimal() and len(place) < 9 and int(place) < len(vectors)):
            raise WireError("a vector is neither numbers nor base64")
        return vectors[int(place)]
    if len(value) > MAX_DIMENSIONS * 4 * 4 // 3 + 4:
        raise WireError(f"a vector of more than {MAX_DIMENSIONS} numbers")
    raw = unbase64(value)
    if len(raw) % 4:
        raise WireError("base64 that is no list of float32")
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def packed(vector: Vector) -> bytes:
    """The numbers as little-endian float32; what is too large for one becomes infinite."""
    try:
        return struct.pack(f"<{len(vector)}f", *vector)
    except OverflowError:
        return struct.pack(f"<{len(vector)}f", *map(_as_float32, vector))


def _as_float32(number: float) -> float:
    try:
        struct.pack("<f", number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
    return number


def encode_list(items: Iterable[object]) -> msgspec.Raw:
    """The JSON list of ``items``, each encoded by itself."""
    # A loop in Python on purpose: between its steps another thread may run, which it may not during map() and join().
    return msgspec.Raw(b"[" + b",".join([_ENCODER.encode(item) for item in items]) + b"]")
