"""The server side: what the front door speaks, over SSE and over WebSocket, and what the fake vendor is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject, Refusal, Text
from llm_protocol.dialect import Inbound, ModelInfo, WireResponse
from llm_protocol.failures import Failure
from llm_protocol.response import LLMResponse
from llm_protocol.wires.openai_chat.errors import encode_error, error_body
from llm_protocol.wires.openai_chat.models import encode_models
from llm_protocol.wires.responses.inbound import Create, ResponseOptions, decode_create
from llm_protocol.wires.responses.outbound import OpenAIResponsesEncoder
from llm_protocol.wires.responses.reasoning import NAME
from llm_protocol.wires.responses.resource import ResourceEncoder, ending_of, output_item, part_id

NO_OPTIONS = ResponseOptions()


@final
class OpenAIResponsesServer:
    """Speaks to clients of the Responses API; see `llm_protocol.dialect.ServerDialect`."""

    name = NAME

    def decode_create(self, data: bytes | str) -> Create:
        """A request with its options, from an HTTP body or a ``response.create`` frame."""
        return decode_create(data)

    def decode_request(self, path: str, body: bytes) -> Inbound:  # noqa: ARG002
        """The request alone."""
        return decode_create(body).inbound

    def response_encoder(
        self,
        inbound: Inbound,
        response_id: str,
        options: ResponseOptions = NO_OPTIONS,
        *,
        stream_id: str | None = None,
        starting_after: int = -1,
    ) -> OpenAIResponsesEncoder:
        """An encoder for one streamed response, from its beginning or from after a number the reader has seen."""
        return OpenAIResponsesEncoder(inbound, response_id, options, stream_id=stream_id, starting_after=starting_after)

    def encode_response(
        self,
        inbound: Inbound,
        response: LLMResponse,
        options: ResponseOptions = NO_OPTIONS,
        *,
        failure: Failure | None = None,
    ) -> bytes:
        """The whole response; with ``failure`` what there was of it."""
        refused = any(isinstance(part, Refusal) for part in response.output)
        ending = ending_of(response.finish_reason, failure, refused=refused)
        resource = ResourceEncoder(inbound, response.response_id, options)
        output = _output(response, cut=ending.status != "completed")
        return encode_json(resource.body(ending.status, output, ending=ending, response=response, usage=response.usage))

    def encode_pending(
        self, inbound: Inbound, response_id: str, options: ResponseOptions = NO_OPTIONS, *, status: str = "in_progress"
    ) -> bytes:
        """A response that is still being made (``"in_progress"``) or waits (``"queued"``)."""
        return encode_json(ResourceEncoder(inbound, response_id, options).body(status))

    def encode_error(self, failure: Failure) -> WireResponse:
        """A refusal of the whole request."""
        return encode_error(failure)

    def error_event(self, failure: Failure, *, stream_id: str | None = None, event_id: str | None = None) -> bytes:
        """The WebSocket frame for a request that was refused before ``response.created``."""
        refused = encode_error(failure)
        error: JsonObject = error_body(failure)["error"]
        hints = {name: value for name, value in refused.headers if name != "content-type"}
        if hints:
            error["headers"] = hints
        event: JsonObject = {"type": "error", "status": refused.status, "error": error}
        optional = {"stream_id": stream_id, "event_id": event_id}
        return encode_json(event | {name: value for name, value in optional.items() if value is not None})

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The model list."""
        return encode_models(models)


def _output(response: LLMResponse, *, cut: bool) -> list[JsonObject]:
    """The items of a whole answer. With ``cut`` the last one, if it is a message, did not come to its end."""
    found: list[JsonObject] = []
    for part in response.output:
        ident = part_id(part, response.response_id, len(found))
        broken = cut and isinstance(part, Text) and part is response.output[-1]
        status = "incomplete" if broken else "completed"
        if (item := output_item(part, ident, status)) is not None:
            found.append(item)
    return found
