"""Read and write embeddings in JSON one by one, so that no step takes long however many there are.

One call of the decoder for a 60 MB response would block the event loop for a fifth of a second, and encoding it for the
client would block as long again. Embeddings are therefore declared as ``msgspec.Raw``, which the decoder skips.
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
"""Numbers of all embeddings of a response: more than 64 MB of base64 have. OpenAI's largest answer, 2,048 times 3,072,
has six million."""

VECTOR_LIMITS = LIMITS._replace(values=MAX_NUMBERS)
"""What the JSON of such a response may have."""

MAX_DIMENSIONS = 100_000
"""Numbers of one embedding."""

_LONGEST = MAX_DIMENSIONS * 4 * 4 // 3 + 6
"""Bytes of its base64, with quotes."""

_DECODER: JsonDecoder[list[float]] = JsonDecoder(list[float])
_ENCODER = msgspec.json.Encoder()


def embedding_of(raw: msgspec.Raw) -> Embedding:
    """Decode an embedding of a response: numbers, or base64 of little-endian float32. Raises `WireError`."""
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
        raise WireError("base64 that does not decode to a list of float32")
    return Embedding(data)


def encode_with_list(body: JsonObject, name: str, items: Iterable[object]) -> bytes:
    """The JSON of ``body`` in which the empty list called ``name``, wherever it stands, has ``items``.

    Each is encoded by itself, in a loop in Python on purpose: between its steps another thread may run.
    """
    pieces: list[bytes] = []
    for item in items:
        pieces += (b",", _ENCODER.encode(item))
    return encode_around(body, name, pieces[1:])
