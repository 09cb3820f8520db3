"""Valid answers of every wire, and what servers do to them: one change at a time, of a kind that has been seen."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from fuzz.reference import DONE, Entry
from llm_protocol.content import Message, Part, Reasoning, Text, Tool, ToolCall
from llm_protocol.dialect import ClientDialect, ClientRequest, ServerDialect
from llm_protocol.fold import unfold
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.anthropic import Anthropic, AnthropicServer
from llm_protocol.wires.cohere import Cohere, CohereServer
from llm_protocol.wires.gemini import Gemini, GeminiServer
from llm_protocol.wires.openai_chat import OpenAIChat, OpenAIChatServer
from llm_protocol.wires.responses import OpenAIResponses, OpenAIResponsesServer

TOOL = Tool(name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}})
REQUEST = ChatRequest(model="m", messages=(Message.of("user", "x"),), tools=(TOOL,))


class Wire(NamedTuple):
    """``needed`` are the names of the fields that an answer is made of: every other may be anything."""

    client: ClientDialect
    server: ServerDialect
    needed: frozenset[str]


WIRES = {
    "openai_chat": Wire(
        OpenAIChat(),
        OpenAIChatServer(),
        frozenset((
            "choices", "index", "delta", "message", "content", "text", "tool_calls", "function", "name", "arguments",
            "finish_reason", "id", "reasoning_content", "error", "type",
        )),
    ),
    "anthropic": Wire(
        Anthropic(),
        AnthropicServer(),
        frozenset((
            "type", "index", "delta", "message", "content_block", "content", "text", "thinking", "partial_json",
            "input", "name", "id", "stop_reason", "error", "city", "signature",
        )),
    ),
    "gemini": Wire(
        Gemini(),
        GeminiServer(),
        frozenset((
            "candidates", "content", "parts", "text", "thought", "functionCall", "name", "args", "index", "id",
            "finishReason", "error", "city", "promptFeedback",
        )),
    ),
    "cohere": Wire(
        Cohere(),
        CohereServer(),
        frozenset((
            "type", "index", "delta", "message", "content", "text", "thinking", "tool_calls", "function", "name",
            "arguments", "tool_plan", "finish_reason", "id", "error",
        )),
    ),
    "openai_responses": Wire(
        OpenAIResponses(),
        OpenAIResponsesServer(),
        frozenset((
            "type", "output_index", "content_index", "summary_index", "item", "delta", "response", "output", "content",
            "text", "name", "arguments", "call_id", "id", "status", "summary", "role", "error", "part", "refusal",
            "encrypted_content", "incomplete_details",
        )),
    ),
}  # fmt: skip

REASONS = ("finish_reason", "stop_reason", "finishReason")
"""Where a wire says why an answer ended."""

ODD: tuple[Any, ...] = (True, 0, -1, 7, 1.5, "", "x", "null", [], {}, [None], ["x"], {"a": 1}, [{"a": []}], 10**25)


class Answer(NamedTuple):
    """A stream's entries, or one whole body."""

    wire: str
    entries: tuple[Entry, ...]
    is_whole: bool = False


class Mutant(NamedTuple):
    """``is_harmless``: what an answer is made of is as it was. ``keeps_words``: its texts and names are."""

    answer: Answer
    noise: bytes
    what: str
    is_harmless: bool
    keeps_words: bool


def valid(chance: random.Random) -> Answer:
    """A good answer of some wire."""
    return valid_of(chance.choice(list(WIRES)), chance)


def valid_of(wire: str, chance: random.Random) -> Answer:
    """A good answer, as the server side of a wire tells it."""
    calls = [
        ToolCall(id=f"call_{at}", name=chance.choice(("weather", "f")), arguments=json.dumps({"city": f"Oslo {at}"}))
        for at in range(chance.choice((0, 1, 1, 2, 3)))
    ]
    parts: list[Part] = []
    if chance.random() < 0.4:
        parts.append(Reasoning(text="I think 1", signature="c2ln", dialect=wire))
    if not calls or chance.random() < 0.6:
        parts.append(Text("Grüße 🎉 to the world"))
    reason = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
    response = LLMResponse(
        request_id="r", response_id="resp_1", provider="p", model="m", output=(*parts, *calls), finish_reason=reason,
        content="".join(part.text for part in parts if isinstance(part, Text)),
        usage=Usage(input_tokens=5, output_tokens=3),
    )  # fmt: skip
    server, inbound = WIRES[wire].server, ClientRequest(REQUEST, stream=True)
    if chance.random() < 0.3:
        return Answer(wire, (Entry(None, json.loads(server.encode_response(inbound, response))),), is_whole=True)
    encoder = server.response_encoder(inbound, "resp_1")
    frames = encoder.start()
    for event in unfold(response, piece=chance.choice((3, 7, 100))):
        frames += encoder.encode([event])
    return Answer(wire, tuple(Entry(frame.event, _decoded(frame.data)) for frame in frames))


def _decoded(data: bytes) -> Any:
    return DONE if data == DONE.encode() else json.loads(data)


NOISE = (b": ping\n\n", b"data:\n\n", b"\n\n\n", b"id: 1\nretry: 5\n\n", b": \n")
EXTRA_EVENTS = {
    "anthropic": (Entry("ping", {"type": "ping"}), Entry("brand_new", {"type": "brand_new", "index": 0})),
    "cohere": (Entry("debug", {"type": "debug", "prompt": "x"}),),
    "openai_responses": (Entry("response.new", {"type": "response.new", "sequence_number": 1}),),
    "openai_chat": (Entry(None, {"id": "c", "choices": []}), Entry("x", {"id": "c", "choices": [], "usage": None})),
    "gemini": (Entry(None, {"usageMetadata": {}}), Entry(None, {"candidates": []})),
}


def mutant(answer: Answer, chance: random.Random) -> Mutant:
    """``answer`` with one change."""
    changes = [_field] * 6 + [_add_field, _reason]
    if not answer.is_whole:
        changes += [_repeat, _drop, _swap, _cut, _extra, _noise, _rename_event, _relabel]
    return chance.choice(changes)(answer, chance)


def _with(answer: Answer, entries: Sequence[Entry], what: str, *, harmless: bool, keeps: bool | None = None) -> Mutant:
    made = answer._replace(entries=tuple(entries))
    return Mutant(made, b"", what, harmless, harmless if keeps is None else keeps)


Path = tuple[Any, ...]


def _paths(value: Any, path: Path = ()) -> list[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inside in items for found in ((*path, key), *_paths(inside, (*path, key)))]


def _changed(value: Any, path: Path, change: str, new: Any) -> Any:
    copy = value.copy()
    key = path[0]
    if len(path) > 1:
        copy[key] = _changed(value[key], path[1:], change, new)
    elif change == "missing":
        del copy[key]
    elif change == "renamed" and isinstance(copy, dict):
        copy[f"{key}_x"] = copy.pop(key)
    elif change == "repeated" and isinstance(copy, list):
        copy.insert(key, copy[key])
    else:
        copy[key] = new
    return copy


def _field(answer: Answer, chance: random.Random) -> Mutant:
    """A field missing, null, of another type, renamed; a member of a list twice."""
    at = chance.randrange(len(answer.entries))
    entry = answer.entries[at]
    paths = _paths(entry.data)
    if not paths:
        return _noise(answer, chance)
    path = chance.choice(paths)
    change = chance.choice(("missing", "null", "odd", "odd", "renamed", "repeated"))
    new = None if change == "null" else chance.choice(ODD)
    changed = entry._replace(data=_changed(entry.data, path, change, new))
    entries = [*answer.entries[:at], changed, *answer.entries[at + 1 :]]
    needed = WIRES[answer.wire].needed
    names = [key for key in path if isinstance(key, str)]
    harmless = any(name not in needed for name in names)
    only_ids = bool(names) and names[-1] in ("id", "call_id", "index", "output_index", *REASONS)
    return _with(answer, entries, f"{change} {path} {new!r} at {at}", harmless=harmless, keeps=harmless or only_ids)


def _add_field(answer: Answer, chance: random.Random) -> Mutant:
    """A field that nobody knows, anywhere but among the arguments of a call."""
    at = chance.randrange(len(answer.entries))
    entry = answer.entries[at]
    places = [path for path in [(), *_paths(entry.data)] if isinstance(_at(entry.data, path), dict)]
    places = [path for path in places if path[-1:] not in (("input",), ("args",))]
    if not places:
        return _noise(answer, chance)
    path = (*chance.choice(places), "brand_new_field")
    changed = entry._replace(data=_changed(entry.data, path, "new", chance.choice(ODD)))
    return _with(answer, [*answer.entries[:at], changed, *answer.entries[at + 1 :]], f"add {path}", harmless=True)


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _reason(answer: Answer, chance: random.Random) -> Mutant:
    """A word for the end that nobody knows."""
    for at, entry in enumerate(answer.entries):
        for path in _paths(entry.data):
            if path[-1] in REASONS and isinstance(_at(entry.data, path), str):
                changed = entry._replace(data=_changed(entry.data, path, "word", "brand_new"))
                entries = [*answer.entries[:at], changed, *answer.entries[at + 1 :]]
                return _with(answer, entries, "unknown reason", harmless=True)
    return _noise(answer, chance) if not answer.is_whole else _field(answer, chance)


def _repeat(answer: Answer, chance: random.Random) -> Mutant:
    at = chance.randrange(len(answer.entries))
    entries = answer.entries
    return _with(answer, [*entries[:at], entries[at], *entries[at:]], f"repeat {at}", harmless=False)


def _drop(answer: Answer, chance: random.Random) -> Mutant:
    at = chance.randrange(len(answer.entries))
    return _with(answer, [*answer.entries[:at], *answer.entries[at + 1 :]], f"drop {at}", harmless=False)


def _swap(answer: Answer, chance: random.Random) -> Mutant:
    entries, at = list(answer.entries), chance.randrange(len(answer.entries))
    entries[at - 1], entries[at] = entries[at], entries[at - 1]
    return _with(answer, entries, f"swap {at - 1} and {at}", harmless=False)


def _cut(answer: Answer, chance: random.Random) -> Mutant:
    at = chance.randrange(len(answer.entries))
    return _with(answer, answer.entries[:at], f"cut at {at}", harmless=False)


def _extra(answer: Answer, chance: random.Random) -> Mutant:
    at = chance.randrange(1, len(answer.entries)) if len(answer.entries) > 1 else 0
    more = chance.choice(EXTRA_EVENTS[answer.wire])
    return _with(answer, [*answer.entries[:at], more, *answer.entries[at:]], f"extra {more} at {at}", harmless=True)


def _noise(answer: Answer, chance: random.Random) -> Mutant:
    return Mutant(answer, b"" if answer.is_whole else chance.choice(NOISE), "noise", True, True)


def _rename_event(answer: Answer, chance: random.Random) -> Mutant:
    """The names before the data are left out: they say nothing that the data does not."""
    entries = [entry._replace(name=None) for entry in answer.entries]
    return _with(answer, entries, "no event names", harmless=True)


def _relabel(answer: Answer, chance: random.Random) -> Mutant:
    """``[DONE]`` spelled in other ways, or left out."""
    spelled = chance.choice(("[done]", " [DONE] ", None))
    entries = [entry._replace(data=spelled) if entry.data == DONE else entry for entry in answer.entries]
    kept = [entry for entry in entries if entry.data is not None]
    return _with(answer, kept, f"end spelled {spelled!r}", harmless=True)


def written(found: Mutant) -> bytes:
    """The bytes of an answer."""
    answer = found.answer
    if answer.is_whole:
        return json.dumps(answer.entries[0].data).encode()
    out = b""
    for entry in answer.entries:
        name = b"" if entry.name is None else b"event: %b\n" % entry.name.encode()
        data = entry.data if isinstance(entry.data, str) else json.dumps(entry.data)
        out += found.noise + name + b"data: " + data.encode() + b"\n\n"
    return out
