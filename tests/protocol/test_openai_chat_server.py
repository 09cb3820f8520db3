"""OpenAI's chat wire, server side: clients' requests, our answers, and both there and back with the client side."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_protocol.codec.sse import encode_sse
from llm_protocol.content import (
    HostedTool,
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_protocol.dialect import ClientRequest, WireResponse
from llm_protocol.errors import BadRequestError, LLMClientError, UnsupportedError
from llm_protocol.events import Event, Failed, Finished, ItemDone, ItemStarted, Started, TextDelta
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import unfold
from llm_protocol.requests import ChatRequest, CompletionRequest, Parameters
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.openai_chat import CEREBRAS, COMPATIBLE, OPENAI, OpenAIChat, OpenAIChatServer
from support.adapting import encoded, without_wire
from support.conversations import (
    arguments,
    conversations,
    images,
    names,
    pdfs,
    recordings,
    texts,
    tokens,
    tool_choices,
    tools,
)
from support.streams import check_order, decode, encode, fold, same_answer

SERVER = OpenAIChatServer()
PATH = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


def asked(**body: Any) -> ClientRequest:
    return SERVER.decode_request(PATH, json.dumps({"model": "m", "messages": HI} | body).encode())


def chat(**body: Any) -> ChatRequest:
    request = asked(**body).request
    assert isinstance(request, ChatRequest)
    return request


# ---------------------------------------------------------------- requests


def test_the_smallest_request() -> None:
    """A conversation, and nothing else set."""
    inbound = asked()
    assert (inbound.stream, inbound.include_usage, inbound.policy) == (False, False, None)
    assert chat().messages == (Message.of("user", "hi"),)
    assert chat().parameters == Parameters(wire="openai_chat")


def test_streaming_and_policy() -> None:
    """The fields that are not the vendor's business."""
    inbound = asked(stream=True, stream_options={"include_usage": True}, llm_runtime={"cache": False})
    assert (inbound.stream, inbound.include_usage) == (True, True)
    assert inbound.policy is not None
    assert json.loads(bytes(inbound.policy)) == {"cache": False}
    assert inbound.request.parameters.extra == {}


def test_parameters_under_all_their_names() -> None:
    """The newer name wins over the older; null is absent."""
    given_ = chat(max_tokens=1, max_completion_tokens=2, user="a", safety_identifier="b", stop="x", seed=None, top_k=3)
    assert given_.parameters == Parameters(max_output_tokens=2, user="b", stop=("x",), top_k=3, wire="openai_chat")
    assert chat(max_tokens=1, user="a", stop=["x", "y"]).parameters == Parameters(
        max_output_tokens=1, user="a", stop=("x", "y"), wire="openai_chat"
    )


def test_unknown_fields_survive_to_the_same_wire() -> None:
    """Accepted, kept, and sent on by the client side; other vendors see those that the table says they have."""
    request = chat(logprobs=False, store=False, metadata={"k": "v"}, prediction=None)
    assert request.parameters.extra == {"openai_chat": {"logprobs": False, "store": False, "metadata": {"k": "v"}}}
    sent = json.loads(encoded(OpenAIChat(), request, stream=False).body)
    assert (sent["logprobs"], sent["store"], sent["metadata"]) == (False, False, {"k": "v"})
    elsewhere = json.loads(encoded(OpenAIChat(CEREBRAS), request, stream=False).body)
    assert "metadata" not in elsewhere
    assert elsewhere["logprobs"] is False


def test_shapes_we_do_not_know_travel_on_raw() -> None:
    """Allowed-tools choices, grammars, vendor tools, films and custom calls."""
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}
    grammar = {"type": "grammar", "grammar": "x"}
    hosted = {"type": "custom", "custom": {"name": "g"}}
    film = {"type": "video_url", "video_url": {"url": "https://x/a.mp4"}}
    custom = {"id": "c", "type": "custom", "custom": {"name": "g", "input": "x"}}
    messages = [{"role": "user", "content": [film]}, {"role": "assistant", "content": None, "tool_calls": [custom]}]
    request = chat(tool_choice=choice, response_format=grammar, tools=[hosted], messages=messages)
    assert request.tools == (HostedTool(dialect="openai_chat", value=hosted),)
    assert request.messages[0].content == (Opaque(dialect="openai_chat", value=film),)
    sent = json.loads(encoded(OpenAIChat(), request, stream=False).body)
    assert (sent["tool_choice"], sent["response_format"], sent["tools"]) == (choice, grammar, [hosted])
    assert sent["messages"] == messages


def test_the_fields_of_parts_and_tools_survive() -> None:
    """Cache marks and the like, under this wire's name."""
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    function = {"name": "f", "parameters": {"type": "object"}, "requires_confirmation": False}
    body = {"messages": [{"role": "user", "content": [part]}], "tools": [{"type": "function", "function": function}]}
    sent = json.loads(encoded(OpenAIChat(), chat(**body), stream=False).body)
    assert {name: sent[name] for name in body} == body


def test_messages_of_all_roles() -> None:
    """Text, pictures, earlier answers with everything, results; adjacent results are one turn."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    far = {"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}}
    messages = [
        {"role": "developer", "content": "d"},
        {"role": "user", "name": "Ann", "content": [far]},
        {"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,iVBORw=="}]},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "refusal": "no", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "2"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "x"}, {"type": "refusal", "refusal": "y"}]},
    ]  # fmt: skip
    assert chat(messages=messages).messages == (
        Message.of("developer", "d"),
        Message("user", (Image(url="https://x", detail="low"),), "Ann"),
        Message("user", (Image(data=b"\x89PNG", media_type="image/png"),)),
        Message("assistant", (Reasoning(text="hm"), Refusal("no"), ToolCall(id="a", name="f", arguments='{"x":1}'))),
        Message(
            "tool",
            (ToolResult(call_id="a", content=(Text("1"),)), ToolResult(call_id="b", content=(Text("2"),))),
        ),
        Message("assistant", (Text("x"), Refusal("y"))),
    )


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages[0].role"),
    ({"messages": [*HI, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]},
        "messages[0].content[0].image_url",
    ),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0].function"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]}]},
        "messages[0].tool_calls[0].function.name",
    ),
    ({"model": 7}, "model"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"stop": [1]}, "stop"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": True}, "stream_options"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"type": "function", "name": "f"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": "{}"}}]}, "tools[0].function.parameters"),
    ({"tool_choice": "any"}, "tool_choice"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"base_url": "http://evil"}, "base_url"),
    ({"metadata": {"a": {"api_key": "x"}}}, "metadata.a.api_key"),
    ({"extra_headers": {}}, "extra_headers"),
]


@pytest.mark.parametrize(("body", "param"), WRONG, ids=[param for _, param in WRONG])
def test_what_is_wrong_is_named(body: dict[str, Any], param: str) -> None:
    """The failure names the field, and its message says so too."""
    with pytest.raises(BadRequestError) as caught:
        asked(**body)
    assert caught.value.failure.param == param
    assert param in caught.value.failure.message


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        (PATH, b"", BadRequestError),
        (PATH, b"[]", BadRequestError),
        (PATH, b'{"messages":' + b"[" * 100_000, BadRequestError),
        ("/v1/nothing", b"{}", BadRequestError),
        (PATH, json.dumps({"messages": HI, "n": 129}).encode(), BadRequestError),
        ("/v1/completions", b'{"prompt":["a","b"],"n":65}', BadRequestError),
        ("/v1/completions", b"{}", BadRequestError),
        ("/v1/completions", b'{"prompt":"a","best_of":3}', UnsupportedError),
        ("/v1/completions", b'{"prompt":"a","echo":true}', UnsupportedError),
        ("/v1/completions", b'{"prompt":"a","logprobs":5}', UnsupportedError),
    ],
)
def test_what_cannot_be_answered_is_refused(path: str, body: bytes, error: type[LLMClientError]) -> None:
    """Objects only; known paths only; as many choices as OpenAI gives."""
    with pytest.raises(error):
        SERVER.decode_request(path, body)


@given(st.binary(max_size=60) | st.dictionaries(names, st.none() | texts | st.integers()).map(msgspec.json.encode))
def test_no_body_raises_anything_else(body: bytes) -> None:
    """A request or one of two errors."""
    for path in (PATH, "/v1/completions", "/v1/embeddings", "/v1/images/generations"):
        try:
            SERVER.decode_request(path, body)
        except (BadRequestError, UnsupportedError) as exc:
            assert exc.failure.message  # noqa: PT017


parameters = st.builds(
    Parameters,
    temperature=st.none() | st.sampled_from((0.0, 0.5, 2.0)),
    top_p=st.none() | st.just(0.25),
    top_k=st.none() | st.integers(1, 9),
    max_output_tokens=st.none() | st.integers(1, 99),
    stop=st.lists(texts, max_size=2).map(tuple),
    frequency_penalty=st.none() | st.just(-1.5),
    presence_penalty=st.none() | st.just(0.0),
    seed=st.none() | st.integers(0, 9),
    reasoning_effort=st.none() | st.sampled_from(("low", "high")),
    parallel_tool_calls=st.none() | st.booleans(),
    user=st.none() | names,
    extra=st.just({}) | st.just({"openai_chat": {"verbosity": "low"}}),
)
formats = st.sampled_from(
    (None, ResponseFormat(type="text"), ResponseFormat(type="json"),
     ResponseFormat(type="json_schema", name="n", schema={"type": "object"}, strict=True))
)  # fmt: skip
requests = st.builds(
    ChatRequest,
    model=names,
    messages=conversations(
        reasoning=texts.map(lambda text: Reasoning(text=text)), pictures_in_results=False, media=pdfs | recordings
    ),
    tools=st.lists(tools, max_size=2).map(tuple),
    tool_choice=st.none() | tool_choices | st.builds(ToolChoice, st.just("named"), names),
    response_format=formats,
    parameters=parameters,
)


@settings(max_examples=50)
@given(requests, st.booleans())
def test_requests_come_back(request_: ChatRequest, stream: bool) -> None:
    """``decode(encode(x)) == x`` for whole conversations."""
    wire = OpenAIChat(COMPATIBLE).encode_request(request_, stream=stream)
    inbound = OpenAIChatServer(COMPATIBLE).decode_request(f"/v1{wire.path}", wire.body)
    ours = {"request_id": "", "timestamp": 0.0}
    assert msgspec.structs.replace(without_wire(inbound.request), **ours) == msgspec.structs.replace(request_, **ours)
    assert (inbound.stream, inbound.include_usage) == (stream, stream)


# ---------------------------------------------------------------- answers


def answer(*output: Part, reason: FinishReason = FinishReason.STOP, usage: Usage | None = None) -> LLMResponse:
    return LLMResponse(
        request_id="r", provider="p", model="m1", response_id="resp_1", timestamp=5.0, output=output,
        finish_reason=reason, content="".join(part.text for part in output if isinstance(part, Text)), usage=usage,
        upstream_id="up",
    )  # fmt: skip


def frames_of(inbound: ClientRequest, events: Any) -> list[Any]:
    """What a client reads of a stream, ``[DONE]`` as it stands."""
    encoder = SERVER.response_encoder(inbound, "resp_1")
    frames = encoder.start() + encoder.encode(events)
    return [json.loads(f.data) if f.data != b"[DONE]" else "[DONE]" for f in frames if f.event is None]


CALL = ToolCall(id="a", name="f", arguments='{"x":1}')


def test_a_whole_answer() -> None:
    """Every field that clients look for."""
    output = (Reasoning(text="hm"), Text("x"), CALL)
    usage = Usage(input_tokens=5, output_tokens=6, cached_tokens=1, cache_write_tokens=2, reasoning_tokens=3)
    body = json.loads(SERVER.encode_response(asked(), answer(*output, reason=FinishReason.TOOL_CALLS, usage=usage)))
    function = {"name": "f", "arguments": '{"x":1}'}
    assert body == {
        "id": "resp_1",
        "object": "chat.completion",
        "created": 5,
        "model": "m1",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "logprobs": None,
                "message": {
                    "role": "assistant",
                    "content": "x",
                    "refusal": None,
                    "reasoning_content": "hm",
                    "tool_calls": [{"id": "a", "type": "function", "function": function}],
                },
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 6,
            "total_tokens": 11,
            "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }


def test_content_is_null_only_beside_calls_or_a_refusal() -> None:
    """As OpenAI has it; an empty answer is an empty string."""
    bodies = [json.loads(SERVER.encode_response(asked(), answer(*parts))) for parts in ((), (CALL,), (Refusal("no"),))]
    assert [body["choices"][0]["message"]["content"] for body in bodies] == ["", None, None]


def test_a_streamed_answer() -> None:
    """The role first, then the pieces, the finish, usage if wanted, ``[DONE]``."""
    usage = Usage(input_tokens=5, output_tokens=6)
    events = list(unfold(answer(Text("xy"), CALL, reason=FinishReason.TOOL_CALLS, usage=usage), piece=1))
    frames = frames_of(asked(stream=True, stream_options={"include_usage": True}), events)
    assert frames[-1] == "[DONE]"
    assert frames[-2]["choices"] == []
    assert frames[-2]["usage"]["total_tokens"] == 11
    assert all((f["id"], f["object"], f["model"]) == ("resp_1", "chat.completion.chunk", "m1") for f in frames[:-1])
    deltas = [frame["choices"][0]["delta"] for frame in frames[:-2]]
    function = {"name": "f", "arguments": ""}
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "xy"},
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": function}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":1}'}}]},
        {},
    ]
    assert [frame["choices"][0]["finish_reason"] for frame in frames[:-2]] == [None] * 4 + ["tool_calls"]
    plain = frames_of(asked(stream=True), events)
    assert plain == [*frames[:-2], "[DONE]"]


def test_unknown_usage_is_not_zero() -> None:
    """It is null in a whole answer, and no chunk in a streamed one, although asked for."""
    assert json.loads(SERVER.encode_response(asked(), answer(Text("x"))))["usage"] is None
    inbound = asked(stream=True, stream_options={"include_usage": True})
    assert all("usage" not in frame for frame in frames_of(inbound, unfold(answer(Text("x"))))[:-1])


def test_a_signed_call_keeps_its_signature_in_a_stream() -> None:
    """In a piece of its own, with the function that the SDK wants to see in every piece."""
    response = answer(msgspec.structs.replace(CALL, signature="sig"), reason=FinishReason.TOOL_CALLS)
    pieces = [frame["choices"][0]["delta"] for frame in frames_of(asked(stream=True), unfold(response))[:-1]]
    extra = {"google": {"thought_signature": "sig"}}
    assert {"tool_calls": [{"index": 0, "function": {"arguments": ""}, "extra_content": extra}]} in pieces


def test_calls_of_custom_tools_are_told() -> None:
    """Whole, beside those of functions, and read back the same."""
    value = {"id": "b", "type": "custom", "custom": {"name": "g", "input": "x"}}
    parts = (CALL, Opaque(dialect="openai_chat", value=value))
    response = answer(*parts, reason=FinishReason.TOOL_CALLS)
    frames = frames_of(asked(stream=True), unfold(response))
    assert {"tool_calls": [{"index": 1, **value}]} in [frame["choices"][0]["delta"] for frame in frames[:-1]]
    body = SERVER.encode_response(asked(), response)
    assert fold(OpenAIChat().decode_response(chat(), WireResponse(200, (), body))).output == parts
    body = encode(SERVER.response_encoder(STREAMED, "resp_1"), response)
    assert fold(decode(lambda: OpenAIChat().stream_decoder(chat()), body)).output == parts


def test_the_role_is_told_once_though_another_model_goes_on() -> None:
    """The SDK's stream helper would join them to ``assistantassistant``."""
    begun = [Started(model="a"), ItemStarted(index=0, kind="text"), TextDelta(0, "one ")]
    frames = frames_of(asked(stream=True), [*begun, Started(model="b"), TextDelta(0, "two")])

    assert [frame["choices"][0]["delta"] for frame in frames if "role" in frame["choices"][0]["delta"]] == [
        {"role": "assistant", "content": ""}
    ]
    assert [frame["model"] for frame in frames] == ["a", "a", "b"]


def test_who_says_how_to_be_answered_is_told_how_it_was() -> None:
    response = msgspec.structs.replace(answer(Text("hi")), provider="p", cost=0.5, decision={"cache": "miss"})
    mine, plain = asked(stream=True, llm_runtime={"cache": "read"}), asked(stream=True)
    last, done = frames_of(mine, unfold(response))[-2:]
    whole = json.loads(SERVER.encode_response(mine, response))

    assert (last["llm_runtime"]["provider"], last["llm_runtime"]["decision"]) == ("p", {"cache": "miss"})
    assert whole["llm_runtime"] == last["llm_runtime"]
    assert "llm_runtime" not in json.loads(SERVER.encode_response(plain, response))
    assert "llm_runtime" not in frames_of(plain, unfold(response))[-2]
    assert done == "[DONE]"


def test_an_error_in_a_stream_is_no_end() -> None:
    """An error object, and no ``[DONE]`` after it."""
    failure = Failure(kind=FailureKind.OVERLOADED, message="busy", partial=True)
    events = [Started(model="m"), ItemStarted(index=0, kind="text"), TextDelta(0, "x"), Failed(failure=failure)]
    frames = frames_of(asked(stream=True), events)
    assert frames[-1] == {"error": {"message": "busy", "type": "server_error", "param": None, "code": "overloaded"}}
    assert frames_of(asked(stream=True), [Failed(failure=failure)]) == frames[-1:]


def test_items_without_deltas_are_told_whole() -> None:
    """Also a picture, which has none."""
    picture = Image(data=b"\x89PNG", media_type="image/png")
    parts: tuple[Part, ...] = (Text("x"), Reasoning(text="hm"), Refusal("no"), picture)
    kinds: Any = ("text", "reasoning", "refusal", "image")
    events: list[Event] = []
    for at, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
        events += (ItemStarted(index=at, kind=kind), ItemDone(index=at, part=part))
    frames = frames_of(asked(stream=True), [Started(model="m"), *events, Finished(reason=FinishReason.STOP)])
    url = {"url": "data:image/png;base64,iVBORw=="}
    assert [frame["choices"][0]["delta"] for frame in frames[1:-2]] == [
        {"content": "x"},
        {"reasoning_content": "hm"},
        {"refusal": "no"},
        {"images": [{"type": "image_url", "image_url": url}]},
    ]


def test_legacy_completions() -> None:
    """Text only, under the old object name, whole and streamed."""
    inbound = SERVER.decode_request("/v1/completions", b'{"model":"m","prompt":"p","suffix":"s","stream":true,"n":1}')
    request = inbound.request
    assert isinstance(request, CompletionRequest)
    assert (request.prompt, request.suffix, inbound.stream) == ("p", "s", True)
    response = answer(Reasoning(text="hm"), Text("xy"), reason=FinishReason.LENGTH)
    body = json.loads(SERVER.encode_response(inbound, response))
    choice = {"index": 0, "finish_reason": "length", "logprobs": None, "text": "xy"}
    assert (body["object"], body["choices"]) == ("text_completion", [choice])
    frames = frames_of(inbound, unfold(response))
    assert [frame["choices"] for frame in frames[:-1]] == [
        [{"index": 0, "text": "xy", "finish_reason": None}],
        [{"index": 0, "text": "", "finish_reason": "length"}],
    ]


@pytest.mark.parametrize(
    ("failure", "status", "headers"),
    [
        (Failure(kind=FailureKind.RATE_LIMITED, message="slow", retry_after=1.2), 429, {"retry-after": "2"}),
        (Failure(kind=FailureKind.BAD_REQUEST, message="bad", param="stop"), 400, {"x-should-retry": "false"}),
        (Failure(kind=FailureKind.CRASHED, message="oops", partial=True), 500, {"x-should-retry": "false"}),
        (Failure(kind=FailureKind.SERVER_ERROR, message="oops"), 502, {}),
    ],
)
def test_errors_as_the_sdk_understands_them(failure: Failure, status: int, headers: dict[str, str]) -> None:
    """Status and error object; no second try where none can help."""
    wire = SERVER.encode_error(failure)
    assert wire.status == status
    assert dict(wire.headers) == {"content-type": "application/json"} | headers
    rule = failure.rule
    error = {"message": failure.message, "type": rule.type, "param": failure.param, "code": rule.code}
    assert json.loads(wire.body) == {"error": error}


@pytest.mark.parametrize(
    "kind",
    [
        FailureKind.QUOTA,
        FailureKind.RATE_LIMITED,
        FailureKind.OVERLOADED,
        FailureKind.SERVER_ERROR,
        FailureKind.CONTEXT_LENGTH,
        FailureKind.CONTENT_FILTER,
        FailureKind.MODEL_NOT_FOUND,
        FailureKind.UNSUPPORTED,
        FailureKind.BAD_REQUEST,
    ],
)
def test_errors_come_back(kind: FailureKind) -> None:
    """What our server says, our client understands, whole and inside a stream."""
    failure = Failure(kind=kind, message="words", param="p", retry_after=3.0)
    back = OpenAIChat().decode_error(SERVER.encode_error(failure))
    assert (back.kind, back.message, back.param, back.retry_after) == (kind, "words", "p", 3.0)
    encoder = SERVER.response_encoder(asked(stream=True), "resp_1")
    body = encode_sse(encoder.encode([Failed(failure=failure)]))
    last = decode(lambda: OpenAIChat().stream_decoder(chat()), body)[-1]
    assert isinstance(last, Failed)
    expected = FailureKind.SERVER_ERROR if kind is FailureKind.BAD_REQUEST else kind
    assert last.failure.kind in (kind, expected)


@st.composite
def answers(draw: st.DrawFn, dialect: str) -> LLMResponse:
    """What this wire can tell: thoughts, text, a refusal or calls, pictures."""
    output: list[Part] = [Reasoning(text=text, dialect=dialect) for text in draw(st.lists(texts, max_size=1))]
    output += [Text(text) for text in draw(st.lists(texts, max_size=1))]
    refused = draw(st.booleans())
    if refused:
        output.append(Refusal(draw(texts)))
    else:
        calls = draw(st.lists(st.tuples(names, arguments, st.none() | tokens), max_size=3))
        for at, (name, given_, signature) in enumerate(calls):
            output.append(ToolCall(id=f"c{at}", name=name, arguments=given_, signature=signature))
    output += [image for image in draw(st.lists(images, max_size=1)) if not refused]
    reasons = [FinishReason.LENGTH, FinishReason.CONTENT_FILTER]
    if not refused:
        called = any(isinstance(part, ToolCall) for part in output)
        reasons.append(FinishReason.TOOL_CALLS if called else FinishReason.STOP)
    counts = st.integers(0, 9)
    usage = draw(
        st.builds(Usage, input_tokens=counts, output_tokens=counts, cached_tokens=counts, reasoning_tokens=counts)
    )
    return answer(*output, reason=draw(st.sampled_from(reasons)), usage=usage)


STREAMED = asked(stream=True, stream_options={"include_usage": True})


def comparable(response: LLMResponse) -> LLMResponse:
    """Without what the wire renames: ids, and the vendor's word for the reason."""
    return msgspec.structs.replace(response, raw_finish_reason=None, upstream_id=None)


@pytest.mark.parametrize("profile", [OPENAI, CEREBRAS, COMPATIBLE], ids=["openai", "cerebras", "compatible"])
@given(data=st.data(), piece=st.integers(1, 7) | st.none())
def test_answers_come_back(profile: Any, data: st.DataObject, piece: int | None) -> None:
    """``decode(encode(x)) == x``, whole and streamed in pieces of any size."""
    response = data.draw(answers(profile.name))
    server, client = OpenAIChatServer(profile), OpenAIChat(profile)
    streamed = decode(
        lambda: client.stream_decoder(STREAMED.request),
        encode(server.response_encoder(STREAMED, "resp_1"), response, piece=piece),
    )
    check_order(streamed)
    whole = client.decode_response(STREAMED.request, WireResponse(200, (), server.encode_response(STREAMED, response)))
    check_order(whole)
    assert fold(streamed).upstream_id == fold(whole).upstream_id == "resp_1"
    assert same_answer(comparable(fold(streamed)), comparable(response))
    assert set(map(repr, fold(whole).output)) == set(map(repr, response.output))
    assert fold(whole).finish_reason == response.finish_reason


def test_vendor_specific_fields_of_calls_are_read_back() -> None:
    """A client that keeps what it got sends the signature back."""
    body = json.loads(SERVER.encode_response(asked(), answer(msgspec.structs.replace(CALL, signature="sig"))))
    again = chat(messages=[body["choices"][0]["message"]])
    assert again.messages[0].content == (msgspec.structs.replace(CALL, signature="sig"),)
