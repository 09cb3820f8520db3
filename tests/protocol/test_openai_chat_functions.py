"""The old form of tool calls, on the way in and on the way out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_protocol.content import Tool, ToolCall, ToolChoice, ToolResult
from llm_protocol.errors import BadRequestError
from llm_protocol.events import Finished, ItemDone, ItemStarted, Started, ToolCallDelta
from llm_protocol.fold import Fold
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason
from llm_protocol.wires.openai_chat import OpenAIChatServer

SERVER = OpenAIChatServer()
PATH = "/v1/chat/completions"
WEATHER = {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}}
SAID = {"role": "user", "content": "hi"}
CALL = {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"a":1}'}}
RESULT = {"role": "function", "name": "weather", "content": "rain"}
EVENTS = (
    Started(model="m"),
    ItemStarted(index=0, kind="tool_call", id="c1", name="weather"),
    ToolCallDelta(0, '{"a"'),
    ToolCallDelta(0, ":1}"),
    ItemDone(index=0, part=ToolCall(id="c1", name="weather", arguments='{"a":1}')),
)


def asked(**fields: Any) -> ChatRequest:
    request = SERVER.decode_request(PATH, json.dumps({"messages": [SAID], **fields}).encode()).request
    assert isinstance(request, ChatRequest)
    return request


def test_functions_are_tools() -> None:
    request = asked(functions=[WEATHER])
    assert request.tools == (Tool(name="weather", description="d", parameters=WEATHER["parameters"]),)  # type: ignore[arg-type]
    assert request.parameters.parallel_tool_calls is False


@pytest.mark.parametrize(
    ("said", "choice"),
    [("auto", ToolChoice("auto")), ("none", ToolChoice("none")), ({"name": "weather"}, ToolChoice("named", "weather"))],
)
def test_function_call_is_the_choice(said: object, choice: ToolChoice) -> None:
    assert asked(functions=[WEATHER], function_call=said).tool_choice == choice


@pytest.mark.parametrize("more", [{}, {"functions": [WEATHER]}])
def test_calls_and_results_before_belong_together(more: dict[str, Any]) -> None:
    messages = asked(messages=[SAID, CALL, RESULT, CALL, RESULT], **more).messages
    calls = [part for each in messages for part in each.content if isinstance(part, ToolCall)]
    results = [part for each in messages for part in each.content if isinstance(part, ToolResult)]
    assert [call.name for call in calls] == ["weather", "weather"]
    assert [result.call_id for result in results] == [call.id for call in calls]
    assert calls[0].id != calls[1].id


@pytest.mark.parametrize("wrong", ["weather", [7], {"name": "weather"}])
def test_what_is_wrong_is_refused(wrong: object) -> None:
    with pytest.raises(BadRequestError):
        asked(functions=wrong)


def test_the_answer_is_in_the_same_form() -> None:
    body = json.dumps({"messages": [SAID], "functions": [WEATHER]}).encode()
    inbound = SERVER.decode_request(PATH, body)
    end = Finished(reason=FinishReason.TOOL_CALLS)
    fold = Fold().add_all((*EVENTS, end))
    response = fold.response(request_id="r", response_id="resp_1", provider="p", model="m", processing_time_ms=1)
    choice = json.loads(SERVER.encode_response(inbound, response))["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "weather", "arguments": '{"a":1}'}
    assert "tool_calls" not in choice["message"]
    encoder = SERVER.response_encoder(inbound, "resp_1")
    frames = [*encoder.start(), *encoder.encode((*EVENTS, Finished(reason=end.reason, response=response)))]
    chunks = [json.loads(each.data) for each in frames if each.data != b"[DONE]"]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    calls = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert "".join(each.get("name", "") for each in calls) == "weather"
    assert "".join(each.get("arguments", "") for each in calls) == '{"a":1}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"
    assert not any("tool_calls" in delta for delta in deltas)
