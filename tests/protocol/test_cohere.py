"""Cohere's requests, answers and errors, in both directions; streams are written here by the wire's description."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
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
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_protocol.dialect import ClientRequest, ModelInfo, WireResponse
from llm_protocol.embedding import Embedding
from llm_protocol.errors import BadRequestError, ProtocolError, UnsupportedError
from llm_protocol.events import (
    Event,
    Failed,
    Finished,
    ItemDone,
    ItemStarted,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.failures import RULES, Failure, FailureKind
from llm_protocol.fold import unfold
from llm_protocol.requests import ChatRequest, EmbeddingRequest, ImageRequest, Parameters
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.cohere import Cohere, CohereServer
from support.adapting import adjusted, encoded
from support.conversations import arguments, conversations, names, texts, tokens, tools
from support.mutations import mutated
from support.streams import check_all_splits, check_order, check_truncation, decode, encode, fold, same_answer

CLIENT, SERVER = Cohere(), CohereServer()
REQUEST = ChatRequest(model="command-x", messages=())
HI = (Message.of("user", "Hi"),)


def make() -> Any:
    return CLIENT.stream_decoder(REQUEST)


# ---------------------------------------------------------------- requests


def sent(messages: tuple[Message, ...] = HI, **fields: Any) -> dict[str, Any]:
    names_ = set(msgspec.structs.asdict(ChatRequest(messages=())))
    own = {key: fields.pop(key) for key in list(fields) if key in names_}
    request = ChatRequest(model="command-x", messages=messages, parameters=Parameters(**fields), **own)
    wire = encoded(CLIENT, request, stream=False)
    assert wire[:2] == ("POST", "/v2/chat")
    body: dict[str, Any] = msgspec.json.decode(wire.body)
    return body


def changes(tools: tuple[Tool, ...] = (), **fields: Any) -> list[tuple[str, str, object]]:
    """What is told of a request with these parameters."""
    request = ChatRequest(model="command-x", messages=HI, tools=tools, parameters=Parameters(**fields))
    return adjusted(CLIENT, request)


def test_parameters_have_this_wires_names() -> None:
    """``p`` and ``k`` among them."""
    body = sent(temperature=0.5, top_p=0.9, top_k=3, max_output_tokens=7, stop=("x",), seed=1, frequency_penalty=0.1)
    assert body == {
        "model": "command-x",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "temperature": 0.5,
        "p": 0.9,
        "k": 3,
        "max_tokens": 7,
        "frequency_penalty": 0.1,
        "seed": 1,
        "stop_sequences": ["x"],
    }


def test_what_cohere_has_not_is_left_out_and_told() -> None:
    """Never dropped in silence; what asks for nothing is not told."""
    assert changes(user="u") == [("user", "left_out", None)]
    assert changes(reasoning_effort="gigantic") == [("reasoning_effort", "left_out", None)]
    one_at_a_time = changes(parallel_tool_calls=False, tools=(Tool(name="f"),))
    assert one_at_a_time == [("parallel_tool_calls", "left_out", None)]
    assert changes(parallel_tool_calls=True) == []


def test_effort_becomes_a_budget() -> None:
    """Cohere counts; from high on without a limit. Thoughts are always shown."""
    assert sent(reasoning_effort="low")["thinking"] == {"type": "enabled", "token_budget": 1_024}
    assert sent(reasoning_effort="high", reasoning_summary="auto")["thinking"] == {"type": "enabled"}
    assert sent(reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert sent(reasoning_budget=5)["thinking"] == {"type": "enabled", "token_budget": 5}
    assert sent(reasoning_budget=0)["thinking"] == {"type": "disabled"}


def test_one_named_tool_is_the_only_one_shown() -> None:
    """Cohere cannot be told to call one of several."""
    both = (Tool(name="f"), Tool(name="g"))
    body = sent(tools=both, tool_choice=ToolChoice("named", "g"))
    assert body["tool_choice"] == "REQUIRED"
    assert [tool["function"]["name"] for tool in body["tools"]] == ["g"]
    assert sent(tools=both, tool_choice=ToolChoice("none"))["tool_choice"] == "NONE"
    assert "tool_choice" not in sent(tools=both, tool_choice=ToolChoice("auto"))
    with pytest.raises(BadRequestError, match="'h'"):
        sent(tools=both, tool_choice=ToolChoice("named", "h"))


def test_strictness_is_for_all_tools_together() -> None:
    """One flag on the request."""
    assert sent(tools=(Tool(name="f", strict=True), Tool(name="g")))["strict_tools"] is True
    assert "strict_tools" not in sent(tools=(Tool(name="f", strict=False),))
    mixed = (Tool(name="f", strict=True), Tool(name="g", strict=False))
    assert "strict_tools" not in sent(tools=mixed)
    assert changes(tools=mixed) == [("tools.strict", "left_out", None)]


def test_structured_output() -> None:
    """JSON with and without a schema."""
    assert sent(response_format=ResponseFormat(type="json"))["response_format"] == {"type": "json_object"}
    form = ResponseFormat(type="json_schema", schema={"type": "object", "properties": {}})
    assert sent(response_format=form)["response_format"] == {"type": "json_object", "json_schema": form.schema}


def test_an_assistant_turn_with_tools() -> None:
    """The plan goes back to its field, and a text beside calls is one: the vendor refuses "text content" there.
    Arguments are never empty, each result is a message, others' thoughts stay.
    """
    said: tuple[Part, ...] = (
        Reasoning(text="plan", id="tool_plan", dialect="cohere"),
        Reasoning(text="hm", dialect="cohere"),
        Reasoning(text="theirs", signature="s", dialect="anthropic"),
        Text("Hi"),
        ToolCall(id="a", name="f", arguments=""),
        ToolCall(id="b", name="f", arguments='{"x":1}'),
    )
    results = (ToolResult(call_id="a", content=(Text("1"),)), ToolResult(call_id="b", content=(Text("2"), Text("3"))))
    turns = sent((*HI, Message("assistant", said), Message("tool", results)))["messages"]
    assert turns[1:] == [
        {
            "role": "assistant",
            "tool_plan": "planHi",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "b", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            ],
            "content": [{"type": "thinking", "thinking": "hm"}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": t} for t in "23"]},
    ]


def test_an_assistant_turn_without_content_is_left_out() -> None:
    """One that has only another vendor's thoughts, too: the vendor refuses it."""
    thought = Message("assistant", (Reasoning(text="theirs", signature="s", dialect="anthropic"),))
    turns = sent((*HI, thought, Message("assistant", ()), Message("assistant", (Text(""),)), *HI))["messages"]
    assert [turn["role"] for turn in turns] == ["user", "user"]


def test_pictures_and_foreign_parts() -> None:
    """Bytes as a data URL, those of results in a user's turn; others' blocks are refused by name."""
    picture = Image(data=b"\x89PNG", detail="low")
    [turn] = sent((Message("user", (picture,)),))["messages"]
    url = {"url": "data:image/png;base64,iVBORw==", "detail": "low"}
    assert turn["content"] == [{"type": "image_url", "image_url": url}]
    [result, shown] = sent((Message("tool", (ToolResult(call_id="a", content=(picture,)),)),))["messages"]
    assert (result["role"], shown["role"]) == ("tool", "user")
    assert shown["content"][1] == {"type": "image_url", "image_url": url}
    with pytest.raises(UnsupportedError) as caught:
        sent((Message("user", (Opaque(dialect="gemini", value={}),)),))
    assert caught.value.failure.param == "messages[0].content[0]"
    assert "tools" not in sent(tools=(HostedTool(dialect="gemini", value={}),))


def test_documents_in_tool_results_survive() -> None:
    """As they came for Cohere, as text for everyone else."""
    content = [{"type": "document", "document": {"id": "1", "data": "x"}}]
    body = {"model": "m", "messages": [{"role": "tool", "tool_call_id": "a", "content": content}]}
    request = SERVER.decode_request("/v2/chat", json.dumps(body).encode()).request
    assert isinstance(request, ChatRequest)
    [result] = request.messages[0].content
    assert isinstance(result, ToolResult)
    assert json.loads(result.text) == content[0]
    assert json.loads(encoded(CLIENT, request, stream=False).body)["messages"] == body["messages"]


def test_other_request_types() -> None:
    """There are no pictures here."""
    with pytest.raises(UnsupportedError, match="image"):
        encoded(CLIENT, ImageRequest(model="m", prompt="x"), stream=False)
    assert CLIENT.models_request("a b").path == "/v1/models?page_size=1000&page_token=a%20b"
    assert CLIENT.auth_headers("k") == (("authorization", "Bearer k"),)


thoughts = st.builds(Reasoning, text=texts, dialect=st.just("cohere"), id=st.sampled_from((None, "tool_plan")))
parameters = st.builds(
    Parameters,
    wire=st.just("cohere"),
    temperature=st.none() | st.floats(0, 1),
    top_p=st.none() | st.floats(0.01, 0.99),
    top_k=st.none() | st.integers(0, 99),
    max_output_tokens=st.none() | st.integers(1, 99),
    stop=st.lists(texts, max_size=2).map(tuple),
    seed=st.none() | st.integers(0, 99),
    reasoning_effort=st.none() | st.just("none"),
    extra=st.just({}) | st.just({"cohere": {"safety_mode": "OFF"}}),
)


@given(
    conversations(reasoning=thoughts, pictures_in_results=False),
    st.lists(tools, max_size=2).map(tuple),
    st.none() | st.sampled_from((ToolChoice("none"), ToolChoice("required"))),
    parameters,
    st.booleans(),
)
def test_requests_survive_the_wire(
    messages: tuple[Message, ...],
    tools: tuple[Tool, ...],
    choice: ToolChoice | None,
    parameters: Parameters,
    stream: bool,
) -> None:
    """``decode(encode(x)) == x``: the server side reads what the client side means."""
    request = ChatRequest(model="m", messages=messages, tools=tools, tool_choice=choice, parameters=parameters)
    wire = CLIENT.encode_request(request, stream=stream)
    inbound = SERVER.decode_request(wire.path, wire.body)
    assert isinstance(inbound.request, ChatRequest)
    assert inbound.stream is stream
    ours = {"request_id": request.request_id, "timestamp": request.timestamp}
    assert msgspec.structs.replace(inbound.request, **ours) == request


# ---------------------------------------------------------------- streams


def sse(*frames: dict[str, Any]) -> bytes:
    done = b"" if frames and frames[-1].get("type") != "message-end" else b"data: [DONE]\n\n"
    return "".join(f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n" for frame in frames).encode() + done


def delta(type_: str, index: int | None = None, **message: Any) -> dict[str, Any]:
    at = {} if index is None else {"index": index}
    return {"type": type_, **at, "delta": {"message": message}}


START = {"type": "message-start", "id": "u-1", "delta": {"message": {"role": "assistant", "content": []}}}


def content(index: int, kind: str, *pieces: str) -> list[dict[str, Any]]:
    return [
        delta("content-start", index, content={"type": kind, kind: ""}),
        *(delta("content-delta", index, content={kind: piece}) for piece in pieces),
        {"type": "content-end", "index": index},
    ]


def call(index: int, *pieces: str) -> list[dict[str, Any]]:
    function = {"name": "f", "arguments": ""}
    return [
        delta("tool-call-start", index, tool_calls={"id": f"f_{index}", "type": "function", "function": function}),
        *(delta("tool-call-delta", index, tool_calls={"function": {"arguments": piece}}) for piece in pieces),
        {"type": "tool-call-end", "index": index},
    ]


def plan(*pieces: str) -> list[dict[str, Any]]:
    return [delta("tool-plan-delta", tool_plan=piece) for piece in pieces]


def end(reason: str | None = "COMPLETE", **fields: Any) -> dict[str, Any]:
    usage = {
        "billed_units": {"input_tokens": 1, "output_tokens": 2},
        "tokens": {"input_tokens": 10, "output_tokens": 5},
    }
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage, **fields}}


def told(*frames: dict[str, Any]) -> list[Event]:
    events = decode(make, sse(*frames))
    check_order(events)
    return events


def test_the_events_of_a_stream() -> None:
    """The plan ends where the first call begins; both usages are told."""
    events = told(START, *plan("I ", "will"), *call(0, '{"a"', ":1}"), *call(1), end("TOOL_CALL"))
    usage = Usage(input_tokens=10, output_tokens=5, billed_input_tokens=1, billed_output_tokens=2)
    assert events == [
        Started(upstream_id="u-1"),
        ItemStarted(index=0, kind="reasoning", id="tool_plan"),
        ReasoningDelta(0, "I "),
        ReasoningDelta(0, "will"),
        ItemDone(index=0, part=Reasoning(text="I will", id="tool_plan", dialect="cohere")),
        ItemStarted(index=1, kind="tool_call", id="f_0", name="f"),
        ToolCallDelta(1, '{"a"'),
        ToolCallDelta(1, ":1}"),
        ItemDone(index=1, part=ToolCall(id="f_0", name="f", arguments='{"a":1}')),
        ItemStarted(index=2, kind="tool_call", id="f_1", name="f"),
        ToolCallDelta(2, "{}"),
        ItemDone(index=2, part=ToolCall(id="f_1", name="f")),
        UsageReported(usage),
        Finished(reason=FinishReason.TOOL_CALLS, raw_reason="TOOL_CALL"),
    ]


@pytest.mark.parametrize("pieces", [(), ("",), ("null",), ("n", "ull"), (" ", "null")])
def test_a_call_without_arguments(pieces: tuple[str, ...]) -> None:
    """Whatever the model writes for none, it is told as ``{}``, in the deltas too."""
    events = told(START, *call(0, *pieces), end("TOOL_CALL"))
    assert "".join(event.text for event in events if isinstance(event, ToolCallDelta)) == "{}"
    assert fold(events).tool_calls[0].arguments == "{}"


def test_any_split_gives_the_same_events() -> None:
    """Also in the middle of a character."""
    check_all_splits(make, sse(START, *content(0, "thinking", "hm"), *content(1, "text", "Grüße 👋", "x"), end()))


def test_a_cut_stream_is_never_a_success() -> None:
    """Only message-end is."""
    body = sse(START, *content(0, "text", "a"), *call(0, "{}"), end("TOOL_CALL"))
    check_truncation(make, body, body.rindex(b"event: message-end"))


def test_citations_belong_to_their_text() -> None:
    """Whether they come inside of it or after its end."""
    first, second = {"start": 0, "content_index": 1}, {"start": 1}
    thinking, text = content(0, "thinking", "hm"), content(1, "text", "ab")
    inside = delta("citation-start", 0, citations=first)
    after = delta("citation-start", 1, citations=second)
    answer = fold(
        told(START, *thinking, *text[:-1], inside, text[-1], after, {"type": "citation-end", "index": 1}, end())
    )
    assert answer.output[1] == Text("ab", extra={"cohere": {"citations": [first, second]}})


@pytest.mark.parametrize("reason", ["ERROR", "TIMEOUT"])
def test_an_end_that_is_an_error_is_a_failure(reason: str) -> None:
    """Streamed and whole."""
    streamed = told(START, *plan("I"), end(reason, error="bad call", error_type="INVALID_TOOL_GENERATION"))[-1]
    body = {"id": "x", "message": {"role": "assistant"}, "finish_reason": reason, "error": "bad call"}
    whole = CLIENT.decode_response(REQUEST, WireResponse(200, (), json.dumps(body).encode()))[-1]
    for failed, kind in ((streamed, FailureKind.INVALID_TOOL_CALL), (whole, FailureKind.SERVER_ERROR)):
        assert isinstance(failed, Failed)
        assert (failed.failure.kind, failed.failure.message) == (kind, "bad call")


@pytest.mark.parametrize("frames", [call(0, '{"a": '), call(0, "{}"), call(0, "{")[:-1]])
def test_a_tool_call_in_which_the_answer_hit_its_limit_is_not_done(frames: list[dict[str, Any]]) -> None:
    """Closed or not, valid or not. The text before it is whole."""
    events = told(START, *content(0, "text", "a"), *frames, end("MAX_TOKENS"))
    assert (fold(events).finish_reason, fold(events).output) == (FinishReason.LENGTH, (Text("a"),))


def test_unknown_things_survive() -> None:
    """Unknown events are skipped, unknown reasons kept."""
    events = told(START, {"type": "brand-new", "delta": 3}, *content(0, "text", "a"), end("BRAND_NEW"))
    assert events[-1] == Finished(reason=FinishReason.UNKNOWN, raw_reason="BRAND_NEW")


@pytest.mark.parametrize(
    "frames",
    [
        [START, START | {"id": "another"}],
        content(0, "text", "a"),
        [START, delta("content-delta", 0, content={"text": "a"})],
        [START, *content(0, "text")[:1], delta("content-delta", 0, content={"thinking": "a"})],
        [START, *content(0, "text")[:1], *content(0, "text")[:1]],
        [START, delta("tool-call-start", 0, tool_calls={"id": "a"})],
        [START, {"type": "tool-call-end", "index": 4}],
        [START, {"type": "content-end", "index": 4}],
        [START, {"type": "tool-plan-delta"}],
        [START, delta("tool-call-delta", 0, tool_calls={"function": {"arguments": 1}})],
    ],
)
def test_malformed_streams_are_protocol_failures(frames: list[dict[str, Any]]) -> None:
    """Never an exception, never a success."""
    last = told(*frames, end())[-1]
    assert isinstance(last, Failed)
    assert last.failure.kind == FailureKind.PROTOCOL


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([delta("tool-call-start", 0, tool_calls={"id": "a"})], "tool-call-start without a function"),
        (call(0, "{}")[:1] * 2, "tool-call-start for a call that is already open"),
    ],
)
def test_a_tool_call_that_cannot_start_is_named(frames: list[dict[str, Any]], said: str) -> None:
    last = told(START, *frames, end())[-1]
    assert isinstance(last, Failed)
    assert said in last.failure.message


@given(st.binary(max_size=200))
def test_garbage_never_raises(data: bytes) -> None:
    """A decoder of a peer's bytes answers with a failure."""
    assert isinstance(decode(make, data)[-1], Failed)
    for request in (REQUEST, EmbeddingRequest(model="m", inputs=("a",))):
        assert isinstance(CLIENT.decode_response(request, WireResponse(200, (), data))[-1], Failed)
    assert CLIENT.decode_error(WireResponse(500, (), data)).kind == FailureKind.SERVER_ERROR


FRAMES = [
    START,
    *plan("I will"),
    *content(0, "thinking", "hm"),
    *content(1, "text", "a"),
    delta("citation-start", 0, citations={"start": 0, "content_index": 1}),
    *call(0, '{"a":', "1}"),
    end("ERROR", error="e", error_type="t"),
]


@given(mutated(FRAMES))
def test_odd_streams_never_raise(frames: Any) -> None:
    """A stream in which anything is anything else."""
    body = "".join(f"data: {json.dumps(frame)}\n\n" for frame in (frames if isinstance(frames, list) else [frames]))
    check_order(decode(make, body.encode()))


WHOLE = {
    "id": "x",
    "finish_reason": "COMPLETE",
    "message": {
        "role": "assistant",
        "tool_plan": "p",
        "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}],
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        "citations": [{"start": 0, "content_index": 1}],
    },
    "usage": {"billed_units": {"input_tokens": 1}, "tokens": {"input_tokens": 1}, "cached_tokens": 1},
}
VECTORS = {"id": "x", "embeddings": {"float": [[0.5, 1]]}, "meta": {"billed_units": {"input_tokens": 1}}}
LIST = {"models": [{"name": "m", "context_length": 1}], "next_page_token": "t"}


@given(mutated(WHOLE), mutated(VECTORS), mutated({"message": "m", "error_type": "t"}), mutated(LIST))
def test_odd_answers_never_raise(whole: Any, vectors: Any, error: Any, models: Any) -> None:
    """Neither whole answers, nor vectors, nor errors, nor model lists."""
    check_order(CLIENT.decode_response(REQUEST, WireResponse(200, (), json.dumps(whole).encode())))
    request = EmbeddingRequest(model="m", inputs=("a",))
    check_order(CLIENT.decode_response(request, WireResponse(200, (), json.dumps(vectors).encode())))
    CLIENT.decode_error(WireResponse(400, (), json.dumps(error).encode()))
    with contextlib.suppress(ProtocolError):
        CLIENT.decode_models(json.dumps(models).encode())


BODY = {
    "model": "m",
    "messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}}]},
        WHOLE["message"],
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "document", "document": {}}]},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "tool_choice": "REQUIRED",
    "strict_tools": True,
    "thinking": {"type": "enabled", "token_budget": 5},
    "response_format": {"type": "json_object", "json_schema": {}},
    "stop_sequences": ["x"],
}


@given(mutated(BODY))
def test_odd_bodies_are_read_or_refused(body: Any) -> None:
    """And what was read can be sent on, or is refused by name."""
    with contextlib.suppress(BadRequestError, UnsupportedError):
        inbound = SERVER.decode_request("/v2/chat", json.dumps(body).encode())
        encoded(CLIENT, inbound.request, stream=inbound.stream)


# ---------------------------------------------------------------- embeddings, models


def embed(**fields: Any) -> dict[str, Any]:
    request = EmbeddingRequest(**{"model": "e", "inputs": ("a", "b"), **fields})
    wire = encoded(CLIENT, request, stream=False)
    assert wire.path == "/v2/embed"
    body: dict[str, Any] = json.loads(wire.body)
    return body


def test_embedding_requests() -> None:
    """The input type that the vendor demands has a default; too many texts are refused by name."""
    assert embed() == {
        "model": "e",
        "input_type": "search_document",
        "texts": ["a", "b"],
        "embedding_types": ["base64"],
    }
    assert embed(model="embed-english-v2.0")["embedding_types"] == ["float"]
    assert embed(input_type="search_query", dimensions=256)["output_dimension"] == 256
    with pytest.raises(UnsupportedError, match="96") as caught:
        embed(inputs=("a",) * 97)
    assert caught.value.failure.param == "inputs"


@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=4), min_size=1, max_size=3))
def test_embeddings_survive_the_wire(given_: list[list[float]]) -> None:
    """Both ways: request and answer."""
    vectors = tuple(map(Embedding.of, given_))
    request = EmbeddingRequest(
        model="e",
        inputs=("a",) * len(vectors),
        input_type="clustering",
        dimensions=4,
        parameters=Parameters(wire="cohere"),
    )
    wire = encoded(CLIENT, request, stream=False)
    inbound = SERVER.decode_request(wire.path, wire.body)
    ours = {"request_id": request.request_id, "timestamp": request.timestamp}
    assert msgspec.structs.replace(inbound.request, **ours) == request
    usage = Usage(input_tokens=7, billed_input_tokens=7)
    answer = LLMResponse(request_id="r", response_id="id", provider="p", model="e", embeddings=vectors, usage=usage)
    body = SERVER.encode_response(inbound, answer)
    back = fold(CLIENT.decode_response(request, WireResponse(200, (), body)))
    assert (back.embeddings, back.usage) == (vectors, usage)
    as_floats = SERVER.encode_response(inbound._replace(form="float"), answer)
    assert fold(CLIENT.decode_response(request, WireResponse(200, (), as_floats))).embeddings == vectors


def test_too_few_vectors_are_a_protocol_failure() -> None:
    """One for each text, or none."""
    request = EmbeddingRequest(model="e", inputs=("a", "b"))
    [failed] = CLIENT.decode_response(request, WireResponse(200, (), b'{"embeddings":{"float":[[1.0]]}}'))
    assert isinstance(failed, Failed)
    assert failed.failure.kind == FailureKind.PROTOCOL


def test_model_lists() -> None:
    """Ours as the vendor's client reads it; the vendor's with its next page."""
    page = CLIENT.decode_models(SERVER.encode_models((ModelInfo(id="a", context_window=9),)))
    assert [(model.id, model.context_window) for model in page.models] == [("a", 9)]
    assert page.next is None
    assert CLIENT.decode_models(b'{"models": [{"name": "m"}], "next_page_token": "t"}').next == "t"
    with pytest.raises(ProtocolError):
        CLIENT.decode_models(b'{"data": []}')


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"message": "invalid request: bad"}, FailureKind.BAD_REQUEST),
        (400, {"message": "too many tokens: size limit exceeded"}, FailureKind.CONTEXT_LENGTH),
        (400, {"message": "x", "error_type": "TOO_MANY_TOKENS"}, FailureKind.CONTEXT_LENGTH),
        (400, {"message": "tools are not supported for this model"}, FailureKind.UNSUPPORTED),
        (401, {"message": "invalid api token"}, FailureKind.AUTH),
        (402, {"message": "billing limit"}, FailureKind.QUOTA),
        (404, {"message": "model 'x' not found"}, FailureKind.MODEL_NOT_FOUND),
        (404, {"message": "page not here"}, FailureKind.BAD_REQUEST),
        (422, {"message": "bad"}, FailureKind.BAD_REQUEST),
        (429, {"message": "trial key: limited to 20 API calls / minute"}, FailureKind.RATE_LIMITED),
        (429, {"message": "Trial key, which is limited to 1000 API calls / month"}, FailureKind.QUOTA),
        (498, {"message": "invalid token"}, FailureKind.AUTH),
        (499, {"message": "request cancelled"}, FailureKind.SERVER_ERROR),
        (500, {"message": "internal"}, FailureKind.SERVER_ERROR),
        (501, {"message": "not implemented"}, FailureKind.UNSUPPORTED),
        (503, {"message": "busy"}, FailureKind.OVERLOADED),
    ],
)
def test_kinds_of_errors(status: int, body: dict[str, str], kind: FailureKind) -> None:
    """By type, by sentence, by status."""
    failure = CLIENT.decode_error(WireResponse(status, (), json.dumps(body).encode()))
    assert (failure.kind, failure.upstream_status, failure.message) == (kind, status, body["message"])


def test_waiting_times() -> None:
    """``retry-after`` first, then the reset time by the vendor's own clock."""
    headers = (("date", "Tue, 26 Mar 2024 19:59:50 GMT"), ("x-ratelimit-reset", "1711483200"))
    assert CLIENT.decode_error(WireResponse(429, headers, b"")).retry_after == 10.0
    assert CLIENT.decode_error(WireResponse(429, (*headers, ("retry-after", "3")), b"")).retry_after == 3.0


@pytest.mark.parametrize("kind", list(FailureKind))
def test_our_failures_survive_the_wire(kind: FailureKind) -> None:
    """As a status, and inside message-end."""
    given = Failure(kind=kind, message="what is wrong", retry_after=1.5)
    wire = SERVER.encode_error(given)
    back = CLIENT.decode_error(wire)
    assert (wire.status, back.message, back.retry_after) == (RULES[kind].status, "what is wrong", 2.0)
    assert RULES[back.kind].code == RULES[kind].code
    frames = SERVER.response_encoder(ClientRequest(REQUEST), "id").encode([Started(), Failed(failure=given)])
    last = decode(make, encode_sse(frames))[-1]
    assert isinstance(last, Failed)
    assert RULES[last.failure.kind].code == RULES[kind].code


# ---------------------------------------------------------------- the server side

thought = st.builds(Reasoning, text=texts, dialect=st.just("cohere"))
cited = st.builds(lambda text: Text(text, extra={"cohere": {"citations": [{"start": 0, "end": 1}]}}), texts)
calls = st.lists(
    st.builds(ToolCall, id=tokens, name=names, arguments=arguments), max_size=3, unique_by=lambda call: call.id
)


@st.composite
def answers(draw: st.DrawFn) -> LLMResponse:
    said = [draw(cited)] if draw(st.booleans()) else draw(st.lists(texts.map(Text), max_size=2))
    output: tuple[Part, ...] = (*draw(st.lists(thought, max_size=1)), *said, *draw(calls))
    has_calls = any(isinstance(part, ToolCall) for part in output)
    reason, raw = (FinishReason.TOOL_CALLS, "TOOL_CALL") if has_calls else (FinishReason.STOP, "STOP_SEQUENCE")
    usage = Usage(
        input_tokens=9,
        output_tokens=8,
        cached_tokens=3,
        reasoning_tokens=2,
        billed_input_tokens=5,
        billed_output_tokens=4,
    )
    return LLMResponse(
        request_id="r",
        response_id="u-1",
        upstream_id="u-1",
        provider="p",
        model="m",
        content="".join(part.text for part in said),
        output=output,
        usage=usage,
        finish_reason=reason,
        raw_finish_reason=raw,
    )


@given(answers(), st.none() | st.integers(1, 5))
def test_answers_survive_the_stream(answer: LLMResponse, piece: int | None) -> None:
    """``decode(encode(x)) == x``, in any pieces."""
    events = decode(make, encode(SERVER.response_encoder(ClientRequest(REQUEST), "u-1"), answer, piece=piece))
    check_order(events)
    assert same_answer(fold(events), answer)


@given(answers(), st.booleans())
def test_whole_answers_survive(answer: LLMResponse, planned: bool) -> None:
    """The same for whole answers, the plan included."""
    if planned:
        told_plan = Reasoning(text="plan", id="tool_plan", dialect="cohere")
        answer = msgspec.structs.replace(answer, output=(told_plan, *answer.output))
    body = SERVER.encode_response(ClientRequest(REQUEST), answer)
    events = CLIENT.decode_response(REQUEST, WireResponse(200, (), body))
    check_order(events)
    assert same_answer(fold(events), answer)


def test_a_stream_through_both_sides() -> None:
    """A plan, thoughts, text and calls come out as the frames they came in as."""
    frames = (
        START,
        *plan("I will"),
        *content(0, "thinking", "hm"),
        *content(1, "text", "a"),
        *call(0, "{}"),
        end("TOOL_CALL"),
    )
    events = told(*frames)
    encoder = SERVER.response_encoder(ClientRequest(REQUEST), "u-1")
    out = [frame for event in events for frame in encoder.encode([event])]
    assert out[-1] == (None, b"[DONE]")
    assert [frame.event for frame in out[:-1]] == [frame["type"] for frame in frames]
    assert decode(make, encode_sse(out)) == events


@pytest.mark.parametrize(("parts", "word"), [((Text("a"),), "ERROR"), ((), "ERROR"), ((Refusal("no"),), "COMPLETE")])
def test_what_was_filtered_is_no_whole_answer(parts: tuple[Part, ...], word: str) -> None:
    """The wire has no word for it; a refusal in the model's own words is an answer."""
    reason = FinishReason.CONTENT_FILTER
    answer = LLMResponse(request_id="r", provider="p", model="m", output=parts, finish_reason=reason)
    assert json.loads(SERVER.encode_response(ClientRequest(REQUEST), answer))["finish_reason"] == word
    frames = SERVER.response_encoder(ClientRequest(REQUEST), "u-1").encode(list(unfold(answer)))
    assert json.loads(frames[-2].data)["delta"]["finish_reason"] == word


def test_a_cut_call_is_closed_at_the_end() -> None:
    """And the reason says why."""
    encoder = SERVER.response_encoder(ClientRequest(REQUEST), "u-1")
    frames = encoder.encode(
        [
            Started(),
            ItemStarted(index=0, kind="text"),
            TextDelta(0, "a"),
            TextDelta(0, "b"),
            ItemDone(index=0, part=Text("ab")),
            ItemStarted(index=1, kind="tool_call", id="x", name="f"),
            ToolCallDelta(1, "{"),
            Finished(reason=FinishReason.LENGTH),
        ]
    )
    assert [frame.event for frame in frames] == [
        "message-start",
        "content-start",
        "content-delta",
        "content-end",
        "tool-call-start",
        "tool-call-delta",
        "tool-call-end",
        "message-end",
        None,
    ]
    assert json.loads(frames[-2].data)["delta"]["finish_reason"] == "MAX_TOKENS"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("chat", {"model": "absent"}, "model"),
        ("chat", {"messages": []}, "messages"),
        ("chat", {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ("chat", {"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].image_url",
        ),
        ("chat", {"temperature": "hot"}, "temperature"),
        ("chat", {"tools": [{"type": "function"}]}, "tools[0].function"),
        ("chat", {"tool_choice": "MAYBE"}, "tool_choice"),
        ("chat", {"response_format": {"type": "xml"}}, "response_format.type"),
        ("chat", {"headers": {}}, "headers"),
        ("embed", {}, "input_type"),
        ("embed", {"input_type": "x"}, "input_type"),
        ("embed", {"input_type": "search_query", "texts": [1]}, "texts"),
        ("embed", {"input_type": "search_query", "texts": []}, "texts"),
        ("embed", {"input_type": "search_query"}, "texts"),
    ],
)
def test_wrong_bodies_are_refused_by_field(path: str, fields: dict[str, Any], param: str) -> None:
    """With one line that says what would be right."""
    body = {"model": "m", **({"messages": [{"role": "user", "content": "Hi"}]} if path == "chat" else {}), **fields}
    body = {key: value for key, value in body.items() if value != "absent"}
    with pytest.raises(BadRequestError) as caught:
        SERVER.decode_request(f"/v2/{path}", json.dumps(body).encode())
    assert caught.value.failure.param == param
    assert "\n" not in str(caught.value)


def test_only_texts_as_floats_can_be_embedded() -> None:
    """Pictures and other number forms are refused by name; texts in the long form are read."""
    for fields, param in (
        ({"input_type": "image", "images": ["data:,"]}, "images"),
        ({"input_type": "search_query", "texts": ["a"], "embedding_types": ["int8"]}, "embedding_types"),
    ):
        with pytest.raises(UnsupportedError) as caught:
            SERVER.decode_request("/v2/embed", json.dumps({"model": "m", **fields}).encode())
        assert caught.value.failure.param == param
    long = {"model": "m", "input_type": "search_query", "inputs": [{"content": [{"type": "text", "text": "a"}]}]}
    request = SERVER.decode_request("/v2/embed", json.dumps(long).encode()).request
    assert isinstance(request, EmbeddingRequest)
    assert request.inputs == ("a",)


def test_unknown_fields_are_kept_for_the_same_vendor() -> None:
    """And the runtime's own object goes to the policy, undecoded."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "documents": ["d"], "llm_runtime": {"x": 1}}
    inbound = SERVER.decode_request("/v2/chat", json.dumps(body).encode())
    assert inbound.request.parameters.extra == {"cohere": {"documents": ["d"]}}
    assert inbound.policy is not None
    assert json.loads(bytes(inbound.policy)) == {"x": 1}
