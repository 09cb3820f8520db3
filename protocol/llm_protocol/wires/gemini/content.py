"""Encode and decode parts, tools and turns on Gemini's wire, of requests and of responses.

The code uses dicts rather than structs, because it is not time-critical. Unknown fields of a part are kept in its
``extra["gemini"]``; a part of an unknown kind becomes `Opaque`. If calls have no ids, a result belongs to the first
call of its function that has no result yet.

A client of this wire returns the text of a thought and its ``thoughtSignature``, and nothing else. Another vendor may
need more: its signature, its encrypted payload, its id, or only the text. `pack` puts these into a signature of the
runtime's own, and `unpack` takes them out when the client returns it.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from llm_protocol.codec.fields import bad_request, own_fields, own_value, unsupported
from llm_protocol.codec.json import JsonDecoder, WireError, decode_object, encode_json, json_text
from llm_protocol.codec.media import unbase64
from llm_protocol.codec.schemas import with_plain_refs
from llm_protocol.content import (
    Audio,
    Document,
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
from llm_protocol.wires.gemini.media import decode_media, encode_image, encode_media
from llm_protocol.wires.gemini.shapes import NAME, GeminiBody, camel, made_id, needed, vendor_id

_MARK = b"llm-runtime:"
_MARKED = base64.b64encode(_MARK).decode()
"""The mark in base64. It has 12 bytes, which are whole groups of base64, so the following bytes do not change its
encoding.
"""
_REASONING = JsonDecoder(Reasoning)


def pack(part: Reasoning) -> str | None:
    """The ``thoughtSignature`` for a client: Gemini's own, or one that contains another vendor's reasoning. ``None`` if
    the thought is Gemini's and has no signature.
    """
    if part.dialect in (NAME, None) and part.extra is None:
        return part.signature
    return base64.b64encode(_MARK + encode_json(msgspec.structs.replace(part, text=""))).decode()


def unpack(text: str, signature: str | None) -> Reasoning:
    """Decode the thought that a client sends back."""
    if signature is not None and signature.startswith(_MARKED):
        try:
            found = _REASONING.decode(unbase64(signature)[len(_MARK) :])
        except WireError:
            return Reasoning(text=text, dialect=NAME)
        return msgspec.structs.replace(found, text=text)
    return Reasoning(text=text, signature=signature, dialect=NAME)


# ---------------------------------------------------------------- to the wire


def encode_part(part: Part, where: str) -> JsonObject:
    """Encode one part other than a tool result, which has to be matched to its call. Raises `UnsupportedError` for what
    Gemini does not support.
    """
    match part:
        case Text():
            return _signed({"text": part.text}, part.signature, part.extra)
        case Refusal():
            return {"text": part.text}
        case Image():
            return _signed(encode_image(part, where), part.signature, part.extra)
        case Document() | Audio():
            return encode_media(part)
        case Reasoning():
            own = part.dialect in (NAME, None)
            return _signed({"text": part.text, "thought": True}, part.signature if own else None, None)
        case ToolCall():
            return _signed({"functionCall": _encode_call(part, where)}, part.signature, part.extra)
        case Opaque():
            return own_value(part, where, NAME, "Gemini")
        case ToolResult():
            raise bad_request(where, f"{where}: a tool result must be in a message with the role tool")


def _signed(wire: JsonObject, signature: str | None, extra: dict[str, JsonObject] | None) -> JsonObject:
    if signature is not None:
        wire["thoughtSignature"] = signature
    return {**own_fields(extra, NAME), **wire}


def _encode_call(call: ToolCall, where: str) -> JsonObject:
    try:
        wire: JsonObject = {"name": call.name, "args": call.parsed()}
    except ValueError:
        message = f"{where}: the arguments of tool call {call.name!r} are not a JSON object, which Gemini demands"
        raise unsupported(where, message) from None
    call_id = vendor_id(call.id)
    return wire if call_id is None else {**wire, "id": call_id}


def encode_result(result: ToolResult, name: str, where: str) -> JsonObject:
    """The result of a call of the function ``name``."""
    wire: JsonObject = {"name": name, "response": _result_object(result)}
    call_id = vendor_id(result.call_id)
    if call_id is not None:
        wire["id"] = call_id
    media = [
        encode_image(part, where) if isinstance(part, Image) else encode_media(part)
        for part in result.content
        if not isinstance(part, Text)
    ]
    if media:
        wire["parts"] = media
    return _signed({"functionResponse": wire}, None, result.extra)


_RESULT_KEYS = ({"output"}, {"error"})


def _result_object(result: ToolResult) -> JsonObject:
    """Return the result as an object, which Gemini requires: the text itself if it is a JSON object, else
    ``{"output": text}`` or ``{"error": text}``.
    """
    if result.is_error:
        return {"error": result.text}
    if result.text.startswith("{"):
        try:
            value = decode_object(result.text)
        except WireError:
            return {"output": result.text}
        if set(value) not in _RESULT_KEYS and not _refers(value):
            return value
    return {"output": result.text}


def _refers(value: Any) -> bool:
    """Whether there is a ``$ref`` at any depth, as in JSON schemas: Gemini looks for a part of that name."""
    if isinstance(value, dict):
        return "$ref" in value or any(map(_refers, value.values()))
    return isinstance(value, list) and any(map(_refers, value))


def encode_tools(tools: tuple[Tool | HostedTool, ...]) -> list[JsonObject]:
    """Return the tools: consecutive functions share one entry; each hosted tool has its own."""
    entries: list[JsonObject] = []
    for at, tool in enumerate(tools):
        if isinstance(tool, HostedTool):
            entries.append(own_value(tool, f"tools[{at}]", NAME, "Gemini"))
        elif entries and "functionDeclarations" in entries[-1]:
            entries[-1]["functionDeclarations"].append(_declaration(tool))
        else:
            entries.append({"functionDeclarations": [_declaration(tool)]})
    return entries


def _declaration(tool: Tool) -> JsonObject:
    wire: JsonObject = {"name": tool.name}
    if tool.description is not None:
        wire["description"] = tool.description
    if tool.parameters:
        wire["parametersJsonSchema"] = with_plain_refs(tool.parameters)
    return {**own_fields(tool.extra, NAME), **wire}


# ---------------------------------------------------------------- from the wire


def read_system(content: GeminiBody) -> tuple[Part, ...]:
    """The texts of a system instruction."""
    parts = tuple(Text(part.string("text") or "") for part in content.objects("parts"))
    if not parts:
        raise bad_request(content.path("parts"), "systemInstruction.parts must contain at least one text")
    return parts


class Conversation:
    """Reads the turns, and matches each result to its call."""

    def __init__(self) -> None:
        self._open: list[ToolCall] = []  # calls without a result so far, in order

    def read(self, contents: list[GeminiBody]) -> list[Message]:
        """The messages of all turns."""
        messages: list[Message] = []
        for at, content in enumerate(contents):
            role = content.string("role") or "user"
            if role not in ("user", "model", "function"):
                raise content.wrong("role", "user or model")
            parts = [self._part(part, at, k) for k, part in enumerate(content.objects("parts"))]
            if role == "model":
                _add_answer(messages, parts)
            else:
                messages += _split(parts)
        return messages

    def _part(self, part: GeminiBody, content: int, at: int) -> Part:
        signature = part.string("thoughtSignature")
        thought = part.boolean("thought")
        text = part.string("text")
        if text is not None:
            return self._text(text, signature, bool(thought), part)
        call = part.object("functionCall")
        if call is not None:
            return self._call(call, made_id(content, at), signature, part.rest_for(NAME))
        result = part.object("functionResponse")
        if result is not None:
            return self._result(result, made_id(content, at), part.rest_for(NAME))
        media = None if thought else decode_media(part, signature)
        return media or _opaque(part)

    def _text(self, text: str, signature: str | None, thought: bool, part: GeminiBody) -> Part:
        if thought:
            return unpack(text, signature)
        return Text(text, signature, extra=part.rest_for(NAME))

    def _call(
        self, call: GeminiBody, made: str, signature: str | None, extra: dict[str, JsonObject] | None
    ) -> ToolCall:
        found = ToolCall(
            id=call.string("id") or made,
            name=needed(call, "name"),
            arguments=json_text(call.json_object("args") or {}),
            signature=signature,
            extra=extra,
        )
        self._open.append(found)
        return found

    def _result(self, result: GeminiBody, made: str, extra: dict[str, JsonObject] | None) -> ToolResult:
        name, given = needed(result, "name"), result.string("id")
        call = next((c for c in self._open if (c.id == given if given else c.name == name)), None)
        if call is not None:
            self._open.remove(call)
        text, is_error = _result_text(result.json_object("response") or {})
        media = [decode_media(part, None) for part in result.objects("parts")]
        if not all(media):
            raise unsupported(
                result.path("parts"), f"{result.path('parts')} must contain only images, documents and audio"
            )
        return ToolResult(
            call_id=given or (call.id if call else made),
            content=(*((Text(text),) if text or not media else ()), *(each for each in media if each)),
            name=name,
            is_error=is_error,
            extra=extra,
        )


def _add_answer(messages: list[Message], parts: list[Part]) -> None:
    """Join consecutive turns of the model, and their texts: Google's SDK keeps each chunk of a streamed response as a
    turn.
    """
    if not parts:
        return
    if not messages or messages[-1].role != "assistant":
        messages.append(Message("assistant", tuple(parts)))
        return
    *earlier, last = messages[-1].content
    messages[-1] = Message("assistant", (*earlier, *_joined(last, parts[0]), *parts[1:]))


def _joined(one: Part, other: Part) -> tuple[Part, ...]:
    if isinstance(one, Text) and isinstance(other, Text) and one.signature is None and one.extra is None:
        return (Text(one.text + other.text, other.signature, extra=other.extra),)
    if isinstance(one, Reasoning) and isinstance(other, Reasoning) and not (one.signature or one.encrypted):
        return (msgspec.structs.replace(other, text=one.text + other.text),)
    return (one, other)


def _split(parts: list[Part]) -> list[Message]:
    """A user's turn. The tool results in it become a separate message."""
    messages: list[Message] = []
    for part in parts or [Text("")]:
        role = "tool" if isinstance(part, ToolResult) else "user"
        if messages and messages[-1].role == role:
            messages[-1] = Message(messages[-1].role, (*messages[-1].content, part))
        else:
            messages.append(Message("tool" if role == "tool" else "user", (part,)))
    return messages


def _opaque(part: GeminiBody) -> Opaque:
    where = part.where
    value = GeminiBody(part.raw, where).rest()
    if not value:
        raise bad_request(where, f"{where} is empty: it needs content, such as text, inlineData or functionCall")
    return Opaque(dialect=NAME, value=value)


def _result_text(response: JsonObject) -> tuple[str, bool]:
    """The text of a result, and whether it is an error."""
    for key in ("output", "error"):
        value = response.get(key)
        if len(response) == 1 and isinstance(value, str):
            return value, key == "error"
    return json_text(response), False


_TYPES = frozenset(("STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"))
_ONE_SCHEMA = ("items", "additionalProperties", "not")
_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


def json_schema(schema: object) -> Any:
    """Google's subset of OpenAPI as JSON schema: types in lower case, ``nullable`` as a type, counts as numbers."""
    if not isinstance(schema, dict):
        return schema
    found: JsonObject = {}
    for key, value in schema.items():
        name = camel(key)
        if name == "type" and isinstance(value, str):
            found[name] = value.lower() if value.upper() in _TYPES else value
        elif name == "properties" and isinstance(value, dict):
            found[name] = {child: json_schema(inner) for child, inner in value.items()}
        elif name in _SCHEMAS and isinstance(value, list):
            found[name] = [json_schema(inner) for inner in value]
        elif name in _ONE_SCHEMA:
            found[name] = json_schema(value)
        elif name in _COUNTS and isinstance(value, str) and value.isdecimal():
            found[name] = int(value)
        elif name != "nullable":
            found[name if "_" in key else key] = value
    if schema.get("nullable") is True:
        _add_null(found)
    return found


def _add_null(schema: JsonObject) -> None:
    """Let ``schema`` accept null, in any notation of its types."""
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    if isinstance(schema.get("enum"), list):
        schema["enum"] = [*schema["enum"], None]
    if isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
