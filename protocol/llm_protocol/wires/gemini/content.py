"""Encode and decode parts, tools and turns on Gemini's wire, of requests and of responses.

Dicts throughout: this is not the hot path. Unknown fields of a part are kept in its ``extra["gemini"]``; a part of an
unknown kind becomes `Opaque`. Calls may have no ids; then a result belongs to the first call of its function that has
no result yet.

A client of this wire returns the text of a thought and its ``thoughtSignature``, and nothing else. What another vendor
needs back (its signature, its encrypted payload, its id, or only the text) is packed into a signature of our own and
unpacked when it returns.
"""

from __future__ import annotations

import base64
from typing import Any, Self

import msgspec

from llm_protocol.codec.body import POLICY, Body
from llm_protocol.codec.fields import bad_request, unsupported
from llm_protocol.codec.json import JsonDecoder, WireError, decode_object, encode_json, json_text
from llm_protocol.codec.media import parse_data_uri, sniff_media_type, unbase64
from llm_protocol.codec.request_encoding import own_fields, own_value
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
from llm_protocol.wires.gemini.shapes import NAME, made_id, vendor_id

_MARK = b"llm-runtime:"
_MARKED = base64.b64encode(_MARK).decode()  # 12 bytes, so that what follows does not change it
_REASONING = JsonDecoder(Reasoning)


def pack(part: Reasoning) -> str | None:
    """The ``thoughtSignature`` for a client: Gemini's own as it is, another vendor's reasoning packed up."""
    if part.dialect in (NAME, None) and part.extra is None:
        return part.signature
    return base64.b64encode(_MARK + encode_json(msgspec.structs.replace(part, text=""))).decode()


def unpack(text: str, signature: str | None) -> Reasoning:
    """The thought that a client sends back."""
    if signature is not None and signature.startswith(_MARKED):
        try:
            found = _REASONING.decode(unbase64(signature)[len(_MARK) :])
        except WireError:
            return Reasoning(text=text, dialect=NAME)
        return msgspec.structs.replace(found, text=text)
    return Reasoning(text=text, signature=signature, dialect=NAME)


# ---------------------------------------------------------------- to the wire


def encode_part(part: Part, where: str) -> JsonObject:
    """One part, except tool results, which need to know their calls. Raises for what Gemini does not support."""
    match part:
        case Text():
            return _signed({"text": part.text}, part.signature, part.extra)
        case Refusal():
            return {"text": part.text}
        case Image():
            return _signed(_encode_image(part, where), part.signature, part.extra)
        case Reasoning():
            own = part.dialect in (NAME, None)
            return _signed({"text": part.text, "thought": True}, part.signature if own else None, None)
        case ToolCall():
            return _signed({"functionCall": _encode_call(part, where)}, part.signature, part.extra)
        case Opaque():
            return own_value(part, where, NAME, "Gemini")
        case ToolResult():
            raise bad_request(where, f"{where}: a tool result stands in a message of role tool")


def _signed(wire: JsonObject, signature: str | None, extra: dict[str, JsonObject] | None) -> JsonObject:
    if signature is not None:
        wire["thoughtSignature"] = signature
    return {**own_fields(extra, NAME), **wire}


def _encode_image(image: Image, where: str) -> JsonObject:
    if image.data is not None:
        return {"inlineData": {"mimeType": image.media_type or sniff_media_type(image.data), "data": image.data}}
    url = image.url or ""
    if url.startswith("data:"):
        try:
            media_type, data = parse_data_uri(url)
        except WireError as exc:
            raise bad_request(where, f"{where}: {exc}") from None
        return {"inlineData": {"mimeType": media_type, "data": data}}
    if not url:
        raise bad_request(where, f"{where}: an image needs data or a url")
    return {"fileData": {"mimeType": image.media_type, "fileUri": url} if image.media_type else {"fileUri": url}}


def _encode_call(call: ToolCall, where: str) -> JsonObject:
    try:
        wire: JsonObject = {"name": call.name, "args": call.parsed()}
    except ValueError:
        raise bad_request(where, f"{where}: the arguments of tool call {call.name!r} are not a JSON object") from None
    call_id = vendor_id(call.id)
    return wire if call_id is None else {**wire, "id": call_id}


def encode_result(result: ToolResult, name: str, where: str) -> JsonObject:
    """A tool's answer to the call of the function ``name``."""
    wire: JsonObject = {"name": name, "response": _result_object(result)}
    call_id = vendor_id(result.call_id)
    if call_id is not None:
        wire["id"] = call_id
    images = [_encode_image(part, where) for part in result.content if isinstance(part, Image)]
    if images:
        wire["parts"] = images
    return _signed({"functionResponse": wire}, None, result.extra)


_RESULT_KEYS = ({"output"}, {"error"})


def _result_object(result: ToolResult) -> JsonObject:
    """Gemini wants an object: the text itself if it is one, else ``{"output": text}`` or ``{"error": text}``."""
    if result.is_error:
        return {"error": result.text}
    if result.text.startswith("{"):
        try:
            value = decode_object(result.text)
        except WireError:
            return {"output": result.text}
        if set(value) not in _RESULT_KEYS:
            return value
    return {"output": result.text}


def encode_tools(tools: tuple[Tool | HostedTool, ...]) -> list[JsonObject]:
    """Neighbouring functions share one entry, each hosted tool has its own."""
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
        wire["parametersJsonSchema"] = tool.parameters
    return {**own_fields(tool.extra, NAME), **wire}


# ---------------------------------------------------------------- from the wire


def camel(name: str) -> str:
    """``inline_data`` as ``inlineData``: Google takes both."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


class GeminiBody(Body):
    """A JSON object from a client, whose names are taken in either case."""

    def __init__(self, fields: JsonObject, where: str = "", at: int | None = None) -> None:
        named = ((name if name == POLICY else camel(name), value) for name, value in fields.items())
        super().__init__(dict(named), where, at)

    # Pyright takes the Self of the base for Body itself.
    def objects(self, name: str) -> list[Self]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A list of objects; empty if absent. One object counts as a list of it, as Google has it."""
        one = self.object(name) if isinstance(self.raw.get(name), dict) else None
        return super().objects(name) if one is None else [one]


def read_system(content: GeminiBody) -> tuple[Part, ...]:
    """The texts of a system instruction."""
    parts = tuple(Text(part.string("text") or "") for part in content.objects("parts"))
    if not parts:
        raise bad_request(content.path("parts"), "systemInstruction.parts must hold text")
    return parts


class Conversation:
    """Reads the turns, and finds for each result the call it answers."""

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
            return self._call(call, made_id(content, at), signature, extra_of(part))
        result = part.object("functionResponse")
        if result is not None:
            return self._result(result, made_id(content, at), extra_of(part))
        image = None if thought else _decode_image(part, signature)
        return image or _opaque(part)

    def _text(self, text: str, signature: str | None, thought: bool, part: GeminiBody) -> Part:
        if thought:
            return unpack(text, signature)
        return Text(text, signature, extra=extra_of(part))

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
        images = [_decode_image(part, None) for part in result.objects("parts")]
        if not all(images):
            raise unsupported(result.path("parts"), f"{result.path('parts')} may hold images only")
        return ToolResult(
            call_id=given or (call.id if call else made),
            content=(*((Text(text),) if text or not images else ()), *(image for image in images if image)),
            name=name,
            is_error=is_error,
            extra=extra,
        )


def _add_answer(messages: list[Message], parts: list[Part]) -> None:
    """Join turns of the model, and their text: Google's SDK keeps each chunk of a streamed response as a turn."""
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
    """A user's turn, its tool results apart: they are a message of their own."""
    messages: list[Message] = []
    for part in parts or [Text("")]:
        role = "tool" if isinstance(part, ToolResult) else "user"
        if messages and messages[-1].role == role:
            messages[-1] = Message(messages[-1].role, (*messages[-1].content, part))
        else:
            messages.append(Message("tool" if role == "tool" else "user", (part,)))
    return messages


def needed(fields: GeminiBody, name: str) -> str:
    """The string ``name``. Raises `BadRequestError` when it is missing or empty."""
    value = fields.string(name)
    if not value:
        raise bad_request(fields.path(name), f"{fields.path(name)} is missing")
    return value


def extra_of(part: GeminiBody) -> dict[str, JsonObject] | None:
    """What is left of ``part``, for the same dialect upstream."""
    rest = part.rest()
    return {NAME: rest} if rest else None


def _opaque(part: GeminiBody) -> Opaque:
    where = part.where
    value = GeminiBody(part.raw, where).rest()
    if not value:
        raise bad_request(where, f"{where} is empty; it needs text, inlineData, functionCall or the like")
    return Opaque(dialect=NAME, value=value)


def _decode_image(part: GeminiBody, signature: str | None) -> Image | None:
    """The image of ``part``, or ``None`` if it is something else: audio, video, a document."""
    for name in ("inlineData", "fileData"):
        blob = part.object(name) if isinstance(part.raw.get(name), dict) else None
        if blob is not None:
            media_type = blob.string("mimeType")
            if media_type is not None and not media_type.startswith("image/"):
                return None
            return _blob(blob, media_type, signature, extra_of(part))
    return None


def _blob(
    blob: GeminiBody, media_type: str | None, signature: str | None, extra: dict[str, JsonObject] | None
) -> Image:
    url = blob.string("fileUri")
    if url is not None:
        return Image(url=url, media_type=media_type, signature=signature, extra=extra)
    try:
        data = unbase64(needed(blob, "data"))
    except WireError as exc:
        raise bad_request(blob.path("data"), f"{blob.path('data')} is {exc}") from None
    return Image(data=data, media_type=media_type, signature=signature, extra=extra)


def _result_text(response: JsonObject) -> tuple[str, bool]:
    """A result's text, and whether it is an error."""
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
    if schema.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found
