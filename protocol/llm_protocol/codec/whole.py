"""Responses that are never streamed: embeddings, images on some wires, and token counts.

Embeddings are decoded and encoded one by one, so that no step takes long however many there are. One call of the
decoder for a 60 MB response would block the event loop for a fifth of a second, and encoding it for the client would
block as long again. So embeddings are declared as ``msgspec.Raw``, which the decoder skips.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, final

import msgspec

from llm_protocol.codec.decoding import misread
from llm_protocol.codec.json import LIMITS, MAX_BODY_BYTES, CheckedJson, JsonDecoder, TooLarge, WireError, encode_around
from llm_protocol.codec.media import unbase64_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ClientDialect, WireRequest, WireResponse
from llm_protocol.embedding import Embedding
from llm_protocol.errors import ProtocolError
from llm_protocol.events import Embedded, Event, Finished, Started, UsageReported
from llm_protocol.requests import AnyRequest, EmbeddingRequest
from llm_protocol.response import FinishReason, Usage


@final
class WholeBody:
    """Collects the body, at most ``max_bytes``, and decodes it at its end. A truncated body fails as ``truncated`` or
    ``protocol``, as the dialect decides.
    """

    def __init__(self, dialect: ClientDialect, request: AnyRequest, *, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._dialect = dialect
        self._request = request
        self._max_bytes = max_bytes
        self._body = bytearray()
        self._over = False

    @property
    def is_whole(self) -> bool:
        """Always true: the whole body is buffered, and no event is reported before its end."""
        return True

    @property
    def ignored(self) -> set[str]:
        """Always empty: these bodies are decoded strictly."""
        return set()

    def feed(self, data: bytes) -> list[Event]:
        """Return no events, or the failure of a body that is too long."""
        if self._over:
            return []
        if len(self._body) + len(data) > self._max_bytes:
            self._over = True
            self._body.clear()
            return [misread(TooLarge(f"it is longer than {self._max_bytes} bytes"))]
        self._body += data
        return []

    def end(self) -> list[Event]:
        """All events of the response."""
        if self._over:
            return []
        self._over = True
        return self._dialect.decode_response(self._request, WireResponse(200, body=bytes(self._body)))


# ---------------------------------------------------------------- embeddings

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


def embedded(
    request: EmbeddingRequest, vectors: tuple[Embedding, ...], *, started: Started, usage: Usage | None
) -> list[Event]:
    """Return the events of a response with embeddings, one embedding for each text of ``request`` and in order. If the
    number of embeddings is wrong, the response fails.
    """
    found = sum(map(bool, vectors))
    if not found == len(vectors) == len(request.inputs):
        return [misread(f"{len(request.inputs)} texts were sent, {found} embeddings came back")]
    if sum(map(len, vectors)) > MAX_NUMBERS:
        return [misread(TooLarge(f"its embeddings have more than {MAX_NUMBERS} numbers"))]
    reported = () if usage is None else (UsageReported(usage),)
    return [started, Embedded(vectors), *reported, Finished(reason=FinishReason.STOP)]


def encode_with_list(body: JsonObject, name: str, items: Iterable[object]) -> bytes:
    """Return the JSON of ``body``, in which the empty list ``name``, at any depth, is replaced by ``items``.

    Each item is encoded by itself, in a loop in Python on purpose: another thread may run between the steps.
    """
    pieces: list[bytes] = []
    for item in items:
        pieces += (b",", _ENCODER.encode(item))
    return encode_around(body, name, pieces[1:])


# ---------------------------------------------------------------- token counts


def counted_fields(wire: WireRequest, names: Container[str]) -> dict[str, msgspec.Raw]:
    """Return the fields of ``wire``'s JSON body whose names are in ``names``: those that a vendor counts."""
    body = msgspec.json.decode(wire.body, type=dict[str, msgspec.Raw])
    return {name: value for name, value in body.items() if name in names}


def decoded_count(body: bytes, name: str) -> int:
    """The number in the field ``name`` of a JSON object. Raises `ProtocolError` if there is none."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any]).get(name)
    except msgspec.MsgspecError:
        found = None
    if type(found) is not int or found < 0:
        raise ProtocolError(f"the vendor's token count cannot be decoded: it contains no {name}")
    return found
