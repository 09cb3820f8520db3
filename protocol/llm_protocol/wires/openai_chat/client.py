"""The client side of the chat wire, adapted to one vendor by its profile."""

from __future__ import annotations

from typing import Any, final

import msgspec

from llm_protocol.codec.decoding import AnswerDecoder, BodyDecoder, read_whole
from llm_protocol.codec.fields import add_extra, own_fields, own_value, set_parameters, unsupported
from llm_protocol.codec.headers import duration, header, int_header
from llm_protocol.codec.whole import WholeBody
from llm_protocol.content import HostedTool, JsonObject, ResponseFormat, Tool, ToolChoice
from llm_protocol.dialect import Headers, ModelPage, RateLimits, StreamDecoder, WireRequest, WireResponse, post
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.model_facts import ModelRule
from llm_protocol.model_rules import ModelRules, rules_of
from llm_protocol.parameters import Adapted, adapt, stops_reasoning
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    ImageRequest,
    Parameters,
    says_nothing,
)
from llm_protocol.vendor_profile import OPENAI, VendorProfile
from llm_protocol.wires.openai_chat.choices_stream import ChoicesDecoder
from llm_protocol.wires.openai_chat.content import encode_message
from llm_protocol.wires.openai_chat.embeddings import decode_embeddings, embedding_body
from llm_protocol.wires.openai_chat.errors import decode_error
from llm_protocol.wires.openai_chat.images import decode_images, edit_request_of, image_body
from llm_protocol.wires.openai_chat.models import decode_models
from llm_protocol.wires.openai_chat.stream import OpenAIChatDecoder


@final
class OpenAIChat:
    """Speaks to OpenAI, Cerebras, or a compatible server; see `ClientDialect`."""

    version = 2

    def __init__(self, profile: VendorProfile = OPENAI, rules: ModelRules | None = None) -> None:
        self.profile = profile
        self.rules = rules or rules_of(profile.kind)
        self.name = profile.name
        """The dialect's name, the key of its fields in ``Parameters.extra``."""
        self.request_types = profile.request_types
        """The request types that this vendor supports."""

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header that carries the API key."""
        return (("authorization", f"Bearer {key}"),)

    def adapt(self, request: AnyRequest) -> Adapted:
        """The request, adapted to what the vendor accepts."""
        return adapt(request, self.profile.target, self.rules.of(request.model))

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """The HTTP request. Embeddings and images are never streamed."""
        match request:
            case ChatRequest():
                return post(
                    "/chat/completions", chat_body(request, self.profile, self.rules.of(request.model), stream=stream)
                )
            case CompletionRequest():
                return post("/completions", completion_body(request, self.profile, stream=stream))
            case EmbeddingRequest():
                return post("/embeddings", embedding_body(request, self.profile))
            case ImageRequest() if request.images:
                return edit_request_of(request, self.profile)
            case ImageRequest():
                return post("/images/generations", image_body(request, self.profile))
            case _:
                raise unsupported("request_type", f"{self.profile.vendor} has no endpoint for {request.request_type}")

    def stream_decoder(self, request: AnyRequest) -> StreamDecoder:
        """A decoder for the response, whether it arrives streamed or complete."""
        if isinstance(request, ChatRequest | CompletionRequest):
            return BodyDecoder(self._decoder(request))
        return WholeBody(self, request)

    def decode_response(
        self, request: AnyRequest, response: WireResponse, ignored: set[str] | None = None
    ) -> list[Event]:
        """The events of a complete 2xx response."""
        match request:
            case EmbeddingRequest():
                return decode_embeddings(request, response.body)
            case ImageRequest():
                return decode_images(request, response.body)
            case _:
                return read_whole(self._decoder(request), response.body, ignored)

    def _decoder(self, request: AnyRequest) -> AnswerDecoder:
        if isinstance(request, ChatRequest) and request.n > 1:
            return ChoicesDecoder(request.request_id, self.name, request.n)
        return OpenAIChatDecoder(request.request_id, self.name, searches=_may_search(request))

    def decode_error(self, response: WireResponse) -> Failure:
        """The failure for a response with an error status. Without Retry-After, the reset time of the exhausted window
        is used.
        """
        limits = self.rate_limits(response.headers)
        return decode_error(
            response.status, response.headers, response.body, None if limits is None else _reset(limits)
        )

    def rate_limits(self, headers: Headers) -> RateLimits | None:
        """Return the remaining limits, according to the vendor's headers; ``None`` if they report none."""
        names = self.profile.limit_headers
        headers = tuple([field for field in headers if field[0] in names])
        if not headers:
            return None
        found = RateLimits(
            requests_limit=int_header(headers, names.requests_limit),
            requests_remaining=int_header(headers, names.requests_remaining),
            requests_reset_s=duration(header(headers, names.requests_reset)),
            tokens_limit=int_header(headers, names.tokens_limit),
            tokens_remaining=int_header(headers, names.tokens_remaining),
            tokens_reset_s=duration(header(headers, names.tokens_reset)),
        )
        if found == RateLimits():
            return None
        return msgspec.structs.replace(found, per_model=True) if self.profile.limits_per_model else found

    def models_request(self, page: str | None) -> WireRequest:  # noqa: ARG002
        """The request for the model list, which has one page."""
        return WireRequest("GET", "/models")

    def decode_models(self, body: bytes) -> ModelPage:
        """The model list. Raises `ProtocolError`."""
        return decode_models(body)


_SEARCHES = ("web_search_options", "plugins", "search_parameters")
"""The fields with which OpenAI, OpenRouter and xAI are asked to search the web."""


def _may_search(request: AnyRequest) -> bool:
    """Whether the vendor may search the web for the response, and list the pages at its end."""
    if not isinstance(request, ChatRequest):
        return False
    own = request.parameters.extra.get(OPENAI.name, {})
    hosted = (tool for tool in request.tools if isinstance(tool, HostedTool))
    return any(name in own for name in _SEARCHES) or any(tool.value.get("type") != "custom" for tool in hosted)


def _reset(limits: RateLimits) -> float | None:
    windows = (
        (limits.requests_remaining, limits.requests_reset_s),
        (limits.tokens_remaining, limits.tokens_reset_s),
    )
    return max((reset for left, reset in windows if left == 0 and reset is not None), default=None)


def chat_body(request: ChatRequest, profile: VendorProfile, rule: ModelRule, *, stream: bool) -> JsonObject:
    """The body of ``POST /chat/completions``."""
    messages = [
        wire
        for at, message in enumerate(request.messages)
        for wire in encode_message(message, f"messages[{at}]", profile)
    ]
    if rule.prefill and profile.prefill_field is not None and _is_begun(messages[-1:]):
        messages[-1][profile.prefill_field] = True
    body: JsonObject = {"model": request.model, "messages": messages}
    if request.n > 1:
        body["n"] = request.n
    if request.tools:
        body["tools"] = [_encode_tool(tool, f"tools[{at}]", profile) for at, tool in enumerate(request.tools)]
    if request.tool_choice is not None:
        body["tool_choice"] = _encode_tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = _encode_response_format(request.response_format)
    parameters = request.parameters
    if request.tools and stops_reasoning(rule, profile.target, request):
        parameters = msgspec.structs.replace(parameters, reasoning_effort="none")
    add_parameters(body, parameters, profile, stream=stream)
    return body


def _is_begun(last: list[JsonObject]) -> bool:
    """Whether the last message is the beginning of a response that the vendor is to continue."""
    return any(message["role"] == "assistant" and "tool_calls" not in message for message in last)


_PARAMETERS = (
    "frequency_penalty", "max_output_tokens", "parallel_tool_calls", "presence_penalty", "reasoning_effort", "seed",
    "stop", "temperature", "top_k", "top_p", "user",
)  # fmt: skip
"""The parameters that this wire can express. `llm_protocol.parameters` says which of them a vendor accepts."""


def add_parameters(body: JsonObject, parameters: Parameters, profile: VendorProfile, *, stream: bool) -> None:
    """Add the parameters that are set, the streaming fields and ``extra``."""
    is_silent = says_nothing(parameters)
    if not is_silent:
        names = {"max_output_tokens": profile.max_tokens_field, "user": profile.user_field, "seed": profile.seed_field}
        body |= set_parameters(parameters, {name: names.get(name, name) for name in _PARAMETERS})
    if stream:
        body["stream"] = True
        if profile.stream_usage:
            body["stream_options"] = {"include_usage": True}
    if not is_silent:
        add_extra(body, parameters, profile.name)


def _encode_tool(tool: Tool | HostedTool, where: str, profile: VendorProfile) -> JsonObject:
    if isinstance(tool, HostedTool):
        return own_value(tool, where, profile.name, profile.vendor)
    function: JsonObject = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters or profile.needs_parameters:
        function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    if tool.strict is not None:
        function["strict"] = tool.strict
    function.update(
        {name: value for name, value in own_fields(tool.extra, profile.name).items() if name not in function}
    )
    return {"type": "function", "function": function}


def _encode_tool_choice(choice: ToolChoice) -> Any:
    return choice.mode if choice.mode != "named" else {"type": "function", "function": {"name": choice.name}}


def _encode_response_format(format_: ResponseFormat) -> JsonObject:
    if format_.type != "json_schema":
        return {"type": "json_object" if format_.type == "json" else "text"}
    schema: JsonObject = {"name": format_.name, "schema": format_.schema or {}}
    if format_.strict is not None:
        schema["strict"] = format_.strict
    if format_.description is not None:
        schema["description"] = format_.description
    return {"type": "json_schema", "json_schema": schema}


def completion_body(request: CompletionRequest, profile: VendorProfile, *, stream: bool) -> JsonObject:
    """The body of ``POST /completions``, which knows only the older names of some parameters."""
    legacy = msgspec.structs.replace(profile, max_tokens_field="max_tokens", user_field="user")
    body: JsonObject = {"model": request.model, "prompt": request.prompt}
    if request.suffix is not None:
        body["suffix"] = request.suffix
    add_parameters(body, request.parameters, legacy, stream=stream)
    return body
