"""Anthropic's Messages API, as its client."""

from __future__ import annotations

from typing import final

from llm_protocol.codec.decoding import BodyDecoder, read_whole
from llm_protocol.codec.fields import unsupported
from llm_protocol.dialect import Headers, ModelPage, RateLimits, WireRequest, WireResponse
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.requests import AnyRequest, ChatRequest, RequestType
from llm_protocol.wires.anthropic import errors, models
from llm_protocol.wires.anthropic.blocks import NAME
from llm_protocol.wires.anthropic.request import encode_chat
from llm_protocol.wires.anthropic.stream import AnthropicDecoder


@final
class Anthropic:
    """Speaks to Anthropic, or to a server that speaks its Messages API."""

    name = NAME
    version = 2
    request_types = frozenset({RequestType.CHAT})

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header fields that carry the key."""
        return (("x-api-key", key),)

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """The HTTP request for a chat."""
        if not isinstance(request, ChatRequest):
            raise unsupported("request_type", f"Anthropic has no {request.request_type} endpoint")
        return encode_chat(request, stream=stream)

    def stream_decoder(self, request: AnyRequest) -> BodyDecoder:  # noqa: ARG002
        """A decoder for a streamed answer."""
        return BodyDecoder(AnthropicDecoder())

    def decode_response(
        self,
        request: AnyRequest,  # noqa: ARG002
        response: WireResponse,
        ignored: set[str] | None = None,
    ) -> list[Event]:
        """The events of a whole answer."""
        return read_whole(AnthropicDecoder(), response.body, ignored)

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
