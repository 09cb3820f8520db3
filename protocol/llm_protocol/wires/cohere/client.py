"""The client side of Cohere's v2 API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import msgspec

from llm_protocol.codec.decoding import BodyDecoder, read_whole
from llm_protocol.codec.fields import add_extra, bad_request, own_fields, own_value, set_parameters, unsupported
from llm_protocol.codec.whole import WholeBody
from llm_protocol.content import HostedTool, JsonObject, ResponseFormat, Tool, ToolChoice
from llm_protocol.dialect import Headers, ModelPage, RateLimits, StreamDecoder, WireRequest, WireResponse, post
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.model_facts import ModelRule
from llm_protocol.model_rules import ModelRules, rules_of
from llm_protocol.parameters import TARGETS, Adapted, adapt
from llm_protocol.requests import AnyRequest, ChatRequest, EmbeddingRequest, LLMProvider, Parameters, RequestType
from llm_protocol.wires.cohere import errors, models
from llm_protocol.wires.cohere.content import encode_messages, with_plans
from llm_protocol.wires.cohere.embeddings import decode_embeddings, embedding_body
from llm_protocol.wires.cohere.shapes import NAME
from llm_protocol.wires.cohere.stream import CohereDecoder


@final
class Cohere:
    """Speaks to Cohere; see `ClientDialect`."""

    name = NAME
    version = 1
    request_types = frozenset({RequestType.CHAT, RequestType.EMBEDDING})

    def __init__(self, rules: ModelRules | None = None) -> None:
        self.rules = rules or rules_of(LLMProvider.COHERE)

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header fields that carry the API key."""
        return (("authorization", f"Bearer {key}"),)

    def adapt(self, request: AnyRequest) -> Adapted:
        """The request, adapted to what Cohere accepts."""
        adapted = adapt(request, TARGETS[NAME], self.rules.of(request.model))
        if isinstance(chat := adapted.request, ChatRequest):
            planned = msgspec.structs.replace(chat, messages=with_plans(chat.messages))
            adapted = adapted._replace(request=planned)
        return adapted

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """The HTTP request for a chat or for embeddings, which are never streamed."""
        match request:
            case ChatRequest():
                return post("/v2/chat", chat_body(request, self.rules.of(request.model), stream=stream))
            case EmbeddingRequest():
                return post("/v2/embed", embedding_body(request, self.rules.of(request.model)))
            case _:
                raise unsupported("request_type", f"Cohere has no {request.request_type} endpoint")

    def stream_decoder(self, request: AnyRequest) -> StreamDecoder:
        """A decoder for a streamed chat response, or for embeddings, which are not streamed."""
        if isinstance(request, EmbeddingRequest):
            return WholeBody(self, request)
        return BodyDecoder(CohereDecoder())

    def decode_response(
        self, request: AnyRequest, response: WireResponse, ignored: set[str] | None = None
    ) -> list[Event]:
        """The events of a whole response."""
        if isinstance(request, EmbeddingRequest):
            return decode_embeddings(request, response.body)
        return read_whole(CohereDecoder(), response.body, ignored)

    def decode_error(self, response: WireResponse) -> Failure:
        """The failure for a response with an error status."""
        return errors.decode_error(response)

    def rate_limits(self, headers: Headers) -> RateLimits | None:
        """The limits that the headers report; ``None`` if they report none."""
        return errors.rate_limits(headers)

    def models_request(self, page: str | None) -> WireRequest:
        """The request for a page of the model list."""
        return models.models_request(page)

    def decode_models(self, body: bytes) -> ModelPage:
        """A page of the model list. Raises `ProtocolError`."""
        return models.decode_models(body)


_FIELDS = {
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "max_output_tokens": "max_tokens",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "stop": "stop_sequences",
}
"""The fields of `Parameters`, and the wire's names for them."""


def chat_body(request: ChatRequest, rule: ModelRule, *, stream: bool) -> JsonObject:
    """The body of ``POST /v2/chat``. Raises `UnsupportedError` or `BadRequestError`."""
    parameters = request.parameters
    body: JsonObject = {"model": request.model, "messages": encode_messages(request.messages), "stream": stream}
    body |= set_parameters(parameters, _FIELDS)
    body |= _tool_fields(request.tools, request.tool_choice)
    body |= _thinking(parameters, rule)
    body |= _response_format(request.response_format)
    add_extra(body, parameters, NAME)
    return body


def _thinking(parameters: Parameters, rule: ModelRule) -> JsonObject:
    # Thoughts are always shown in full, so no summary has to be requested.
    budget, effort = parameters.reasoning_budget, parameters.reasoning_effort
    if (budget is None and effort is None) or rule.thinking == ():
        return {}
    if budget == 0 or (budget is None and effort == "none"):
        return {"thinking": {"type": "disabled"}}
    if budget is None:
        budget = rule.budgets.get(effort or "")
    return {"thinking": {"type": "enabled"} | ({} if budget is None else {"token_budget": budget})}


def _response_format(form: ResponseFormat | None) -> JsonObject:
    if form is None or form.type == "text":
        return {}
    schema = {"json_schema": form.schema or {"type": "object"}} if form.type == "json_schema" else {}
    return {"response_format": {"type": "json_object", **schema}}


# ---------------------------------------------------------------- tools


_CHOICES = {"none": "NONE", "required": "REQUIRED", "named": "REQUIRED"}


def _tool_fields(tools: Sequence[Tool | HostedTool], choice: ToolChoice | None) -> JsonObject:
    if choice is not None and choice.mode == "named":
        tools = _only(tools, choice.name)
    body: JsonObject = {}
    if tools:
        body["tools"] = [_encode_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)]
        if {tool.strict for tool in tools if isinstance(tool, Tool)} - {None} == {True}:
            body["strict_tools"] = True
    if choice is not None and choice.mode in _CHOICES:
        body["tool_choice"] = _CHOICES[choice.mode]
    return body


def _only(tools: Sequence[Tool | HostedTool], name: str | None) -> Sequence[Tool | HostedTool]:
    """Return only the tool called ``name``. Cohere cannot be forced to call one particular tool; so it is given only
    that tool, and has to call one. Raises `BadRequestError` if there is no such tool.
    """
    found = [tool for tool in tools if isinstance(tool, Tool) and tool.name == name]
    if not found:
        raise bad_request("tool_choice", f"tool_choice names {name!r}, which is not among the tools")
    return found


def _encode_tool(tool: Tool | HostedTool, where: str) -> JsonObject:
    if isinstance(tool, HostedTool):
        return own_value(tool, where, NAME, "Cohere")
    function: JsonObject = {"name": tool.name}
    if tool.parameters:
        function["parameters"] = tool.parameters
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function, **own_fields(tool.extra, NAME)}
