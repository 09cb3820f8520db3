"""A slow, obvious reader of answers: what a person would read in a transcript, one wire after the other.

It knows nothing of pieces of bytes, of order beyond the transcript's own, or of repetitions. It looks at nothing but
the fields an answer is made of, and raises `UnreadableError` for what has no one meaning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

DONE = "[DONE]"


class Entry(NamedTuple):
    """One event of a stream: its SSE name, if it has one, and its data, decoded."""

    name: str | None
    data: Any


class Reading(NamedTuple):
    """What an answer says. Arguments are compared as values, not as texts."""

    text: str
    thoughts: str
    calls: tuple[tuple[str, str], ...]


class UnreadableError(Exception):
    """There is no end, no answer, or more than one way to read it."""


class Draft:
    """An answer that is being read."""

    def __init__(self) -> None:
        self.text = ""
        self.thoughts = ""
        self.calls: dict[str, list[str]] = {}
        self.inputs: dict[str, object] = {}
        """Arguments that count if no pieces of them come."""
        self.has_end = False

    def call(self, place: object, name: object = None, arguments: object = None) -> None:
        call = self.calls.setdefault(repr(place), ["", ""])
        call[0] = call[0] or words(name)
        self.add_arguments(repr(place), arguments)

    def add_arguments(self, key: str, arguments: object) -> None:
        self.calls[key][1] += json.dumps(arguments) if isinstance(arguments, dict) else words(arguments)

    def reading(self) -> Reading:
        if not self.has_end:
            raise UnreadableError("no end")
        for place, given in self.inputs.items():
            if not self.calls.setdefault(place, ["", ""])[1]:
                self.add_arguments(place, given)
        if not all(name for name, _ in self.calls.values()):
            raise UnreadableError("a call without a name")
        return Reading(self.text, self.thoughts, tuple((name, value_of(text)) for name, text in self.calls.values()))


def words(value: object) -> str:
    """A text, or a number that stands for one; nothing for ``None``."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UnreadableError("no text")


def thought(value: object) -> str:
    """Readable reasoning: an answer is one without it, too."""
    return words(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def value_of(text: str) -> str:
    """The arguments, in one form."""
    if text.strip() in ("", "null"):
        return "{}"
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        raise UnreadableError("arguments that are no JSON value") from None


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in a list, or the one in no list."""
    items = value if isinstance(value, list) else [value]
    found = [item for item in items if isinstance(item, dict)]
    if len(found) != sum(item is not None for item in items):
        raise UnreadableError("no objects")
    return found


def inner(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UnreadableError(name)
    return found


# ---------------------------------------------------------------- the wires


def read_chat(stream: Sequence[Entry]) -> Reading:
    draft = Draft()
    for entry in stream:
        if entry.data == DONE:
            break
        if not isinstance(entry.data, dict):
            continue
        if entry.data.get("error"):
            raise UnreadableError("an error")
        for choice in objects(entry.data.get("choices")):
            if choice.get("index"):
                continue
            said = inner(choice, "delta") or inner(choice, "message")
            draft.thoughts += thought(said.get("reasoning")) or thought(said.get("reasoning_content"))
            content = said.get("content")
            parts = content if isinstance(content, list) else [content]
            draft.text += "".join(words(part.get("text") if isinstance(part, dict) else part) for part in parts)
            for call in filter(None, objects(said.get("tool_calls"))):
                function = inner(call, "function")
                draft.call(call.get("index", call.get("id")), function.get("name"), function.get("arguments"))
            draft.has_end |= words(choice.get("finish_reason")) not in ("", "null")
    return draft.reading()


def read_chat_whole(body: Any) -> Reading:
    choice = next((one for one in objects(body.get("choices")) if not one.get("index")), None)
    if choice is None:
        raise UnreadableError("no choice")
    calls = objects((choice.get("message") or {}).get("tool_calls"))
    numbered = [{**call, "index": at} for at, call in enumerate(calls) if call]
    message = {**inner(choice, "message"), "tool_calls": numbered}
    return read_chat([Entry(None, {**body, "choices": [{**choice, "message": message, "finish_reason": "stop"}]})])


def read_anthropic(stream: Sequence[Entry]) -> Reading:
    draft = Draft()
    for entry in stream:
        data = entry.data
        if not isinstance(data, dict):
            continue
        match data.get("type"):
            case "error":
                raise UnreadableError("an error")
            case "content_block_start":
                _block(draft, data.get("index"), inner(data, "content_block"))
            case "content_block_delta":
                delta = inner(data, "delta")
                match delta.get("type"):
                    case "text_delta":
                        draft.text += words(delta.get("text"))
                    case "thinking_delta":
                        draft.thoughts += thought(delta.get("thinking"))
                    case "input_json_delta" if repr(data.get("index")) in draft.calls:
                        draft.call(data.get("index"), arguments=delta.get("partial_json"))
            case "message_stop":
                draft.has_end = True
                break
    return draft.reading()


def _block(draft: Draft, index: object, block: dict[str, Any]) -> None:
    match block.get("type"):
        case "text":
            draft.text += words(block.get("text"))
        case "thinking":
            draft.thoughts += thought(block.get("thinking"))
        case "tool_use":
            draft.call(index, block.get("name"))
            draft.inputs[repr(index)] = block.get("input")


def read_anthropic_whole(body: Any) -> Reading:
    draft = Draft()
    for at, block in enumerate(objects(body.get("content"))):
        _block(draft, at, block)
    draft.has_end = True
    return draft.reading()


def read_gemini(stream: Sequence[Entry]) -> Reading:
    draft = Draft()
    for entry in stream:
        if not isinstance(entry.data, dict):
            continue
        if entry.data.get("error"):
            raise UnreadableError("an error")
        for candidate in objects(entry.data.get("candidates")):
            if candidate.get("index"):
                continue
            for part in objects(inner(candidate, "content").get("parts")):
                _gemini_part(draft, part)
            draft.has_end |= candidate.get("finishReason") not in (None, "")
    return draft.reading()


def _gemini_part(draft: Draft, part: dict[str, Any]) -> None:
    if part.get("thought") not in (None, False, "", "false"):
        draft.thoughts += thought(part.get("text"))
    else:
        draft.text += words(part.get("text"))
    if (call := part.get("functionCall")) is not None:
        draft.call(len(draft.calls), inner(part, "functionCall").get("name"), call.get("args"))


def read_gemini_whole(body: Any) -> Reading:
    return read_gemini([Entry(None, body)])


def read_cohere(stream: Sequence[Entry]) -> Reading:
    draft = Draft()
    for entry in stream:
        data = entry.data
        if not isinstance(data, dict):
            continue
        message = inner(inner(data, "delta"), "message")
        match data.get("type"):
            case "content-start" | "content-delta":
                content = inner(message, "content")
                draft.text += words(content.get("text"))
                draft.thoughts += thought(content.get("thinking"))
            case "tool-plan-delta":
                draft.thoughts += thought(message.get("tool_plan"))
            case "tool-call-start" | "tool-call-delta":
                function = inner(inner(message, "tool_calls"), "function")
                draft.call(data.get("index"), function.get("name"), function.get("arguments"))
            case "message-end":
                draft.has_end = True
                break
    return draft.reading()


def read_cohere_whole(body: Any) -> Reading:
    draft, message = Draft(), inner(body, "message")
    draft.thoughts += thought(message.get("tool_plan"))
    content = message.get("content")
    blocks = objects([{"type": "text", "text": content}] if isinstance(content, str) else content)
    for block in (block for block in blocks if block.get("type") in ("text", "thinking")):
        draft.text += words(block.get("text"))
        draft.thoughts += thought(block.get("thinking"))
    for at, call in enumerate(objects(message.get("tool_calls"))):
        function = inner(call, "function")
        draft.call(at, function.get("name"), function.get("arguments"))
    draft.has_end = True
    return draft.reading()


def read_responses(stream: Sequence[Entry]) -> Reading:
    """Each item by its own whole form, else by the last snapshot."""
    items: dict[Any, dict[str, Any]] = {}
    end: dict[str, Any] | None = None
    for entry in stream:
        data = entry.data
        if not isinstance(data, dict):
            continue
        kind = data.get("type")  # where it is no word at all, the event's name says what the event is
        match kind if kind and isinstance(kind, str | int | float) and kind is not True else entry.name:
            case "response.output_item.done" if inner(data, "item"):
                place = data.get("output_index") or 0
                items.setdefault(place if isinstance(place, int) else repr(place), inner(data, "item"))
            case "response.completed" | "response.incomplete":
                end = inner(data, "response")
                break
            case "response.failed" | "error":
                raise UnreadableError("an error")
    if end is None:
        raise UnreadableError("no end")
    known = [item.get("call_id") for item in items.values()]
    for at, item in enumerate(objects(end.get("output"))):
        if item.get("call_id") is None or item["call_id"] not in known:
            items.setdefault(at, item)
    return _items([items[at] for at in sorted(items, key=str)])


def read_responses_whole(body: Any) -> Reading:
    if body.get("status") not in ("completed", "incomplete"):
        raise UnreadableError("no end")
    return _items(objects(body.get("output")))


def _items(items: Sequence[dict[str, Any]]) -> Reading:
    draft = Draft()
    for at, item in enumerate(items):
        match item.get("type") or ("message" if "role" in item else None):
            case "message":
                draft.text += _item_text(item.get("content"))
            case "function_call":
                draft.call(at, item.get("name"), item.get("arguments"))
            case "reasoning":
                summary = "\n\n".join(thought(part.get("text")) for part in objects(item.get("summary")))
                draft.thoughts += summary or "\n\n".join(thought(p.get("text")) for p in objects(item.get("content")))
    draft.has_end = True
    return draft.reading()


def _item_text(content: object) -> str:
    if isinstance(content, str):
        return words(content)
    parts = [part for part in objects(content) if part.get("type") in ("output_text", "text")]
    return "".join(words(part.get("text")) for part in parts)


STREAMS: dict[str, Callable[[Sequence[Entry]], Reading]] = {
    "openai_chat": read_chat,
    "anthropic": read_anthropic,
    "gemini": read_gemini,
    "cohere": read_cohere,
    "openai_responses": read_responses,
}
WHOLE: dict[str, Callable[[Any], Reading]] = {
    "openai_chat": read_chat_whole,
    "anthropic": read_anthropic_whole,
    "gemini": read_gemini_whole,
    "cohere": read_cohere_whole,
    "openai_responses": read_responses_whole,
}
