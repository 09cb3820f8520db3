"""Cohere's v2 API, as its client."""

from __future__ import annotations

from urllib.parse import quote

from llm_protocol.answer import AnswerStream, read_whole
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Headers, ModelInfo, ModelPage, RateLimits, WireRequest, WireResponse, post
from llm_protocol.dialects.cohere import errors
from llm_protocol.dialects.cohere.embeddings import decode_embeddings, embedding_body
from llm_protocol.dialects.cohere.parts import NAME
from llm_protocol.dialects.cohere.request import chat_body
from llm_protocol.dialects.cohere.stream import CohereAnswer
from llm_protocol.errors import ProtocolError
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.fields import unsupported
from llm_protocol.requests import AnyRequest, ChatRequest, EmbeddingRequest, RequestType
from llm_protocol.wire import WireError, decode_object

PAGE_SIZE = 1_000
"""Models asked for at once: the vendor's greatest."""


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

    def stream_decoder(self, request: AnyRequest) -> AnswerStream:  # noqa: ARG002
        """A decoder for a streamed chat answer."""
        return AnswerStream(CohereAnswer())

    def decode_response(self, request: AnyRequest, response: WireResponse) -> list[Event]:
        """The events of a whole answer."""
        if isinstance(request, EmbeddingRequest):
            return decode_embeddings(request, response.body)
        return read_whole(CohereAnswer(), response.body)

    def decode_error(self, response: WireResponse) -> Failure:
        """What a non-2xx answer means."""
        return errors.decode_error(response)

    def rate_limits(self, headers: Headers) -> RateLimits | None:
        """What the headers say is left."""
        return errors.rate_limits(headers)

    def models_request(self, page: str | None) -> WireRequest:
        """The request for a page of the model list."""
        token = f"&page_token={quote(page, safe='')}" if page is not None else ""
        return WireRequest("GET", f"/v1/models?page_size={PAGE_SIZE}{token}")

    def decode_models(self, body: bytes) -> ModelPage:
        """A page of the model list. Raises `ProtocolError`."""
        try:
            return _decode_models(decode_object(body))
        except WireError as exc:
            raise ProtocolError(f"the model list could not be understood: {exc}") from None


def _decode_models(body: JsonObject) -> ModelPage:
    entries = body.get("models")
    if not isinstance(entries, list):
        raise WireError("models: expected a list")
    found = tuple(_model(entry) for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str))
    token = body.get("next_page_token")
    return ModelPage(found, token if isinstance(token, str) and token else None)


def _model(entry: JsonObject) -> ModelInfo:
    window = entry.get("context_length")
    size = int(window) if isinstance(window, int | float) and window > 0 else None
    return ModelInfo(id=entry["name"], owned_by=NAME, context_window=size)
