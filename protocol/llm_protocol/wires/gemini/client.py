"""The client side: what is asked of Gemini, and how its answers are read."""

from __future__ import annotations

from typing import final
from urllib.parse import quote

from llm_protocol.codec.decoding import BodyDecoder, read_whole
from llm_protocol.codec.fields import unsupported
from llm_protocol.codec.sse import MAX_EVENT_BYTES
from llm_protocol.codec.whole import WholeBody
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Headers, ModelPage, RateLimits, StreamDecoder, WireRequest, WireResponse, post
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.requests import AnyRequest, ChatRequest, EmbeddingRequest, ImageRequest, RequestType
from llm_protocol.wires.gemini import models
from llm_protocol.wires.gemini.embeddings import decode_embeddings, embedding_body
from llm_protocol.wires.gemini.errors import decode_error
from llm_protocol.wires.gemini.framing import GeminiPieceSplitter
from llm_protocol.wires.gemini.request import add_extra_deep, chat_body, image_body
from llm_protocol.wires.gemini.stream import GeminiDecoder
from llm_protocol.wires.gemini.tables import NAME, VERSION

MAX_PICTURE_EVENT_BYTES = 32 * 1024 * 1024
"""One event may have this many bytes where pictures were asked for: they come whole, in base64."""


@final
class Gemini:
    """Speaks to Gemini. Base URLs are without the API's version, which is part of the paths."""

    name = NAME
    version = 2
    request_types = frozenset((RequestType.CHAT, RequestType.EMBEDDING, RequestType.IMAGE_GENERATION))

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header that carries the key."""
        return (("x-goog-api-key", key),)

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """The HTTP request. Embeddings are never streamed, whatever ``stream`` says."""
        match request:
            case ChatRequest():
                body = chat_body(request)
            case ImageRequest():
                body = image_body(request)
            case EmbeddingRequest():
                return _post(request.model, "batchEmbedContents", embedding_body(request))
            case _:
                raise unsupported("request_type", f"Gemini has no endpoint for {request.request_type} requests")
        add_extra_deep(body, request.parameters)
        return _post(request.model, "streamGenerateContent?alt=sse" if stream else "generateContent", body)

    def stream_decoder(self, request: AnyRequest) -> StreamDecoder:
        """A decoder for the streamed answer to ``request``, or for vectors, which come whole."""
        if isinstance(request, EmbeddingRequest):
            return WholeBody(self, request)
        limit = MAX_PICTURE_EVENT_BYTES if _wants_pictures(request) else MAX_EVENT_BYTES
        return BodyDecoder(GeminiDecoder(), GeminiPieceSplitter(limit))

    def decode_response(
        self, request: AnyRequest, response: WireResponse, ignored: set[str] | None = None
    ) -> list[Event]:
        """The events of a whole 2xx answer; the last one is ``Finished`` or ``Failed``."""
        if isinstance(request, EmbeddingRequest):
            return decode_embeddings(request, response.body)
        return read_whole(GeminiDecoder(), response.body, ignored)

    def decode_error(self, response: WireResponse) -> Failure:
        """What a non-2xx answer means."""
        return decode_error(response)

    def rate_limits(self, headers: Headers) -> RateLimits | None:  # noqa: ARG002
        """Nothing: Gemini's headers say nothing of limits."""
        return None

    def models_request(self, page: str | None) -> WireRequest:
        """The request for a page of the model list."""
        return models.models_request(page)

    def decode_models(self, body: bytes) -> ModelPage:
        """A page of the model list. Raises `ProtocolError` when it is not one."""
        return models.decode_models(body)


def _post(model: str, method: str, body: JsonObject) -> WireRequest:
    name = model.removeprefix("models/")
    folder, slash, rest = name.partition("/")
    path = (
        f"/tunedModels/{quote(rest, safe='')}"
        if slash and folder == "tunedModels"
        else f"/models/{quote(name, safe='')}"
    )
    return post(f"/{VERSION}{path}:{method}", body)


def _wants_pictures(request: AnyRequest) -> bool:
    if isinstance(request, ImageRequest):
        return True
    config = request.parameters.extra.get(NAME, {}).get("generationConfig")
    return isinstance(config, dict) and "IMAGE" in str(config.get("responseModalities"))
