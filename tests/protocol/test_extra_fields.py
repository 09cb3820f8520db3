"""Fields that only one wire knows: they reach its clients, streamed and whole, and come back with the next turn."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.codec.sse import encode_sse
from llm_protocol.content import Message, Reasoning, Text, ToolCall
from llm_protocol.dialect import ClientRequest, ServerDialect, WireResponse
from llm_protocol.events import Event, FieldsAdded, Finished, Restarted
from llm_protocol.extra_fields import merge
from llm_protocol.fold import Fold, unfold
from llm_protocol.requests import ChatRequest
from llm_protocol.response import LLMResponse
from llm_protocol.vendor_profile import COMPATIBLE
from llm_protocol.wires.anthropic import AnthropicServer
from llm_protocol.wires.cohere import CohereServer
from llm_protocol.wires.gemini import GeminiServer
from llm_protocol.wires.openai_chat import OPENAI, OpenAIChat, OpenAIChatServer
from llm_protocol.wires.responses import OpenAIResponsesServer
from support.adapting import encoded
from support.streams import check_order, decode

REQUEST = ChatRequest(model="m", messages=(Message.of("user", "hi"),))
INBOUND = ClientRequest(REQUEST, stream=True)
CLIENT, SERVER = OpenAIChat(COMPATIBLE), OpenAIChatServer()

LOGPROB = {"token": "Hi", "logprob": -0.5, "bytes": None, "top_logprobs": []}
ANNOTATION = {"type": "url_citation", "url_citation": {"url": "https://x", "title": "X", "start_index": 0}}
DETAIL = {"type": "reasoning.encrypted", "data": "ENC", "id": "call_9", "format": "google-gemini-v1", "index": 0}
SAFE = {"hate": {"filtered": False, "severity": "safe"}}


def chunk(delta: dict[str, Any], reason: str | None = None, top: dict[str, Any] | None = None, **choice: Any) -> bytes:
    body = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason, **choice}]}
    return b"data: " + json.dumps({**body, **(top or {})}).encode() + b"\n\n"


def events_of(*chunks: bytes) -> list[Event]:
    found = decode(lambda: CLIENT.stream_decoder(REQUEST), b"".join(chunks) + b"data: [DONE]\n\n")
    check_order(found)
    return found


def folded(events: list[Event]) -> LLMResponse:
    return Fold().add_all(events).response(request_id="r", response_id="resp_1", provider="p", model="m")


def streamed(server: ServerDialect, events: list[Event]) -> list[dict[str, Any]]:
    response = folded(events)
    *said, end = events
    assert isinstance(end, Finished)
    encoder = server.response_encoder(INBOUND, "resp_1")
    frames = encoder.start() + encoder.encode([*said, msgspec.structs.replace(end, response=response)])
    encode_sse(frames)
    return [json.loads(frame.data) for frame in frames if frame.data != b"[DONE]"]


def values(chunks: list[dict[str, Any]], where: str, name: str) -> list[Any]:
    """What the chunks say of a field of the delta or choice, in order."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    fields = [choice["delta"] if where == "delta" else choice for choice in choices]
    return [one[name] for one in fields if one.get(name) is not None]


STREAM = (
    chunk({"role": "assistant", "content": "Hi"}, logprobs={"content": [LOGPROB], "refusal": None}),
    chunk({"content": " you", "audio": {"id": "a1", "data": "AAAA"}}, logprobs={"content": [LOGPROB], "refusal": None}),
    chunk({"audio": {"data": "AAAA"}, "annotations": [ANNOTATION]}, brand_new={"a": 1}),
    chunk({}, "stop", {"citations": ["https://x"]}, native_finish_reason="STOP", stop_reason=7),
)


def test_a_stream_keeps_them() -> None:
    """In their order, the pieces of sound and the probabilities of equal tokens too."""
    chunks = streamed(SERVER, events_of(*STREAM))
    assert values(chunks, "choice", "logprobs") == [{"content": [LOGPROB], "refusal": None}] * 2
    assert values(chunks, "delta", "audio") == [{"id": "a1", "data": "AAAA"}, {"data": "AAAA"}]
    assert values(chunks, "delta", "annotations") == [[ANNOTATION]]
    assert values(chunks, "choice", "brand_new") == [{"a": 1}]
    assert values(chunks, "choice", "native_finish_reason") == ["STOP"]
    assert values(chunks, "choice", "stop_reason") == [7]
    assert [one["citations"] for one in chunks if "citations" in one] == [["https://x"]]
    assert "".join(values(chunks, "delta", "content")) == "Hi you"


def test_a_whole_answer_has_what_the_stream_said() -> None:
    body = json.loads(SERVER.encode_response(INBOUND, folded(events_of(*STREAM))))
    choice = body["choices"][0]
    assert choice["logprobs"] == {"content": [LOGPROB, LOGPROB], "refusal": None}
    assert choice["message"]["audio"] == {"id": "a1", "data": "AAAAAAAA"}
    assert choice["message"]["annotations"] == [ANNOTATION]
    assert (choice["brand_new"], choice["stop_reason"]) == ({"a": 1}, 7)
    assert (choice["message"]["content"], body["citations"]) == ("Hi you", ["https://x"])


def test_a_whole_answer_goes_through_as_it_came() -> None:
    message = {"role": "assistant", "content": "Hi", "annotations": [ANNOTATION], "new": {"x": [1]}}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": [LOGPROB]}}
    body = json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()
    response = folded(CLIENT.decode_response(REQUEST, WireResponse(200, (), body)))
    told = json.loads(SERVER.encode_response(INBOUND, response))["choices"][0]
    assert told["message"].items() >= message.items()
    assert told["logprobs"] == choice["logprobs"]
    # A cache hit, or any other answer that is played again, says the same.
    assert folded(list(unfold(response))).extra == response.extra


MINE = {"x_trace": {"a": 1}, "brand_new": ["y"]}
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("stream", [True, False])
def test_unknown_fields_of_a_call_stay_with_it(stream: bool) -> None:
    """Streamed and whole, to the client and with the next turn; for OpenAI, which refuses them, they are left out."""
    if stream:
        pieces = ({**CALL, "x_trace": {"a": 1}}, {"index": 0, "brand_new": ["y"], "function": {"arguments": ""}})
        events = events_of(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls"))
    else:
        message = {"content": None, "tool_calls": [{**CALL, **MINE}]}
        body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}).encode()
        events = CLIENT.decode_response(REQUEST, WireResponse(200, (), body))
    answer = folded(events)
    [call] = answer.tool_calls
    assert call.extra == {"openai_chat": MINE}

    told_pieces = [call for calls in values(streamed(SERVER, events), "delta", "tool_calls") for call in calls]
    joined: dict[str, Any] = {}
    for piece in told_pieces:
        merge(joined, {name: value for name, value in piece.items() if name in MINE})
    assert joined == MINE
    assert all("function" in piece for piece in told_pieces), "the SDK's stream helper needs it"
    whole = json.loads(SERVER.encode_response(INBOUND, answer))["choices"][0]["message"]
    assert whole["tool_calls"][0].items() >= MINE.items()

    turns = [{"role": "user", "content": "x"}, whole, {"role": "tool", "tool_call_id": "c1", "content": "ok"}]
    inbound = SERVER.decode_request("/v1/chat/completions", json.dumps({"model": "m", "messages": turns}).encode())
    for client, expected in ((CLIENT, MINE), (OpenAIChat(OPENAI), {})):
        sent = json.loads(client.encode_request(inbound.request, stream=False).body)["messages"][1]["tool_calls"][0]
        assert {name: value for name, value in sent.items() if name not in CALL} == expected


def test_what_does_not_grow_is_told_once() -> None:
    """Some servers say in every chunk that its text is harmless."""
    harmless = [chunk({"content": "a"}, content_filter_results=SAFE) for _ in range(3)]
    found = events_of(*harmless, chunk({}, "stop", content_filter_results={}))
    assert [event for event in found if isinstance(event, FieldsAdded)] == [
        FieldsAdded("openai_chat", {"choice": {"content_filter_results": SAFE}})
    ]


def test_empty_fields_say_nothing() -> None:
    found = events_of(
        chunk({"role": "assistant", "content": "a", "annotations": [], "audio": None, "x": ""}, logprobs=None),
        chunk({"reasoning_details": []}, "stop", stop_reason=None),
    )
    assert not [event for event in found if isinstance(event, FieldsAdded)]
    assert folded(found).output == (Text("a"),)


@pytest.mark.parametrize("server", [AnthropicServer(), CohereServer(), GeminiServer(), OpenAIResponsesServer()])
def test_clients_of_other_wires_do_not_see_them(server: ServerDialect) -> None:
    told = events_of(*STREAM)
    plain: list[Event] = [event for event in told if not isinstance(event, FieldsAdded)]
    assert json.dumps(streamed(server, told)).count("AAAA") == json.dumps(streamed(server, plain)).count("AAAA") == 0


def test_an_answer_that_begins_anew_has_none() -> None:
    fold = Fold().add_all([FieldsAdded("openai_chat", {"message": {"a": 1}}), Restarted()])
    assert fold.extra == {}


def read(server: ServerDialect, path: str, body: dict[str, Any]) -> ChatRequest:
    request = server.decode_request(path, json.dumps({"model": "m", **body}).encode()).request
    assert isinstance(request, ChatRequest)
    return request


def sent(request: ChatRequest, client: OpenAIChat = CLIENT) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = json.loads(encoded(client, request, stream=False).body)["messages"]
    return messages


def test_fields_of_messages_go_back_to_servers_of_the_wire() -> None:
    """To OpenAI only those it knows: it refuses a message with any other."""
    message = {"role": "assistant", "content": "Hi", "annotations": [ANNOTATION], "prefix": True, "audio": {"id": "a"}}
    turns = [{"role": "user", "content": "x", "cache_control": {"type": "ephemeral"}}, message]
    request = read(SERVER, "/v1/chat/completions", {"messages": turns})
    assert sent(request) == turns
    assert sent(request, OpenAIChat(OPENAI)) == [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "Hi", "audio": {"id": "a"}},
    ]


DETAILED = (
    chunk(
        {
            "role": "assistant",
            "reasoning": "hm",
            "reasoning_details": [{"type": "reasoning.text", "text": "h", "index": 0}],
        }
    ),
    chunk({"reasoning": "m", "reasoning_details": [{"type": "reasoning.text", "text": "m", "index": 0}]}),
    chunk({"reasoning_details": [DETAIL]}),
    chunk({"tool_calls": [{"index": 0, "id": "call_9", "function": {"name": "f", "arguments": "{}"}}]}),
    chunk({}, "tool_calls"),
)
DETAILS = [{"type": "reasoning.text", "text": "hm", "index": 0}, DETAIL]
PATHS = {
    "openai_chat": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/m:generateContent",
    "openai_responses": "/v1/responses",
}


def next_turn(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """The body in which a client of a wire sends back the whole answer that it was given."""
    match name:
        case "openai_chat":
            return {"messages": [{"role": "user", "content": "x"}, told["choices"][0]["message"]]}
        case "anthropic":
            turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": told["content"]}]
            return {"max_tokens": 9, "messages": turns}
        case "gemini":
            return {"contents": [{"role": "user", "parts": [{"text": "x"}]}, told["candidates"][0]["content"]]}
        case _:
            return {"input": [{"role": "user", "content": "x"}, *told["output"]]}


@pytest.mark.parametrize(
    "server", [SERVER, AnthropicServer(), GeminiServer(), OpenAIResponsesServer()], ids=lambda server: server.name
)
def test_reasoning_in_its_vendors_form_comes_back_over_every_wire(server: ServerDialect) -> None:
    """Gemini and others behind OpenRouter refuse the next turn without it."""
    response = folded(events_of(*DETAILED))
    assert response.output[0] == Reasoning(
        text="hmm", dialect="openai_chat", extra={"openai_chat": {"reasoning_details": DETAILS}}
    )
    body = next_turn(server.name, json.loads(server.encode_response(INBOUND, response)))
    request = read(server, PATHS[server.name], body)
    turn = sent(request)[1]
    assert turn["reasoning_details"] == DETAILS
    assert turn["reasoning_content"] == "hmm"
    assert turn["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert "reasoning_details" not in json.dumps(sent(request, OpenAIChat(OPENAI)))


def test_a_stream_tells_reasoning_in_its_vendors_form() -> None:
    chunks = streamed(SERVER, events_of(*DETAILED))
    assert values(chunks, "delta", "reasoning_details") == [DETAILS]
    assert "".join(values(chunks, "delta", "reasoning_content")) == "hmm"


def test_reasoning_that_came_in_its_vendors_form_only_is_readable() -> None:
    found = folded(events_of(chunk({"reasoning_details": [{"type": "reasoning.summary", "summary": "so"}]}, "stop")))
    assert found.reasoning == "so"


# ---------------------------------------------------------------- putting pieces together


def merged(*pieces: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for piece in pieces:
        merge(found, piece)
    return found


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (({"a": 1}, {"a": 2, "b": None}), {"a": 2, "b": None}),
        (({"a": 1}, {"a": None}), {"a": 1}),
        (({"x": [1]}, {"x": [1, 2]}), {"x": [1, 1, 2]}),
        (({"x": {"text": "a", "id": "1"}}, {"x": {"text": "b", "id": "1"}}), {"x": {"text": "ab", "id": "1"}}),
        (({"x": [{"index": 0, "text": "a"}]}, {"x": [{"index": 0, "text": "b"}]}), {"x": [{"index": 0, "text": "ab"}]}),
        (({"x": [{"index": 0, "type": "a"}]}, {"x": [{"index": 0, "type": "b"}]}),
         {"x": [{"index": 0, "type": "a"}, {"index": 0, "type": "b"}]}),
        (({"x": 1}, {"x": [1]}, {"x": {"y": 1}}), {"x": {"y": 1}}),
    ],
)  # fmt: skip
def test_pieces_are_put_together(pieces: tuple[dict[str, Any], ...], whole: dict[str, Any]) -> None:
    assert merged(*pieces) == whole


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab") | st.just("data"), inner),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from(["a", "b", "text", "index"]), anything, max_size=3)


@given(st.lists(objects, max_size=4))
def test_pieces_are_not_changed(pieces: list[dict[str, Any]]) -> None:
    """They are events in a run's log, which others read."""
    before = json.dumps(pieces)
    merged(*pieces)
    assert json.dumps(pieces) == before


@given(objects)
def test_one_piece_is_the_whole(piece: dict[str, Any]) -> None:
    assert _without_indices(merged(piece)) == _without_indices(piece)


def _without_indices(value: Any) -> Any:
    """Members of a list with the same index are one: such lists are left out here."""
    if isinstance(value, dict):
        return {name: _without_indices(inner) for name, inner in value.items() if not isinstance(inner, list)}
    return value


def test_a_call_alone_may_carry_them() -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}], "hint": "x"}
    found = folded(events_of(chunk(call, "tool_calls")))
    assert found.output == (ToolCall(id="c", name="f", arguments="{}"),)
    assert found.message.extra == {"openai_chat": {"hint": "x"}}
