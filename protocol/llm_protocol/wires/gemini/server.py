"""The server side: answers in the form that Gemini's own clients read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from llm_protocol.dialect import Inbound, ModelInfo, WireResponse
from llm_protocol.failures import Failure
from llm_protocol.requests import EmbeddingRequest
from llm_protocol.response import LLMResponse
from llm_protocol.runtime_fields import is_wanted, runtime_fields
from llm_protocol.wires.gemini import errors
from llm_protocol.wires.gemini.embeddings import encode_embeddings
from llm_protocol.wires.gemini.inbound import decode_request
from llm_protocol.wires.gemini.models import encode_models
from llm_protocol.wires.gemini.outbound import GeminiEncoder, encode_whole
from llm_protocol.wires.gemini.tables import NAME


@final
class GeminiServer:
    """Speaks to Gemini's clients."""

    name = NAME

    def decode_request(self, path: str, body: bytes) -> Inbound:
        """What a client asks for. Raises `BadRequestError` or `UnsupportedError` naming the field at fault."""
        return decode_request(path, body)

    def response_encoder(self, inbound: Inbound, response_id: str) -> GeminiEncoder:
        """An encoder for one streamed answer."""
        return GeminiEncoder(inbound, response_id)

    def encode_response(self, inbound: Inbound, response: LLMResponse) -> bytes:
        """The body of a whole answer."""
        if isinstance(inbound.request, EmbeddingRequest):
            body = encode_embeddings(response, single=inbound.form == "embedContent")
        else:
            body = encode_whole(response)
        return runtime_fields(body, response, wanted=is_wanted(inbound))

    def encode_error(self, failure: Failure) -> WireResponse:
        """Status, headers and body that the vendor's own SDK understands."""
        return errors.encode_error(failure)

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The body of the model list (one page)."""
        return encode_models(models)
