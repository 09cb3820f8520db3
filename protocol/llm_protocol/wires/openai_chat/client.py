"""The client side: one vendor, spoken to as its quirks want it."""

from __future__ import annotations

from typing import final

import msgspec

from llm_protocol.codec.decoding import BodyDecoder, read_whole
from llm_protocol.codec.fields import unsupported
from llm_protocol.codec.headers import header, int_header
from llm_protocol.codec.times import duration
from llm_protocol.codec.whole import WholeBody
from llm_protocol.dialect import Headers, ModelPage, RateLimits, StreamDecoder, WireRequest, WireResponse, post
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    ImageRequest,
    RequestType,
)
from llm_protocol.wires.openai_chat.completions import completion_body
from llm_protocol.wires.openai_chat.embeddings import decode_embeddings, embedding_body
from llm_protocol.wires.openai_chat.errors import decode_error
from llm_protocol.wires.openai_chat.images import decode_images, image_body
from llm_protocol.wires.openai_chat.models import decode_models
from llm_protocol.wires.openai_chat.quirks import OPENAI, VendorProfile
from llm_protocol.wires.openai_chat.request import chat_body
from llm_protocol.wires.openai_chat.stream import OpenAIChatDecoder


@final
class OpenAIChat:
    """Speaks to OpenAI, Cerebras, or a server that is compatible; see `ClientDialect`."""

    version = 2

    def __init__(self, quirks: VendorProfile = OPENAI) -> None:
        self.quirks = quirks

    @property
    def name(self) -> str:
        """The dialect's name, the key of its fields in ``Parameters.extra``."""
        return self.quirks.name

    @property
    def request_types(self) -> frozenset[RequestType]:
        """What this vendor can be asked."""
        return self.quirks.request_types

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header that carries the key."""
        return (("authorization", f"Bearer {key}"),)

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """The HTTP request. Vectors and pictures are never streamed."""
        match request:
            case ChatRequest():
                return post("/chat/completions", chat_body(request, self.quirks, stream=stream))
            case CompletionRequest():
                return post("/completions", completion_body(request, self.quirks, stream=stream))
            case EmbeddingRequest():
                return post("/embeddings", embedding_body(request, self.quirks))
            case ImageRequest():
                return post("/images/generations", image_body(request, self.quirks))
            case _:
                raise unsupported("request_type", f"{self.quirks.vendor} has no endpoint for {request.request_type}")

    def stream_decoder(self, request: AnyRequest) -> StreamDecoder:
        """A decoder for the streamed answer, or for the one that comes whole all the same."""
        if isinstance(request, ChatRequest | CompletionRequest):
            return BodyDecoder(OpenAIChatDecoder(request.request_id, self.name))
        return WholeBody(self, request)

    def decode_response(
        self, request: AnyRequest, response: WireResponse, ignored: set[str] | None = None
    ) -> list[Event]:
        """The events of a whole 2xx answer."""
        match request:
            case EmbeddingRequest():
                return decode_embeddings(request, response.body)
            case ImageRequest():
                return decode_images(request, response.body)
            case _:
                return read_whole(OpenAIChatDecoder(request.request_id, self.name), response.body, ignored)

    def decode_error(self, response: WireResponse) -> Failure:
        """What a non-2xx answer means. Who is told no time to wait waits for the window that is used up."""
        limits = self.rate_limits(response.headers)
        return decode_error(
            response.status, response.headers, response.body, None if limits is None else _reset(limits)
        )

    def rate_limits(self, headers: Headers) -> RateLimits | None:
        """What ``x-ratelimit-*`` say is left."""
        requests, tokens = self.quirks.requests_window, self.quirks.tokens_window
        found = RateLimits(
            requests_limit=int_header(headers, f"x-ratelimit-limit-{requests}"),
            requests_remaining=int_header(headers, f"x-ratelimit-remaining-{requests}"),
            requests_reset_s=duration(header(headers, f"x-ratelimit-reset-{requests}")),
            tokens_limit=int_header(headers, f"x-ratelimit-limit-{tokens}"),
            tokens_remaining=int_header(headers, f"x-ratelimit-remaining-{tokens}"),
            tokens_reset_s=duration(header(headers, f"x-ratelimit-reset-{tokens}")),
        )
        if found == RateLimits():
            return None
        return msgspec.structs.replace(found, per_model=True) if self.quirks.limits_per_model else found

    def models_request(self, page: str | None) -> WireRequest:  # noqa: ARG002
        """The request for the model list, which has one page."""
        return WireRequest("GET", "/models")

    def decode_models(self, body: bytes) -> ModelPage:
        """The model list. Raises `ProtocolError`."""
        return decode_models(body)


def _reset(limits: RateLimits) -> float | None:
    windows = (
        (limits.requests_remaining, limits.requests_reset_s),
        (limits.tokens_remaining, limits.tokens_reset_s),
    )
    return max((reset for left, reset in windows if left == 0 and reset is not None), default=None)
