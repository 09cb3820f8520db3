"""The server side: OpenAI's clients, and those of everyone compatible, understood and answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from llm_protocol.codec.body import Body
from llm_protocol.codec.fields import bad_request, unsupported
from llm_protocol.dialect import Inbound, ModelInfo, ResponseEncoder, WireResponse
from llm_protocol.failures import Failure
from llm_protocol.requests import AnyRequest, EmbeddingRequest, ImageRequest
from llm_protocol.response import LLMResponse
from llm_protocol.runtime_fields import is_wanted, runtime_fields
from llm_protocol.wires.openai_chat.code import code_request
from llm_protocol.wires.openai_chat.completions import completion_request
from llm_protocol.wires.openai_chat.embeddings import embedding_request, encode_embeddings, wanted_form
from llm_protocol.wires.openai_chat.errors import encode_error
from llm_protocol.wires.openai_chat.images import encode_images, image_request
from llm_protocol.wires.openai_chat.inbound import chat_request, streaming
from llm_protocol.wires.openai_chat.models import encode_models
from llm_protocol.wires.openai_chat.outbound import OpenAIChatEncoder, encode_whole
from llm_protocol.wires.openai_chat.quirks import OPENAI, VendorProfile

_READERS: dict[str, Callable[[Body, str], AnyRequest]] = {
    "/chat/completions": chat_request,  # before the path that it ends with
    "/completions": completion_request,
    "/embeddings": embedding_request,
    "/images/generations": image_request,
    "/code/generations": code_request,
}


@final
class OpenAIChatServer:
    """Speaks to clients of this wire; see `ServerDialect`. ``quirks`` matter to a fake of one vendor only."""

    def __init__(self, quirks: VendorProfile = OPENAI) -> None:
        self.quirks = quirks

    @property
    def name(self) -> str:
        """The dialect's name."""
        return self.quirks.name

    def decode_request(self, path: str, body: bytes) -> Inbound:
        """What a client asks for, by the end of the path. Raises `BadRequestError`, `UnsupportedError`."""
        place = path.partition("?")[0].rstrip("/")
        reader = next((reader for end, reader in _READERS.items() if place.endswith(end)), None)
        if reader is None:
            raise bad_request(None, f"there is nothing at {place[:200]}; there is {', '.join(_READERS)}")
        fields = Body.parse(body)
        stream, usage = streaming(fields)
        request = reader(fields, self.name)
        if stream and isinstance(request, EmbeddingRequest | ImageRequest):
            raise unsupported("stream", "vectors and pictures are not streamed here; leave stream out")
        form = wanted_form(fields) if isinstance(request, EmbeddingRequest) else ""
        return Inbound(request, stream=stream, include_usage=usage, policy=fields.policy(), form=form)

    def response_encoder(self, inbound: Inbound, response_id: str) -> ResponseEncoder:
        """An encoder for one streamed answer."""
        return OpenAIChatEncoder(inbound, response_id, self.quirks)

    def encode_response(self, inbound: Inbound, response: LLMResponse) -> bytes:
        """The body of a whole answer."""
        match inbound.request:
            case EmbeddingRequest():
                body = encode_embeddings(response, inbound.form)
            case ImageRequest():
                body = encode_images(response)
            case _:
                body = encode_whole(inbound, response, self.quirks)
        return runtime_fields(body, response, wanted=is_wanted(inbound))

    def encode_error(self, failure: Failure) -> WireResponse:
        """Status, headers and body that the SDK turns into its exceptions."""
        return encode_error(failure)

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The body of the model list."""
        return encode_models(models)
