"""Servers of OpenAI's chat wire that refuse what they do not know: Mistral, Groq and DeepSeek.

Mistral's fields are those of its SDK (mistralai 3.7.0); what it refuses is in its errors: ``extra_forbidden`` for
``reasoning_content``, ``seed`` and ``stream_options.include_usage``, 3280 for ids of calls, 3230 for the order of
messages. Groq's error names the property that "is unsupported". DeepSeek's documentation has the formats ``text`` and
``json_object`` only; its error is "This response_format type is unavailable now".
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest

from llm_protocol.content import Image, Message, Reasoning, Refusal, ResponseFormat, Text, Tool, ToolCall, ToolResult
from llm_protocol.errors import UnsupportedError
from llm_protocol.requests import ChatRequest, Parameters
from llm_protocol.vendors import VENDORS
from support.adapting import adjusted, encoded

HI = Message.of("user", "hi")
CALLS = Message(
    "assistant",
    (
        Reasoning(text="hm"),
        ToolCall(id="toolu_01A09q90qw90lq917835lq9", name="f"),
        ToolCall(id="call_62136354-1", name="g", extra={"openai_chat": {"odd": 1}}),
        ToolCall(id="D681PevKs", name="g", signature="s"),
    ),
    extra={"openai_chat": {"audio": {"id": "a"}}},
)
RESULTS = Message("tool", tuple(ToolResult(call_id=part.id) for part in CALLS.content if isinstance(part, ToolCall)))


def body(kind: str, *messages: Message, stream: bool = False, **fields: Any) -> Any:
    request = ChatRequest(model="m", messages=messages or (HI,), **fields)
    return json.loads(encoded(VENDORS[kind].client(), request, stream=stream).body)


def test_mistral_gets_ids_of_nine_letters_and_digits() -> None:
    *_, turn, first, second, third = body("mistral", HI, CALLS, RESULTS)["messages"]
    ids = [call["id"] for call in turn["tool_calls"]]
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", each) for each in ids)
    assert len(set(ids)) == 3
    assert ids[2] == "D681PevKs"
    assert [each["tool_call_id"] for each in (first, second, third)] == ids


@pytest.mark.parametrize("kind", ["mistral", "groq"])
def test_no_field_of_a_message_that_they_refuse(kind: str) -> None:
    refused = Message("assistant", (Refusal("no"),))
    messages = body(kind, HI, CALLS, RESULTS, refused, HI)["messages"]
    assert messages[1].keys() == {"role", "content", "tool_calls"}
    assert all(call.keys() == {"id", "type", "function"} for call in messages[1]["tool_calls"])
    assert messages[-2] == {"role": "assistant", "content": "no"}


def test_mistral_is_asked_in_its_own_words() -> None:
    given = Parameters(seed=7, user="u", max_output_tokens=3)
    named = Message("user", (Text("hi"),), name="ann")
    sent = body("mistral", named, stream=True, tools=(Tool(name="f"),), parameters=given)
    assert sent == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "random_seed": 7,
        "max_tokens": 3,
        "stream": True,
    }
    request = ChatRequest(model="m", messages=(HI,), parameters=given)
    assert adjusted(VENDORS["mistral"].client(), request) == [("user", "left_out", None)]


def test_mistral_gets_a_turn_between_results_and_the_user() -> None:
    """Also where the picture in a result has been moved to the user."""
    seen = Message("tool", (ToolResult(call_id="D681PevKs", content=(Image(url="https://x.example/a.png"),)),))
    call = Message("assistant", (ToolCall(id="D681PevKs", name="g"),))
    for messages in ((HI, call, RESULTS, HI), (HI, call, seen)):
        roles = [each["role"] for each in body("mistral", *messages)["messages"]]
        assert ("tool", "user") not in set(pairwise(roles))
        assert roles[-2:] == ["assistant", "user"]
    assert [each["role"] for each in body("groq", HI, call, seen)["messages"]][-2:] == ["tool", "user"]


def test_deepseek_answers_in_no_schema_so_another_candidate_is_asked() -> None:
    form = ResponseFormat(type="json_schema", schema={"type": "object"})
    with pytest.raises(UnsupportedError, match="DeepSeek does not accept a JSON schema"):
        body("deepseek", response_format=form)
    assert body("groq", response_format=form)["response_format"]["type"] == "json_schema"
    assert body("deepseek", response_format=ResponseFormat(type="json"))["response_format"] == {"type": "json_object"}
