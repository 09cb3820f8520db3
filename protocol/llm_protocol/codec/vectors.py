"""Embeddings in JSON: read and written one by one, so that no step is long however many there are.

An answer of 60 MB of numbers would hold the interpreter for a fifth of a second in one call of the decoder, and as
long again when it is written for the client. The shapes of answers therefore have vectors as ``msgspec.Raw``, which
the decoder only passes over.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from llm_protocol.codec.json import JsonDecoder, WireError, encode_around
from llm_protocol.codec.json_limits import LIMITS, CheckedJson
from llm_protocol.codec.media import unbase64_json
from llm_protocol.content import JsonObject
from llm_protocol.embedding import Embedding

MAX_NUMBERS = 16_000_000
"""Numbers of all embeddings of an answer: more than 64 MB of base64 have. OpenAI's largest answer, 2,048 times 3,072,
has six million."""

VECTOR_LIMITS = LIMITS._replace(values=MAX_NUMBERS)
"""What the JSON of such an answer may have."""

MAX_DIMENSIONS = 100_000
"""Numbers of one vector."""

_LONGEST = MAX_DIMENSIONS * 4 * 4 // 3 + 6
"""Bytes of its base64, with quotes."""

_DECODER: JsonDecoder[list[float]] = JsonDecoder(list[float])
_ENCODER = msgspec.json.Encoder()


def embedding_of(raw: msgspec.Raw) -> Embedding:
    """An embedding as it stands in an answer: numbers, or base64 of little-endian float32. Raises `WireError`."""
    text = memoryview(raw)
    if text[0] != ord('"'):
        numbers = bytes(text)
        if numbers.count(b",") >= MAX_DIMENSIONS:
            raise WireError(f"a vector of more than {MAX_DIMENSIONS} numbers")
        return Embedding.of(_DECODER.decode(CheckedJson(numbers)))
    if len(text) > _LONGEST:
        raise WireError(f"a vector of more than {MAX_DIMENSIONS} numbers")
    data = unbase64_json(raw) or b""
    if len(data) % 4:
        raise WireError("base64 that is no list of float32")
    return Embedding(data)


def encode_with_list(body: JsonObject, name: str, items: Iterable[object]) -> bytes:
    """The JSON of ``body`` in which the empty list called ``name``, wherever it stands, has ``items``.

    Each is encoded by itself, in a loop in Python on purpose: between its steps another thread may run.
    """
    pieces: list[bytes] = []
    for item in items:
        pieces += (b",", _ENCODER.encode(item))
    return encode_around(body, name, pieces[1:])
