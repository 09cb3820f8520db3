"""Encode and decode the items of an input or an output.

The wire has a flat list of items where the model has turns: adjacent items of the assistant are one message, and so are
adjacent tool outputs. An item that only OpenAI understands becomes `Opaque`.

Reasoning survives the round trip through a client. The wire has a readable summary, an id, and one opaque string,
``encrypted_content``. OpenAI's own payloads pass unchanged. What other vendors need back (a signature, a payload, the
vendor's name) is packed into an envelope in that string.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from llm_protocol.codec.citations import from_annotations, to_responses
from llm_protocol.codec.fields import bad_request, leftovers, typed
from llm_protocol.codec.json import WireError, encode_json
from llm_protocol.codec.logprobs import from_openai
from llm_protocol.codec.media import image_from_url, sniff_media_type, unbase64
from llm_protocol.content import (
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
from llm_protocol.events import ItemKind
from llm_protocol.wires.responses.shapes import NAME, own

JOINT = "\n\n"
"""Stands between the parts of one summary."""

_MARK = "llmrt."


class _Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    signature: str | None = None
    encrypted: str | None = None
    id: str | None = None
    dialect: str | None = None
    extra: dict[str, JsonObject] | None = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)


def is_native(part: Reasoning) -> bool:
    """Whether there is a payload, and it is of this wire's vendor, which refuses all others."""
    return part.encrypted is not None and part.dialect == NAME


def seal(part: Reasoning, item_id: str) -> str | None:
    """The ``encrypted_content`` for ``part`` in an item that is called ``item_id``; the vendor ties the two."""
    if is_native(part) and part.id == item_id:
        return part.encrypted
    if part.signature is None and part.encrypted is None and part.extra is None:
        return None
    envelope = _Envelope(part.signature, part.encrypted, part.id, part.dialect, part.extra)
    return _MARK + base64.urlsafe_b64encode(encode_json(envelope)).decode()


def unseal(text: str, item_id: str | None, payload: str | None) -> Reasoning:
    """The part that was sealed."""
    if payload is None:
        return Reasoning(text=text, id=item_id)
    if payload.startswith(_MARK):
        try:
            found = _ENVELOPE.decode(unbase64(payload.removeprefix(_MARK)))
        except (WireError, msgspec.DecodeError):
            return Reasoning(text=text)  # ours once, but damaged: worth nothing to anyone
        return Reasoning(text=text, **msgspec.structs.asdict(found))
    return Reasoning(text=text, encrypted=payload, id=item_id, dialect=NAME)


def reasoning_text(item: JsonObject) -> str:
    """The readable text of a reasoning item: its summary, else its content."""
    return JOINT.join(_texts(item.get("summary"))) or JOINT.join(_texts(item.get("content")))


def _texts(parts: Any) -> list[str]:
    if not isinstance(parts, list):
        return []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return [text for text in texts if isinstance(text, str) and text]


_PREFIXES: dict[ItemKind, str] = {"reasoning": "rs", "tool_call": "fc", "image": "img"}
_KIND_OF: dict[type, ItemKind] = {Reasoning: "reasoning", ToolCall: "tool_call", Image: "image"}


def item_id(kind: ItemKind, response_id: str, output_index: int) -> str:
    """The id of an item: always the same for the same place in the same response."""
    return f"{_PREFIXES.get(kind, 'msg')}_{response_id.removeprefix('resp_')}_{output_index}"


def part_id(part: Part, response_id: str, output_index: int) -> str:
    """The id of the item for a whole part."""
    if isinstance(part, Reasoning) and is_native(part) and part.id:
        return part.id
    return item_id(_KIND_OF.get(type(part), "text"), response_id, output_index)


def output_item(part: Part, ident: str, status: str = "completed") -> JsonObject | None:
    """The item for a part of a response; ``None`` for a block that clients of this API could not understand."""
    match part:
        case Text() | Refusal():
            item = {"id": ident, "type": "message", "status": status, "role": "assistant", "content": [content(part)]}
            phase = own(part).get("phase")
            return item if phase is None else item | {"phase": phase}
        case Reasoning():
            return _reasoning_item(part, ident, status)
        case ToolCall():
            item = {"id": ident, "type": "function_call", "status": status, "call_id": part.id, "name": part.name}
            return own(part) | item | {"arguments": part.arguments}
        case Image():
            return _image_item(part, ident, status)
        case Opaque() if part.dialect == NAME:
            return part.value
        case _:
            return None


_SHOWN = frozenset(("annotations", "logprobs", "phase"))
"""Fields of a text that have a place of their own."""


def content(part: Text | Refusal) -> JsonObject:
    """The content part of a message."""
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    mine = own(part)
    annotations = mine.get("annotations") or to_responses(part.citations, part.text)
    rest = {name: value for name, value in mine.items() if name not in _SHOWN}
    logprobs = mine.get("logprobs") or list(part.logprobs)
    return {**rest, "type": "output_text", "text": part.text, "annotations": annotations, "logprobs": logprobs}


def summary(text: str) -> JsonObject:
    """The summary part of a reasoning item."""
    return {"type": "summary_text", "text": text}


def _reasoning_item(part: Reasoning, ident: str, status: str) -> JsonObject:
    item: JsonObject = {"id": ident, "type": "reasoning", "status": status}
    item["summary"] = [summary(part.text)] if part.text else []
    if (payload := seal(part, ident)) is not None:
        item["encrypted_content"] = payload
    return item


def _image_item(part: Image, ident: str, status: str) -> JsonObject:
    """An image in the format of the API's own image tool. The prefix of its id marks it as ours."""
    item: JsonObject = {"id": ident, "type": "image_generation_call", "status": status}
    if part.data is None:
        return item | {"result": None, "url": part.url}
    media_type = part.media_type or sniff_media_type(part.data)
    return item | {"result": part.data, "output_format": media_type.removeprefix("image/")}  # bytes become base64


_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "developer"}
_TEXT_FIELDS = frozenset(("type", "text"))
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


def _decode_message(item: JsonObject, where: str) -> tuple[Role, tuple[Part, ...]]:
    found = typed(item, _MessageItem, where)
    if (role := _ROLES.get(found.role)) is None:
        raise bad_request(f"{where}.role", f"{where}.role: expected one of {', '.join(_ROLES)}")
    phase = item.get("phase") if role == "assistant" else None
    if isinstance(found.content, str):
        return role, (Text(found.content, extra=own_fields({"phase": phase}, ())),)
    return role, tuple(_decode_content(part, phase, f"{where}.content[{at}]") for at, part in enumerate(found.content))


def own_fields(fields: JsonObject, known: Collection[str]) -> dict[str, JsonObject] | None:
    """What only the vendor understands of ``fields``, as a part's ``extra``."""
    rest = {name: value for name, value in leftovers(fields, known).items() if value not in (None, [], {})}
    return {NAME: rest} if rest else None


def _decode_content(part: JsonObject, phase: str | None, where: str) -> Part:
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            extra = own_fields({**part, "phase": phase}, _TEXT_FIELDS)
            text = typed(part, _TextPart, where).text
            citations = from_annotations(part.get("annotations") or [], text)
            return Text(text, extra=extra, citations=citations, logprobs=from_openai(part.get("logprobs")))
        case "refusal":
            return Refusal(typed(part, _RefusalPart, where).refusal)
        case "input_image" if part.get("file_id") is None:
            return _decode_image(part, where)
        case str() as kind if kind:
            return Opaque(dialect=NAME, value=part)
        case _:
            raise bad_request(f"{where}.type", f'{where}.type is missing: "input_text", "input_image" or "output_text"')


def _decode_image(part: JsonObject, where: str) -> Image:
    found = typed(part, _ImagePart, where)
    try:
        return image_from_url(found.image_url, found.detail)
    except WireError as exc:
        raise bad_request(f"{where}.image_url", f"{where}.image_url: {exc}") from None


def _decode_call(item: JsonObject, where: str) -> tuple[Role, tuple[Part, ...]]:
    found = typed(item, _CallItem, where)
    extra = own_fields(item, _CALL_FIELDS)
    return "assistant", (ToolCall(id=found.call_id, name=found.name, arguments=found.arguments, extra=extra),)


def _decode_output(item: JsonObject, where: str) -> tuple[Role, tuple[Part, ...]]:
    found = typed(item, _OutputItem, where)
    if isinstance(found.output, str):
        return "tool", (ToolResult(call_id=found.call_id, content=(Text(found.output),) if found.output else ()),)
    parts = [_decode_content(part, None, f"{where}.output[{at}]") for at, part in enumerate(found.output)]
    content = tuple(part for part in parts if isinstance(part, Text | Image))
    if len(content) < len(parts):  # a file: only the vendor can read it
        return "tool", (Opaque(dialect=NAME, value=item),)
    return "tool", (ToolResult(call_id=found.call_id, content=content),)


def _decode_reasoning(item: JsonObject, where: str) -> tuple[Role, tuple[Part, ...]]:
    found = typed(item, _ReasoningItem, where)
    return "assistant", (unseal(reasoning_text(item), found.id, found.encrypted_content),)


def _decode_picture(item: JsonObject, where: str) -> tuple[Role, tuple[Part, ...]]:
    """An image of an earlier response, if it was not made by OpenAI's own tool, which needs its item back."""
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
    "message": _decode_message,
    "function_call": _decode_call,
    "function_call_output": _decode_output,
    "reasoning": _decode_reasoning,
    "image_generation_call": _decode_picture,
}
