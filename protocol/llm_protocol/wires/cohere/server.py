"""The server side of Cohere's v2 API.

Fields without a canonical meaning (documents, citation options, safety mode) stay in ``parameters.extra["cohere"]`` and
reach a Cohere provider unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from llm_protocol.codec.body import Body
from llm_protocol.codec.fields import unsupported
from llm_protocol.codec.response_encoding import is_wanted, runtime_fields
from llm_protocol.content import HostedTool, JsonObject, ResponseFormat, Tool, ToolChoice
from llm_protocol.dialect import ClientRequest, ModelInfo, WireResponse
from llm_protocol.failures import Failure
from llm_protocol.requests import ChatRequest, EmbeddingRequest, Parameters
from llm_protocol.response import LLMResponse
from llm_protocol.wires.cohere import errors
from llm_protocol.wires.cohere.content import decode_messages
from llm_protocol.wires.cohere.embeddings import decode_embed, decode_embed_v1, encode_embeddings
from llm_protocol.wires.cohere.models import encode_models
from llm_protocol.wires.cohere.server_stream import CohereEncoder, encode_whole
from llm_protocol.wires.cohere.shapes import NAME


@final
class CohereServer:
    """Speaks to clients of Cohere's v2 API; see `ServerDialect`."""

    name = NAME

    def decode_request(self, path: str, body: bytes) -> ClientRequest:
        """Decode a client's request to ``/v2/chat``, ``/v2/embed`` or ``/v1/embed``. Raises `BadRequestError` or
        `UnsupportedError`.
        """
        endpoint = path.partition("?")[0].rstrip("/")
        decode = next((decode for end, decode in _READERS.items() if endpoint.endswith(end)), None)
        if decode is None:
            raise unsupported("path", f"{path} is not served: the endpoints are {', '.join(_READERS)}")
        return decode(Body.parse(body))

    def response_encoder(self, inbound: ClientRequest, response_id: str) -> CohereEncoder:
        """An encoder for one streamed response."""
        return CohereEncoder(inbound, response_id)

    def encode_response(self, inbound: ClientRequest, response: LLMResponse) -> bytes:
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


_CHOICES = {"NONE": ToolChoice("none"), "REQUIRED": ToolChoice("required")}


def decode_chat(body: Body) -> ClientRequest:
    """The request in a client's body. Raises `BadRequestError`."""
    stream, choice = bool(body.boolean("stream")), body.word("tool_choice", _CHOICES)
    strict = body.boolean("strict_tools")
    request = ChatRequest(
        model=body.required_string("model"),
        messages=decode_messages(body),
        tools=tuple(_tool(tool, strict) for tool in body.objects("tools")),
        tool_choice=_CHOICES[choice] if choice else None,
        response_format=_response_format(body.object("response_format")),
        parameters=_parameters(body),
    )
    return ClientRequest(request, stream=stream, policy=body.policy())


def _parameters(body: Body) -> Parameters:
    """The parameters. Call this last: fields that no reader has read become ``extra``."""
    effort, budget = _reasoning(body.object("thinking"))
    parameters: JsonObject = {
        "temperature": body.number("temperature", 0),
        "top_p": body.number("p"),
        "top_k": body.integer("k"),
        "max_output_tokens": body.integer("max_tokens", 0),
        "stop": body.strings("stop_sequences"),
        "frequency_penalty": body.number("frequency_penalty"),
        "presence_penalty": body.number("presence_penalty"),
        "seed": body.integer("seed"),
    }
    extra = body.rest()
    return Parameters(
        wire=NAME,
        reasoning_effort=effort,
        reasoning_budget=budget,
        extra={NAME: extra} if extra else {},
        **parameters,
    )


def _reasoning(thinking: Body | None) -> tuple[str | None, int | None]:
    """Return the reasoning effort and budget."""
    if thinking is None:
        return None, None
    budget = thinking.integer("token_budget")
    if thinking.required_word("type", ("enabled", "disabled")) == "disabled":
        return "none", None
    return "high" if budget is None else None, budget


def _tool(tool: Body, strict: bool | None) -> Tool | HostedTool:
    if tool.string("type") not in (None, "function"):
        return HostedTool(dialect=NAME, value=tool.raw)
    function = tool.required_object("function")
    return Tool(
        name=function.required_string("name"),
        description=function.string("description"),
        parameters=function.json_object("parameters") or {},
        strict=strict or None,
    )


def _response_format(format_: Body | None) -> ResponseFormat | None:
    if format_ is None:
        return None
    if format_.required_word("type", ("text", "json_object")) == "text":
        return ResponseFormat(type="text")
    schema = format_.json_object("json_schema")
    if schema is None:
        schema = format_.json_object("schema")
    return ResponseFormat(type="json") if schema is None else ResponseFormat(type="json_schema", schema=schema)


_READERS: dict[str, Callable[[Body], ClientRequest]] = {
    "/v2/chat": decode_chat,
    "/v2/embed": decode_embed,
    "/v1/embed": decode_embed_v1,
}
