"""The client side: OpenAI through its Responses API, and through its neighbours for vectors, pictures and the rest."""

from __future__ import annotations

from typing import final

from llm_protocol.codec.decoding import BodyDecoder, read_whole
from llm_protocol.dialect import Headers, ModelPage, RateLimits, StreamDecoder, WireRequest, WireResponse, post
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.requests import AnyRequest, ChatRequest, RequestType
from llm_protocol.wires.openai_chat.client import OpenAIChat
from llm_protocol.wires.openai_chat.quirks import OPENAI, VendorProfile
from llm_protocol.wires.responses.reasoning import NAME
from llm_protocol.wires.responses.request import response_body
from llm_protocol.wires.responses.stream import OpenAIResponsesDecoder


@final
class OpenAIResponses:
    """Speaks to OpenAI; see `ClientDialect`. What is not chat goes to the endpoints beside ``/responses``."""

    name = NAME
    version = 1

    def __init__(self, quirks: VendorProfile = OPENAI) -> None:
        self._neighbours = OpenAIChat(quirks)

    @property
    def request_types(self) -> frozenset[RequestType]:
        """What this vendor can be asked."""
        return self._neighbours.request_types

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header that carries the key."""
        return self._neighbours.auth_headers(key)

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """The HTTP request."""
        if isinstance(request, ChatRequest):
            return post("/responses", response_body(request, stream=stream))
        return self._neighbours.encode_request(request, stream=stream)

    def stream_decoder(self, request: AnyRequest) -> StreamDecoder:
        """A decoder for the streamed answer."""
        if isinstance(request, ChatRequest):
            return BodyDecoder(OpenAIResponsesDecoder())
        return self._neighbours.stream_decoder(request)

    def decode_response(
        self, request: AnyRequest, response: WireResponse, ignored: set[str] | None = None
    ) -> list[Event]:
        """The events of a whole 2xx answer."""
        if isinstance(request, ChatRequest):
            return read_whole(OpenAIResponsesDecoder(), response.body, ignored)
        return self._neighbours.decode_response(request, response)

    def decode_error(self, response: WireResponse) -> Failure:
        """What a non-2xx answer means."""
        return self._neighbours.decode_error(response)

    def rate_limits(self, headers: Headers) -> RateLimits | None:
        """What the headers say is left."""
        return self._neighbours.rate_limits(headers)

    def models_request(self, page: str | None) -> WireRequest:
        """The request for the model list."""
        return self._neighbours.models_request(page)

    def decode_models(self, body: bytes) -> ModelPage:
        """The model list. Raises `ProtocolError`."""
        return self._neighbours.decode_models(body)
