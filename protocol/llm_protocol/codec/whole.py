"""Responses that are never streamed: embeddings, and images on some wires."""

from __future__ import annotations

from typing import final

from llm_protocol.codec.decoding import misread
from llm_protocol.codec.json import MAX_BODY_BYTES, TooLarge
from llm_protocol.codec.vectors import MAX_NUMBERS
from llm_protocol.dialect import ClientDialect, WireResponse
from llm_protocol.embedding import Embedding
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
