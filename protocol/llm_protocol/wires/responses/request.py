"""A chat request as the vendor wants it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from llm_protocol.codec.fields import add_extra, bad_request, check_parameters, typed, unsupported
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
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.responses.reasoning import NAME, is_native
from llm_protocol.wires.responses.resource import choice_object, format_object, own, summary, tool_object

_WHO = "OpenAI's Responses API"
_ENCRYPTED = "reasoning.encrypted_content"
_DIRECT = ("temperature", "top_p", "max_output_tokens", "parallel_tool_calls")
_PARAMETERS = frozenset((*_DIRECT, "reasoning_effort", "reasoning_summary", "user"))
_CONTENT_TYPES = ("input_", "output_")

_REASONS = re.compile(r"(o\d|gpt-([5-9]|\d\d)|codex)(?!.*-chat)")
"""Models that reason unasked. The others refuse to be asked for encrypted reasoning."""


class _Extra(msgspec.Struct):
    """The fields of ``extra`` that stand beside some of ours."""

    reasoning: JsonObject = {}
    text: JsonObject = {}
    include: list[str] = []


def response_body(request: ChatRequest, *, stream: bool) -> JsonObject:
    """The body of ``POST /responses``. Raises `UnsupportedError` or `BadRequestError` naming the field at fault."""
    given = request.parameters
    check_parameters(given, _PARAMETERS, _WHO)
    instructions, rest = _split(request.messages)
    body: JsonObject = {"model": request.model, "input": _input(rest, len(request.messages) - len(rest))}
    body["store"] = False
    if instructions is not None:
        body["instructions"] = instructions
    if stream:
        body["stream"] = True
    if request.tools:
        body["tools"] = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(request.tools)]
    if request.tool_choice is not None:
        body["tool_choice"] = choice_object(request.tool_choice)
    body.update({name: value for name in _DIRECT if (value := getattr(given, name)) is not None})
    if given.user is not None:
        body["safety_identifier"] = given.user
    _add_nested(body, request)
    add_extra(body, given, NAME)
    if not stream:
        body.pop("stream_options", None)  # refused beside a whole answer
    return body


def _add_nested(body: JsonObject, request: ChatRequest) -> None:
    """The fields that hold both our settings and those only the vendor knows; ours win."""
    given = request.parameters
    extra = typed(given.extra.get(NAME, {}), _Extra, f"parameters.extra.{NAME}")
    reasoning = {"effort": given.reasoning_effort, "summary": given.reasoning_summary}
    reasoning = extra.reasoning | {k: v for k, v in reasoning.items() if v is not None}
    text = dict(extra.text)
    if request.response_format is not None:
        text["format"] = format_object(request.response_format)
    include = list(extra.include)
    if _ENCRYPTED not in include and (_REASONS.match(request.model) or reasoning or _thought(body["input"])):
        include.append(_ENCRYPTED)
    body.update({k: v for k, v in (("reasoning", reasoning), ("text", text), ("include", include)) if v})


def _thought(items: list[JsonObject]) -> bool:
    return any(item.get("type") == "reasoning" for item in items)


def _split(messages: tuple[Message, ...]) -> tuple[str | None, tuple[Message, ...]]:
    """The first system message as ``instructions``, where it is nothing but one text."""
    match messages:
        case (Message("system", (Text(text, extra=None),)), *rest):
            return text, tuple(rest)
        case _:
            return None, messages


def _input(messages: tuple[Message, ...], first: int) -> list[JsonObject]:
    items: list[JsonObject] = []
    for at, message in enumerate(messages, first):
        found = list(_items(message, f"messages[{at}]"))
        while found and found[-1].get("type") == "reasoning":
            found.pop()  # refused without the item it led to
        items += found
    return items


def _items(message: Message, where: str) -> Iterator[JsonObject]:
    """The items of one message: runs of content are message items, everything else stands for itself."""
    content: list[JsonObject] = []
    phase: str | None = None
    for part in message.content:
        if message.role == "tool" and not isinstance(part, ToolResult | Opaque):
            raise bad_request(where, f"{where}: a message of role tool may hold tool results only")
        if (found := _content(part, message, where)) is None:
            yield from _flush(message, content, phase)
            yield from _item(part, where)
            continue
        next_phase = own(part).get("phase") if isinstance(part, Text) else phase
        if content and next_phase != phase:
            yield from _flush(message, content, phase)
        content.append(found)
        phase = next_phase
    yield from _flush(message, content, phase)


def _flush(message: Message, content: list[JsonObject], phase: str | None) -> Iterator[JsonObject]:
    if not content:
        return
    item: JsonObject = {"type": "message", "role": message.role, "content": _shortest(content)}
    yield item if phase is None else item | {"phase": phase}
    content.clear()


def _shortest(content: list[JsonObject]) -> str | list[JsonObject]:
    """A lone text without any other fields is said as a string."""
    text = content[0].get("text")
    return text if len(content) == 1 and len(content[0]) == 2 and isinstance(text, str) else list(content)


def _content(part: Part, message: Message, where: str) -> JsonObject | None:
    """``part`` as content of a message; ``None`` if it is an item of its own."""
    assistant = message.role == "assistant"
    match part:
        case Text():
            extra = {name: value for name, value in own(part).items() if name != "phase"}
            return extra | {"type": "output_text" if assistant else "input_text", "text": part.text}
        case Image() if not assistant:
            return _image(part)
        case Refusal() if assistant:
            return {"type": "refusal", "refusal": part.text}
        case Opaque() if part.dialect == NAME and str(part.value.get("type")).startswith(_CONTENT_TYPES):
            return part.value
        case Image() | Refusal():
            name = type(part).__name__
            raise unsupported(where, f"{where}: {_WHO} takes no {name} in a message of role {message.role}")
        case _:
            return None


def _image(image: Image) -> JsonObject:
    found: JsonObject = {"type": "input_image", "image_url": image_url(image)}
    return found if image.detail is None else found | {"detail": image.detail}


def _item(part: Part, where: str) -> Iterator[JsonObject]:
    match part:
        case ToolCall():
            call = {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments or "{}"}
            yield own(part) | call
        case ToolResult():
            yield {"type": "function_call_output", "call_id": part.call_id, "output": _output(part)}
        case Reasoning():
            if is_native(part):  # of anything else the vendor could make nothing
                yield _reasoning(part)
        case Opaque() if part.dialect == NAME:
            yield part.value
        case Opaque():
            raise unsupported(where, f"{where}: a block made by {part.dialect} means nothing to {_WHO}")
        case _:
            raise bad_request(where, f"{where}: {type(part).__name__} cannot stand here")


def _output(result: ToolResult) -> str | list[JsonObject]:
    if not result.content:
        return ""
    parts = [_image(p) if isinstance(p, Image) else {"type": "input_text", "text": p.text} for p in result.content]
    return _shortest(parts)


def _reasoning(part: Reasoning) -> JsonObject:
    item: JsonObject = {"type": "reasoning", "summary": [summary(text) for text in [part.text] if text]}
    if part.id is not None:
        item["id"] = part.id
    return item | {"encrypted_content": part.encrypted}


def _tool(tool: Tool | HostedTool, where: str) -> JsonObject:
    if isinstance(tool, HostedTool) and tool.dialect != NAME:
        raise unsupported(where, f"{where}: a hosted tool of {tool.dialect} does not run at {_WHO}")
    found = tool_object(tool)
    if isinstance(tool, HostedTool):
        return found
    found = {name: value for name, value in found.items() if value is not None}
    return found | {"parameters": tool.parameters or None}  # must be there, but an empty schema is refused
