"""A chat request as this wire says it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from llm_protocol.codec.fields import add_extra, bad_request, check_parameters, unsupported
from llm_protocol.codec.media import image_url
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
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_protocol.model_rules import nearest_effort, rule_of
from llm_protocol.requests import ChatRequest, Parameters
from llm_protocol.wires.openai_chat.extras import DETAILS, WIRE, details_of
from llm_protocol.wires.openai_chat.quirks import VendorProfile
from llm_protocol.wires.openai_chat.shapes import signed


def chat_body(request: ChatRequest, quirks: VendorProfile, *, stream: bool) -> JsonObject:
    """The body of ``POST /chat/completions``."""
    body: JsonObject = {
        "model": request.model,
        "messages": [
            wire
            for at, message in enumerate(request.messages)
            for wire in _messages(message, f"messages[{at}]", quirks)
        ],
    }
    if request.tools:
        body["tools"] = [_tool(tool, f"tools[{at}]", quirks) for at, tool in enumerate(request.tools)]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    add_parameters(body, _within(request, quirks), quirks, stream=stream)
    return body


def _within(request: ChatRequest, quirks: VendorProfile) -> Parameters:
    """The parameters as the model takes them: the nearest effort that it has, and no sampling where it refuses it.

    Models that reason unasked refuse function tools on this wire unless they are told not to reason. Who asked for an
    effort is not overruled: the vendor's refusal then sends the request to the next candidate.
    """
    parameters, rule = request.parameters, rule_of(quirks.kind, request.model)
    effort = parameters.reasoning_effort
    if effort is not None:
        effort = nearest_effort(effort, rule.efforts)
    elif not rule.reasons_with_tools and "none" in rule.efforts and rule.default_effort != "none":
        said = "reasoning_effort" in parameters.extra.get(quirks.name, {})
        effort = "none" if not said and any(isinstance(tool, Tool) for tool in request.tools) else None
    reasons = (effort or rule.default_effort) not in (None, "none")
    if rule.sampling == "never" or (rule.sampling == "without reasoning" and reasons):
        parameters = msgspec.structs.replace(parameters, temperature=None, top_p=None)
    return msgspec.structs.replace(parameters, reasoning_effort=effort)


def add_parameters(body: JsonObject, parameters: Parameters, quirks: VendorProfile, *, stream: bool) -> None:
    """Add what is set of the parameters, the streaming fields and ``extra``. Raises `UnsupportedError`."""
    check_parameters(parameters, quirks.parameters, quirks.vendor)
    names = {"max_output_tokens": quirks.max_tokens_field, "user": quirks.user_field}
    for name in sorted(quirks.parameters):
        value = getattr(parameters, name)
        if value not in (None, ()):
            body[names.get(name, name)] = value
    if stream:
        body["stream"] = True
        if quirks.stream_usage:
            body["stream_options"] = {"include_usage": True}
    add_extra(body, parameters, quirks.name)


def _messages(message: Message, where: str, quirks: VendorProfile) -> Iterator[JsonObject]:
    """One canonical message; each tool result is a wire message of its own."""
    rest: list[Part] = []
    for part in message.content:
        if isinstance(part, ToolResult):
            yield _tool_result(part, where)
        else:
            rest.append(part)
    if message.role == "tool":
        if rest:
            raise bad_request(where, f"{where}: a message of role tool may hold tool results only")
    elif rest or not message.content:
        role = "system" if message.role == "developer" and not quirks.developer_role else message.role
        wire: JsonObject = {"role": role}
        if message.name is not None:
            wire["name"] = message.name
        wire.update(_assistant(rest, where, quirks) if role == "assistant" else _content(rest, where, quirks))
        for name, value in _own(message.extra, quirks).items():
            if quirks.message_fields is None or name in quirks.message_fields:
                wire.setdefault(name, value)
        yield wire


def _tool_result(result: ToolResult, where: str) -> JsonObject:
    if any(isinstance(part, Image) for part in result.content):
        raise unsupported(where, f"{where}: a tool result on the chat wire is text; pictures belong in a user message")
    texts = [part.text for part in result.content if isinstance(part, Text)]
    content = "".join(texts) if len(texts) <= 1 else [{"type": "text", "text": text} for text in texts]
    return {"role": "tool", "tool_call_id": result.call_id, "content": content}


def _content(parts: list[Part], where: str, quirks: VendorProfile) -> JsonObject:
    match parts:
        case []:
            return {"content": ""}
        case [Text(text, extra=extra)] if not _own(extra, quirks):
            return {"content": text}
    return {"content": [_part(part, where, quirks) for part in parts]}


def _part(part: Part, where: str, quirks: VendorProfile) -> JsonObject:
    match part:
        case Text():
            return {"type": "text", "text": part.text, **_own(part.extra, quirks)}
        case Image():
            url: JsonObject = {"url": image_url(part)}
            if part.detail is not None:
                url["detail"] = part.detail
            return {"type": "image_url", "image_url": url, **_own(part.extra, quirks)}
        case Opaque(dialect=quirks.name):
            return part.value
        case _:
            raise _foreign(part, where, quirks)


def _own(extra: dict[str, JsonObject] | None, quirks: VendorProfile) -> JsonObject:
    """The fields of a part that were meant for this dialect."""
    return extra.get(quirks.name, {}) if extra else {}


def _foreign(part: Part, where: str, quirks: VendorProfile) -> Exception:
    if isinstance(part, Opaque):
        return unsupported(where, f"{where}: a block made by {part.dialect} means nothing to {quirks.vendor}")
    return unsupported(where, f"{where}: {type(part).__name__} cannot stand here on the chat wire")


def _assistant(parts: list[Part], where: str, quirks: VendorProfile) -> JsonObject:
    """An earlier answer. Reasoning that another vendor made is of no use here and stays out."""
    texts: list[Part] = []
    wire: JsonObject = {}
    calls: list[JsonObject] = []
    for part in parts:
        match part:
            case Text():
                texts.append(part)
            case ToolCall():
                calls.append(call_body(part, part.signature if quirks.signed_calls else None))
            case Opaque(dialect=quirks.name, value={"type": "custom"} as call):
                calls.append(call)
            case Refusal():
                wire["refusal"] = wire.get("refusal", "") + part.text
            case Reasoning():
                if quirks.sends_reasoning and part.dialect in (None, quirks.name):
                    _add_reasoning(part, wire, quirks)
            case _:
                raise _foreign(part, where, quirks)
    if texts:
        wire.update(_content(texts, where, quirks))
    else:
        # Some servers fail where the field is missing, others where it is empty beside calls.
        wire["content"] = None if calls or "refusal" in wire else ""
    if calls:
        wire["tool_calls"] = calls
    return wire


def _add_reasoning(part: Reasoning, wire: JsonObject, quirks: VendorProfile) -> None:
    if part.text:
        wire[quirks.reasoning_field] = wire.get(quirks.reasoning_field, "") + part.text
    if quirks.name == WIRE and (details := details_of(part)):
        wire[DETAILS] = [*wire.get(DETAILS, ()), *details]


def call_body(call: ToolCall, signature: str | None) -> JsonObject:
    """A whole call, as it stands in messages."""
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return signed({"id": call.id, "type": "function", "function": function}, signature)


def _tool(tool: Tool | HostedTool, where: str, quirks: VendorProfile) -> JsonObject:
    if isinstance(tool, HostedTool):
        if tool.dialect != quirks.name:
            raise unsupported(where, f"{where}: a hosted tool of {tool.dialect} does not run at {quirks.vendor}")
        return tool.value
    function: JsonObject = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    function.update({name: value for name, value in _own(tool.extra, quirks).items() if name not in function})
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> Any:
    return choice.mode if choice.mode != "named" else {"type": "function", "function": {"name": choice.name}}


def _response_format(format_: ResponseFormat) -> JsonObject:
    if format_.type != "json_schema":
        return {"type": "json_object" if format_.type == "json" else "text"}
    schema: JsonObject = {"name": format_.name, "schema": format_.schema or {}}
    if format_.strict is not None:
        schema["strict"] = format_.strict
    if format_.description is not None:
        schema["description"] = format_.description
    return {"type": "json_schema", "json_schema": schema}
