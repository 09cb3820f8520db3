"""The items of an input, and what they are in the canonical model.

The wire has a flat list of items where the model has turns: neighbouring items of the assistant are one message, and
so are neighbouring tool outputs. An item that only OpenAI understands becomes `Opaque`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from llm_protocol.codec.fields import bad_request, leftovers, typed
from llm_protocol.codec.json import WireError
from llm_protocol.codec.media import image_from_url, unbase64
from llm_protocol.content import (
    Image,
    JsonObject,
    Message,
    Opaque,
    Part,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from llm_protocol.wires.responses.reasoning import NAME, reasoning_text, unseal

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "developer"}
_TEXT_FIELDS = frozenset(("type", "text", "logprobs"))
_CALL_FIELDS = frozenset(("type", "id", "status", "call_id", "name", "arguments"))
_MERGED: tuple[Role, ...] = ("assistant", "tool")


class _MessageItem(msgspec.Struct):
    role: str
    content: str | list[JsonObject]


class _CallItem(msgspec.Struct):
    call_id: str
    name: str
    arguments: str


class _OutputItem(msgspec.Struct):
    call_id: str
    output: str | list[JsonObject]


class _ReasoningItem(msgspec.Struct):
    id: str | None = None
    summary: list[JsonObject] | None = None
    content: list[JsonObject] | None = None
    encrypted_content: str | None = None


class _PictureItem(msgspec.Struct):
    id: str = ""
    result: str | None = None
    url: str | None = None
    output_format: str = "png"


class _TextPart(msgspec.Struct):
    text: str


class _RefusalPart(msgspec.Struct):
    refusal: str


class _ImagePart(msgspec.Struct):
    image_url: str
    detail: str | None = None


def decode_input(value: str | list[JsonObject]) -> tuple[Message, ...]:
    """The messages of an input. Raises `BadRequestError` with the path of the field at fault."""
    if isinstance(value, str):
        return (Message.of("user", value),) if value else ()
    turns: list[tuple[Role, list[Part]]] = []
    for at, item in enumerate(value):
        role, parts = decode_item(item, f"input[{at}]")
        if turns and role in _MERGED and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        else:
            turns.append((role, list(parts)))
    return tuple(Message(role, tuple(parts)) for role, parts in turns)


def decode_item(item: JsonObject, where: str) -> tuple[Role, tuple[Part, ...]]:
    """The parts of one item, of an input or an output, and whose they are. Raises `BadRequestError`."""
    kind = item.get("type") or ("message" if "role" in item else None)
    if not isinstance(kind, str):
        raise bad_request(f"{where}.type", f"{where} is no item: it needs a role and content, or a type")
    if decode := _DECODERS.get(kind):
        return decode(item, where)
    is_output = kind.endswith("_output") and item.get("call_id") is not None
    return "tool" if is_output else "assistant", (Opaque(dialect=NAME, value=item),)


def _message(item: JsonObject, where: str) -> tuple[Role, tuple[Part, ...]]:
    found = typed(item, _MessageItem, where)
    if (role := _ROLES.get(found.role)) is None:
        raise bad_request(f"{where}.role", f"{where}.role: expected one of {', '.join(_ROLES)}")
    phase = item.get("phase") if role == "assistant" else None
    if isinstance(found.content, str):
        return role, (Text(found.content, extra=own_fields({"phase": phase}, ())),)
    return role, tuple(_content(part, phase, f"{where}.content[{at}]") for at, part in enumerate(found.content))


def own_fields(fields: JsonObject, known: Collection[str]) -> dict[str, JsonObject] | None:
    """What only the vendor understands of ``fields``, as a part's ``extra``."""
    rest = {name: value for name, value in leftovers(fields, known).items() if value not in (None, [], {})}
    return {NAME: rest} if rest else None


def _content(part: JsonObject, phase: str | None, where: str) -> Part:
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            extra = own_fields({**part, "phase": phase}, _TEXT_FIELDS)
            return Text(typed(part, _TextPart, where).text, extra=extra)
        case "refusal":
            return Refusal(typed(part, _RefusalPart, where).refusal)
        case "input_image" if part.get("file_id") is None:
            return _image(part, where)
        case str() as kind if kind:
            return Opaque(dialect=NAME, value=part)
        case _:
            raise bad_request(f"{where}.type", f'{where}.type is missing: "input_text", "input_image" or "output_text"')


def _image(part: JsonObject, where: str) -> Image:
    found = typed(part, _ImagePart, where)
    try:
        return image_from_url(found.image_url, found.detail)
    except WireError as exc:
        raise bad_request(f"{where}.image_url", f"{where}.image_url: {exc}") from None


def _call(item: JsonObject, where: str) -> tuple[Role, tuple[Part, ...]]:
    found = typed(item, _CallItem, where)
    extra = own_fields(item, _CALL_FIELDS)
    return "assistant", (ToolCall(id=found.call_id, name=found.name, arguments=found.arguments, extra=extra),)


def _output(item: JsonObject, where: str) -> tuple[Role, tuple[Part, ...]]:
    found = typed(item, _OutputItem, where)
    if isinstance(found.output, str):
        return "tool", (ToolResult(call_id=found.call_id, content=(Text(found.output),) if found.output else ()),)
    parts = [_content(part, None, f"{where}.output[{at}]") for at, part in enumerate(found.output)]
    content = tuple(part for part in parts if isinstance(part, Text | Image))
    if len(content) < len(parts):  # a file: only the vendor can read it
        return "tool", (Opaque(dialect=NAME, value=item),)
    return "tool", (ToolResult(call_id=found.call_id, content=content),)


def _reasoning(item: JsonObject, where: str) -> tuple[Role, tuple[Part, ...]]:
    found = typed(item, _ReasoningItem, where)
    return "assistant", (unseal(reasoning_text(item), found.id, found.encrypted_content),)


def _picture(item: JsonObject, where: str) -> tuple[Role, tuple[Part, ...]]:
    """A picture of an earlier answer, if it was not made by OpenAI's own tool, which wants its item back."""
    found = typed(item, _PictureItem, where)
    if not found.id.startswith("img_"):
        return "assistant", (Opaque(dialect=NAME, value=item),)
    if found.result is None:
        return "assistant", (Image(url=found.url),)
    try:
        data = unbase64(found.result)
    except WireError as exc:
        raise bad_request(f"{where}.result", f"{where}.result: {exc}") from None
    return "assistant", (Image(data=data, media_type=f"image/{found.output_format}"),)


_DECODERS: dict[str, Callable[[JsonObject, str], tuple[Role, tuple[Part, ...]]]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _output,
    "reasoning": _reasoning,
    "image_generation_call": _picture,
}
