"""Cohere's v2 API, as its server: for clients that speak it, and for fake vendors in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from llm_protocol.codec.fields import json_body, unsupported
from llm_protocol.dialect import Inbound, ModelInfo, WireResponse
from llm_protocol.failures import Failure
from llm_protocol.requests import EmbeddingRequest
from llm_protocol.response import LLMResponse
from llm_protocol.runtime_fields import is_wanted, runtime_fields
from llm_protocol.wires.cohere import errors
from llm_protocol.wires.cohere.embeddings import decode_embed, encode_embeddings
from llm_protocol.wires.cohere.inbound import decode_chat
from llm_protocol.wires.cohere.models import encode_models
from llm_protocol.wires.cohere.outbound import CohereEncoder, encode_whole
from llm_protocol.wires.cohere.parts import NAME


@final
class CohereServer:
    """Speaks to clients of Cohere's v2 API."""

    name = NAME

    def decode_request(self, path: str, body: bytes) -> Inbound:
        """What a client asks for at ``/v2/chat`` or ``/v2/embed``."""
        decode = {"chat": decode_chat, "embed": decode_embed}.get(
            path.partition("?")[0].rstrip("/").rpartition("/v2/")[2]
        )
        if decode is None:
            raise unsupported("path", f"{path} is not served: there are /v2/chat and /v2/embed")
        return decode(json_body(body))

    def response_encoder(self, inbound: Inbound, response_id: str) -> CohereEncoder:
        """An encoder for one streamed answer."""
        return CohereEncoder(inbound, response_id)

    def encode_response(self, inbound: Inbound, response: LLMResponse) -> bytes:
        """The body of a whole answer."""
        if isinstance(inbound.request, EmbeddingRequest):
            body = encode_embeddings(inbound.request, response, inbound.form)
        else:
            body = encode_whole(response)
        return runtime_fields(body, response, wanted=is_wanted(inbound))

    def encode_error(self, failure: Failure) -> WireResponse:
        """Status, headers and body of an error."""
        return errors.encode_error(failure)

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The model list as one page."""
        return encode_models(models)
