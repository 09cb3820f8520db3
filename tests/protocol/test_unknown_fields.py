"""Fields of parts and tool calls that nobody knows: clients of the same wire get them back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fuzz.transcripts import REQUEST, WIRES
from llm_protocol.content import Text, ToolCall
from llm_protocol.dialect import ClientRequest, WireResponse
from llm_protocol.fold import unfold
from llm_protocol.response import LLMResponse
from support.streams import fold

MINE = {"brand_new": {"x": [1]}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, **MINE}
GEMINI_CALL = {"id": "c1", "name": "f", "args": {}}
TEXT = {"type": "text", "text": "a", **MINE}
WHOLE: dict[str, Any] = {
    "openai_chat": {
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [CALL]}}]
    },
    "anthropic": {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use", "usage": {},
        "content": [TEXT, {"type": "tool_use", "id": "c1", "name": "f", "input": {}, **MINE}],
    },
    "gemini": {
        "candidates": [{
            "content": {"parts": [{"text": "a", **MINE}, {"functionCall": GEMINI_CALL, **MINE}]},
            "finishReason": "STOP",
        }]
    },
    "cohere": {
        "id": "c", "finish_reason": "TOOL_CALL",
        "message": {"content": [TEXT], "tool_calls": [CALL]},
    },
    "openai_responses": {
        "id": "resp_1", "status": "completed",
        "output": [
            {"type": "message", "id": "m1", "role": "assistant", "content": [{**TEXT, "type": "output_text"}]},
            {"type": "function_call", "id": "f1", "call_id": "c1", "name": "f", "arguments": "{}", **MINE},
        ],
    },
}  # fmt: skip


def read(wire: str) -> LLMResponse:
    return fold(WIRES[wire].client.decode_response(REQUEST, WireResponse(200, (), json.dumps(WHOLE[wire]).encode())))


def count(body: bytes) -> int:
    return body.count(json.dumps(MINE, separators=(",", ":"))[1:-1].encode())


@pytest.mark.parametrize("wire", WIRES)
def test_they_are_kept_with_the_part(wire: str) -> None:
    answer = read(wire)
    kept = {type(part): part.extra for part in answer.output if isinstance(part, Text | ToolCall)}
    assert list(kept.values()) == [{wire: MINE}] * len(kept)
    assert ToolCall in kept


@pytest.mark.parametrize("wire", WIRES)
def test_a_whole_answer_has_them(wire: str) -> None:
    answer = read(wire)
    body = WIRES[wire].server.encode_response(ClientRequest(REQUEST), answer)
    assert count(body) == len(answer.output)


@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_has_those_of_calls(wire: str) -> None:
    encoder = WIRES[wire].server.response_encoder(ClientRequest(REQUEST, stream=True), "resp_1")
    frames = encoder.start()
    for event in unfold(read(wire)):
        frames += encoder.encode([event])
    assert count(b"".join(frame.data for frame in frames)) >= 1


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("other", WIRES)
def test_clients_of_other_wires_do_not(wire: str, other: str) -> None:
    if wire != other:
        assert b"brand_new" not in WIRES[other].server.encode_response(ClientRequest(REQUEST), read(wire))
