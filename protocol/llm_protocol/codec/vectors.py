"""Read and write embeddings in JSON one by one, so that no step takes long however many there are.

One call of the decoder for a 60 MB response would block the event loop for a fifth of a second, and encoding it for
the client would block as long again. So embeddings are declared as ``msgspec.Raw``, which the decoder skips.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from llm_protocol.codec.json import LIMITS, CheckedJson, JsonDecoder, TooLarge, WireError, encode_around
from llm_protocol.codec.media import unbase64_json
from llm_protocol.content import JsonObject
from llm_protocol.embedding import Embedding

MAX_NUMBERS = 16_000_000
"""The most numbers in all embeddings of a response. 64 MB of base64 contain fewer. OpenAI's largest response, 2,048
embeddings of 3,072 numbers, has six million.
"""

VECTOR_LIMITS = LIMITS._replace(values=MAX_NUMBERS)
"""The JSON limits of a response with embeddings."""

MAX_DIMENSIONS = 100_000
"""The most numbers of one embedding."""

_LONGEST = MAX_DIMENSIONS * 4 * 4 // 3 + 6
"""The most bytes of one embedding in base64, with quotes."""

_DECODER: JsonDecoder[list[float]] = JsonDecoder(list[float])
_ENCODER = msgspec.json.Encoder()


def embedding_of(raw: msgspec.Raw) -> Embedding:
    """Decode an embedding of a response: numbers, or base64 of little-endian float32. Raises `WireError`, and
    `TooLarge` for more than `MAX_DIMENSIONS` numbers.
    """
    text = memoryview(raw)
    if text[0] != ord('"'):
        numbers = bytes(text)
        if numbers.count(b",") >= MAX_DIMENSIONS:
            raise TooLarge(f"an embedding has more than {MAX_DIMENSIONS} numbers")
        return Embedding.of(_DECODER.decode(CheckedJson(numbers)))
    if len(text) > _LONGEST:
        raise TooLarge(f"an embedding has more than {MAX_DIMENSIONS} numbers")
    data = unbase64_json(raw) or b""
    if len(data) % 4:
        raise WireError("the base64 of an embedding does not decode to a list of float32")
    return Embedding(data)


def encode_with_list(body: JsonObject, name: str, items: Iterable[object]) -> bytes:
    """Return the JSON of ``body``, in which the empty list ``name``, at any depth, is replaced by ``items``.

    Each item is encoded by itself, in a loop in Python on purpose: another thread may run between the steps.
    """
    pieces: list[bytes] = []
    for item in items:
        pieces += (b",", _ENCODER.encode(item))
    return encode_around(body, name, pieces[1:])
