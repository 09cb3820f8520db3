"""Encode and decode the items of an input or an output.

The wire has a flat list of items in place of turns: adjacent items of the assistant are one message, and so are
adjacent tool outputs. An item that only OpenAI understands becomes `Opaque`.

Reasoning survives the round trip through a client. The wire has a readable summary, an id, and one opaque string,
``encrypted_content``. OpenAI's own payloads pass unchanged. Data that other vendors need back (a signature, a
payload, the vendor's name) is packed into an envelope in that string.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec

from llm_protocol.codec.body import Body
from llm_protocol.codec.citations import from_annotations, to_responses
from llm_protocol.codec.json import WireError, encode_json
from llm_protocol.codec.logprobs import from_openai
from llm_protocol.codec.media import image_from_url, sniff_media_type, unbase64
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
from llm_protocol.events import ItemKind
from llm_protocol.wires.responses.media import decode_audio, decode_file
from llm_protocol.wires.responses.shapes import NAME, own

JOINT = "\n\n"
"""The text between the parts of one summary."""

_MARK = "llmrt."


class _Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    signature: str | None = None
    encrypted: str | None = None
    id: str | None = None
    dialect: str | None = None
    extra: dict[str, JsonObject] | None = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)


def is_native(part: Reasoning) -> bool:
    """Whether the part has a payload of this wire's vendor, which refuses all others."""
    return part.encrypted is not None and part.dialect == NAME


def seal(part: Reasoning, item_id: str) -> str | None:
    """Return the ``encrypted_content`` for ``part`` in the item ``item_id``; ``None`` if the part has nothing that the
    client must send back. The vendor binds the content to the item.
    """
    if is_native(part) and part.id == item_id:
        return part.encrypted
    if part.signature is None and part.encrypted is None and part.extra is None:
        return None
    envelope = _Envelope(part.signature, part.encrypted, part.id, part.dialect, part.extra)
    return _MARK + base64.urlsafe_b64encode(encode_json(envelope)).decode()


def unseal(text: str, item_id: str | None, payload: str | None) -> Reasoning:
    """The part that a sealed string contains."""
    if payload is None:
        return Reasoning(text=text, id=item_id)
    if payload.startswith(_MARK):
        try:
            found = _ENVELOPE.decode(unbase64(payload.removeprefix(_MARK)))
        except (WireError, msgspec.DecodeError):
            return Reasoning(text=text)  # made by this runtime, but damaged: nobody can use it
        return Reasoning(text=text, **msgspec.structs.asdict(found))
    return Reasoning(text=text, encrypted=payload, id=item_id, dialect=NAME)


_PREFIXES: dict[ItemKind, str] = {"reasoning": "rs", "tool_call": "fc", "image": "img"}


def item_id(kind: ItemKind, response_id: str, output_index: int) -> str:
    """The id of an item: always the same for the same position in the same response."""
    return f"{_PREFIXES.get(kind, 'msg')}_{response_id.removeprefix('resp_')}_{output_index}"


def output_item(part: Part, ident: str, status: str = "completed") -> JsonObject | None:
    """Return the item for a part of a response; ``None`` for a part that clients of this API do not understand."""
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
"""Extra fields of a text that the item contains under other names."""


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


_ROLES: tuple[Role, ...] = ("user", "assistant", "system", "developer")
_MERGED: tuple[Role, ...] = ("assistant", "tool")


def decode_input(body: Body) -> tuple[Message, ...]:
    """Decode the field ``input`` into messages. Raises `BadRequestError`."""
    given = body.text_or_objects("input")
    if isinstance(given, str):
        return (Message.of("user", given),) if given else ()
    turns: list[tuple[Role, list[Part]]] = []
    for item in given:
        role, parts = decode_item(item)
        if turns and role in _MERGED and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        else:
            turns.append((role, list(parts)))
    return tuple(Message(role, tuple(parts)) for role, parts in turns)


def decode_item(item: Body) -> tuple[Role, tuple[Part, ...]]:
    """Decode one item of an input or output into parts, and their role. Raises `BadRequestError`."""
    # Not `string`: a number in a response would become the name of an unknown item, and its text would be lost.
    kind = item.take("type") or ("message" if "role" in item.raw else None)
    if not isinstance(kind, str):
        raise item.wrong("type", "the type of an item; it may be missing if role and content are set")
    if decode := _DECODERS.get(kind):
        return decode(item)
    is_output = kind.endswith("_output") and item.take("call_id") is not None
    return "tool" if is_output else "assistant", (Opaque(dialect=NAME, value=item.raw),)


def _decode_message(item: Body) -> tuple[Role, tuple[Part, ...]]:
    role = item.required_word("role", _ROLES)
    phase = item.take("phase") if role == "assistant" else None
    content = item.required_text_or_objects("content")
    if isinstance(content, str):
        return role, (Text(content, extra=_extra({"phase": phase})),)
    return role, tuple(_decode_content(part, phase) for part in content)


def extra_of(fields: Body) -> dict[str, JsonObject] | None:
    """The fields that no reader has read, as a part's ``extra``: only the vendor understands them. ``None`` if there
    are none.
    """
    return _extra(fields.rest())


def _extra(fields: JsonObject) -> dict[str, JsonObject] | None:
    rest = {name: value for name, value in fields.items() if value not in (None, [], {})}
    return {NAME: rest} if rest else None


def _decode_content(part: Body, phase: Any = None) -> Part:
    match part.kind():
        case "input_text" | "output_text" | "text":
            text = part.required_string("text")
            return Text(
                text,
                extra=_extra({**part.rest(), "phase": phase}),
                citations=from_annotations(part.take("annotations") or [], text),
                logprobs=from_openai(part.take("logprobs")),
            )
        case "refusal":
            return Refusal(part.required_string("refusal"))
        case "input_image" if part.take("file_id") is None:
            return _decode_image(part)
        case "input_file":
            return decode_file(part)
        case "input_audio" if isinstance(part.raw.get("input_audio"), dict):
            return decode_audio(part)
        case _:
            return Opaque(dialect=NAME, value=part.raw)


def _decode_image(part: Body) -> Image:
    try:
        return image_from_url(part.required_string("image_url"), part.string("detail"))
    except WireError as exc:
        raise part.wrong("image_url", f"a URL or a base64 data URI: {exc}") from None


def _decode_call(item: Body) -> tuple[Role, tuple[Part, ...]]:
    for known in ("id", "status"):
        item.take(known)
    call_id, name = item.required_string("call_id"), item.required_string("name")
    arguments = item.required_string("arguments")
    return "assistant", (ToolCall(id=call_id, name=name, arguments=arguments, extra=extra_of(item)),)


def _decode_output(item: Body) -> tuple[Role, tuple[Part, ...]]:
    call_id, output = item.required_string("call_id"), item.required_text_or_objects("output")
    if isinstance(output, str):
        return "tool", (ToolResult(call_id=call_id, content=(Text(output),) if output else ()),)
    parts = [_decode_content(part) for part in output]
    content = tuple(part for part in parts if isinstance(part, Text | Image | Document | Audio))
    if len(content) < len(parts):  # of a type that only the vendor can read
        return "tool", (Opaque(dialect=NAME, value=item.raw),)
    return "tool", (ToolResult(call_id=call_id, content=content),)


def _decode_reasoning(item: Body) -> tuple[Role, tuple[Part, ...]]:
    text = _joint_text(item, "summary") or _joint_text(item, "content")
    return "assistant", (unseal(text, item.string("id"), item.string("encrypted_content")),)


def _joint_text(item: Body, name: str) -> str:
    return JOINT.join(text for part in item.objects(name) if (text := part.string("text")))


def _decode_picture(item: Body) -> tuple[Role, tuple[Part, ...]]:
    """An image of an earlier response, unless OpenAI's own tool made it: the vendor then needs the item itself back."""
    if not (item.string("id") or "").startswith("img_"):
        return "assistant", (Opaque(dialect=NAME, value=item.raw),)
    result = item.string("result")
    if result is None:
        return "assistant", (Image(url=item.string("url")),)
    try:
        data = unbase64(result)
    except WireError:
        raise item.wrong("result", "base64") from None
    return "assistant", (Image(data=data, media_type=f"image/{item.string('output_format') or 'png'}"),)


_SUMMARY = "llmrt.summary."
_PREFACE = "Summary of the conversation so far, made to save room. Go on from here.\n\n"


def seal_summary(summary: str) -> str:
    """The ``encrypted_content`` of a compaction item that the runtime makes."""
    return _SUMMARY + base64.urlsafe_b64encode(summary.encode("utf-8", "replace")).decode()


def _decode_compaction(item: Body) -> tuple[Role, tuple[Part, ...]]:
    """The summary as a message of the user. An item that the vendor made is sent back to it unchanged."""
    payload = item.raw.get("encrypted_content")
    if not isinstance(payload, str) or not payload.startswith(_SUMMARY):
        return "assistant", (Opaque(dialect=NAME, value=item.raw),)
    try:
        summary = unbase64(payload.removeprefix(_SUMMARY)).decode()
    except (WireError, UnicodeDecodeError):
        raise item.wrong("encrypted_content", "the item as it was received; this one is damaged") from None
    return "user", (Text(_PREFACE + summary),)


_DECODERS: dict[str, Callable[[Body], tuple[Role, tuple[Part, ...]]]] = {
    "message": _decode_message,
    "function_call": _decode_call,
    "function_call_output": _decode_output,
    "reasoning": _decode_reasoning,
    "image_generation_call": _decode_picture,
    "compaction": _decode_compaction,
}
