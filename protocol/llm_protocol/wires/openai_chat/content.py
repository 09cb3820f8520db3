"""Encode and decode chat messages and their parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

import msgspec

from llm_protocol.codec.body import Body
from llm_protocol.codec.fields import only_result, own_fields, own_value, unsupported
from llm_protocol.codec.json import WireError
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
from llm_protocol.errors import UnsupportedError
from llm_protocol.extra_fields import is_empty
from llm_protocol.requests import Parameters
from llm_protocol.vendor_profile import VendorProfile
from llm_protocol.wires.openai_chat.media import decode_audio, decode_document, encode_audio, encode_document
from llm_protocol.wires.openai_chat.shapes import DETAILS, WIRE, details_of, signed, text_of_details, with_details

# ---------------------------------------------------------------- to the wire


def encode_message(message: Message, where: str, profile: VendorProfile) -> Iterator[JsonObject]:
    """Encode one canonical message; each tool result becomes a separate wire message."""
    rest: list[Part] = []
    for part in message.content:
        if isinstance(part, ToolResult):
            yield _encode_tool_result(part, where)
        else:
            rest.append(part)
    if message.role == "tool":
        for part in rest:
            only_result(part, where)
    elif rest or not message.content:
        role = "system" if message.role == "developer" and not profile.developer_role else message.role
        wire: JsonObject = {"role": role}
        if message.name is not None and profile.names_speakers:
            wire["name"] = message.name
        encode = _encode_assistant if role == "assistant" else _encode_content
        wire.update(encode(rest, where, profile))
        own = own_fields(message.extra, profile.name) if message.extra else {}
        for name, value in own.items():
            if profile.message_fields is None or name in profile.message_fields:
                wire.setdefault(name, value)
        yield wire


def _encode_tool_result(result: ToolResult, where: str) -> JsonObject:
    if not all(isinstance(part, Text) for part in result.content):
        raise unsupported(
            where, f"{where}: in the chat API a tool result must be text; put other content into a user message"
        )
    texts = [part.text for part in result.content if isinstance(part, Text)]
    content = "".join(texts) if len(texts) <= 1 else [{"type": "text", "text": text} for text in texts]
    return {"role": "tool", "tool_call_id": result.call_id, "content": content}


def _encode_content(parts: list[Part], where: str, profile: VendorProfile) -> JsonObject:
    match parts:
        case []:
            return {"content": ""}
        case [Text(text, extra=extra)] if not (extra and own_fields(extra, profile.name)):
            return {"content": text}
    return {"content": [_encode_part(part, where, profile) for part in parts]}


def _encode_part(part: Part, where: str, profile: VendorProfile) -> JsonObject:
    match part:
        case Text():
            return {"type": "text", "text": part.text, **own_fields(part.extra, profile.name)}
        case Image():
            url: JsonObject = {"url": image_url(part)}
            if part.detail is not None:
                url["detail"] = part.detail
            return {"type": "image_url", "image_url": url, **own_fields(part.extra, profile.name)}
        case Document():
            return {**own_fields(part.extra, profile.name), **encode_document(part, where)}
        case Audio():
            return {**own_fields(part.extra, profile.name), **encode_audio(part, where)}
        case Opaque():
            return own_value(part, where, profile.name, profile.vendor)
        case _:
            raise _misplaced(part, where)


def _misplaced(part: Part, where: str) -> UnsupportedError:
    return unsupported(where, f"{where}: the chat API does not allow {type(part).__name__} here")


def _encode_assistant(parts: list[Part], where: str, profile: VendorProfile) -> JsonObject:
    """Encode a message of the assistant. Another vendor's reasoning is left out."""
    texts: list[Part] = []
    wire: JsonObject = {}
    calls: list[JsonObject] = []
    for part in parts:
        match part:
            case Text() | Refusal() if isinstance(part, Text) or not profile.has_refusals:
                texts.append(part if isinstance(part, Text) else Text(part.text))
            case ToolCall():
                own = own_fields(part.extra, profile.name) if profile.message_fields is None else {}
                calls.append({**own, **call_body(part, part.signature if profile.signed_calls else None)})
            case Opaque(dialect=profile.name, value={"type": "custom"} as call):
                calls.append(call)
            case Refusal():
                wire["refusal"] = wire.get("refusal", "") + part.text
            case Reasoning():
                if profile.sends_reasoning and part.dialect in (None, profile.name):
                    _add_reasoning(part, wire, profile)
            case Opaque():
                own_value(part, where, profile.name, profile.vendor)  # raises for a part of another dialect
                raise _misplaced(part, where)
            case _:
                raise _misplaced(part, where)
    if texts:
        wire.update(_encode_content(texts, where, profile))
    else:
        # Some servers fail if the field is missing, others if it is empty beside calls.
        wire["content"] = None if calls or "refusal" in wire else ""
    if calls:
        wire["tool_calls"] = calls
    return wire


def _add_reasoning(part: Reasoning, wire: JsonObject, profile: VendorProfile) -> None:
    if part.text:
        wire[profile.reasoning_field] = wire.get(profile.reasoning_field, "") + part.text
    if profile.name == WIRE and (details := details_of(part)):
        wire[DETAILS] = [*wire.get(DETAILS, ()), *details]


def call_body(call: ToolCall, signature: str | None) -> JsonObject:
    """A complete call, as it appears in messages."""
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return signed({"id": call.id, "type": "function", "function": function}, signature)


_ROLES: tuple[Role, ...] = get_args(Role)


def with_extra(given: Mapping[str, Any], body: Body, name: str, odd: JsonObject | None = None) -> Parameters:
    """The ``given`` parameters. Their ``extra`` has, for the dialect ``name``, the fields of the body that no reader
    has read, and the fields ``odd``: known fields with an unknown value.
    """
    extra = {**body.rest(), **(odd or {})}
    return Parameters(wire=name, extra={name: extra} if extra else {}, **given)


# ---------------------------------------------------------------- from the wire


def join_tool_results(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Join consecutive tool results into one turn."""
    turns: list[Message] = []
    for message in messages:
        if message.role == "tool" and turns and turns[-1].role == "tool":
            turns[-1] = Message("tool", turns[-1].content + message.content)
        else:
            turns.append(message)
    return tuple(turns)


def decode_message(message: Body, name: str) -> Message:
    """Decode one message of a client. Raises `BadRequestError` or `UnsupportedError`."""
    role = message.required_string("role")
    if role not in _ROLES:
        raise message.wrong("role", f"one of {', '.join(_ROLES)}")
    content = _decode_content(message, name)
    if role == "tool":
        content = (_decode_tool_result(message, content),)
    elif role == "assistant":
        refusal, calls = _decode_refusal(message), _decode_calls(message, name)
        content = (*_decode_reasoning(message, name), *content, *refusal, *calls)
    elif message.take("content") is None:
        raise message.wrong("content", "a string or a list of parts")
    speaker = message.string("name")
    rest = message.rest() if role != "tool" else {}
    fields = {field: value for field, value in rest.items() if not is_empty(value)} if rest else rest
    return Message(role, content, speaker, {name: fields} if fields else None)


def _decode_content(message: Body, name: str) -> tuple[Part, ...]:
    value = message.take("content")
    if value is None:
        return ()
    if isinstance(value, str):
        return (Text(value),) if value else ()
    if not isinstance(value, list):
        raise message.wrong("content", "a string or a list of parts")
    return tuple(_decode_part(part, name) for part in message.objects("content"))


def _decode_part(part: Body, name: str) -> Part:
    match part.required_string("type"):
        case "text":
            return Text(part.required_string("text"), extra=part.rest_for(name))
        case "refusal":
            return Refusal(part.required_string("refusal"))
        case "image_url":
            return _decode_image(part, name)
        case "file" if isinstance(part.raw.get("file"), dict):
            return decode_document(part, name)
        case "input_audio" if isinstance(part.raw.get("input_audio"), dict):
            return decode_audio(part, name)
        case _:
            return Opaque(dialect=name, value=part.raw)


def _decode_image(part: Body, name: str) -> Image:
    if isinstance(part.take("image_url"), str):
        url, detail = part.required_string("image_url"), None
    else:
        inner = part.object("image_url")
        if inner is None:
            raise part.wrong("image_url", "an object with the image's url")
        url, detail = inner.required_string("url"), inner.string("detail")
    try:
        return msgspec.structs.replace(image_from_url(url, detail), extra=part.rest_for(name))
    except WireError as exc:
        raise part.wrong("image_url", f"a URL or a base64 data URI: {exc}") from None


def _decode_tool_result(message: Body, content: tuple[Part, ...]) -> ToolResult:
    parts = tuple(part for part in content if isinstance(part, Text | Image | Document | Audio))
    if len(parts) != len(content):
        raise message.wrong("content", "texts, images, documents or audio in a message of role tool")
    return ToolResult(call_id=message.required_string("tool_call_id"), content=parts)


def _decode_reasoning(message: Body, name: str) -> tuple[Part, ...]:
    spellings = (message.string("reasoning_content"), message.string("reasoning"))
    text = next(filter(None, spellings), "")
    details = [detail.raw for detail in message.objects(DETAILS)] if name == WIRE else []
    if not details:
        return (Reasoning(text=text),) if text else ()
    return (with_details(Reasoning(text=text or text_of_details(details)), details),)


def _decode_refusal(message: Body) -> tuple[Part, ...]:
    text = message.string("refusal")
    return (Refusal(text),) if text else ()


def _decode_calls(message: Body, name: str) -> tuple[Part, ...]:
    return tuple(_decode_call(call, name) for call in message.objects("tool_calls"))


def _decode_call(call: Body, name: str) -> Part:
    function = call.object("function")
    if function is None:
        if call.string("type") == "custom":
            return Opaque(dialect=name, value=call.raw)
        raise call.wrong("function", "an object with name and arguments")
    id_, signature = call.required_string("id"), _decode_signature(call)
    for known in ("type", "index"):  # clients send back fields that they received in a stream
        call.take(known)
    rest = call.rest()
    return ToolCall(
        id=id_,
        name=function.required_string("name"),
        arguments=function.string("arguments") or "{}",
        signature=signature,
        extra={name: rest} if rest else None,
    )


def _decode_signature(call: Body) -> str | None:
    extra = call.object("extra_content")
    google = extra.object("google") if extra else None
    return google.string("thought_signature") if google else None
