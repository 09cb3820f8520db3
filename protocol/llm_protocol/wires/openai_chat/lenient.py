"""Decode chunks that do not fit the types in `shapes`: with unknown fields, which are kept, or with fields of other
types, which differ between servers.
"""

from __future__ import annotations

import msgspec

from llm_protocol.codec.json import json_text
from llm_protocol.codec.lenient import fit
from llm_protocol.content import JsonObject
from llm_protocol.extra_fields import is_empty
from llm_protocol.wires.openai_chat.shapes import BODY_FIELDS, REST, ChatCall, ChatChoice, ChatChunk, ChatDelta

_ESSENTIAL = frozenset(
    ("choices", "delta", "message", "content", "text", "tool_calls", "function", "name", "arguments")
)
"""The fields that hold content. Any other field may have any type."""

_NOT_EXTRA = frozenset(("role",))


def _field_names(shape: type[msgspec.Struct]) -> frozenset[str]:
    """The names of the fields that are read, without those that are only declared to be empty."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(shape) if field.type is not type(None))


_CHOICE, _MESSAGE, _CALL = _field_names(ChatChoice), _field_names(ChatDelta), _field_names(ChatCall)


def fit_chunk(body: JsonObject, ignored: set[str]) -> tuple[ChatChunk, JsonObject]:
    """Decode an object as `stream.read_chunk` decodes text; the object is changed. Forms that differ between servers
    are converted: content in parts, a call outside of a list, arguments as an object, ids as numbers.
    """
    extras = take_extras(body, _CHOICE, _MESSAGE)
    try:
        return msgspec.convert(body, ChatChunk), extras
    except msgspec.ValidationError:
        return _fitted(body, ignored), extras


def _fitted(body: JsonObject, ignored: set[str]) -> ChatChunk:
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            for message in (choice.get("delta"), choice.get("message")):
                if isinstance(message, dict):
                    _straighten(message)
    return fit(body, ChatChunk, _ESSENTIAL, ignored)


def _straighten(message: JsonObject) -> None:
    content = message.get("content")
    if isinstance(content, list):
        # A string stands for a text part. Any other member is dropped.
        parts = [{"text": part} if isinstance(part, str) else part for part in content if part is not None]
        if not all(isinstance(part, dict) for part in parts):
            return
        message["content"] = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
        thoughts = [item for part in parts for item in _thoughts(part)]
        if thoughts:
            message["reasoning"] = "".join(thoughts)
    calls = message.get("tool_calls")
    if isinstance(calls, dict):  # one call, not in a list
        calls = message["tool_calls"] = [calls]
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), dict):
            function["arguments"] = json_text(function["arguments"])


def _thoughts(part: JsonObject) -> list[str]:
    inner = part.get("thinking")
    items = inner if isinstance(inner, list) else [inner]
    texts = [item.get("text") if isinstance(item, dict) else item for item in items]
    return [text for text in texts if isinstance(text, str)]


def take_extras(body: JsonObject, choice_names: frozenset[str], message_names: frozenset[str]) -> JsonObject:
    """Remove the unknown fields from the first choice of ``body`` and its message, and return them by the object they
    belong to.
    """
    found: JsonObject = {}
    found["body"] = {name: value for name in BODY_FIELDS if not is_empty(value := body.pop(name, None))}
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        extra = _take_unknown(choice, choice_names)
        message = choice.get("delta") or choice.get("message")
        present = _take_unknown(message, message_names) if isinstance(message, dict) else {}
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        for call in calls if isinstance(calls, list) else [calls]:
            if isinstance(call, dict) and (rest := _take_unknown(call, _CALL)):
                call[REST] = rest
        if not choice.get("index"):
            found["choice"] = extra
            found["message"] = present
    return {where: fields for where, fields in found.items() if fields}


def _take_unknown(fields: JsonObject, known: frozenset[str]) -> JsonObject:
    taken = {name: fields.pop(name) for name in list(fields) if name not in known}
    return {name: value for name, value in taken.items() if not is_empty(value) and name not in _NOT_EXTRA}
