"""No request, however odd, breaks the fake: it is answered, or refused in the vendor's shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.requests import LLMProvider
from llm_protocol.vendors import VENDORS
from llm_runtime.fake import FakeToolCall, ScriptRule
from llm_runtime.fake.delivery import DeliveryEnd
from llm_runtime.fake.journal import Seen
from llm_runtime.fake.provider import MODELS
from llm_runtime.fake.replies import Replies
from llm_runtime.fake.script import Script
from llm_runtime.fake.vendors import fakeable
from llm_runtime.server.http1 import RequestParser
from support.mutations import mutated

SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}, "b": {"enum": [1]}}, "required": []}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
TURNS = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "text": "weather"}]},
    {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "r"},
    {"role": "user", "content": "weather"},
]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "m",
        "messages": TURNS,
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": "required",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        "max_tokens": 5,
        "stream": True,
    },
    "/v1/completions": {"model": "m", "prompt": "p", "max_tokens": 2, "stream": True},
    "/v1/embeddings": {"model": "m", "input": ["a", "b"], "dimensions": 3, "encoding_format": "base64"},
    "/v1/images/generations": {"model": "m", "prompt": "p", "n": 2},
    "/v1/responses": {
        "model": "m",
        "input": [{"role": "user", "content": "weather"}],
        "tools": [{"type": "function", **FUNCTION}],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        "stream": True,
    },
    "/v1/messages": {
        "model": "m",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "weather"}],
        "tools": [{"name": "f", "input_schema": SCHEMA}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        "stream": True,
    },
    "/v1beta/models/m:streamGenerateContent": {
        "contents": [{"role": "user", "parts": [{"text": "weather"}]}],
        "tools": [{"functionDeclarations": [FUNCTION]}],
        "generationConfig": {"responseMimeType": "application/json", "responseSchema": SCHEMA, "maxOutputTokens": 3},
    },
    "/v1beta/models/m:batchEmbedContents": {
        "requests": [{"model": "models/m", "content": {"parts": [{"text": "a"}]}, "outputDimensionality": 3}]
    },
    "/v2/chat": {
        "model": "m",
        "messages": TURNS,
        "tools": [{"type": "function", "function": FUNCTION}],
        "stream": True,
    },
    "/v2/embed": {"model": "m", "texts": ["a"], "input_type": "search_query", "output_dimension": 3},
}
REPLIES = Replies(
    Script([ScriptRule(contains="weather", tool_calls=(FakeToolCall(name="f"),))]),
    fakeable(VENDORS),
    None,
    None,
    MODELS,
)


def answered(path: str, body: bytes) -> int | None:
    """The status with which a request is answered, all of its plan made."""
    parser = RequestParser()
    head = f"POST {path} HTTP/1.1\r\nhost: h\r\nanthropic-version: v\r\ncontent-length: {len(body)}\r\n\r\n"
    if not path.startswith("/v1/messages"):
        head = head.replace("anthropic-version: v\r\n", "")
    parser.feed(head.encode() + body)
    request = parser.next()
    assert request is not None
    seen = Seen(1, LLMProvider.OPENAI, "POST", path, body, 0.0)
    *_, last = REPLIES.plan(request, REPLIES.place(request), seen)
    assert last is DeliveryEnd.KEEP
    return seen.status


@pytest.mark.parametrize("path", BODIES)
def test_these_are_good_requests(path: str) -> None:
    assert answered(path, json.dumps(BODIES[path]).encode()) == 200


@pytest.mark.parametrize("path", BODIES)
@given(st.data())
def test_an_odd_one_is_answered_or_refused(path: str, data: st.DataObject) -> None:
    body = data.draw(mutated(BODIES[path]))
    assert answered(path, json.dumps(body).encode()) in (200, 400)


@given(st.text(alphabet="/v12beta:modelsTung?=%~ä", max_size=40))
def test_no_path_however_odd_breaks_it(path: str) -> None:
    target = "/" + path.encode("ascii", "ignore").decode().replace(" ", "")
    assert answered(target, b"{}") in (200, 400, 404)
