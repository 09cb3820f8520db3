"""What hosted tools did in a conversation stays behind where another vendor goes on with it."""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

import pytest

from llm_protocol.content import Message, Text, ToolCall, ToolResult
from llm_protocol.dialect import ClientDialect
from llm_protocol.errors import UnsupportedError
from llm_protocol.parameters.conversation import fit_messages
from llm_protocol.parameters.targets import TARGETS
from llm_protocol.requests import AnyRequest, ChatRequest
from llm_protocol.vendor_profile import OPENAI
from llm_protocol.wires.anthropic import Anthropic, AnthropicServer
from llm_protocol.wires.cohere import Cohere
from llm_protocol.wires.gemini import Gemini
from llm_protocol.wires.openai_chat import OpenAIChat
from llm_protocol.wires.responses import OpenAIResponses, OpenAIResponsesServer

CLIENTS: dict[str, ClientDialect] = {
    "openai": OpenAIChat(OPENAI),
    "responses": OpenAIResponses(),
    "anthropic": Anthropic(),
    "gemini": Gemini(),
    "cohere": Cohere(),
}


def _responses(*items: dict[str, Any]) -> AnyRequest:
    said = [{"role": "user", "content": "search"}, *items, {"role": "user", "content": "go on"}]
    body = {"model": "m", "input": said}
    return OpenAIResponsesServer().decode_request("/v1/responses", json.dumps(body).encode()).request


def _anthropic(*blocks: dict[str, Any]) -> AnyRequest:
    messages = [
        {"role": "user", "content": "search"},
        {"role": "assistant", "content": list(blocks)},
        {"role": "user", "content": "go on"},
    ]
    body = {"model": "m", "max_tokens": 10, "messages": messages}
    return AnthropicServer().decode_request("/v1/messages", json.dumps(body).encode()).request


SEARCHED = _responses(
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Found it."}]},
)
RAN = _anthropic(
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    {"type": "text", "text": "Found it."},
)
SHELL = _responses(
    {"type": "local_shell_call", "call_id": "c1", "action": {"type": "exec", "command": ["ls"]}, "status": "completed"},
    {"type": "local_shell_call_output", "call_id": "c1", "id": "o1", "output": "a.txt"},
)


@pytest.mark.parametrize("target", CLIENTS)
@pytest.mark.parametrize(
    ("request_", "own", "mark"),
    [
        (SEARCHED, "responses", "web_search_call"),
        (RAN, "anthropic", "server_tool_use"),
        (SHELL, "responses", "a.txt"),
    ],
    ids=["searched", "ran", "shell"],
)
def test_it_is_left_out_and_told(request_: AnyRequest, own: str, mark: str, target: str) -> None:
    adapted = CLIENTS[target].adapt(request_)
    sent = CLIENTS[target].encode_request(adapted.request, stream=False).body.decode()
    told = {each.action for each in adapted.adjusted if each.parameter.startswith("messages[")}
    assert ("Found it." in sent) is ("Found it." in str(request_))
    assert "go on" in sent
    assert (mark in sent) is (target == own)
    assert told == (set() if target == own else {"left_out"})


@pytest.mark.parametrize("target", ["anthropic", "openai", "responses"])
def test_calls_of_two_turns_with_one_id_are_told_apart(target: str) -> None:
    """Some servers number the calls of every response from 0. Anthropic demands that "ids must be unique"."""

    def turn(*texts: str) -> tuple[Message, Message]:
        call = ToolCall(id="call_0", name="f")
        return Message("assistant", (call,) * len(texts)), Message("tool", tuple(map(call.result, texts)))

    other = ToolCall(id="call_0_2", name="f")
    taken = Message("assistant", (other,)), Message("tool", (other.result(""),))
    messages = (Message.of("user", "hi"), *turn("1"), *taken, *turn("2", "3"), Message.of("user", "go on"))
    fitted = fit_messages(messages, TARGETS[target], {}).messages
    called = [part.id for message in fitted for part in message.content if isinstance(part, ToolCall)]
    answered = [part.call_id for message in fitted for part in message.content if isinstance(part, ToolResult)]
    texts = [part.text for message in fitted for part in message.content if isinstance(part, ToolResult)]
    assert called == answered == ["call_0", "call_0_2", "call_0_3", "call_0_4"]
    assert texts == ["1", "", "2", "3"]


@pytest.mark.parametrize("target", [name for name in CLIENTS if name != "responses"])
def test_what_stands_for_the_conversation_is_not_left_out(target: str) -> None:
    request = _responses({"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"})
    with pytest.raises(UnsupportedError):
        CLIENTS[target].encode_request(CLIENTS[target].adapt(request).request, stream=False)


def test_a_document_of_the_user_is_not_left_out() -> None:
    body = {"model": "m", "input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]}
    request = OpenAIResponsesServer().decode_request("/v1/responses", json.dumps(body).encode()).request
    with pytest.raises(UnsupportedError):
        CLIENTS["anthropic"].encode_request(CLIENTS["anthropic"].adapt(request).request, stream=False)


def _lines_for(count: int) -> int:
    """The lines that are executed to tell ``count`` calls with one id apart."""
    messages = [Message.of("user", "go")]
    for _ in range(count):
        messages.append(Message("assistant", (ToolCall(id="call_0", name="f", arguments="{}"),)))
        messages.append(Message("tool", (ToolResult(call_id="call_0", content=()),)))
    lines = 0

    def trace(_frame: FrameType, event: str, _value: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        fitted = fit_messages(tuple(messages), TARGETS["anthropic"], {})
    finally:
        sys.settrace(before)
    ids = [part.id for message in fitted.messages for part in message.content if isinstance(part, ToolCall)]
    assert len(set(ids)) == count
    return lines


def test_many_calls_with_one_id_are_told_apart_in_linear_time() -> None:
    assert _lines_for(400) < 2.5 * _lines_for(200)


_FAILED = ToolResult(call_id="c1", content=(Text("No such file: a.txt"),), is_error=True)


def _sent_result(target: str, *results: ToolResult) -> str:
    """The body of a request whose conversation has ``results``."""
    calls = tuple(ToolCall(id=each.call_id, name="f") for each in results)
    messages = (Message.of("user", "hi"), Message("assistant", calls), Message("tool", results))
    client = CLIENTS[target]
    adapted = client.adapt(ChatRequest(model="m", messages=messages))
    assert not adapted.adjusted
    return client.encode_request(adapted.request, stream=False).body.decode()


@pytest.mark.parametrize("target", CLIENTS)
def test_the_model_learns_that_a_tool_failed(target: str) -> None:
    sent = _sent_result(target, _FAILED)
    marks = {"anthropic": '"is_error":true', "gemini": '{"error":"No such file: a.txt"}'}
    assert marks.get(target, '"Error: No such file: a.txt"') in sent


@pytest.mark.parametrize("target", ["openai", "responses", "cohere"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        ((Text("error: it says so itself"),), "error: it says so itself"),
        ((), "Error: The tool failed without a message."),
        ((Text(" "),), "Error: The tool failed without a message."),
        ((Text("a"), Text("b")), "Error: a"),
    ],
    ids=["marked", "empty", "blank", "two texts"],
)
def test_the_text_of_a_failed_tool_is_marked_once(target: str, content: tuple[Text, ...], text: str) -> None:
    sent = _sent_result(target, ToolResult(call_id="c1", content=content, is_error=True))
    assert f'"{text}"' in sent
    assert sent.lower().count("error:") == 1


@pytest.mark.parametrize("target", CLIENTS)
def test_a_result_of_a_tool_that_did_not_fail_is_not_marked(target: str) -> None:
    sent = _sent_result(target, ToolResult(call_id="c1", content=(Text("Errors: 0"),)))
    assert "Error: " not in sent
    assert "is_error" not in sent
