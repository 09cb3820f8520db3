"""Cohere's v2 API, as its client."""

from __future__ import annotations

from typing import final

from llm_protocol.codec.decoding import BodyDecoder, read_whole
from llm_protocol.codec.fields import unsupported
from llm_protocol.codec.whole import WholeBody
from llm_protocol.dialect import Headers, ModelPage, RateLimits, StreamDecoder, WireRequest, WireResponse, post
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.requests import AnyRequest, ChatRequest, EmbeddingRequest, RequestType
from llm_protocol.wires.cohere import errors, models
from llm_protocol.wires.cohere.embeddings import decode_embeddings, embedding_body
from llm_protocol.wires.cohere.parts import NAME
from llm_protocol.wires.cohere.request import chat_body
from llm_protocol.wires.cohere.stream import CohereDecoder


@final
class Cohere:
    """Speaks to Cohere."""

    name = NAME
    version = 1
    request_types = frozenset({RequestType.CHAT, RequestType.EMBEDDING})

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header fields that carry the key."""
        return (("authorization", f"Bearer {key}"),)

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """The HTTP request for a chat or for embeddings, which are never streamed."""
        match request:
            case ChatRequest():
                return post("/v2/chat", chat_body(request, stream=stream))
            case EmbeddingRequest():
                return post("/v2/embed", embedding_body(request))
            case _:
                raise unsupported("request_type", f"Cohere has no {request.request_type} endpoint")

    def stream_decoder(self, request: AnyRequest) -> StreamDecoder:
        """A decoder for a streamed chat answer, or for vectors, which come whole."""
        if isinstance(request, EmbeddingRequest):
            return WholeBody(self, request)
        return BodyDecoder(CohereDecoder())

    def decode_response(
        self, request: AnyRequest, response: WireResponse, ignored: set[str] | None = None
    ) -> list[Event]:
        """The events of a whole answer."""
        if isinstance(request, EmbeddingRequest):
            return decode_embeddings(request, response.body)
        return read_whole(CohereDecoder(), response.body, ignored)

    def decode_error(self, response: WireResponse) -> Failure:
        """What a non-2xx answer means."""
        return errors.decode_error(response)

    def rate_limits(self, headers: Headers) -> RateLimits | None:
        """What the headers say is left."""
        return errors.rate_limits(headers)

    def models_request(self, page: str | None) -> WireRequest:
        """The request for a page of the model list."""
        return models.models_request(page)

    def decode_models(self, body: bytes) -> ModelPage:
        """A page of the model list. Raises `ProtocolError`."""
        return models.decode_models(body)
