"""The server side of Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Annotated, Any, Literal, final

import msgspec

from llm_protocol.codec.fields import bad_request, json_body, leftovers, typed, undecoded, unsupported
from llm_protocol.codec.json import WireError
from llm_protocol.content import (
    HostedTool,
    JsonObject,
    Message,
    Opaque,
    Part,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolResult,
)
from llm_protocol.dialect import Inbound, ModelInfo, WireResponse
from llm_protocol.failures import Failure
from llm_protocol.requests import ChatRequest, Parameters
from llm_protocol.response import LLMResponse
from llm_protocol.runtime_fields import is_wanted, runtime_fields
from llm_protocol.wires.anthropic import errors
from llm_protocol.wires.anthropic.content import decode_blocks
from llm_protocol.wires.anthropic.models import encode_models
from llm_protocol.wires.anthropic.server_stream import AnthropicEncoder, encode_whole
from llm_protocol.wires.anthropic.shapes import NAME


@final
class AnthropicServer:
    """Speaks to clients of the Messages API."""

    name = NAME

    def decode_request(self, path: str, body: bytes) -> Inbound:
        """What a client asks for at ``/v1/messages`` or ``/v1/messages/count_tokens``."""
        endpoint = path.partition("?")[0].rstrip("/")
        if endpoint.endswith("/messages/count_tokens"):
            return decode_chat(body, max_tokens=COUNTED_MAX_TOKENS)
        if not endpoint.endswith("/messages"):
            raise unsupported("path", f"{path} is not served: the chat endpoint is /v1/messages")
        return decode_chat(body)

    def response_encoder(self, inbound: Inbound, response_id: str) -> AnthropicEncoder:
        """An encoder for one streamed response."""
        return AnthropicEncoder(inbound, response_id)

    def encode_response(self, inbound: Inbound, response: LLMResponse) -> bytes:
        """The body of a whole response."""
        return runtime_fields(encode_whole(response), response, wanted=is_wanted(inbound))

    def encode_error(self, failure: Failure) -> WireResponse:
        """Status, headers and body of an error."""
        return errors.encode_error(failure)

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The model list as one page."""
        return encode_models(models)


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[JsonObject]


class _Choice(msgspec.Struct):
    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Tool(msgspec.Struct):
    name: str
    input_schema: JsonObject
    description: str | None = None
    strict: bool | None = None


class _Body(msgspec.Struct):
    model: str
    max_tokens: Annotated[int, msgspec.Meta(ge=0)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    system: str | list[JsonObject] | None = None
    stream: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stop_sequences: list[str] | None = None
    tools: list[JsonObject] | None = None
    tool_choice: _Choice | None = None
    thinking: JsonObject | None = None
    output_config: JsonObject | None = None
    output_format: JsonObject | None = None  # what output_config.format was called before
    metadata: JsonObject | None = None
    llm_runtime: Any = None


_KNOWN = frozenset(field.name for field in msgspec.structs.fields(_Body))
_CHOICES: dict[str, Literal["auto", "none", "required", "named"]] = {
    "auto": "auto",
    "any": "required",
    "none": "none",
    "tool": "named",
}


COUNTED_MAX_TOKENS = 128_000
"""``max_tokens`` of a request whose tokens are counted: it has none. More than any thinking budget."""


def decode_chat(data: bytes, *, max_tokens: int | None = None) -> Inbound:
    """What the client asks for; with ``max_tokens`` where it does not say. Raises `BadRequestError` naming the field at
    fault.
    """
    given = json_body(data)
    if max_tokens is not None:
        given.setdefault("max_tokens", max_tokens)
    body = typed(given, _Body)
    own = leftovers(given, _KNOWN)
    try:
        messages = _messages(body)
    except WireError as exc:
        raise bad_request(str(exc).partition(":")[0], str(exc)) from None
    request = ChatRequest(
        model=body.model,
        messages=messages,
        tools=tuple(_tool(tool, at) for at, tool in enumerate(body.tools or ())),
        tool_choice=_choice(body.tool_choice),
        response_format=_response_format(body),
        parameters=_parameters(body, own),
    )
    return Inbound(request, stream=bool(body.stream), policy=undecoded(body.llm_runtime))


def _parameters(body: _Body, own: JsonObject) -> Parameters:
    reasoning = _reasoning(body, own)
    choice = body.tool_choice
    parallel = None if choice is None else choice.disable_parallel_tool_use
    if body.metadata is not None:
        _keep(own, "metadata", {key: value for key, value in body.metadata.items() if key != "user_id"})
    user = (body.metadata or {}).get("user_id")
    return Parameters(
        wire=NAME,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        max_output_tokens=body.max_tokens,
        stop=tuple(body.stop_sequences or ()),
        parallel_tool_calls=None if parallel is None else not parallel,
        user=user if isinstance(user, str) else None,
        extra={NAME: own} if own else {},
        **reasoning,
    )


def _reasoning(body: _Body, own: JsonObject) -> JsonObject:
    """The reasoning parameters; puts into ``own`` what they cannot hold."""
    config = body.output_config or {}
    _keep(own, "output_config", {key: value for key, value in config.items() if key not in ("effort", "format")})
    effort = config.get("effort")
    if not isinstance(effort, str | None):
        raise bad_request("output_config.effort", "output_config.effort: expected a text")
    found: JsonObject = {"reasoning_effort": effort} if effort is not None else {}
    match body.thinking:
        case None if effort is not None:
            own["thinking"] = None  # effort without thinking: no thinking of ours is to be added upstream
        case None:
            pass
        case {"type": "disabled"} if effort is None and len(body.thinking) == 1:
            found["reasoning_effort"] = "none"
        case {"type": "enabled", "budget_tokens": int(budget)} if len(body.thinking) == 2:
            found["reasoning_budget"] = budget
        case {"type": "enabled", "budget_tokens": int(budget), "display": "summarized"} if len(body.thinking) == 3:
            found |= {"reasoning_budget": budget, "reasoning_summary": "auto"}
        case {"type": "adaptive", "display": "summarized"} if len(body.thinking) == 2:
            found["reasoning_summary"] = "auto"
        case {"type": "adaptive"} if effort is not None and len(body.thinking) == 1:
            pass
        case other:
            own["thinking"] = other
            if other.get("type") == "enabled" and isinstance(other.get("budget_tokens"), int):
                found["reasoning_budget"] = other["budget_tokens"]
    return found


def _keep(own: JsonObject, name: str, rest: JsonObject) -> None:
    if rest:
        own[name] = rest


def _response_format(body: _Body) -> ResponseFormat | None:
    form = (body.output_config or {}).get("format") or body.output_format
    if form is None:
        return None
    match form:
        case {"type": "json_schema", "schema": dict(schema)}:
            return ResponseFormat(type="json_schema", schema=schema)
        case _:
            raise bad_request("output_config.format", "output_config.format: expected type json_schema and a schema")


# ---------------------------------------------------------------- tools


def _tool(given: JsonObject, at: int) -> Tool | HostedTool:
    if given.get("type") not in (None, "custom"):
        return HostedTool(dialect=NAME, value=given)
    try:
        tool = msgspec.convert(given, _Tool)
    except msgspec.ValidationError as exc:
        raise bad_request(f"tools.{at}", f"tools.{at}: {exc}") from None
    rest = {key: value for key, value in given.items() if key not in _TOOL_FIELDS and value is not None}
    return Tool(
        name=tool.name,
        description=tool.description,
        parameters=tool.input_schema,
        strict=tool.strict,
        extra={NAME: rest} if rest else None,
    )


_TOOL_FIELDS = frozenset(field.name for field in msgspec.structs.fields(_Tool)) | {"type"}


def _choice(choice: _Choice | None) -> ToolChoice | None:
    if choice is None:
        return None
    if choice.type == "tool" and choice.name is None:
        raise bad_request("tool_choice.name", "tool_choice.name: the field is required with type 'tool'")
    return ToolChoice(_CHOICES[choice.type], choice.name if choice.type == "tool" else None)


# ---------------------------------------------------------------- the conversation


def _messages(body: _Body) -> tuple[Message, ...]:
    found: list[Message] = []
    if body.system:
        found.append(Message("system", decode_blocks(body.system, "system")))
    for at, message in enumerate(body.messages):
        parts = decode_blocks(message.content, f"messages.{at}.content")
        if message.role == "user":
            found += _user_turn(parts)
        else:
            found.append(Message(message.role, parts))
    return tuple(found)


def _user_turn(parts: Iterable[Part]) -> Iterable[Message]:
    """The tool results of a turn are messages of their own."""
    for is_result, group in groupby(parts, _is_result):
        yield Message("tool" if is_result else "user", tuple(group))


def _is_result(part: Part) -> bool:
    return isinstance(part, ToolResult) or (isinstance(part, Opaque) and part.value.get("type") == "tool_result")
