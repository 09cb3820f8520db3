"""Anthropic's Messages API, as its server: for clients that speak it, and for fake vendors in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from llm_protocol.codec.fields import unsupported
from llm_protocol.dialect import Inbound, ModelInfo, WireResponse
from llm_protocol.failures import Failure
from llm_protocol.response import LLMResponse
from llm_protocol.runtime_fields import is_wanted, runtime_fields
from llm_protocol.wires.anthropic import errors
from llm_protocol.wires.anthropic.blocks import NAME
from llm_protocol.wires.anthropic.inbound import decode_chat
from llm_protocol.wires.anthropic.models import encode_models
from llm_protocol.wires.anthropic.outbound import AnthropicEncoder, encode_whole


@final
class AnthropicServer:
    """Speaks to clients of the Messages API."""

    name = NAME

    def decode_request(self, path: str, body: bytes) -> Inbound:
        """What a client asks for at ``/v1/messages``."""
        if not path.partition("?")[0].rstrip("/").endswith("/messages"):
            raise unsupported("path", f"{path} is not served: the chat endpoint is /v1/messages")
        return decode_chat(body)

    def response_encoder(self, inbound: Inbound, response_id: str) -> AnthropicEncoder:
        """An encoder for one streamed answer."""
        return AnthropicEncoder(inbound, response_id)

    def encode_response(self, inbound: Inbound, response: LLMResponse) -> bytes:
        """The body of a whole answer."""
        return runtime_fields(encode_whole(response), response, wanted=is_wanted(inbound))

    def encode_error(self, failure: Failure) -> WireResponse:
        """Status, headers and body of an error."""
        return errors.encode_error(failure)

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The model list as one page."""
        return encode_models(models)
