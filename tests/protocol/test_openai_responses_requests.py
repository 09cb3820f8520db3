"""Requests on the Responses wire: understood, or refused by name, and nothing lost on the way."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_protocol.content import (
    HostedTool,
    Image,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_protocol.errors import BadRequestError, UnsupportedError
from llm_protocol.requests import ChatRequest, EmbeddingRequest, Parameters
from llm_protocol.wires.responses import NAME, OpenAIResponses, OpenAIResponsesServer
from support.adapting import adjusted, encoded, without_wire
from support.conversations import conversations, pdfs, texts, tokens, tool_choices, tools

CLIENT, SERVER = OpenAIResponses(), OpenAIResponsesServer()


def read(body: Any) -> ChatRequest:
    request = SERVER.decode_request("/v1/responses", msgspec.json.encode(body)).request
    assert isinstance(request, ChatRequest)
    return request


def written(request: ChatRequest, *, stream: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encoded(CLIENT, request, stream=stream).body)
    return body


def again(request: ChatRequest) -> ChatRequest:
    """``request`` through the wire, with what no wire carries put back."""
    found = read(json.loads(CLIENT.encode_request(request, stream=False).body))
    return msgspec.structs.replace(found, request_id=request.request_id, timestamp=request.timestamp)


native = st.builds(
    Reasoning,
    text=st.just("") | texts,
    encrypted=tokens,
    id=st.none() | tokens.map("rs_{}".format),
    dialect=st.just(NAME),
)
parameters = st.builds(
    Parameters,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    max_output_tokens=st.none() | st.integers(1, 10_000),
    reasoning_effort=st.none() | st.sampled_from(("none", "low", "xhigh")),
    reasoning_summary=st.none() | st.sampled_from(("auto", "detailed")),
    parallel_tool_calls=st.none() | st.booleans(),
    user=st.none() | texts,
)
formats = st.sampled_from((
    None,
    ResponseFormat(type="text"),
    ResponseFormat(type="json"),
    ResponseFormat(type="json_schema", name="n", schema={"type": "object"}, strict=True, description="d"),
))  # fmt: skip


@given(
    messages=conversations(reasoning=native, media=pdfs),
    tools=st.lists(tools, max_size=2).map(tuple),
    choice=st.none() | tool_choices,
    format_=formats,
    given_=parameters,
)
@settings(max_examples=60)
def test_a_request_comes_back_as_it_was(
    messages: tuple[Message, ...],
    tools: tuple[Tool, ...],
    choice: ToolChoice | None,
    format_: ResponseFormat | None,
    given_: Parameters,
) -> None:
    """decode(encode(x)) == x over generated conversations, tools, formats and parameters."""
    request = ChatRequest(
        model="gpt-4o", messages=messages, tools=tools, tool_choice=choice, response_format=format_, parameters=given_
    )
    found = again(request)
    include = found.parameters.extra.get(NAME, {}).pop("include", None)
    assert include in (None, ["reasoning.encrypted_content"])
    if not found.parameters.extra.get(NAME):
        found = msgspec.structs.replace(found, parameters=msgspec.structs.replace(found.parameters, extra={}))
    assert without_wire(found) == request


def test_a_string_is_the_user_speaking() -> None:
    assert read({"model": "m", "input": "hi"}).messages == (Message.of("user", "hi"),)


def test_neighbouring_items_of_the_assistant_are_one_turn() -> None:
    """A reasoning item, a call and a text are one message, and so are the outputs of parallel calls."""
    request = read(
        {
            "model": "m",
            "instructions": "be brief",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAB"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "wait"}]},
                {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "one"},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
            ],
        }
    )
    assert request.messages == (
        Message.of("system", "be brief"),
        Message.of("user", "hi"),
        Message(
            "assistant",
            (
                Reasoning(encrypted="gAAAAB", id="rs_1", dialect=NAME),
                Text("wait"),
                ToolCall(id="c1", name="f"),
                ToolCall(id="c2", name="f"),
            ),
        ),
        Message(
            "tool",
            (
                ToolResult(call_id="c1", content=(Text("one"),)),
                ToolResult(call_id="c2", content=(Text("two"),)),
            ),
        ),
    )


def test_what_only_the_vendor_knows_goes_to_it_unchanged() -> None:
    """Hosted tools, unknown items and parts, phases, namespaces, and fields of the body."""
    body = {
        "model": "m",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]},
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
            {"type": "message", "role": "assistant", "content": "so", "phase": "commentary"},
            {"type": "message", "role": "assistant", "content": "thus", "phase": "final_answer"},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "namespace": "n"},
            {"type": "custom_tool_call_output", "call_id": "c0", "output": "x"},
        ],
        "tools": [
            {"type": "web_search", "filters": {"allowed_domains": ["a.example"]}},
            {"type": "function", "name": "f", "parameters": {"type": "object"}, "defer_loading": True},
        ],
        "tool_choice": {"type": "web_search"},
        "text": {"verbosity": "low"},
        "reasoning": {"context": "all_turns", "effort": "low"},
        "include": ["web_search_call.action.sources"],
        "prompt_cache_key": "k",
        "truncation": "auto",
    }
    request = read(body)
    assert request.tools[0] == HostedTool(dialect=NAME, value=body["tools"][0])  # type: ignore[index]
    found = written(request)
    assert found.pop("store") is False
    assert found.pop("include") == ["web_search_call.action.sources", "reasoning.encrypted_content"]
    assert found == {key: value for key, value in body.items() if key != "include"}


def test_the_server_reads_its_options_from_the_same_decoding() -> None:
    """A WebSocket frame is a body with a type, a lane and more; what real clients add is accepted."""
    create = SERVER.decode_create(
        b'{"type":"response.create","stream_id":"a","event_id":"e","generate":false,"stream":true,"model":"m",'
        b'"instructions":"i","input":[],"previous_response_id":"resp_1","store":false,"background":true,'
        b'"client_metadata":{"x":"y"},"metadata":{"k":"v"},"llm_runtime":{"route":"r"}}'
    )
    options = create.options
    assert (options.previous_response_id, options.store, options.background) == ("resp_1", False, True)
    assert (options.generate, options.instructions) == (False, "i")
    assert create.inbound.stream is True
    assert create.inbound.policy is not None
    assert msgspec.json.decode(create.inbound.policy) == {"route": "r"}
    assert create.inbound.request.metadata == {"k": "v"}
    assert create.inbound.request.parameters.extra == {NAME: {"client_metadata": {"x": "y"}}}


@pytest.mark.parametrize("value", ['""', "[]"])
def test_an_empty_input_is_refused_where_there_is_nothing_to_answer(value: str) -> None:
    """Not as a warm-up, nor after a response whose history is answered."""
    with pytest.raises(BadRequestError, match=r"^input must be a string or a list of items; it is empty$") as caught:
        SERVER.decode_create(f'{{"model":"m","instructions":"i","input":{value}}}')
    assert caught.value.failure.param == "input"
    assert SERVER.decode_create(f'{{"model":"m","input":{value},"generate":false}}').input == ()
    assert SERVER.decode_create(f'{{"model":"m","input":{value},"previous_response_id":"r"}}').input == ()


def test_a_following_request_gets_the_history_but_not_the_old_instructions() -> None:
    """`previous_response_id`: this request's instructions, then the history, then this request's input."""
    first = SERVER.decode_create(b'{"model":"m","instructions":"old","input":"one"}')
    assert first.input == (Message.of("user", "one"),)
    history = (*first.input, Message.of("assistant", "two"))
    second = SERVER.decode_create(b'{"model":"m","instructions":"new","input":"three","previous_response_id":"r"}')
    request = second.after(history).request
    assert isinstance(request, ChatRequest)
    assert [(message.role, message.text) for message in request.messages] == [
        ("system", "new"),
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
    ]
    plain = SERVER.decode_create(b'{"model":"m","input":"three","previous_response_id":"r"}').after(history).request
    assert isinstance(plain, ChatRequest)
    assert [message.text for message in plain.messages] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], None),
        ({"model": 1, "input": "x"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": 3}, "input"),
        ({"model": "m", "input": ["x"]}, "input[0]"),
        ({"model": "m", "input": [{}]}, "input[0].type"),
        ({"model": "m", "input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"model": "m", "input": [{"role": "user"}]}, "input[0].content"),
        ({"model": "m", "input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        (
            {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
        ),
        (
            {"model": "m", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"model": "m", "input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"model": "m", "input": "x", "temperature": "hot"}, "temperature"),
        ({"model": "m", "input": "x", "tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
        ({"model": "m", "input": "x", "tools": [{"name": "f"}]}, "tools[0].type"),
        ({"model": "m", "input": "x", "tool_choice": "perhaps"}, "tool_choice"),
        (
            {"model": "m", "input": "x", "tool_choice": {"type": "allowed_tools", "mode": {}, "tools": []}},
            "tool_choice.mode",
        ),
        ({"model": "m", "input": "x", "text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"model": "m", "input": "x", "base_url": "http://evil"}, "base_url"),
        ({"model": "m", "input": "x", "extra_body": {}}, "extra_body"),
        ({"model": "m", "input": "x", "text": {"api_key": "k"}}, "text.api_key"),
    ],
)
def test_a_mistake_is_told_with_its_field(body: Any, param: str | None) -> None:
    """The path of the field is in ``param`` and in the message, the client's words are not."""
    with pytest.raises(BadRequestError) as caught:
        SERVER.decode_request("/v1/responses", msgspec.json.encode(body))
    assert caught.value.failure.param == param
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a":' * 5000])
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError, match="must be a JSON object"):
        SERVER.decode_request("/v1/responses", body)


@pytest.mark.parametrize("field", ["conversation", "prompt"])
def test_what_the_runtime_cannot_keep_is_refused(field: str) -> None:
    """No silence about a field that changes the meaning of the request."""
    with pytest.raises(UnsupportedError, match=field):
        read({"model": "m", "input": "x", field: {"id": "p"}})


def test_allowed_tools_leave_the_others_out() -> None:
    """A choice among some of the tools is said as having only those."""
    request = read(
        {
            "model": "m",
            "input": "x",
            "tools": [{"type": "function", "name": "f"}, {"type": "function", "name": "g"}, {"type": "web_search"}],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "g"}, {"type": "web_search"}],
            },
        }
    )
    assert request.tools == (Tool(name="g"), HostedTool(dialect=NAME, value={"type": "web_search"}))
    assert request.tool_choice == ToolChoice("required")


@pytest.mark.parametrize("name", ["stop", "seed", "top_k", "frequency_penalty", "presence_penalty"])
def test_what_the_api_lacks_is_left_out_or_emulated(name: str) -> None:
    value: Any = ("x",) if name == "stop" else 1
    request = ChatRequest(model="m", messages=(Message.of("user", "hi"),), parameters=Parameters(**{name: value}))
    [(parameter, action, _)] = adjusted(CLIENT, request)
    assert (parameter, action) == (name, "emulated" if name == "stop" else "left_out")
    assert written(request) == {
        "model": "m",
        "input": [{"type": "message", "role": "user", "content": "hi"}],
        "store": False,
    }


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (Message("user", (Opaque(dialect="anthropic", value={"type": "x"}),)), UnsupportedError),
        (Message("assistant", (Image(url="https://e.example/a.png"),)), UnsupportedError),
        (Message("tool", (Text("x"),)), BadRequestError),
        (Message("user", (Refusal("no"),)), UnsupportedError),
    ],
)
def test_parts_that_cannot_be_said_are_refused_with_their_place(message: Message, error: type[Exception]) -> None:
    """The message's place in the request is named."""
    request = ChatRequest(model="m", messages=(Message.of("system", "s"), message))
    with pytest.raises(error, match=r"messages\[1\]"):
        encoded(CLIENT, request, stream=False)


def test_hosted_tools_of_others_are_left_out() -> None:
    request = ChatRequest(model="m", messages=(), tools=(HostedTool(dialect="gemini", value={}),))
    assert "tools" not in written(request)
    assert adjusted(CLIENT, request) == [("tools[0]", "left_out", None)]


def test_foreign_reasoning_stays_home_and_native_reasoning_needs_its_item() -> None:
    """The vendor refuses payloads that are not its own, and reasoning without what it led to."""
    mine = Reasoning(text="t", encrypted="gAAAA", id="rs_1", dialect=NAME)
    foreign = Reasoning(text="t", signature="s", dialect="anthropic")
    messages = (
        Message("assistant", (foreign, mine, Text("so"))),
        Message("assistant", (Text("and"), mine)),
        Message.of("user", "go on"),
    )
    items = written(ChatRequest(model="m", messages=messages))["input"]
    assert [item["type"] for item in items] == ["reasoning", "message", "message", "message"]
    assert items[0] == {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "t"}],
        "encrypted_content": "gAAAA",
    }


@pytest.mark.parametrize(
    ("model", "parameters", "wanted"),
    [
        ("gpt-4o", Parameters(), False),
        ("gpt-5.6-sol", Parameters(), True),
        ("o4-mini", Parameters(), True),
        ("gpt-5-chat-latest", Parameters(), False),
        ("some-model", Parameters(reasoning_effort="low"), True),
        ("some-model", Parameters(reasoning_summary="auto"), True),
    ],
)
def test_encrypted_reasoning_is_asked_for_where_there_is_reasoning(
    model: str, parameters: Parameters, wanted: bool
) -> None:
    """Nothing is stored at the vendor, so its thoughts must travel; models that do not think refuse the question."""
    body = written(ChatRequest(model=model, messages=(Message.of("user", "x"),), parameters=parameters))
    assert body["store"] is False
    assert ("reasoning.encrypted_content" in body.get("include", ())) is wanted


def test_extra_adds_but_never_overrides() -> None:
    """The vendor's own fields, beside ours in nested objects too; never where a request goes."""
    extra = {"store": True, "model": "other", "text": {"verbosity": "low"}, "stream_options": {"x": 1}}
    parameters = Parameters(extra={NAME: extra})
    request = ChatRequest(model="m", messages=(), response_format=ResponseFormat(type="json"), parameters=parameters)
    body = written(request)
    assert (body["store"], body["model"]) == (False, "m")
    assert body["text"] == {"verbosity": "low", "format": {"type": "json_object"}}
    assert "stream_options" not in body
    assert written(request, stream=True)["stream_options"] == {"x": 1}
    evil = msgspec.structs.replace(request, parameters=Parameters(extra={NAME: {"base_url": "x"}}))
    with pytest.raises(BadRequestError, match="base_url"):
        encoded(CLIENT, evil, stream=False)


def test_what_is_not_chat_goes_to_the_endpoints_beside() -> None:
    """One dialect for all of the vendor."""
    wire = encoded(CLIENT, EmbeddingRequest(model="e", inputs=("a",)), stream=False)
    assert wire.path == "/embeddings"
