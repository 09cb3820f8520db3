"""Reading the turns of a conversation, the server side.

Calls may come without ids; then a result answers the first call of its function that has no result yet.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.codec.fields import bad_request, unsupported
from llm_protocol.codec.json import WireError, json_text
from llm_protocol.codec.media import unbase64
from llm_protocol.content import (
    Image,
    JsonObject,
    Message,
    Opaque,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from llm_protocol.wires.gemini.carried import unpack
from llm_protocol.wires.gemini.reading import Fields
from llm_protocol.wires.gemini.stream import made_id
from llm_protocol.wires.gemini.tables import NAME


def read_system(content: Fields) -> tuple[Part, ...]:
    """The texts of a system instruction."""
    parts = tuple(
        Text(Fields(raw, content.path("parts")).take("text", str) or "") for raw in content.take_list("parts")
    )
    if not parts:
        raise bad_request(content.path("parts"), "systemInstruction.parts must hold text")
    return parts


class Conversation:
    """Reads the turns, and finds for each result the call it answers."""

    def __init__(self) -> None:
        self._open: list[ToolCall] = []  # calls without a result so far, in order

    def read(self, contents: list[Any]) -> list[Message]:
        """The messages of all turns."""
        messages: list[Message] = []
        for at, raw in enumerate(contents):
            content = Fields(raw, f"contents[{at}]")
            role = content.take("role", str) or "user"
            if role not in ("user", "model", "function"):
                raise bad_request(content.path("role"), f"{content.path('role')} must be user or model")
            parts = [self._part(item, at, k) for k, item in enumerate(content.take_list("parts"))]
            if role == "model":
                _add_answer(messages, parts)
            else:
                messages += _split(parts)
        return messages

    def _part(self, raw: object, content: int, at: int) -> Part:
        part = Fields(raw, f"contents[{content}].parts[{at}]")
        signature = part.take("thoughtSignature", str)
        thought = part.take("thought", bool)
        text = part.take("text", str)
        if text is not None:
            return self._text(text, signature, bool(thought), part)
        call = part.take_fields("functionCall")
        if call is not None:
            return self._call(call, made_id(content, at), signature, extra_of(part))
        result = part.take_fields("functionResponse")
        if result is not None:
            return self._result(result, made_id(content, at), extra_of(part))
        image = None if thought else _image(part, signature)
        return image or _opaque(raw, part.path("text").removesuffix(".text"))

    def _text(self, text: str, signature: str | None, thought: bool, part: Fields) -> Part:
        if thought:
            return unpack(text, signature)
        return Text(text, signature, extra=extra_of(part))

    def _call(self, call: Fields, made: str, signature: str | None, extra: dict[str, JsonObject] | None) -> ToolCall:
        found = ToolCall(
            id=call.take("id", str) or made,
            name=needed(call, "name"),
            arguments=json_text(call.take("args", dict) or {}),
            signature=signature,
            extra=extra,
        )
        self._open.append(found)
        return found

    def _result(self, result: Fields, made: str, extra: dict[str, JsonObject] | None) -> ToolResult:
        name, given = needed(result, "name"), result.take("id", str)
        call = next((c for c in self._open if (c.id == given if given else c.name == name)), None)
        if call is not None:
            self._open.remove(call)
        response = result.take("response", dict) or {}
        text, is_error = _result_text(response)
        images = [_image(Fields(raw, result.path("parts")), None) for raw in result.take_list("parts")]
        if not all(images):
            raise unsupported(result.path("parts"), f"{result.path('parts')} may hold pictures only")
        return ToolResult(
            call_id=given or (call.id if call else made),
            content=(*((Text(text),) if text or not images else ()), *(image for image in images if image)),
            name=name,
            is_error=is_error,
            extra=extra,
        )


def _add_answer(messages: list[Message], parts: list[Part]) -> None:
    """Google's SDK keeps every chunk of a streamed answer as a turn: they are one again, and so are their texts."""
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


def needed(fields: Fields, name: str) -> str:
    """The string ``name``. Raises `BadRequestError` when it is missing or empty."""
    value = fields.take(name, str)
    if not value:
        raise bad_request(fields.path(name), f"{fields.path(name)} is missing")
    return value


def extra_of(part: Fields) -> dict[str, JsonObject] | None:
    """What is left of ``part``, for the same dialect upstream."""
    return {NAME: part.rest} if part.rest else None


def _opaque(raw: object, where: str) -> Opaque:
    value = Fields(raw, where).rest
    if not value:
        raise bad_request(where, f"{where} is empty; it needs text, inlineData, functionCall or the like")
    return Opaque(dialect=NAME, value=value)


def _image(part: Fields, signature: str | None) -> Image | None:
    """The picture of ``part``, or ``None`` where it is something else: sound, a video, a document."""
    for name in ("inlineData", "fileData"):
        kind = part.peek(name)
        if isinstance(kind, dict):
            media_type = Fields(kind, part.path(name)).take("mimeType", str)
            if media_type is not None and not media_type.startswith("image/"):
                return None
            blob = part.take_fields(name)
            assert blob is not None
            return _blob(blob, media_type, signature, extra_of(part))
    return None


def _blob(blob: Fields, media_type: str | None, signature: str | None, extra: dict[str, JsonObject] | None) -> Image:
    url = blob.take("fileUri", str)
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
