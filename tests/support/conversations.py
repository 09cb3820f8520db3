"""Generated conversations and answers, in the normal form that every wire can give back.

Normal form: no empty texts, arguments as compact JSON, ids in letters that all vendors take, a tool turn answers all
calls of the turn before it, the last word is the user's or a tool's.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from hypothesis import strategies as st

from llm_protocol.content import (
    Audio,
    Document,
    Image,
    Message,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,11}", fullmatch=True)
tokens = st.from_regex(r"[A-Za-z0-9+/]{4,24}", fullmatch=True)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(names, json_values, max_size=3)
arguments = json_objects.map(lambda value: msgspec.json.encode(value).decode())

images = st.builds(
    Image, url=st.sampled_from(("https://example.com/a.png", "https://example.com/b.jpg?x=1&y=2"))
) | st.builds(Image, data=st.binary(min_size=1, max_size=40), media_type=st.sampled_from(("image/png", "image/jpeg")))
"""Pictures by URL and by bytes."""

base64s = st.binary(min_size=1, max_size=40).map(lambda data: base64.b64encode(data).decode())
pdfs = st.builds(Document, base64=base64s, media_type=st.just("application/pdf"), title=st.just("a.pdf"))
recordings = st.builds(Audio, base64=base64s, media_type=st.sampled_from(("audio/wav", "audio/mpeg")))

schemas = st.builds(
    lambda fields: {"type": "object", "properties": {name: {"type": "string"} for name in fields}},
    st.lists(names, max_size=3, unique=True),
)
tools = st.builds(Tool, name=names, description=st.none() | texts, parameters=schemas)
tool_choices = st.sampled_from((ToolChoice("auto"), ToolChoice("none"), ToolChoice("required")))


def tool_calls(at: int = 0) -> st.SearchStrategy[tuple[ToolCall, ...]]:
    """Calls whose ids are unique in a conversation when ``at`` is."""

    def build(pairs: list[tuple[str, str]]) -> tuple[ToolCall, ...]:
        return tuple(ToolCall(id=f"call_{at}_{n}", name=name, arguments=given) for n, (name, given) in enumerate(pairs))

    return st.lists(st.tuples(names, arguments), max_size=3).map(build)


@st.composite
def conversations(
    draw: st.DrawFn,
    *,
    reasoning: st.SearchStrategy[Reasoning] | None = None,
    pictures: bool = True,
    pictures_in_results: bool = True,
    media: st.SearchStrategy[Document | Audio] | None = None,
) -> tuple[Message, ...]:
    """A conversation of up to three rounds. ``reasoning`` makes the thoughts that this wire can give back, ``media``
    the documents and recordings that a user's turn can have on it, and a result where that can have pictures.
    """
    shown = images if media is None else images | media
    found: list[Message] = []
    if draw(st.booleans()):
        found.append(Message("system", tuple(Text(text) for text in draw(st.lists(texts, min_size=1, max_size=2)))))
    for at in range(draw(st.integers(1, 3))):
        asked = st.lists(texts.map(Text) | shown if pictures else texts.map(Text), min_size=1, max_size=3)
        found.append(Message("user", tuple(draw(asked))))
        calls = draw(tool_calls(at))
        thoughts = draw(st.lists(reasoning, max_size=1)) if reasoning is not None else []
        said: list[Part] = [*thoughts, Text(draw(texts)), *calls]
        found.append(Message("assistant", tuple(said)))
        if calls:
            content = texts.map(Text) | shown if pictures and pictures_in_results else texts.map(Text)
            results = (
                ToolResult(call_id=call.id, content=tuple(draw(st.lists(content, min_size=1, max_size=2))))
                for call in calls
            )
            found.append(Message("tool", tuple(results)))
    if found[-1].role == "assistant":
        found.append(Message.of("user", draw(texts)))
    return tuple(found)
