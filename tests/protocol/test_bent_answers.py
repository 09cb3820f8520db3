"""Answers that servers bend in ways that `bin/fuzz` found to be misread once, one of each kind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_protocol.content import Message, Opaque, Part, Reasoning, Text, ToolCall
from llm_protocol.dialect import ClientDialect, WireResponse
from llm_protocol.events import Event, Failed, Finished
from llm_protocol.failures import FailureKind
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.anthropic import Anthropic
from llm_protocol.wires.cohere import Cohere
from llm_protocol.wires.gemini import Gemini
from llm_protocol.wires.openai_chat import OpenAIChat
from llm_protocol.wires.responses import OpenAIResponses
from support.streams import fold

REQUEST = ChatRequest(model="m", messages=(Message.of("user", "hi"),))


def whole(client: ClientDialect, body: dict[str, Any]) -> list[Event]:
    return client.decode_response(REQUEST, WireResponse(200, (), json.dumps(body).encode()))


def streamed(client: ClientDialect, *entries: dict[str, Any]) -> list[Event]:
    decoder = client.stream_decoder(REQUEST)
    body = b"".join(b"data: " + json.dumps(entry).encode() + b"\n\n" for entry in entries)
    return decoder.feed(body) + decoder.end()


def is_misread(events: list[Event]) -> bool:
    return isinstance(events[-1], Failed) and events[-1].failure.kind is FailureKind.PROTOCOL


def outputs(events: list[Event]) -> tuple[Part, ...]:
    assert isinstance(events[-1], Finished)
    return fold(events).output


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ([{"index": 7, "message": {"content": "a"}, "finish_reason": "stop"}], "a"),
        ([{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}] * 2, "a"),
        ([{"message": {"content": ["a", {"type": "text", "text": "b"}, None]}, "finish_reason": "stop"}], "ab"),
    ],
    ids=["a number of its own", "twice", "texts in a list"],
)
def test_the_choice_of_a_whole_chat_answer(choices: list[dict[str, Any]], text: str) -> None:
    assert outputs(whole(OpenAIChat(), {"choices": choices})) == (Text(text),)


def test_a_list_that_is_no_text_is_not_left_out() -> None:
    choice = {"index": 0, "message": {"content": [["a"]]}, "finish_reason": "stop"}
    assert is_misread(whole(OpenAIChat(), {"choices": [choice]}))


@pytest.mark.parametrize("model", [7, ["x"], {"a": 1}, None])
def test_the_name_of_claudes_model_is_not_needed(model: object) -> None:
    body = {"type": "message", "model": model, "content": [{"type": "text", "text": "a"}], "stop_reason": "end_turn"}
    assert outputs(whole(Anthropic(), body)) == (Text("a"),)


def test_blocks_without_a_type_are_not_passed_over() -> None:
    block = {"type": "", "id": "c", "name": "f", "input": {}}
    start = {"type": "message_start", "message": {"id": "m"}}
    assert is_misread(streamed(Anthropic(), start, {"type": "content_block_start", "index": 0, "content_block": block}))
    message = {"role": "assistant", "content": [{"type": "", "text": "a"}]}
    assert is_misread(whole(Cohere(), {"message": message, "finish_reason": "COMPLETE"}))
    item = {"type": "message", "role": "assistant", "content": [{"type": "", "text": "a"}]}
    assert is_misread(whole(OpenAIResponses(), {"status": "completed", "output": [item]}))


def candidate(parts: object) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}


def test_geminis_parts_in_no_list() -> None:
    assert outputs(streamed(Gemini(), candidate({"text": "a"}))) == (Text("a"),)
    unknown = (Opaque(dialect="gemini", value={"a": 1}),)
    assert outputs(streamed(Gemini(), candidate({"a": 1}))) == unknown
    assert outputs(streamed(Gemini(), candidate([{"a": 1}]))) == unknown
    assert is_misread(streamed(Gemini(), candidate([1])))


@pytest.mark.parametrize("mark", [True, 1, "true", "x", {}])
def test_a_thought_is_not_told_as_the_answer(mark: object) -> None:
    parts = [{"text": "hm", "thought": mark}, {"text": "a", "thought": False}]
    assert outputs(whole(Gemini(), candidate(parts))) == (Reasoning(text="hm", dialect="gemini"), Text("a"))


CALL = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}
MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ab"}]}


def done(item: dict[str, Any], at: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": at, "item": item}


def piece(at: int, inner: int, text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": at, "content_index": inner, "delta": text}


def end(*output: dict[str, Any]) -> dict[str, Any]:
    return {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": list(output)}}


@pytest.mark.parametrize(
    "entries",
    [
        (done(CALL), done(CALL), end(CALL)),
        (done(CALL, 7), end(CALL)),
        ({"type": "response.output_item.added", "output_index": 0, "item": CALL}, done(CALL, 7), end(CALL)),
        ({"type": "response.output_item.added", "output_index": -1, "item": CALL}, end(CALL)),
    ],
    ids=["said again", "at another index", "ended at another index", "begun at another index"],
)
def test_one_call_of_a_response_stays_one(entries: tuple[dict[str, Any], ...]) -> None:
    assert outputs(streamed(OpenAIResponses(), *entries)) == (ToolCall(id="c", name="f", arguments="{}"),)


@pytest.mark.parametrize(
    "entries",
    [
        (piece(0, 0, "a"), piece(0, 7, "b"), done(MESSAGE), end(MESSAGE)),
        (piece(0, 0, "a"), piece(-1, 0, "b"), done(MESSAGE), end(MESSAGE)),
    ],
    ids=["of another part", "of another item"],
)
def test_text_that_the_whole_response_does_not_have_is_no_success(entries: tuple[dict[str, Any], ...]) -> None:
    """It was streamed already: the answer would have it twice."""
    assert is_misread(streamed(OpenAIResponses(), *entries))


@pytest.mark.parametrize("item", [{**CALL, "arguments": []}, {**MESSAGE, "content": 0}])
def test_content_of_another_type_is_not_taken_for_none(item: dict[str, Any]) -> None:
    assert is_misread(whole(OpenAIResponses(), {"status": "completed", "output": [item]}))


@pytest.mark.parametrize("entry", ['{"a":[]}', '{"a":1}', '{"type":"function"}'])
def test_an_entry_of_tool_calls_without_any_field_of_one_is_no_keep_alive(entry: str) -> None:
    """It may be what a piece of the arguments should have been, which would be lost without a word."""
    decoder = OpenAIChat().stream_decoder(ChatRequest(model="m", messages=(Message.of("user", "hi"),)))
    start = b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}}]}}]}\n\n'
    bent = b'data: {"choices":[{"delta":{"tool_calls":[%b]}}]}\n\n' % entry.encode()
    end = b'data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n'
    events = decoder.feed(start + bent + end) + decoder.end()
    assert isinstance(events[-1], Failed)
    assert events[-1].failure.kind is FailureKind.PROTOCOL
