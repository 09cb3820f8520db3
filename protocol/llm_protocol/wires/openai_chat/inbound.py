"""A client's chat request, read. Unknown fields, and unknown shapes of known ones, travel on under ``extra``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

import msgspec

from llm_protocol.codec.body import Body
from llm_protocol.codec.json import WireError
from llm_protocol.codec.media import image_from_url
from llm_protocol.content import (
    HostedTool,
    Image,
    JsonObject,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_protocol.extra_fields import is_empty
from llm_protocol.requests import ChatRequest, Parameters
from llm_protocol.wires.openai_chat.extras import DETAILS, WIRE, text_of_details, with_details

_ROLES: tuple[Role, ...] = get_args(Role)


def chat_request(body: Body, name: str) -> ChatRequest:
    """The request in a client's body. Raises `BadRequestError`, `UnsupportedError`."""
    for field in ("functions", "function_call"):
        if body.take(field) is not None:
            raise body.wrong(field, "left out: it is the old form of tools and tool_choice")
    refuse_many(body, "n")
    refuse_lost(body)
    messages = tuple(_joined(_message(message, name) for message in body.objects("messages")))
    if not messages:
        raise body.wrong("messages", "a list of at least one message")
    odd: JsonObject = {}
    return ChatRequest(
        model=body.model(),
        messages=messages,
        tools=tuple(_tool(tool, name) for tool in body.objects("tools")),
        tool_choice=_tool_choice(body, odd),
        response_format=_response_format(body, odd),
        parameters=common_parameters(body, name, odd),
    )


def refuse_many(body: Body, field: str) -> None:
    """Refuse to be asked for several answers at once."""
    if (body.integer(field) or 1) != 1:
        raise body.cannot(field, f"{field} must be 1: a run is one answer, so ask several times for several")


def refuse_lost(body: Body) -> None:
    """Refuse to be asked for what would be lost on the way back."""
    if body.raw.get("logprobs"):
        raise body.cannot("logprobs", "log probabilities are not passed on; leave logprobs out")
    modalities = body.raw.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        raise body.cannot("modalities", "sound is not passed on; leave audio out of modalities")


def streaming(body: Body) -> tuple[bool, bool]:
    """Whether to stream, and whether usage is wanted in the stream."""
    options = body.object("stream_options")
    return bool(body.boolean("stream")), bool(options and options.boolean("include_usage"))


def common_parameters(body: Body, name: str, odd: JsonObject | None = None) -> Parameters:
    """The parameters; read last, since what nobody read becomes ``extra``."""
    newer, older = body.integer("max_completion_tokens"), body.integer("max_tokens")
    safety, user = body.string("safety_identifier"), body.string("user")
    parameters = Parameters(
        temperature=body.number("temperature"),
        top_p=body.number("top_p"),
        top_k=body.integer("top_k"),
        max_output_tokens=older if newer is None else newer,
        stop=body.strings("stop"),
        frequency_penalty=body.number("frequency_penalty"),
        presence_penalty=body.number("presence_penalty"),
        seed=body.integer("seed"),
        reasoning_effort=body.string("reasoning_effort"),
        parallel_tool_calls=body.boolean("parallel_tool_calls"),
        user=user if safety is None else safety,
    )
    return with_extra(parameters, body, name, odd)


def with_extra(parameters: Parameters, body: Body, name: str, odd: JsonObject | None = None) -> Parameters:
    """``parameters`` with what nobody read of the body."""
    extra = {**body.rest(), **(odd or {})}
    return msgspec.structs.replace(parameters, extra={name: extra}) if extra else parameters


# ---------------------------------------------------------------- messages


def _joined(messages: Iterable[Message]) -> Iterator[Message]:
    """Results that stand one after another are one turn."""
    turn: Message | None = None
    for message in messages:
        if turn and turn.role == message.role == "tool":
            turn = Message("tool", turn.content + message.content)
            continue
        if turn:
            yield turn
        turn = message
    if turn:
        yield turn


def _message(message: Body, name: str) -> Message:
    role = message.required_string("role")
    if role not in _ROLES:
        raise message.wrong("role", f"one of {', '.join(_ROLES)}")
    content = _content(message, name)
    if role == "tool":
        content = (_tool_result(message, content),)
    elif role == "assistant":
        content = (*_reasoning(message, name), *content, *_refusal(message), *_calls(message, name))
    elif message.take("content") is None:
        raise message.wrong("content", "a string or a list of parts")
    speaker = message.string("name")
    rest = message.rest() if role != "tool" else {}
    fields = {field: value for field, value in rest.items() if not is_empty(value)}
    return Message(role, content, speaker, {name: fields} if fields else None)


def _content(message: Body, name: str) -> tuple[Part, ...]:
    value = message.take("content")
    if value is None:
        return ()
    if isinstance(value, str):
        return (Text(value),) if value else ()
    if not isinstance(value, list):
        raise message.wrong("content", "a string or a list of parts")
    return tuple(_part(part, name) for part in message.objects("content"))


def _part(part: Body, name: str) -> Part:
    match part.required_string("type"):
        case "text":
            return Text(part.required_string("text"), extra=_own(part, name))
        case "refusal":
            return Refusal(part.required_string("refusal"))
        case "image_url":
            return _image(part, name)
        case _:
            return Opaque(dialect=name, value=part.raw)


def _image(part: Body, name: str) -> Image:
    if isinstance(part.take("image_url"), str):
        url, detail = part.required_string("image_url"), None
    else:
        inner = part.object("image_url")
        if inner is None:
            raise part.wrong("image_url", "an object with the picture's url")
        url, detail = inner.required_string("url"), inner.string("detail")
    try:
        return msgspec.structs.replace(image_from_url(url, detail), extra=_own(part, name))
    except WireError as exc:
        raise part.wrong("image_url", f"a URL or a base64 data URI: {exc}") from None


def _own(part: Body, name: str) -> dict[str, JsonObject] | None:
    """What nobody read of a part: it means something to this wire's vendors only."""
    rest = part.rest()
    return {name: rest} if rest else None


def _tool_result(message: Body, content: tuple[Part, ...]) -> ToolResult:
    parts = tuple(part for part in content if isinstance(part, Text | Image))
    if len(parts) != len(content):
        raise message.wrong("content", "text, for a tool's result")
    return ToolResult(call_id=message.required_string("tool_call_id"), content=parts)


def _reasoning(message: Body, name: str) -> tuple[Part, ...]:
    spellings = (message.string("reasoning_content"), message.string("reasoning"))
    text = next(filter(None, spellings), "")
    details = [detail.raw for detail in message.objects(DETAILS)] if name == WIRE else []
    if not details:
        return (Reasoning(text=text),) if text else ()
    return (with_details(Reasoning(text=text or text_of_details(details)), details),)


def _refusal(message: Body) -> tuple[Part, ...]:
    text = message.string("refusal")
    return (Refusal(text),) if text else ()


def _calls(message: Body, name: str) -> tuple[Part, ...]:
    if message.take("function_call") is not None:
        raise message.wrong("function_call", "left out: it is the old form of tool_calls")
    return tuple(_call(call, name) for call in message.objects("tool_calls"))


def _call(call: Body, name: str) -> Part:
    function = call.object("function")
    if function is None:
        if call.string("type") == "custom":
            return Opaque(dialect=name, value=call.raw)
        raise call.wrong("function", "an object with name and arguments")
    return ToolCall(
        id=call.required_string("id"),
        name=function.required_string("name"),
        arguments=function.string("arguments") or "{}",
        signature=_signature(call),
    )


def _signature(call: Body) -> str | None:
    extra = call.object("extra_content")
    google = extra.object("google") if extra else None
    return google.string("thought_signature") if google else None


# ---------------------------------------------------------------- tools and formats


def _tool(tool: Body, name: str) -> Tool | HostedTool:
    if tool.required_string("type") != "function":
        return HostedTool(dialect=name, value=tool.raw)
    function = tool.object("function")
    if function is None:
        raise tool.wrong("function", "an object with name, description and parameters")
    parameters = function.object("parameters")
    return Tool(
        name=function.required_string("name"),
        description=function.string("description"),
        parameters=parameters.raw if parameters else {},
        strict=function.boolean("strict"),
        extra=_own(function, name),
    )


def _tool_choice(body: Body, odd: JsonObject) -> ToolChoice | None:
    match body.take("tool_choice"):
        case None:
            return None
        case "auto" | "none" | "required" as mode:
            return ToolChoice(mode)
        case {"type": "function", "function": {"name": str(tool)}}:
            return ToolChoice("named", tool)
        case {"type": str()} as other:
            odd["tool_choice"] = other
            return None
        case _:
            raise body.wrong(
                "tool_choice", '"auto", "none", "required" or {"type": "function", "function": {"name": …}}'
            )


def _response_format(body: Body, odd: JsonObject) -> ResponseFormat | None:
    format_ = body.object("response_format")
    if format_ is None:
        return None
    match format_.required_string("type"):
        case "text":
            return ResponseFormat(type="text")
        case "json_object":
            return ResponseFormat(type="json")
        case "json_schema":
            return _json_schema(format_)
        case _:
            odd["response_format"] = format_.raw
            return None


def _json_schema(format_: Body) -> ResponseFormat:
    schema = format_.object("json_schema")
    if schema is None:
        raise format_.wrong("json_schema", "an object with name and schema")
    inner: Any = schema.object("schema")
    return ResponseFormat(
        type="json_schema",
        name=schema.required_string("name"),
        schema=inner.raw if inner else None,
        strict=schema.boolean("strict"),
        description=schema.string("description"),
    )
