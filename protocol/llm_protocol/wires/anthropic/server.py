"""The server side of Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Literal, final

from llm_protocol.codec.body import Body
from llm_protocol.codec.fields import unsupported
from llm_protocol.codec.response_encoding import is_wanted, runtime_fields
from llm_protocol.content import (
    HostedTool,
    JsonObject,
    Message,
    Opaque,
    Part,
    ResponseFormat,
    Role,
    Tool,
    ToolChoice,
    ToolResult,
)
from llm_protocol.dialect import ClientRequest, ModelInfo, WireResponse
from llm_protocol.failures import Failure
from llm_protocol.requests import ChatRequest, Parameters
from llm_protocol.response import LLMResponse
from llm_protocol.wires.anthropic import errors
from llm_protocol.wires.anthropic.content import decode_blocks
from llm_protocol.wires.anthropic.models import encode_models
from llm_protocol.wires.anthropic.server_stream import AnthropicEncoder, encode_whole
from llm_protocol.wires.anthropic.shapes import NAME


@final
class AnthropicServer:
    """Speaks to clients of the Messages API; see `ServerDialect`."""

    name = NAME

    def decode_request(self, path: str, body: bytes) -> ClientRequest:
        """Decode a client's request to ``/v1/messages`` or ``/v1/messages/count_tokens``. Raises `BadRequestError` or
        `UnsupportedError`.
        """
        endpoint = path.partition("?")[0].rstrip("/")
        if endpoint.endswith("/messages/count_tokens"):
            return decode_chat(body, max_tokens=COUNTED_MAX_TOKENS)
        if not endpoint.endswith("/messages"):
            raise unsupported("path", f"{path} is not served: the chat endpoint is /v1/messages")
        return decode_chat(body)

    def response_encoder(self, inbound: ClientRequest, response_id: str) -> AnthropicEncoder:
        """An encoder for one streamed response."""
        return AnthropicEncoder(inbound, response_id)

    def encode_response(self, inbound: ClientRequest, response: LLMResponse) -> bytes:
        """The body of a whole response."""
        return runtime_fields(encode_whole(response), response, wanted=is_wanted(inbound))

    def encode_error(self, failure: Failure) -> WireResponse:
        """Status, headers and body of an error."""
        return errors.encode_error(failure)

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The model list as one page."""
        return encode_models(models)


_ROLES: tuple[Role, ...] = ("user", "assistant", "system")
_CHOICES: dict[str, Literal["auto", "none", "required", "named"]] = {
    "auto": "auto",
    "any": "required",
    "none": "none",
    "tool": "named",
}


COUNTED_MAX_TOKENS = 128_000
"""The ``max_tokens`` of a request for a token count, which has none itself. It is more than any thinking budget."""


def decode_chat(data: bytes, *, max_tokens: int | None = None) -> ClientRequest:
    """The request in a client's body. ``max_tokens`` is used if the body has none. Raises `BadRequestError`."""
    body = Body.parse(data)
    wanted = body.integer("max_tokens", low=0)
    if wanted is None and max_tokens is None:
        raise body.wrong("max_tokens", "a whole number; it is missing")
    stream = bool(body.boolean("stream"))
    tool_choice, parallel = _tool_choice(body)
    request = ChatRequest(
        model=body.required_string("model"),
        messages=_messages(body),
        tools=tuple(map(_tool, body.objects("tools"))),
        tool_choice=tool_choice,
        response_format=_response_format(body),
        parameters=_parameters(body, max_tokens if wanted is None else wanted, parallel),
    )
    return ClientRequest(request, stream=stream, policy=body.policy())


def _parameters(body: Body, max_tokens: int | None, parallel: bool | None) -> Parameters:
    """The parameters. Call this last: fields that no reader has read become ``extra``."""
    own: JsonObject = {}
    user = None
    if (metadata := body.object("metadata")) is not None:
        user = metadata.string("user_id")
        _keep(own, "metadata", metadata)
    parameters: JsonObject = {
        "temperature": body.number("temperature", 0, 1),
        "top_p": body.number("top_p", 0, 1),
        "top_k": body.integer("top_k", 0),
        "stop": body.strings("stop_sequences"),
        **_reasoning(body, own),
    }
    extra = {**body.rest(), **own}
    return Parameters(
        wire=NAME,
        max_output_tokens=max_tokens,
        parallel_tool_calls=parallel,
        user=user,
        extra={NAME: extra} if extra else {},
        **parameters,
    )


def _reasoning(body: Body, own: JsonObject) -> JsonObject:
    """The reasoning parameters. Settings that the parameters cannot express are added to ``own``."""
    effort = None
    if (config := body.object("output_config")) is not None:
        effort = config.string("effort")
        config.take("format")
        _keep(own, "output_config", config)
    found: JsonObject = {"reasoning_effort": effort} if effort is not None else {}
    match thinking := body.json_object("thinking"):
        case None if effort is not None:
            own["thinking"] = None  # effort without thinking: do not add thinking upstream
        case None:
            pass
        case {"type": "disabled"} if effort is None and len(thinking) == 1:
            found["reasoning_effort"] = "none"
        case {"type": "enabled", "budget_tokens": int(budget)} if len(thinking) == 2:
            found["reasoning_budget"] = budget
        case {"type": "enabled", "budget_tokens": int(budget), "display": "summarized"} if len(thinking) == 3:
            found |= {"reasoning_budget": budget, "reasoning_summary": "auto"}
        case {"type": "adaptive", "display": "summarized"} if len(thinking) == 2:
            found["reasoning_summary"] = "auto"
        case {"type": "adaptive"} if effort is not None and len(thinking) == 1:
            pass
        case other:
            own["thinking"] = other
            if other.get("type") == "enabled" and isinstance(other.get("budget_tokens"), int):
                found["reasoning_budget"] = other["budget_tokens"]
    return found


def _keep(own: JsonObject, name: str, fields: Body) -> None:
    if rest := fields.rest():
        own[name] = rest


def _response_format(body: Body) -> ResponseFormat | None:
    config = body.object("output_config")
    older = body.object("output_format")  # the former name of output_config.format
    format_ = (config and config.object("format")) or older
    if format_ is None:
        return None
    format_.required_word("type", ("json_schema",))
    return ResponseFormat(type="json_schema", schema=format_.required_object("schema").raw)


# ---------------------------------------------------------------- tools


def _tool(tool: Body) -> Tool | HostedTool:
    if tool.string("type") not in (None, "custom"):
        return HostedTool(dialect=NAME, value=tool.raw)
    name, description = tool.required_string("name"), tool.string("description")
    schema, strict = tool.required_object("input_schema").raw, tool.boolean("strict")
    rest = tool.rest()
    return Tool(
        name=name, description=description, parameters=schema, strict=strict, extra={NAME: rest} if rest else None
    )


def _tool_choice(body: Body) -> tuple[ToolChoice | None, bool | None]:
    """The tool choice, and whether calls may be parallel."""
    choice = body.object("tool_choice")
    if choice is None:
        return None, None
    mode = _CHOICES[choice.required_word("type", _CHOICES)]
    disabled = choice.boolean("disable_parallel_tool_use")
    name = choice.required_string("name") if mode == "named" else None
    return ToolChoice(mode, name), None if disabled is None else not disabled


# ---------------------------------------------------------------- the conversation


def _messages(body: Body) -> tuple[Message, ...]:
    found: list[Message] = []
    if body.take("system"):
        found.append(Message("system", decode_blocks(body, "system")))
    messages = body.objects("messages")
    if not messages:
        raise body.wrong("messages", "a list of at least one message")
    for message in messages:
        role = message.required_word("role", _ROLES)
        parts = decode_blocks(message, "content")
        found += _user_turn(parts) if role == "user" else [Message(role, parts)]
    return tuple(found)


def _user_turn(parts: Iterable[Part]) -> Iterable[Message]:
    """Split a turn: tool results become separate messages."""
    for is_result, group in groupby(parts, _is_result):
        yield Message("tool" if is_result else "user", tuple(group))


def _is_result(part: Part) -> bool:
    return isinstance(part, ToolResult) or (isinstance(part, Opaque) and part.value.get("type") == "tool_result")
