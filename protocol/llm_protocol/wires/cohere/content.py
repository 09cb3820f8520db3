"""Encode and decode messages and their parts on Cohere's wire.

A ``tool_plan`` is what the model writes before it calls tools. It becomes a `Reasoning` part with the id
``"tool_plan"``, so that it is sent back in the same field. A block of an unknown type becomes an `Opaque` part.
Citations are kept in the ``extra`` of the text that they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from llm_protocol.codec.body import Body, ResponseObject, reading_response
from llm_protocol.codec.citations import from_cohere, to_cohere
from llm_protocol.codec.fields import bad_request, only_result, own_fields, own_value, unsupported
from llm_protocol.codec.json import WireError, json_text
from llm_protocol.codec.media import image_from_url, image_url
from llm_protocol.content import (
    Audio,
    Document,
    Image,
    JsonObject,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from llm_protocol.extra_fields import is_empty
from llm_protocol.wires.cohere.shapes import NAME

TOOL_PLAN = "tool_plan"
CALL_FIELDS = frozenset(("id", "type", "function"))


# ---------------------------------------------------------------- to the wire


def encode_messages(messages: Sequence[Message]) -> list[JsonObject]:
    """The wire's messages; each tool result is a separate message."""
    found: list[JsonObject] = []
    for at, message in enumerate(messages):
        where = f"messages[{at}].content"
        if message.role == "tool":
            found += [_encode_tool_result(part, f"{where}[{n}]") for n, part in enumerate(message.content)]
        elif message.role == "assistant":
            if fields := encode_assistant(message.content, where):  # a turn without any is refused
                found.append({"role": "assistant", **fields})
        else:
            role = "user" if message.role == "user" else "system"
            found.append({"role": role, "content": _short(_encode_blocks(message.content, where))})
    return found


def with_plans(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, with each text beside tool calls turned into their plan, because the vendor refuses a text
    there.
    """
    return tuple(
        msgspec.structs.replace(message, content=tuple(map(_as_plan, message.content)))
        if message.role == "assistant" and any(isinstance(part, ToolCall) for part in message.content)
        else message
        for message in messages
    )


def _as_plan(part: Part) -> Part:
    return Reasoning(text=part.text, id=TOOL_PLAN, dialect=NAME) if isinstance(part, Text | Refusal) else part


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
    """Return the arguments as all other wires have them: ``"{}"`` if there are none, which Cohere's models write as
    ``""`` or ``"null"``.
    """
    return "{}" if text.strip() in ("", "null") else text


def citations_of(text: Text) -> list[Any]:
    """The citations of one text, in the wire's form."""
    found = own_fields(text.extra, NAME).get("citations", [])
    return found if isinstance(found, list) else []


def answer_citations(text: Text, content_index: int) -> list[Any]:
    """Return the citations of ``text`` in a response, where it is the block with this index. Citations of other
    providers are converted.
    """
    own = citations_of(text)
    return own if own else to_cohere(text.citations, text.text, content_index)


def _encode_blocks(parts: Iterable[Part], where: str) -> list[JsonObject]:
    blocks = (encode_block(part, f"{where}[{at}]") for at, part in enumerate(parts))
    return [block for block in blocks if block is not None]


def encode_block(part: Part, where: str) -> JsonObject | None:
    """One part as a content block, or ``None`` if there is nothing to send."""
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
        case Document() | Audio():
            raise unsupported(where, f"{where}: Cohere does not accept {type(part).__name__}")
        case ToolCall() | ToolResult():
            raise bad_request(where, f"{where}: a {part.__class__.__name__} is not allowed in a message of this role")


def _short(blocks: list[JsonObject]) -> Any:
    """Return a single text block as a string, any other content unchanged."""
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0].keys() == {"type", "text"} else blocks or ""


def _encode_tool_result(part: Part, where: str) -> JsonObject:
    result = only_result(part, where)
    if not all(isinstance(item, Text) for item in result.content):
        raise unsupported(where, f"{where}: Cohere accepts only text in tool results")
    content = own_fields(result.extra, NAME).get("content") or _short(_encode_blocks(result.content, where))
    return {"role": "tool", "tool_call_id": result.call_id, "content": content}


# ---------------------------------------------------------------- from the wire

_ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


def decode_messages(body: Body) -> tuple[Message, ...]:
    """Decode the conversation. Consecutive tool messages become one. Raises `BadRequestError`."""
    found: list[Message] = []
    for message in body.objects("messages"):
        role, parts = message.required_word("role", _ROLES), _decode_parts(message)
        if found and role == found[-1].role == "tool":
            parts = found.pop().content + parts
        found.append(Message(role, parts))
    if not found:
        raise body.wrong("messages", "a list of at least one message")
    return tuple(found)


def _decode_parts(message: Body) -> tuple[Part, ...]:
    match message.string("role"):
        case "assistant":
            return tuple(decode_assistant(message))
        case "tool":
            return (_decode_tool_result(message),)
        case _:
            return tuple(_required_content(message))


def decode_assistant(message: Body) -> list[Part]:
    """The parts of an assistant message: the plan, the content, the calls. Raises `BadRequestError`."""
    found: list[Part] = []
    if plan := message.string("tool_plan"):
        found.append(Reasoning(text=plan, id=TOOL_PLAN, dialect=NAME))
    found += _with_citations(_decode_content(message.text_or_objects("content")), message.take("citations"))
    return found + [_decode_tool_call(call) for call in message.objects("tool_calls")]


def _required_content(message: Body) -> list[Part]:
    return _decode_content(message.required_text_or_objects("content"))


def _decode_content(content: str | Sequence[Body]) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)] if content else []
    return [decode_block(block) for block in content]


def decode_block(block: Body) -> Part:
    """Decode a content block into a part. Raises `BadRequestError`."""
    match block.kind():
        case "text":
            text = block.string("text") or ""
            rest = {name: value for name, value in block.rest().items() if not is_empty(value)}
            return Text(text, extra={NAME: rest} if rest else None)
        case "thinking":
            return Reasoning(text=block.string("thinking") or "", dialect=NAME)
        case "image_url":
            return _decode_image(block.required_object("image_url"))
        case _:
            return Opaque(dialect=NAME, value=block.raw)


def _decode_image(image: Body) -> Image:
    try:
        return image_from_url(image.required_string("url"), image.string("detail"))
    except WireError as exc:
        raise image.wrong("url", f"a URL or a base64 data URI: {exc}") from None


def _decode_tool_call(call: Body) -> ToolCall:
    call.take("type")
    id_, function = call.string("id") or "", call.required_object("function")
    rest = {name: value for name, value in call.rest().items() if not is_empty(value)}
    return ToolCall(
        id=id_,
        name=function.string("name") or "",
        arguments=normal_arguments(function.string("arguments") or ""),
        extra={NAME: rest} if rest else None,
    )


def _decode_tool_result(message: Body) -> ToolResult:
    call_id, parts = message.string("tool_call_id") or "", _required_content(message)
    texts = tuple(part for part in parts if isinstance(part, Text))
    if len(texts) == len(parts):
        return ToolResult(call_id=call_id, content=texts)
    # Documents: kept as they are for Cohere, as text for everyone else.
    plain = tuple(Text(json_text(part.value)) if isinstance(part, Opaque) else part for part in parts)
    shown = tuple(part for part in plain if isinstance(part, Text))
    return ToolResult(call_id=call_id, content=shown, extra={NAME: {"content": message.take("content")}})


def _with_citations(parts: list[Part], citations: Any) -> list[Part]:
    """Return the parts with each citation on its text: by ``content_index``, else on the first."""
    if not isinstance(citations, list) or not citations:
        return parts
    texts = [at for at, part in enumerate(parts) if isinstance(part, Text)]
    about: dict[int, list[Any]] = {}
    for citation in citations:
        at = citation.get("content_index") if isinstance(citation, dict) else None
        about.setdefault(at if at in texts else next(iter(texts), -1), []).append(citation)
    return [cite(part, about.get(at, [])) for at, part in enumerate(parts)]


def cite(part: Part, citations: list[Any]) -> Part:
    """Return ``part`` with ``citations`` if it is a text and there are any; otherwise unchanged."""
    if isinstance(part, Text) and citations:
        extra = {**own_fields(part.extra, NAME), "citations": citations}
        return Text(part.text, part.signature, {NAME: extra}, from_cohere(citations, part.text))
    return part


def text_of(obj: JsonObject, name: str) -> str:
    """A text field of a response; empty if it is absent or null. Raises `WireError`."""
    with reading_response():
        return ResponseObject(obj).string(name) or ""
