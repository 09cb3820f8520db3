"""Ids of what vendors keep: found wherever they stand, and nothing else taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from llm_protocol.content import (
    Audio,
    Document,
    HostedTool,
    Image,
    Message,
    Opaque,
    Part,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from llm_protocol.requests import ChatRequest, EmbeddingRequest, Parameters
from llm_protocol.response import LLMResponse
from llm_protocol.vendor_ids import ids_of_request, ids_of_response

GOOGLE = "https://generativelanguage.googleapis.com/v1beta/files/abc"


def _of_own(**fields: Any) -> list[tuple[str, str]]:
    return [*ids_of_request(ChatRequest(messages=(), parameters=Parameters(extra={"some_wire": fields})))]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"container": "c_1"}, [("container", "c_1")]),
        ({"container": {"id": "c_1", "skills": []}}, [("container.id", "c_1")]),
        (
            {"container": {"skills": [{"type": "custom", "skill_id": "s"}, {"type": "anthropic", "skill_id": "pptx"}]}},
            [("skill_id", "s")],
        ),
        ({"cachedContent": "cachedContents/1"}, [("cachedContent", "cachedContents/1")]),
        ({"cached_content": "cachedContents/1"}, [("cached_content", "cachedContents/1")]),
        ({"previous_response_id": "resp_1"}, [("previous_response_id", "resp_1")]),
        ({"a": [{"b": {"file_ids": ["f_1", "f_2"]}}]}, [("file_ids", "f_1"), ("file_ids", "f_2")]),
        ({"audio": {"voice": "alloy", "format": "wav"}}, []),
        ({"container": {"type": "auto"}, "file_id": None, "file_ids": [7, ""]}, []),
        ({"metadata": {"file_id": "mine"}, "documents": [{"data": {"container_id": "mine"}}]}, []),
        ({"guided_json": {"properties": {"file_id": {"type": "string"}}}}, []),
    ],
    ids=str,
)
def test_fields_of_a_wire(fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert _of_own(**fields) == expected


@pytest.mark.parametrize(
    "part",
    [
        Opaque(dialect="anthropic", value={"type": "document", "source": {"type": "file", "file_id": "id"}}),
        Opaque(dialect="openai_responses", value={"type": "code_interpreter_call", "container_id": "id"}),
        Image(url="id"),
        ToolResult(call_id="1", content=(Image(url="id"),)),
        Document(file_id="id", vendor="openai"),
        ToolResult(call_id="1", content=(Document(url="id"), Document(url="https://example.org/a.pdf"))),
        Audio(file_id="id", vendor="gemini"),
        Text("a", extra={"openai_chat": {"audio": {"id": "id"}}}),
    ],
    ids=lambda part: type(part).__name__,
)
def test_parts_of_a_conversation_and_of_an_answer(part: Part) -> None:
    assert [found.id for found in ids_of_request(ChatRequest(messages=(Message("user", (part,)),)))] == ["id"]
    answer = LLMResponse(request_id="r", provider="p", model="m", output=(part,))
    assert [found.id for found in ids_of_response(answer)] == ["id"]


def test_tools_and_messages() -> None:
    hosted = HostedTool(dialect="openai_responses", value={"type": "file_search", "vector_store_ids": ["vs_1"]})
    function = Tool(name="f", parameters={"properties": {"file_id": {"type": "string"}}})
    call = ToolCall(id="1", name="f", arguments='{"file_id": "mine"}')
    messages = (Message("assistant", (call,), extra={"openai_chat": {"audio": {"id": "audio_1"}}}),)
    found = ids_of_request(ChatRequest(messages=messages, tools=(hosted, function)))
    assert [each.id for each in found] == ["audio_1", "vs_1"]
    assert not list(ids_of_request(EmbeddingRequest(inputs=("file_id",))))


def test_extra_fields_of_an_answer() -> None:
    answer = LLMResponse(
        request_id="r", provider="p", model="m", extra={"anthropic": {"body": {"container": {"id": "c"}}}}
    )
    assert [found.id for found in ids_of_response(answer)] == ["c"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (GOOGLE, "files/abc"),
        (f"{GOOGLE}:download?alt=media", "files/abc"),
        ("HTTPS://GenerativeLanguage.googleapis.com.:443/v1/%66iles/abc", "files/abc"),
        ("https://us-central1-aiplatform.googleapis.com/v1/x", "https://us-central1-aiplatform.googleapis.com/v1/x"),
        ("files/abc", "files/abc"),
        ("gs://bucket/a.png", "gs://bucket/a.png"),
        ("https://[broken/files/abc", "https://[broken/files/abc"),
        ("https://example.org/files/a.png", None),
        ("https://storage.googleapis.com/bucket/files/a.png", None),
        ("https://www.youtube.com/watch?v=1", None),
        ("data:image/png;base64,aGk=", None),
    ],
)
def test_an_address_names_something_at_the_vendor_or_in_public(url: str, expected: str | None) -> None:
    found = [each for _, each in _of_own(fileData={"fileUri": url})]
    assert found == ([] if expected is None else [expected])
