"""The server side of Cohere's v2 API.

Fields without a canonical meaning (documents, citation options, safety mode) stay in ``parameters.extra["cohere"]`` and
reach a Cohere provider unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, final

import msgspec

from llm_protocol.codec.fields import bad_request, json_body, leftovers, typed, undecoded, unsupported
from llm_protocol.codec.json import WireError
from llm_protocol.content import HostedTool, JsonObject, ResponseFormat, Tool, ToolChoice
from llm_protocol.dialect import Inbound, ModelInfo, WireResponse
from llm_protocol.failures import Failure
from llm_protocol.requests import ChatRequest, EmbeddingRequest, Parameters
from llm_protocol.response import LLMResponse
from llm_protocol.runtime_fields import is_wanted, runtime_fields
from llm_protocol.wires.cohere import errors
from llm_protocol.wires.cohere.content import decode_messages
from llm_protocol.wires.cohere.embeddings import decode_embed, decode_embed_v1, encode_embeddings
from llm_protocol.wires.cohere.models import encode_models
from llm_protocol.wires.cohere.server_stream import CohereEncoder, encode_whole
from llm_protocol.wires.cohere.shapes import NAME


@final
class CohereServer:
    """Speaks to clients of Cohere's v2 API."""

    name = NAME

    def decode_request(self, path: str, body: bytes) -> Inbound:
        """What a client asks for at ``/v2/chat``, ``/v2/embed`` or ``/v1/embed``."""
        if path.partition("?")[0].rstrip("/").endswith("/v1/embed"):
            return decode_embed_v1(json_body(body))
        decode = {"chat": decode_chat, "embed": decode_embed}.get(
            path.partition("?")[0].rstrip("/").rpartition("/v2/")[2]
        )
        if decode is None:
            raise unsupported("path", f"{path} is not served: there are /v2/chat and /v2/embed")
        return decode(json_body(body))

    def response_encoder(self, inbound: Inbound, response_id: str) -> CohereEncoder:
        """An encoder for one streamed response."""
        return CohereEncoder(inbound, response_id)

    def encode_response(self, inbound: Inbound, response: LLMResponse) -> bytes:
        """The body of a whole response."""
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


class _Thinking(msgspec.Struct):
    type: Literal["enabled", "disabled"]
    token_budget: int | None = None


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: JsonObject | None = None


class _Body(msgspec.Struct):
    model: str
    messages: Annotated[list[JsonObject], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    p: float | None = None
    k: int | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stop_sequences: list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    tools: list[JsonObject] | None = None
    tool_choice: Literal["REQUIRED", "NONE"] | None = None
    strict_tools: bool | None = None
    response_format: JsonObject | None = None
    thinking: _Thinking | None = None
    llm_runtime: Any = None


_KNOWN = frozenset(field.name for field in msgspec.structs.fields(_Body))
_CHOICES = {"NONE": ToolChoice("none"), "REQUIRED": ToolChoice("required")}


def decode_chat(given: JsonObject) -> Inbound:
    """What the client asks for. Raises `BadRequestError` naming the field at fault."""
    body = typed(given, _Body)
    own = {name: value for name, value in leftovers(given, _KNOWN).items() if value is not None}
    try:
        messages = decode_messages(body.messages)
    except WireError as exc:
        raise bad_request(str(exc).partition(":")[0], str(exc)) from None
    request = ChatRequest(
        model=body.model,
        messages=messages,
        tools=tuple(_tool(tool, body.strict_tools, at) for at, tool in enumerate(body.tools or ())),
        tool_choice=_CHOICES.get(body.tool_choice or ""),
        response_format=_response_format(body.response_format),
        parameters=_parameters(body, own),
    )
    return Inbound(request, stream=bool(body.stream), policy=undecoded(body.llm_runtime))


def _parameters(body: _Body, own: JsonObject) -> Parameters:
    effort, budget = None, None
    if body.thinking is not None:
        budget = body.thinking.token_budget if body.thinking.type == "enabled" else None
        effort = "none" if body.thinking.type == "disabled" else "high" if budget is None else None
    return Parameters(
        wire=NAME,
        temperature=body.temperature,
        top_p=body.p,
        top_k=body.k,
        max_output_tokens=body.max_tokens,
        stop=tuple(body.stop_sequences or ()),
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        seed=body.seed,
        reasoning_effort=effort,
        reasoning_budget=budget,
        extra={NAME: own} if own else {},
    )


def _tool(given: JsonObject, strict: bool | None, at: int) -> Tool | HostedTool:
    if given.get("type", "function") != "function":
        return HostedTool(dialect=NAME, value=given)
    try:
        function = msgspec.convert(given.get("function"), _Function)
    except msgspec.ValidationError as exc:
        raise bad_request(f"tools.{at}.function", f"tools.{at}.function: {exc}") from None
    return Tool(
        name=function.name,
        description=function.description,
        parameters=function.parameters or {},
        strict=strict or None,
    )


def _response_format(given: JsonObject | None) -> ResponseFormat | None:
    match given:
        case None:
            return None
        case {"type": "text"}:
            return ResponseFormat(type="text")
        case {"type": "json_object", "json_schema": dict(schema)} | {"type": "json_object", "schema": dict(schema)}:
            return ResponseFormat(type="json_schema", schema=schema)
        case {"type": "json_object"}:
            return ResponseFormat(type="json")
        case _:
            raise bad_request("response_format.type", "response_format.type: expected text or json_object")
