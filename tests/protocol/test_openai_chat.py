"""OpenAI's chat wire, client side: what is sent, and what is made of odd, cut and hostile answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_protocol.dialect import WireResponse
from llm_protocol.errors import BadRequestError, LLMClientError, UnsupportedError
from llm_protocol.events import (
    Event,
    Failed,
    Finished,
    ItemDone,
    ItemStarted,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.failures import FailureKind
from llm_protocol.fold import Fold
from llm_protocol.requests import ChatRequest, CodeRequest, CompletionRequest, Parameters
from llm_protocol.response import FinishReason, Usage
from llm_protocol.wires.openai_chat import CEREBRAS, COMPATIBLE, OPENAI, OpenAIChat, VendorProfile
from support.adapting import adjusted, encoded
from support.conversations import json_values
from support.streams import check_all_splits, check_order, check_truncation, decode

ASKED = ChatRequest(model="m", messages=(Message.of("user", "hi"),), request_id="req_abc")
CLIENT = OpenAIChat(COMPATIBLE)


def body_of(request: Any, profile: VendorProfile = OPENAI, *, stream: bool = False) -> Any:
    return json.loads(encoded(OpenAIChat(profile), request, stream=stream).body)


def sent(*parts: Part, role: Any = "user", profile: VendorProfile = OPENAI) -> Any:
    """The wire messages of one canonical message."""
    return body_of(ChatRequest(model="m", messages=(Message(role, parts),)), profile)["messages"]


def make() -> Any:
    return CLIENT.stream_decoder(ASKED)


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> bytes:
    """One streamed chunk."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c1", "model": "m1", "choices": [choice], **more}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def events_of(*pieces: bytes) -> list[Event]:
    events = decode(make, *pieces)
    check_order(events)
    return events


def failure_of(*pieces: bytes) -> Any:
    last = events_of(*pieces)[-1]
    assert isinstance(last, Failed)
    return last.failure


def whole(body: Any) -> list[Event]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return CLIENT.decode_response(ASKED, WireResponse(200, (), raw))


# ---------------------------------------------------------------- requests


def test_the_smallest_request() -> None:
    """Nothing is sent that was not asked for."""
    wire = encoded(OpenAIChat(), ASKED, stream=False)
    assert (wire.method, wire.path) == ("POST", "/chat/completions")
    assert json.loads(wire.body) == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


FULL = Parameters(
    temperature=0.0, top_p=0.5, max_output_tokens=7, stop=("a", "b"), frequency_penalty=0.1, presence_penalty=-0.1,
    seed=3, reasoning_effort="low", parallel_tool_calls=False, user="u1",
)  # fmt: skip
COMMON = {
    "temperature": 0.0, "top_p": 0.5, "stop": ["a", "b"], "frequency_penalty": 0.1, "presence_penalty": -0.1, "seed": 3,
    "reasoning_effort": "low",
}  # fmt: skip


@pytest.mark.parametrize(
    ("profile", "own"),
    [
        (OPENAI, {"max_completion_tokens": 7, "safety_identifier": "u1", "stream_options": {"include_usage": True}}),
        (CEREBRAS, {"max_completion_tokens": 7, "user": "u1"}),
        (COMPATIBLE, {"max_tokens": 7, "user": "u1", "stream_options": {"include_usage": True}}),
    ],
)
def test_every_parameter_has_its_name(profile: VendorProfile, own: dict[str, Any]) -> None:
    """Each vendor's spelling; Cerebras gives usage unasked and refuses to be asked. Without tools nobody is told how
    many may be called.
    """
    request = ChatRequest(model="m", messages=ASKED.messages, parameters=FULL)
    with_tools = ChatRequest(model="m", messages=ASKED.messages, parameters=FULL, tools=(Tool(name="f"),))
    assert body_of(with_tools, profile)["parallel_tool_calls"] is False
    body = body_of(request, profile, stream=True)
    assert body == {"model": "m", "messages": body["messages"], "stream": True, **COMMON, **own}


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        (OPENAI, "top_k"),
        (OPENAI, "reasoning_budget"),
        (OPENAI, "reasoning_summary"),
        (CEREBRAS, "top_k"),
        (COMPATIBLE, "reasoning_budget"),
    ],
)
def test_what_the_wire_cannot_say_is_left_out_or_translated(profile: VendorProfile, name: str) -> None:
    value: Any = "auto" if name == "reasoning_summary" else 5
    request = ChatRequest(model="m", messages=ASKED.messages, parameters=Parameters(**{name: value}))
    assert name not in body_of(request, profile)
    [(parameter, action, to)] = adjusted(OpenAIChat(profile), request)
    budget = name == "reasoning_budget"
    assert (parameter, action, to) == (name, *(("translated", "minimal") if budget else ("left_out", None)))


def test_compatible_servers_know_top_k() -> None:
    """Most of them sample with it."""
    request = ChatRequest(model="m", messages=ASKED.messages, parameters=Parameters(top_k=4))
    assert body_of(request, COMPATIBLE)["top_k"] == 4


def test_extra_fields_are_added_and_never_override() -> None:
    """Only those under the dialect's own name; transport fields are refused."""
    extra: dict[str, Any] = {"openai_chat": {"logprobs": True, "model": "other"}, "cerebras": {"x": 1}}
    request = ChatRequest(model="m", messages=ASKED.messages, parameters=Parameters(extra=extra))
    body = body_of(request)
    assert (body["model"], body["logprobs"], "x" in body) == ("m", True, False)
    assert body_of(request, CEREBRAS)["x"] == 1
    hostile = Parameters(extra={"openai_chat": {"base_url": "http://evil"}})
    with pytest.raises(BadRequestError, match="base_url"):
        body_of(ChatRequest(model="m", messages=ASKED.messages, parameters=hostile))


def test_developer_is_system_elsewhere() -> None:
    """Only OpenAI knows the role."""
    assert [sent(Text("x"), role="developer", profile=q)[0]["role"] for q in (OPENAI, CEREBRAS, COMPATIBLE)] == [
        "developer",
        "system",
        "system",
    ]


def test_user_content() -> None:
    """One text is a string; pictures stand in parts, by URL or as data."""
    assert sent(Text("a")) == [{"role": "user", "content": "a"}]
    picture = Image(data=b"\x89PNG", media_type="image/png", detail="low")
    assert sent(Text("a"), Image(url="https://x/y.png"), picture) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw==", "detail": "low"}},
            ],
        }
    ]


def test_an_earlier_answer_goes_back() -> None:
    """Text, refusal and calls; empty arguments are an empty object."""
    call = ToolCall(id="c1", name="f", arguments="")
    assert sent(Text("a"), Refusal("no"), call, role="assistant") == [
        {
            "role": "assistant",
            "content": "a",
            "refusal": "no",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }
    ]
    assert sent(call, role="assistant")[0]["content"] is None  # there, since some servers fail without
    assert sent(role="assistant") == [{"role": "assistant", "content": ""}]


def test_reasoning_goes_back_to_who_wants_it() -> None:
    """Not to OpenAI; under each other's name to its maker, or when the maker is unknown; never a foreigner's."""
    answer = (Reasoning(text="hm", dialect="cerebras"), Text("a"))
    assert sent(*answer, role="assistant", profile=CEREBRAS)[0]["reasoning"] == "hm"
    unknown = (Reasoning(text="hm"), Text("a"))
    assert sent(*unknown, role="assistant", profile=COMPATIBLE)[0]["reasoning_content"] == "hm"
    assert sent(*unknown, role="assistant") == [{"role": "assistant", "content": "a"}]
    foreign = (Reasoning(text="hm", signature="s", dialect="anthropic"), Text("a"))
    assert sent(*foreign, role="assistant", profile=CEREBRAS) == [{"role": "assistant", "content": "a"}]


def test_call_signatures_go_back_where_they_are_known() -> None:
    """Gemini's compatible endpoint wants them; OpenAI would refuse the field."""
    call = ToolCall(id="c1", name="f", signature="sig")
    extra = {"google": {"thought_signature": "sig"}}
    assert sent(call, role="assistant", profile=COMPATIBLE)[0]["tool_calls"][0]["extra_content"] == extra
    assert "extra_content" not in sent(call, role="assistant")[0]["tool_calls"][0]


def test_each_tool_result_is_a_message() -> None:
    """Also when they stand in a user's turn; the rest of the turn comes after them."""
    results = (ToolResult(call_id="a", content=(Text("1"),)), ToolResult(call_id="b", content=(Text("2"), Text("3"))))
    parts = [{"type": "text", "text": "2"}, {"type": "text", "text": "3"}]
    wire = [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": parts},
    ]
    assert sent(*results, role="tool") == wire
    assert sent(*results, Text("go on")) == [*wire, {"role": "user", "content": "go on"}]


@pytest.mark.parametrize(
    ("role", "part", "error"),
    [
        ("user", Opaque(dialect="anthropic", value={}), UnsupportedError),
        ("user", ToolCall(id="c", name="f"), UnsupportedError),
        ("assistant", Image(url="https://x"), UnsupportedError),
        ("tool", Text("x"), BadRequestError),
    ],
)
def test_parts_that_cannot_be_said_are_refused_by_place(role: Any, part: Part, error: type[LLMClientError]) -> None:
    """The failure says which message."""
    with pytest.raises(error, match=r"messages\[0\]") as caught:
        sent(part, role=role)
    assert caught.value.failure.param == "messages[0]"


def test_our_own_opaque_parts_pass_unchanged() -> None:
    """Audio, files, custom calls: whatever this wire's vendors understand."""
    audio = {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}
    assert sent(Opaque(dialect="openai_chat", value=audio))[0]["content"] == [audio]
    custom = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}
    assert sent(Opaque(dialect="openai_chat", value=custom), role="assistant")[0]["tool_calls"] == [custom]


def test_tools_and_choices() -> None:
    """Functions, vendor tools, and the four choices."""
    schema = {"type": "object", "properties": {}}
    tool = Tool(name="f", description="d", parameters=schema, strict=True)
    hosted = HostedTool(dialect="openai_chat", value={"type": "custom", "custom": {"name": "g"}})
    request = ChatRequest(model="m", messages=ASKED.messages, tools=(tool, hosted, Tool(name="bare")))
    function = {"name": "f", "description": "d", "parameters": schema, "strict": True}
    assert body_of(request)["tools"] == [
        {"type": "function", "function": function},
        hosted.value,
        {"type": "function", "function": {"name": "bare"}},
    ]
    assert body_of(request, CEREBRAS)["tools"][1]["function"]["name"] == "g", "a custom tool is a function elsewhere"
    choices = (ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"), ToolChoice("named", "f"))
    assert [
        body_of(ChatRequest(model="m", messages=ASKED.messages, tool_choice=choice))["tool_choice"]
        for choice in choices
    ] == ["auto", "none", "required", {"type": "function", "function": {"name": "f"}}]


def test_response_formats() -> None:
    """Text, JSON, and JSON by a schema."""
    schema = ResponseFormat(type="json_schema", name="n", schema={"type": "object"}, strict=True, description="d")
    formats = (ResponseFormat(type="text"), ResponseFormat(type="json"), schema)
    assert [
        body_of(ChatRequest(model="m", messages=ASKED.messages, response_format=f))["response_format"] for f in formats
    ] == [
        {"type": "text"},
        {"type": "json_object"},
        {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"},
        },
    ]


def test_legacy_completions() -> None:
    """The old names, and no chat-only parameters."""
    request = CompletionRequest(model="m", prompt="p", suffix="s", parameters=Parameters(max_output_tokens=5, user="u"))
    wire = encoded(OpenAIChat(COMPATIBLE), request, stream=True)
    assert wire.path == "/completions"
    assert json.loads(wire.body) == {
        "model": "m", "prompt": "p", "suffix": "s", "max_tokens": 5, "user": "u", "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    thinking = CompletionRequest(model="m", prompt="p", parameters=Parameters(reasoning_effort="low"))
    assert "reasoning_effort" not in body_of(thinking, COMPATIBLE)
    assert adjusted(OpenAIChat(COMPATIBLE), thinking) == [("reasoning_effort", "left_out", None)]


def test_code_requests_are_not_this_wires() -> None:
    """Emulation sits above the dialect."""
    with pytest.raises(UnsupportedError, match="code_generation"):
        encoded(OpenAIChat(), CodeRequest(model="m", instruction="x"), stream=False)


def test_keys_travel_in_the_header() -> None:
    """And only there."""
    assert OpenAIChat().auth_headers("k") == (("authorization", "Bearer k"),)


# ---------------------------------------------------------------- streams


STREAM = b"".join(
    (
        chunk({"role": "assistant", "content": None}),
        chunk({"reasoning_content": "hm, é"}),
        chunk({"content": "Hallo "}),
        chunk({"content": "🙂"}),
        chunk(
            {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]}
        ),
        chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": '{"x'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        chunk({"tool_calls": [{"index": 1, "function": {"arguments": '":1}'}}]}),
        chunk({}, "tool_calls"),
        b'data: {"id":"c1","model":"m1","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6}}\n\n',
        DONE,
    )
)


def test_a_stream_becomes_events() -> None:
    """Items in order of appearance, calls interleaved, usage before the end."""
    assert events_of(STREAM)[:6] == [
        Started(model="m1", upstream_id="c1"),
        ItemStarted(index=0, kind="reasoning"),
        *events_of(STREAM)[2:3],
        ItemDone(index=0, part=Reasoning(text="hm, é", dialect="openai_chat")),
        ItemStarted(index=1, kind="text"),
        TextDelta(1, "Hallo "),
    ]
    assert events_of(STREAM)[-4:] == [
        ItemDone(index=2, part=ToolCall(id="a", name="f", arguments="{}")),
        ItemDone(index=3, part=ToolCall(id="b", name="g", arguments='{"x":1}')),
        UsageReported(Usage(input_tokens=5, output_tokens=6)),
        Finished(reason=FinishReason.TOOL_CALLS, raw_reason="tool_calls"),
    ]


def test_every_split_gives_the_same_events() -> None:
    check_all_splits(make, STREAM)


def test_no_cut_before_the_finish_reason_is_a_success() -> None:
    """Nor is any call handed over whole from a cut stream."""
    check_truncation(make, STREAM, STREAM.index(b'"finish_reason": "tool_calls"'))
    for at in range(STREAM.index(b'"finish_reason": "tool_calls"')):
        events = decode(make, STREAM[:at])
        assert isinstance(events[-1], Failed)
        assert events[-1].failure.kind is FailureKind.TRUNCATED
        assert events[-1].failure.partial == any(isinstance(event, ItemStarted) for event in events)
        assert not any(isinstance(event, ItemDone) and isinstance(event.part, ToolCall) for event in events)


def test_done_without_finish_reason_is_a_cut() -> None:
    """``[DONE]`` alone proves nothing."""
    assert failure_of(chunk({"content": "x"}), DONE).kind is FailureKind.TRUNCATED


def test_done_is_optional() -> None:
    """Cerebras may leave it away; usage and finish share a chunk there."""
    events = events_of(chunk({"content": "x"}), chunk({}, "stop", usage={"prompt_tokens": 1, "completion_tokens": 2}))
    assert events[-2:] == [
        UsageReported(Usage(input_tokens=1, output_tokens=2)),
        Finished(reason=FinishReason.STOP, raw_reason="stop"),
    ]


def test_usage_absent_twice_early_and_data_after_the_end() -> None:
    """Unknown, the last one, whenever it comes; and nothing after ``[DONE]`` counts."""
    early = chunk({"content": "x"}, usage={"prompt_tokens": 1, "completion_tokens": 1})
    late = chunk({}, "stop", usage={"prompt_tokens": 2, "completion_tokens": 2})
    assert not any(isinstance(e, UsageReported) for e in events_of(chunk({"content": "x"}), chunk({}, "stop"), DONE))
    events = events_of(early, late, DONE, chunk({"content": "more"}), b"data: {broken\n\n")
    assert [e for e in events if isinstance(e, UsageReported)] == [
        UsageReported(Usage(input_tokens=2, output_tokens=2))
    ]
    assert Fold().add_all(events).parts() == (Text("x"),)


def test_nothing_more_after_the_end() -> None:
    """The decoder is silent after its terminal event."""
    decoder = make()
    decoder.feed(STREAM)
    assert decoder.feed(chunk({"content": "x"})) == decoder.end() == []


def test_arguments_cut_by_the_length_limit_are_no_call() -> None:
    """What is whole is handed over, what is not is dropped."""
    calls = [
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"index": 1, "id": "b", "function": {"name": "g", "arguments": '{"x":'}},
        {"index": 2, "id": "c", "function": {"name": "h", "arguments": ""}},
    ]
    events = events_of(chunk({"tool_calls": calls}), chunk({}, "length"), DONE)
    assert Fold().add_all(events).parts() == (ToolCall(id="a", name="f", arguments='{"x":1}'),)
    assert events[-1] == Finished(reason=FinishReason.LENGTH, raw_reason="length")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("eos", FinishReason.STOP),
        ("model_length", FinishReason.LENGTH),
        ("sensitive", FinishReason.CONTENT_FILTER),
        ("whatever", FinishReason.UNKNOWN),
    ],
)
def test_finish_reasons(raw: str, reason: FinishReason) -> None:
    """Known ones are mapped, others are unknown: neither a stop nor an error. The raw word is kept."""
    assert events_of(chunk({"content": "x"}, raw))[-1] == Finished(reason=reason, raw_reason=raw)


def test_a_refusal_is_filtered_content() -> None:
    """OpenAI says ``stop``, but the text stands in ``refusal``."""
    events = events_of(chunk({"refusal": "I "}), chunk({"refusal": "cannot"}), chunk({}, "stop"), DONE)
    assert Fold().add_all(events).parts() == (Refusal("I cannot"),)
    assert events[-1] == Finished(reason=FinishReason.CONTENT_FILTER, raw_reason="stop")


@pytest.mark.parametrize("word", ["error", "abort"])
def test_broken_finish_reasons_are_failures(word: str) -> None:
    """Some gateways say it there; what was cut by it is no call."""
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}
    events = events_of(chunk({"content": "x", "tool_calls": [call]}), chunk({}, word), DONE)
    assert isinstance(events[-1], Failed)
    assert events[-1].failure.kind is FailureKind.SERVER_ERROR
    assert not any(isinstance(event, ItemDone) and isinstance(event.part, ToolCall) for event in events)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        ({"error": {"message": "m", "type": "server_error", "code": None}}, FailureKind.SERVER_ERROR, "server_error"),
        ({"error": {"message": "m", "code": "rate_limit_exceeded"}}, FailureKind.RATE_LIMITED, "rate_limit_exceeded"),
        ({"error": {"message": "m", "type": "x", "code": "y"}, "status_code": 429}, FailureKind.RATE_LIMITED, "y"),
        ({"error": "model ran away"}, FailureKind.SERVER_ERROR, None),
        ({"error": {"code": 503, "message": "busy"}}, FailureKind.OVERLOADED, "503"),
        ({"message": "m", "type": "t", "code": "queue_exceeded"}, FailureKind.OVERLOADED, "queue_exceeded"),
        ({"error": {"message": "m"}, "choices": [{"index": 0, "delta": {}}]}, FailureKind.SERVER_ERROR, None),
    ],
)
def test_errors_in_a_stream(error: Any, kind: FailureKind, code: str | None) -> None:
    """Wrapped, flat, as a string; the answer so far is partial."""
    failure = failure_of(chunk({"content": "x"}), b"data: " + json.dumps(error).encode() + b"\n\n", DONE)
    assert (failure.kind, failure.upstream_code, failure.partial) == (kind, code, True)


DEEP = b'data: {"choices":' + b"[" * 100_000 + b"\n\n"
HUGE_NUMBER = b'data: {"usage":{"prompt_tokens":' + b"9" * 1_000_000 + b'},"choices":[]}\n\n'


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {\n\n",
        b"data: [1]\n\n",
        b'data: {"choices":[{"index":0,"delta":{"content":NaN}}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":"x"}}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":{}}}]}}]}\n\n',
        DEEP,
        HUGE_NUMBER,
    ],
    ids=range(7),
)
def test_malformed_chunks_end_the_stream(bad: bytes) -> None:
    """A typed failure, and what follows is not read."""
    events = events_of(chunk({"content": "x"}), bad, chunk({"content": "y"}), chunk({}, "stop"), DONE)
    assert isinstance(events[-1], Failed)
    assert events[-1].failure.kind is FailureKind.PROTOCOL
    assert events[-1].failure.partial
    assert Fold().add_all(events).parts() == (Text("x"),)


def test_a_chunk_of_many_unknown_keys_is_only_a_chunk() -> None:
    """Unknown fields are ignored, as many as are read at all."""
    keys = b",".join(b'"%d":1' % i for i in range(40_000))
    assert isinstance(events_of(b"data: {" + keys + b"}\n\n", chunk({"content": "x"}, "stop"))[-1], Finished)


def test_a_line_without_end_ends_the_stream() -> None:
    """At the cap, in little memory."""
    decoder = make()
    fed = (decoder.feed(b"x" * 65536) for _ in range(200 * 16))
    [failed] = next(events for events in fed if events)
    assert isinstance(failed, Failed)
    assert failed.failure.kind is FailureKind.ANSWER_TOO_LARGE


def test_null_and_foreign_choices_are_ignored() -> None:
    """Null choices, other indices, keep-alives and unknown fields change nothing."""
    other = b'data: {"choices":[{"index":1,"delta":{"content":"no"},"finish_reason":"stop"}]}\n\n'
    events = events_of(
        b'data: {"choices":null}\n\n', b"data: {}\n\n", b": ping\n\n", other, chunk({"content": "x"}), chunk({}, "stop")
    )
    assert Fold().add_all(events).parts() == (Text("x"),)


def test_content_in_other_shapes() -> None:
    """A list of parts with thoughts, arguments as an object, an index as a string."""
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "x"}]
    call = {"index": "0", "id": "a", "function": {"name": "f", "arguments": {"a": 1}}}
    events = events_of(chunk({"content": parts}), chunk({"tool_calls": [call]}), chunk({}, "tool_calls"))
    assert Fold().add_all(events).parts() == (
        Reasoning(text="hm", dialect="openai_chat"),
        Text("x"),
        ToolCall(id="a", name="f", arguments='{"a":1}'),
    )


def test_reasoning_under_both_names_is_told_once() -> None:
    """Some servers send the same text as ``reasoning`` and ``reasoning_content``."""
    events = events_of(chunk({"reasoning": "hm", "reasoning_content": "hm"}), chunk({"content": "x"}, "stop"))
    assert Fold().add_all(events).parts() == (Reasoning(text="hm", dialect="openai_chat"), Text("x"))


def call_parts(*pieces: Any) -> Any:
    return Fold().add_all(events_of(*(chunk({"tool_calls": [p]}) for p in pieces), chunk({}, "tool_calls"))).parts()


def test_calls_without_index_or_with_the_same() -> None:
    """Compatible servers: a new id begins a new call, a piece without id belongs to the last."""
    f, g = {"name": "f", "arguments": "{}"}, {"name": "g", "arguments": "{}"}
    both = (ToolCall(id="a", name="f"), ToolCall(id="b", name="g"))
    assert call_parts({"id": "a", "function": f}, {"id": "b", "function": g}) == both
    assert call_parts({"index": 0, "id": "a", "function": f}, {"index": 0, "id": "b", "function": g}) == both
    pieces = ({"id": "a", "function": {"name": "f", "arguments": "{"}}, {"function": {"arguments": "}"}})
    assert call_parts(*pieces) == both[:1]
    assert call_parts({"index": 0, "function": f}, {"index": 0, "function": g}) == (
        ToolCall(id="call_abc_0", name="f"),
        ToolCall(id="call_abc_1", name="g"),
    )
    repeated = [{"index": 0, "id": "a", "function": {"name": "f", "arguments": piece}} for piece in ("{", "}")]
    assert call_parts(*repeated) == both[:1]
    assert decode(make, chunk({"tool_calls": {"index": 0, "id": "a", "function": f}}, "stop"))[-2] == ItemDone(
        index=0, part=both[0]
    )


def test_calls_without_ids_get_stable_ones() -> None:
    """Made from the request's id, so that any split gives the same."""
    f = {"name": "f", "arguments": "{}"}
    assert [c.id for c in call_parts({"index": 0, "function": f}, {"index": 1, "function": f})] == [
        "call_abc_0",
        "call_abc_1",
    ]
    assert [c.id for c in call_parts({"function": f}, {"function": f})] == ["call_abc_0", "call_abc_1"]


def test_a_call_without_a_name_is_a_failure() -> None:
    """It could not be made."""
    pieces = (
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": "{}"}}]}),
        chunk({}, "tool_calls"),
    )
    assert failure_of(*pieces).kind is FailureKind.INVALID_TOOL_CALL


def test_calls_of_custom_tools_are_kept_as_they_are() -> None:
    """Their input is free text; only this wire's vendors understand them."""
    pieces = (
        {"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "x "}},
        {"index": 0, "custom": {"input": "y"}},
    )
    value = {"id": "a", "type": "custom", "custom": {"name": "f", "input": "x y"}}
    part = Opaque(dialect="openai_chat", value=value)
    assert call_parts(*pieces) == (part,)
    cut = events_of(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "length"))
    assert Fold().add_all(cut).parts() == ()
    assert sent(part, role="assistant")[0]["tool_calls"] == [value]


def test_signatures_and_pictures_in_answers() -> None:
    """As gateways to other vendors send them."""
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    extra = {"extra_content": {"google": {"thought_signature": "sig"}}}
    assert call_parts(call | extra)[0].signature == "sig"
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
    events = events_of(chunk({"images": [picture]}), chunk({}, "stop"))
    assert Fold().add_all(events).parts() == (Image(data=b"\x89PNG", media_type="image/png"),)


json_chunks = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "choices": json_values
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": json_values,
                    "finish_reason": json_values | st.just("stop"),
                    "delta": json_values
                    | st.fixed_dictionaries(
                        {},
                        optional={
                            "content": json_values,
                            "reasoning": json_values,
                            "tool_calls": json_values | st.lists(st.fixed_dictionaries({}, optional={
                                "index": json_values, "id": json_values, "function": json_values
                                | st.fixed_dictionaries({}, optional={"name": json_values, "arguments": json_values}),
                            }), max_size=2),
                            "images": json_values | st.just([{"image_url": {"url": "data:x"}}]),
                        },
                    ),
                },
            ),
            max_size=2,
        ),
        "usage": json_values,
        "error": json_values,
        "message": json_values,
    },
)  # fmt: skip


@given(st.lists(json_chunks | json_values, max_size=4))
def test_no_chunk_raises(chunks: list[Any]) -> None:
    """Whatever JSON comes, the events keep their order and end once."""
    pieces = [b"data: " + json.dumps(value).encode() + b"\n\n" for value in chunks]
    events_of(*pieces, DONE)
    for value in chunks:
        check_order(whole(value))
        assert CLIENT.decode_error(WireResponse(400, (), json.dumps(value).encode())).message


# ---------------------------------------------------------------- whole bodies


def test_json_instead_of_a_stream() -> None:
    """An answer all the same, an error, or neither."""
    answer = {"id": "c", "model": "m", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    assert Fold().add_all(events_of(json.dumps(answer, indent=1).encode())).parts() == (Text("x"),)
    assert failure_of(b'{"error": {"message": "m", "code": "context_length_exceeded"}}').kind is (
        FailureKind.CONTEXT_LENGTH
    )
    assert failure_of(b"<html>\n<body>Bad gateway</body>\n").kind is FailureKind.PROTOCOL
    assert failure_of(b"").kind is FailureKind.TRUNCATED


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", FailureKind.PROTOCOL),
        (b"<html>", FailureKind.PROTOCOL),
        (b"{}", FailureKind.PROTOCOL),
        (b'{"choices":[]}', FailureKind.PROTOCOL),
        (b'{"choices":[{"message":{"content":', FailureKind.PROTOCOL),
        (b'{"error":{"message":"m","type":"server_error"}}', FailureKind.SERVER_ERROR),
        (b'{"error":"out of memory"}', FailureKind.SERVER_ERROR),
        (b'{"message":"m","type":"t","code":"token_quota_exceeded"}', FailureKind.RATE_LIMITED),
        (b'{"object":"error","message":"The model `x` does not exist.","code":404}', FailureKind.MODEL_NOT_FOUND),
        (b"[" * 100_000, FailureKind.PROTOCOL),
    ],
)
def test_200_that_is_no_answer(body: bytes, kind: FailureKind) -> None:
    """Never an empty success."""
    [failed] = whole(body)
    assert isinstance(failed, Failed)
    assert failed.failure.kind is kind


def test_a_whole_answer() -> None:
    """Reasoning first, then text, then calls; a missing finish reason is no cut in a whole body."""
    message = {
        "role": "assistant",
        "content": "x",
        "reasoning": "hm",
        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": '{"a":1}'}}],
    }
    events = whole({"id": "c", "model": "m", "choices": [{"message": message, "finish_reason": None}]})
    check_order(events)
    assert Fold().add_all(events).parts() == (
        Reasoning(text="hm", dialect="openai_chat"),
        Text("x"),
        ToolCall(id="a", name="f", arguments='{"a":1}'),
    )
    assert ToolCallDelta(2, '{"a":1}') in events
    assert events[-1] == Finished(reason=FinishReason.TOOL_CALLS, raw_reason="stop")


def test_an_answer_may_be_empty() -> None:
    """Reasoning can eat the whole budget: no parts, a finish reason, usage."""
    events = whole({"choices": [{"message": {"role": "assistant"}, "finish_reason": "length"}], "usage": None})
    assert events == [Started(), Finished(reason=FinishReason.LENGTH, raw_reason="length")]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "m", "code": "context_length_exceeded"}}, FailureKind.CONTEXT_LENGTH),
        (
            400,
            {"error": {"code": 400, "message": "the request exceeds", "type": "exceed_context_size_error"}},
            FailureKind.CONTEXT_LENGTH,
        ),
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
            FailureKind.CONTEXT_LENGTH,
        ),
        (
            400,
            {"error": {"message": "m", "code": "unsupported_value", "param": "temperature"}},
            FailureKind.UNSUPPORTED,
        ),
        (400, {"message": "m", "type": "invalid_request_error", "code": "wrong_api_format"}, FailureKind.UNSUPPORTED),
        (400, {"error": {"message": "m", "code": "content_policy_violation"}}, FailureKind.CONTENT_FILTER),
        (401, {"detail": "no"}, FailureKind.AUTH),
        (402, {"message": "pay"}, FailureKind.QUOTA),
        (403, {"error": {"message": "no"}}, FailureKind.AUTH),
        (404, {"error": {"message": 'model "x" not found, try pulling it first'}}, FailureKind.MODEL_NOT_FOUND),
        (422, {"detail": [{"loc": ["body"], "msg": "x"}]}, FailureKind.BAD_REQUEST),
        (429, {"error": {"message": "m", "code": "insufficient_quota"}}, FailureKind.QUOTA),
        (429, {"error": {"message": "m", "type": "tokens", "code": "rate_limit_exceeded"}}, FailureKind.RATE_LIMITED),
        (
            429,
            {"error": {"message": "Request too large for m on tokens per min", "code": "rate_limit_exceeded"}},
            FailureKind.CONTEXT_LENGTH,
        ),
        (429, {"message": "Tokens per minute limit exceeded - too many tokens"}, FailureKind.RATE_LIMITED),
        (429, {"message": "m", "param": "quota", "code": "request_quota_exceeded"}, FailureKind.RATE_LIMITED),
        (429, {"message": "high traffic", "code": "queue_exceeded"}, FailureKind.OVERLOADED),
        (500, {"error": {"message": "m"}}, FailureKind.SERVER_ERROR),
        (503, {"error": {"message": "Loading model", "type": "unavailable_error"}}, FailureKind.OVERLOADED),
        (500, [{"error": {"message": "m", "code": 500}}], FailureKind.SERVER_ERROR),
    ],
)
def test_errors_have_their_kind(status: int, body: Any, kind: FailureKind) -> None:
    """Quota is told from rate, context and model are recognised, in every shape of body."""
    failure = CLIENT.decode_error(WireResponse(status, (), json.dumps(body).encode()))
    assert (failure.kind, failure.upstream_status) == (kind, status)


@pytest.mark.parametrize("field", ["code", "type"])
@pytest.mark.parametrize(
    "word",
    [
        "insufficient_quota",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    ],
)
def test_money_that_is_gone_is_gone_for_all_models(word: str, field: str) -> None:
    """Whatever the status, and whatever the other of ``code`` and ``type`` says."""
    for status in (402, 403, 429):
        body = {"error": {"message": "m", "code": "x", "type": "y"} | {field: word}}
        failure = CLIENT.decode_error(WireResponse(status, (), json.dumps(body).encode()))
        assert (failure.kind, failure.account_wide) == (FailureKind.QUOTA, True)
    slow = {"error": {"message": "Rate limit reached for m", "code": "rate_limit_exceeded"}}
    assert CLIENT.decode_error(WireResponse(429, (), json.dumps(slow).encode())).account_wide is None


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b"null", b'{"error":null}', b"[]", b'"x"', b"\xff"])
def test_errors_without_sense_still_say_the_status(body: bytes) -> None:
    """From whatever stands in front of the vendor."""
    failure = CLIENT.decode_error(WireResponse(502, (), body))
    assert failure.kind is FailureKind.SERVER_ERROR
    assert failure.message in ("the vendor responded with HTTP 502", "x")


def test_how_long_to_wait() -> None:
    """The header, else the words."""
    body = json.dumps({"error": {"message": "Rate limit reached. Please try again in 1m2.5s. See docs."}}).encode()
    assert CLIENT.decode_error(WireResponse(429, (), body)).retry_after == 62.5
    assert CLIENT.decode_error(WireResponse(429, (("retry-after-ms", "250"),), body)).retry_after == 0.25
    assert CLIENT.decode_error(WireResponse(429, (), b"")).retry_after is None


def test_a_window_that_is_used_up_says_how_long_to_wait() -> None:
    """Cerebras sends no ``retry-after``; windows that still have room do not count."""
    headers = (
        ("x-ratelimit-remaining-requests-day", "5"),
        ("x-ratelimit-reset-requests-day", "8000"),
        ("x-ratelimit-remaining-tokens-minute", "0"),
        ("x-ratelimit-reset-tokens-minute", "4.5"),
    )
    assert OpenAIChat(CEREBRAS).decode_error(WireResponse(429, headers, b"{}")).retry_after == 4.5
    assert OpenAIChat(CEREBRAS).decode_error(WireResponse(500, headers, b"{}")).retry_after is None


def test_keys_in_error_texts_are_redacted() -> None:
    """Vendors print half of the key."""
    body = json.dumps({"error": {"message": "Incorrect API key provided: sk-proj-abcd1234efgh."}}).encode()
    assert "abcd" not in CLIENT.decode_error(WireResponse(401, (), body)).message
