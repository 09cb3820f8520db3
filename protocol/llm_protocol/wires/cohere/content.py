"""Encode and decode messages and their parts on Cohere's wire.

A ``tool_plan`` is what the model writes before it calls tools. It becomes a `Reasoning` part with the id
``"tool_plan"``, so that it is sent back in the same field. A block of an unknown type becomes an `Opaque` part.
Citations are kept in the ``extra`` of the text that they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from llm_protocol.codec.citations import from_cohere, to_cohere
from llm_protocol.codec.fields import bad_request, unsupported
from llm_protocol.codec.json import WireError, json_text
from llm_protocol.codec.kept_fields import rest_of
from llm_protocol.codec.media import image_from_url, image_url
from llm_protocol.codec.request_encoding import only_result, own_fields, own_value
from llm_protocol.content import (
    Image,
    JsonObject,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from llm_protocol.wires.cohere.shapes import NAME

TOOL_PLAN = "tool_plan"
CALL_FIELDS = frozenset(("id", "type", "function"))
_TEXT_FIELDS = frozenset(("type", "text"))


# ---------------------------------------------------------------- to the wire


def encode_messages(messages: Sequence[Message]) -> list[JsonObject]:
    """The wire's messages; each tool result is one of its own."""
    found: list[JsonObject] = []
    for at, message in enumerate(messages):
        where = f"messages[{at}].content"
        if message.role == "tool":
            found += [_encode_tool_result(part, f"{where}[{n}]") for n, part in enumerate(message.content)]
        elif message.role == "assistant":
            found.append({"role": "assistant", **encode_assistant(message.content, where)})
        else:
            role = "user" if message.role == "user" else "system"
            found.append({"role": role, "content": _short(_encode_blocks(message.content, where))})
    return found


def encode_assistant(parts: Iterable[Part], where: str) -> JsonObject:
    """The fields of an assistant message. Thoughts of other vendors' models are not sent."""
    parts = list(parts)
    message: JsonObject = {}
    thoughts = [part for part in parts if isinstance(part, Reasoning) and part.dialect == NAME]
    if plan := "".join(part.text for part in thoughts if part.id == TOOL_PLAN):
        message["tool_plan"] = plan
    if calls := [part for part in parts if isinstance(part, ToolCall)]:
        message["tool_calls"] = [encode_tool_call(call) for call in calls]
    if blocks := _encode_blocks((part for part in parts if not isinstance(part, ToolCall)), where):
        message["content"] = _short(blocks)
    if citations := [cited for part in parts if isinstance(part, Text) for cited in citations_of(part)]:
        message["citations"] = citations
    return message


def encode_tool_call(call: ToolCall) -> JsonObject:
    """A call as the wire has it: the arguments are text, and never empty."""
    arguments = normal_arguments(call.arguments)
    function = {"name": call.name, "arguments": arguments}
    return {**own_fields(call.extra, NAME), "id": call.id, "type": "function", "function": function}


def normal_arguments(text: str) -> str:
    """Cohere's models write ``""`` or ``"null"`` for a call without arguments; everyone else reads ``"{}"``."""
    return "{}" if text.strip() in ("", "null") else text


def citations_of(text: Text) -> list[Any]:
    """The citations of one text, in the wire's form."""
    found = own_fields(text.extra, NAME).get("citations", [])
    return found if isinstance(found, list) else []


def answer_citations(text: Text, content_index: int) -> list[Any]:
    """The same in a response, where ``text`` is the block with this index, also of other providers' citations."""
    own = citations_of(text)
    return own if own else to_cohere(text.citations, text.text, content_index)


def _encode_blocks(parts: Iterable[Part], where: str) -> list[JsonObject]:
    blocks = (encode_block(part, f"{where}[{at}]") for at, part in enumerate(parts))
    return [block for block in blocks if block is not None]


def encode_block(part: Part, where: str) -> JsonObject | None:
    """One part as a content block, or ``None`` where there is nothing to send."""
    match part:
        case Text() | Refusal():
            own = own_fields(part.extra, NAME) if isinstance(part, Text) else {}
            rest = {name: value for name, value in own.items() if name != "citations"}
            return {**rest, "type": "text", "text": part.text} if part.text else None
        case Image():
            picture: JsonObject = {"url": image_url(part)}
            if part.detail is not None:
                picture["detail"] = part.detail
            return {"type": "image_url", "image_url": picture}
        case Reasoning():
            is_own = part.dialect == NAME and part.id is None and part.text
            return {"type": "thinking", "thinking": part.text} if is_own else None
        case Opaque():
            return own_value(part, where, NAME, "Cohere")
        case ToolCall() | ToolResult():
            raise bad_request(where, f"{where}: a {part.__class__.__name__} does not belong in this message")


def _short(blocks: list[JsonObject]) -> Any:
    """One text block alone is written as a text."""
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0].keys() == {"type", "text"} else blocks or ""


def _encode_tool_result(part: Part, where: str) -> JsonObject:
    result = only_result(part, where)
    if any(isinstance(item, Image) for item in result.content):
        raise unsupported(where, "Cohere does not accept images in tool results")
    content = own_fields(result.extra, NAME).get("content") or _short(_encode_blocks(result.content, where))
    return {"role": "tool", "tool_call_id": result.call_id, "content": content}


# ---------------------------------------------------------------- from the wire


def decode_messages(given: Sequence[JsonObject]) -> tuple[Message, ...]:
    """The conversation; tool messages in a row become one. Raises `WireError` naming the field at fault."""
    found: list[Message] = []
    numbered = enumerate(given)
    for is_tool, group in groupby(numbered, lambda pair: pair[1].get("role") == "tool"):
        if is_tool:
            found.append(
                Message("tool", tuple(_decode_tool_result(message, f"messages.{at}") for at, message in group))
            )
        else:
            found += [_decode_message(message, f"messages.{at}") for at, message in group]
    return tuple(found)


def _decode_message(message: JsonObject, where: str) -> Message:
    match message.get("role"):
        case "assistant":
            return Message("assistant", tuple(decode_assistant(message, where)))
        case "user" | "system" as role:
            return Message(role, tuple(decode_content(message.get("content"), f"{where}.content")))
        case _:
            raise WireError(f"{where}.role: expected system, user, assistant or tool")


def decode_assistant(message: JsonObject, where: str) -> list[Part]:
    """The parts of an assistant message: the plan, the content, the calls."""
    found: list[Part] = []
    if plan := text_of(message, "tool_plan", where):
        found.append(Reasoning(text=plan, id=TOOL_PLAN, dialect=NAME))
    content = message.get("content")
    said = decode_content(content, f"{where}.content") if content is not None else []
    found += _with_citations(said, message.get("citations"))
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise WireError(f"{where}.tool_calls: expected a list")
    return found + [decode_tool_call(call, f"{where}.tool_calls.{at}") for at, call in enumerate(calls)]


def decode_content(content: Any, where: str) -> list[Part]:
    """A text or a list of blocks."""
    if isinstance(content, str):
        return [Text(content)] if content else []
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise WireError(f"{where}: expected a text or a list of content blocks")
    return [decode_block(block, f"{where}.{at}") for at, block in enumerate(content)]


def decode_block(block: JsonObject, where: str) -> Part:
    """The part that a content block is."""
    match block.get("type"):
        case "text":
            rest = rest_of(block, _TEXT_FIELDS)
            return Text(text_of(block, "text", where), extra={NAME: rest} if rest else None)
        case "thinking":
            return Reasoning(text=text_of(block, "thinking", where), dialect=NAME)
        case "image_url":
            return _decode_image(block.get("image_url"), where)
        case str() as kind if kind:
            return Opaque(dialect=NAME, value=block)
        case _:
            raise WireError(f"{where}.type: a content block needs one, for example 'text'")


def _decode_image(given: Any, where: str) -> Image:
    if not isinstance(given, dict) or not isinstance(given.get("url"), str):
        raise WireError(f"{where}.image_url.url: expected a text")
    detail = given.get("detail")
    try:
        return image_from_url(given["url"], detail if isinstance(detail, str) else None)
    except WireError as exc:
        raise WireError(f"{where}.image_url.url: {exc}") from None


def decode_tool_call(call: Any, where: str) -> ToolCall:
    """A call, whole."""
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        raise WireError(f"{where}.function: expected an object")
    function = call["function"]
    name, arguments = text_of(function, "name", where), text_of(function, "arguments", where)
    rest = rest_of(call, CALL_FIELDS)
    extra = {NAME: rest} if rest else None
    return ToolCall(id=text_of(call, "id", where), name=name, arguments=normal_arguments(arguments), extra=extra)


def _decode_tool_result(message: JsonObject, where: str) -> ToolResult:
    call_id, content = text_of(message, "tool_call_id", where), message.get("content")
    parts = decode_content(content, f"{where}.content")
    texts = tuple(part for part in parts if isinstance(part, Text))
    if len(texts) == len(parts):
        return ToolResult(call_id=call_id, content=texts)
    # Documents: kept as they are for Cohere, as text for everyone else.
    plain = tuple(Text(json_text(part.value)) if isinstance(part, Opaque) else part for part in parts)
    shown = tuple(part for part in plain if isinstance(part, Text))
    return ToolResult(call_id=call_id, content=shown, extra={NAME: {"content": content}})


def _with_citations(parts: list[Part], citations: Any) -> list[Part]:
    """The parts with each citation on the text it is about: by ``content_index``, else the first."""
    if not isinstance(citations, list) or not citations:
        return parts
    texts = [at for at, part in enumerate(parts) if isinstance(part, Text)]
    about: dict[int, list[Any]] = {}
    for citation in citations:
        at = citation.get("content_index") if isinstance(citation, dict) else None
        about.setdefault(at if at in texts else next(iter(texts), -1), []).append(citation)
    return [cite(part, about.get(at, [])) for at, part in enumerate(parts)]


def cite(part: Part, citations: list[Any]) -> Part:
    """``part`` with ``citations``, if it is a text and there are any."""
    if isinstance(part, Text) and citations:
        extra = {**own_fields(part.extra, NAME), "citations": citations}
        return Text(part.text, part.signature, {NAME: extra}, from_cohere(citations, part.text))
    return part


def text_of(obj: JsonObject, name: str, where: str) -> str:
    """A text field; empty if it is absent or null. Raises `WireError`."""
    value = obj.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # ids, in some servers
    if not isinstance(value, str | None):
        raise WireError(f"{where}.{name}: expected a text".lstrip("."))
    return value or ""
