"""Anthropic's Messages API, as its server: for clients that speak it, and for fake vendors in tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from llm_protocol.content import JsonObject
from llm_protocol.dialect import Inbound, ModelInfo, WireResponse
from llm_protocol.dialects.anthropic import errors
from llm_protocol.dialects.anthropic.blocks import NAME
from llm_protocol.dialects.anthropic.inbound import decode_chat
from llm_protocol.dialects.anthropic.outbound import AnthropicEncoder, encode_whole
from llm_protocol.failures import Failure
from llm_protocol.fields import unsupported
from llm_protocol.response import LLMResponse
from llm_protocol.wire import encode_json


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
        return AnthropicEncoder(inbound.request.model, response_id)

    def encode_response(self, inbound: Inbound, response: LLMResponse) -> bytes:  # noqa: ARG002
        """The body of a whole answer."""
        return encode_whole(response)

    def encode_error(self, failure: Failure) -> WireResponse:
        """Status, headers and body of an error."""
        return errors.encode_error(failure)

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The model list as one page."""
        data = [_model(model) for model in models]
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return encode_json({"data": data, "has_more": False, "first_id": first, "last_id": last})


def _model(model: ModelInfo) -> JsonObject:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": model.context_window,
        "max_tokens": model.max_output_tokens,
    }
