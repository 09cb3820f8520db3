"""The stream of a response: order and numbers of the events as clients need them, endings, errors, both directions."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_protocol.codec.sse import encode_sse
from llm_protocol.content import Image, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from llm_protocol.dialect import Frame, WireResponse
from llm_protocol.events import (
    Event,
    Failed,
    Finished,
    ItemDone,
    ItemStarted,
    MemberDelta,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    join,
)
from llm_protocol.failures import RULES, Failure, FailureKind
from llm_protocol.fold import item_events, unfold
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.responses import NAME, OpenAIResponses, OpenAIResponsesServer, ResponseOptions
from support.conversations import arguments, json_values, names, texts, tokens
from support.streams import check_all_splits, check_order, check_truncation, decode, encode, fold, same_answer

CLIENT, SERVER = OpenAIResponses(), OpenAIResponsesServer()
REQUEST = ChatRequest(model="m", messages=())
CREATE = SERVER.decode_create(b'{"model":"m","input":"hi","instructions":"be brief","metadata":{"k":"v"}}')

RESOURCE_FIELDS = {
    "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id",
    "instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p",
    "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "user", "usage",
    "max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier",
    "prompt_cache_key",
}  # fmt: skip
"""What the Open Responses schema demands of every response."""


def make() -> Any:
    return CLIENT.stream_decoder(REQUEST)


def answer(*parts: Part, **fields: Any) -> LLMResponse:
    fields.setdefault("finish_reason", FinishReason.STOP)
    given = {"request_id": "req_1", "response_id": "resp_abc", "provider": "p", "model": "model-1", **fields}
    return LLMResponse(output=parts, **given)


def frames_of(events: list[Event], **options: Any) -> list[dict[str, Any]]:
    encoder = SERVER.response_encoder(CREATE.inbound, "resp_abc", CREATE.options, **options)
    frames: list[Frame] = encoder.start() + [frame for event in events for frame in encoder.encode([event])]
    found = [json.loads(frame.data) for frame in frames]
    assert [frame.event for frame in frames] == [event["type"] for event in found]
    return found


def types(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["type"].removeprefix("response.") for frame in frames]


TEXT = answer(
    Text("Hi there"), usage=Usage(input_tokens=3, output_tokens=2, cached_tokens=1, reasoning_tokens=1), cost=0.5
)


def test_a_text_answer_is_told_in_the_order_that_clients_need() -> None:
    """Every event of the API's text answer, numbered from 0 without gaps, each delta with its empty logprobs."""
    frames = frames_of(list(unfold(TEXT, piece=3)))
    assert types(frames) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [frame["sequence_number"] for frame in frames] == list(range(len(frames)))
    place = {"item_id": "msg_abc_0", "output_index": 0, "content_index": 0}
    assert frames[4] == {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        "delta": "Hi ",
        "logprobs": [],
        **place,
    }
    part = {"type": "output_text", "text": "Hi there", "annotations": [], "logprobs": []}
    item = {"id": "msg_abc_0", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    assert frames[2]["item"] == item | {"status": "in_progress", "content": []}
    assert frames[3]["part"] == part | {"text": ""}
    assert frames[7] == {
        "type": "response.output_text.done",
        "sequence_number": 7,
        "text": "Hi there",
        "logprobs": [],
        **place,
    }
    assert frames[9]["item"] == item
    assert frames[-1]["response"]["output"] == [item]


def test_snapshots_have_every_field_of_the_schema() -> None:
    """Strict clients read them all; usage has its details as integers; the runtime's own detail stands apart."""
    frames = frames_of(list(unfold(TEXT)))
    for frame in (frames[0], frames[1]):
        assert frame["response"].keys() == RESOURCE_FIELDS
        assert (frame["response"]["status"], frame["response"]["output"]) == ("in_progress", [])
    last = frames[-1]["response"]
    assert last.keys() == RESOURCE_FIELDS | {"llm_runtime"}
    assert last["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 5,
    }
    assert (last["id"], last["model"], last["instructions"], last["metadata"]) == (
        "resp_abc",
        "model-1",
        "be brief",
        {"k": "v"},
    )
    assert (last["llm_runtime"]["provider"], last["llm_runtime"]["cost"]) == ("p", 0.5)
    whole = json.loads(SERVER.encode_response(CREATE.inbound, TEXT, CREATE.options))
    assert whole == last
    pending = json.loads(SERVER.encode_pending(CREATE.inbound, "resp_abc", CREATE.options, status="queued"))
    assert pending == frames[0]["response"] | {"status": "queued"}


def test_a_request_is_repeated_in_its_response() -> None:
    """Tools, choice, format and the rest come back as the client wrote them."""
    body: dict[str, Any] = {
        "model": "m",
        "input": "x",
        "tools": [
            {"type": "function", "name": "f", "description": None, "parameters": {"type": "object"}, "strict": True},
            {"type": "web_search"},
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto", "context": "all_turns"},
        "temperature": 0.5,
        "top_p": 0.25,
        "max_output_tokens": 7,
        "parallel_tool_calls": False,
        "safety_identifier": "u",
        "previous_response_id": "resp_0",
        "store": False,
        "background": True,
        "prompt_cache_key": "k",
        "truncation": "auto",
        "max_tool_calls": 3,
    }
    create = SERVER.decode_create(msgspec.json.encode(body))
    found = json.loads(SERVER.encode_pending(create.inbound, "resp_1", create.options))
    body["text"]["format"]["description"] = None  # the schema of Open Responses demands it
    assert {name: found[name] for name in body if name != "input"} == {k: v for k, v in body.items() if k != "input"}


def test_calls_and_reasoning_have_their_own_events() -> None:
    """Reasoning as a summary, calls with their arguments, each item with its own place and id."""
    frames = frames_of(
        list(
            unfold(
                answer(
                    Reasoning(text="hm", encrypted="e", id="rs_9", dialect=NAME),
                    ToolCall(id="call_1", name="f", arguments='{"a":1}'),
                    Refusal("no"),
                )
            )
        )
    )
    assert types(frames)[2:-1] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
    ]
    call = {
        "id": "fc_abc_1",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "f",
        "arguments": '{"a":1}',
    }
    assert frames[8]["item"] == call | {"status": "in_progress", "arguments": ""}
    assert frames[11]["item"] == call
    assert frames[10]["name"] == "f"
    assert [item["type"] for item in frames[-1]["response"]["output"]] == ["reasoning", "function_call", "message"]


def test_reasoning_without_words_has_no_summary() -> None:
    """A payload alone is an item, but no empty summary part is opened for it."""
    frames = frames_of(list(unfold(answer(Reasoning(encrypted="e", dialect="anthropic")))))
    assert types(frames)[2:-1] == ["output_item.added", "output_item.done"]


def test_text_that_was_never_streamed_is_still_told_as_a_delta() -> None:
    """A reader of deltas alone misses nothing."""
    events: list[Event] = [
        ItemStarted(index=0, kind="text"),
        ItemDone(index=0, part=Text("x")),
        Finished(reason=FinishReason.STOP),
    ]
    assert types(frames_of(events))[2:-1] == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]


def test_the_vendors_own_items_pass_and_those_of_others_do_not_show() -> None:
    """A hosted tool's item reaches the client as it came; a block of another vendor would mean nothing to it."""
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    parts = (Opaque(dialect="anthropic", value={"type": "x"}), Opaque(dialect=NAME, value=item), Text("so"))
    frames = frames_of(list(unfold(answer(*parts))))
    assert types(frames)[2:5] == ["output_item.added", "output_item.done", "output_item.added"]
    assert frames[2]["item"] == frames[3]["item"] == frames[-1]["response"]["output"][0] == item
    assert [frame["output_index"] for frame in frames[2:5]] == [0, 0, 1]


def test_a_picture_is_an_item_of_its_own() -> None:
    frames = frames_of(list(unfold(answer(Image(data=b"\x89PNG", media_type="image/png")))))
    item = frames[-1]["response"]["output"][0]
    assert (item["type"], item["result"], item["output_format"]) == ("image_generation_call", "iVBORw==", "png")


def test_a_lane_is_named_in_every_frame() -> None:
    """Named lanes have `stream_id` on each event, the default lane on none."""
    events = list(unfold(answer(Text("Hi"), ToolCall(id="c", name="f", arguments="{}"))))
    assert {frame.get("stream_id") for frame in frames_of(events, stream_id='a"b')} == {'a"b'}
    assert not any("stream_id" in frame for frame in frames_of(events))


# ---------------------------------------------------------------- sequence numbers


def log() -> list[Event]:
    """A log in which items interleave."""
    return [
        Started(model="m"),
        ItemStarted(index=0, kind="reasoning"),
        ReasoningDelta(0, "a"),
        ReasoningDelta(0, "b"),
        ItemStarted(index=1, kind="text"),
        *(TextDelta(1, letter) for letter in "héllo "),
        ItemStarted(index=2, kind="tool_call", id="c", name="f"),
        ToolCallDelta(2, '{"a"'),
        ItemDone(index=0, part=Reasoning(text="ab")),
        TextDelta(1, "!"),
        ToolCallDelta(2, ":1}"),
        ItemDone(index=1, part=Text("héllo !")),
        ItemDone(index=2, part=ToolCall(id="c", name="f", arguments='{"a":1}')),
        UsageReported(Usage(input_tokens=1, output_tokens=1)),
        Finished(reason=FinishReason.TOOL_CALLS, response=answer()),
    ]


@given(cuts=st.sets(st.integers(0, len(log()))), after=st.integers(-1, 40))
def test_numbers_depend_on_the_log_alone(cuts: set[int], after: int) -> None:
    """However the log is read in batches, a frame's number is the same; a joined delta has that of its last; and a
    reader that comes back after any number gets exactly the rest.
    """
    events = log()
    single = frames_of(events)
    by_number = {frame["sequence_number"]: frame for frame in single}
    assert list(by_number) == list(range(len(single)))

    encoder = SERVER.response_encoder(CREATE.inbound, "resp_abc", CREATE.options, starting_after=after)
    frames = encoder.start()
    edges = [0, *sorted(cuts), len(events)]
    for a, b in pairwise(edges):
        frames += encoder.encode(events[a:b])
    texts_seen: dict[str, str] = {}
    last = after
    for frame in (json.loads(frame.data) for frame in frames):
        number = frame["sequence_number"]
        if number == len(single) - 1 <= after:  # there is nothing to come, so the end is told again
            assert frame == single[-1]
            continue
        assert number > last
        covered = [by_number[n] for n in range(last + 1, number + 1)]
        if frame["type"].endswith(".delta"):
            assert {one["item_id"] for one in covered} == {frame["item_id"]}
            assert frame["delta"] == "".join(one["delta"] for one in covered)
            texts_seen[frame["item_id"]] = texts_seen.get(frame["item_id"], "") + frame["delta"]
        else:
            assert covered == [frame]
        last = number
    assert last == max(after, len(single) - 1)


def test_piled_up_deltas_of_one_item_are_one_frame() -> None:
    """A slow reader is sent fewer frames, not more memory."""
    encoder = SERVER.response_encoder(CREATE.inbound, "resp_abc")
    encoder.start()
    events: list[Event] = [ItemStarted(index=0, kind="text"), *(TextDelta(0, str(n)) for n in range(10))]
    frames = [json.loads(frame.data) for frame in encoder.encode(events)]
    assert types(frames) == ["output_item.added", "content_part.added", "output_text.delta"]
    assert (frames[-1]["delta"], frames[-1]["sequence_number"]) == ("0123456789", 13)


# ---------------------------------------------------------------- endings


@pytest.mark.parametrize(
    ("reason", "event", "status", "details"),
    [
        (FinishReason.STOP, "completed", "completed", None),
        (FinishReason.TOOL_CALLS, "completed", "completed", None),
        (FinishReason.LENGTH, "incomplete", "incomplete", {"reason": "max_output_tokens"}),
        (FinishReason.CONTENT_FILTER, "incomplete", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_a_finish_reason_is_told_as_a_status(
    reason: FinishReason, event: str, status: str, details: dict[str, str] | None
) -> None:
    """In the stream and in the whole response alike; an item that was cut says so itself."""
    response = answer(Text("a"), finish_reason=reason)
    last = frames_of(list(unfold(response)))[-1]
    assert last["type"] == f"response.{event}"
    body = last["response"]
    assert (body["status"], body["incomplete_details"], body["error"]) == (status, details, None)
    assert body["output"][0]["status"] == status
    assert (body["completed_at"] is None) is (status != "completed")
    assert json.loads(SERVER.encode_response(CREATE.inbound, response, CREATE.options)) == body


def broken(failure: Failure) -> list[Event]:
    partial = answer(Text("done"), Text("hal"), finish_reason=None)
    return [
        ItemStarted(index=0, kind="text"),
        ItemDone(index=0, part=Text("done")),
        ItemStarted(index=1, kind="text"),
        TextDelta(1, "hal"),
        ItemStarted(index=2, kind="tool_call", id="c", name="f"),
        ToolCallDelta(2, '{"path": "/'),
        Failed(failure=failure, response=partial),
    ]


def test_a_failure_keeps_what_there_was() -> None:
    """Whole items stay whole; broken text and half a tool call are there and marked."""
    last = frames_of(broken(Failure(kind=FailureKind.CRASHED, message="the provider crashed")))[-1]
    assert last["type"] == "response.failed"
    body = last["response"]
    assert (body["status"], body["error"]) == (
        "failed",
        {"code": "server_error", "message": "the provider crashed"},
    )
    *messages, call = body["output"]
    assert [(item["content"][0]["text"], item["status"]) for item in messages] == [
        ("done", "completed"),
        ("hal", "incomplete"),
    ]
    assert (call["type"], call["call_id"], call["status"]) == ("function_call", "c", "incomplete")
    assert body["llm_runtime"]["error"]["kind"] == "crashed"


def test_cancelled_is_incomplete_not_failed() -> None:
    last = frames_of(broken(Failure(kind=FailureKind.CANCELLED, message="cancelled")))[-1]
    assert last["type"] == "response.incomplete"
    body = last["response"]
    assert (body["status"], body["incomplete_details"], body["error"]) == ("cancelled", None, None)
    assert body["llm_runtime"]["incomplete_reason"] == "cancelled"
    assert [item["status"] for item in body["output"]] == ["completed", "incomplete", "incomplete"]


@pytest.mark.parametrize(
    "kind", [kind for kind in FailureKind if kind not in (FailureKind.CANCELLED, FailureKind.INTERRUPTED)]
)
def test_every_other_failure_has_its_code(kind: FailureKind) -> None:
    """The codes are of the API's closed list, with ours beside; a known wait is in the words that clients look for."""
    failure = Failure(kind=kind, message="so it is.", retry_after=2.0)
    body = frames_of(broken(failure))[-1]["response"]
    error, message = body["error"], "so it is. Please try again in 2s."
    assert error["message"] == message
    assert error["code"] in ("server_error", "rate_limit_exceeded", "invalid_prompt")
    assert (error["code"] == "rate_limit_exceeded") == (RULES[kind].status == 429)
    assert body["llm_runtime"]["error"] == {"kind": kind, "code": RULES[kind].code, "message": message}
    whole = json.loads(
        SERVER.encode_response(CREATE.inbound, answer(finish_reason=None), CREATE.options, failure=failure)
    )
    assert (whole["status"], whole["error"]) == ("failed", error)


def test_a_code_that_clients_of_this_api_know_is_kept() -> None:
    failure = Failure(kind=FailureKind.BAD_REQUEST, message="x", upstream_code="image_too_large")
    assert frames_of(broken(failure))[-1]["response"]["error"]["code"] == "image_too_large"


@pytest.mark.parametrize("kind", ["text", "tool_call"])
def test_the_end_of_an_item_agrees_with_the_end_of_the_answer(kind: str) -> None:
    """Also where the answer was cut at its length, which is not known when the item ends."""
    done: Part = Text("hal") if kind == "text" else ToolCall(id="c", name="f", arguments='{"a":1}')
    items = [*item_events(0, Text("first")), *item_events(1, done)]
    frames = frames_of([*items, Finished(reason=FinishReason.LENGTH, response=answer())])
    ended = [frame["item"] for frame in frames if frame["type"] == "response.output_item.done"]
    assert ended == frames[-1]["response"]["output"]
    assert [item["status"] for item in ended] == ["completed", "incomplete" if kind == "text" else "completed"]
    assert frames[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    events = [*items, Finished(reason=FinishReason.LENGTH, response=answer())]
    whole = json.loads(SERVER.encode_log(CREATE.inbound, "resp_abc", CREATE.options, events))
    assert whole == frames[-1]["response"]


def test_members_that_speak_at_once_share_a_frame_and_each_piece_can_still_be_resumed_from() -> None:
    pieces = [MemberDelta(member, f"{member}{number}") for number in range(3) for member in "ab"]
    events: list[Event] = [*pieces, *item_events(0, Text("x")), Finished(reason=FinishReason.STOP, response=answer())]
    encoder = SERVER.response_encoder(CREATE.inbound, "resp_abc", CREATE.options)
    together = [json.loads(each.data) for each in (*encoder.start(), *encoder.encode(events))]
    assert together[2]["type"] == "llm-runtime:member.deltas"
    assert together[2]["deltas"] == [{"member": "a", "delta": "a0a1a2"}, {"member": "b", "delta": "b0b1b2"}]
    assert together[2]["sequence_number"] == 7
    for after in range(-1, 8):
        encoder = SERVER.response_encoder(CREATE.inbound, "resp_abc", CREATE.options, starting_after=after)
        rest = [json.loads(each.data) for each in (*encoder.start(), *encoder.encode(events))]
        said = {"a": "", "b": ""}
        for frame in rest:
            for delta in frame.get("deltas") or [frame] * (frame["type"] == "llm-runtime:member.delta"):
                said[delta["member"]] += delta["delta"]
        left = pieces[max(0, after - 1) :]
        assert said == {name: "".join(each.text for each in left if each.member == name) for name in "ab"}


def test_a_refused_request_is_an_error_frame_on_its_lane() -> None:
    """Before `response.created`, over WebSocket: status, error object, the wait, the lane and the client's own id."""
    failure = Failure(kind=FailureKind.QUEUE_FULL, message="the queue is full", retry_after=0.4, param="model")
    frame = json.loads(SERVER.error_event(failure, stream_id="a", event_id="e"))
    assert frame == {
        "type": "error",
        "status": 429,
        "error": {"type": "rate_limit_error", "code": "queue_full", "message": "the queue is full", "param": "model",
                  "headers": {"retry-after": "1"}},
        "stream_id": "a",
        "event_id": "e",
    }  # fmt: skip
    plain = json.loads(SERVER.error_event(Failure(kind=FailureKind.CRASHED, message="x")))
    assert plain.keys() == {"type", "status", "error"}
    assert SERVER.encode_error(failure).status == 429


# ---------------------------------------------------------------- both directions


native = st.builds(
    Reasoning, text=st.just("") | texts, encrypted=tokens, id=tokens.map("rs_{}".format), dialect=st.just(NAME)
)
foreign = st.builds(
    Reasoning,
    text=texts,
    signature=st.none() | tokens,
    encrypted=tokens,
    id=st.none() | tokens,
    dialect=st.sampled_from((None, "anthropic")),
)
phased = st.builds(
    Text, texts, extra=st.sampled_from((None, {NAME: {"phase": "commentary"}}, {NAME: {"annotations": [{"a": 1}]}}))
)
calls = st.builds(ToolCall, id=tokens.map("call_{}".format), name=names, arguments=arguments) | st.builds(
    ToolCall, id=tokens, name=names, arguments=arguments, extra=st.just({NAME: {"namespace": "n"}})
)
pictures = st.builds(Image, data=st.binary(min_size=1), media_type=st.sampled_from(("image/png", "image/webp"))) | (
    st.just(Image(url="https://e.example/a.png"))
)
opaque = st.just(Opaque(dialect=NAME, value={"type": "web_search_call", "id": "ws_1", "status": "completed"}))
usages = st.none() | st.builds(
    Usage,
    input_tokens=st.integers(1, 99),
    output_tokens=st.integers(0, 99),
    cached_tokens=st.integers(0, 9),
    cache_write_tokens=st.integers(0, 9),
    reasoning_tokens=st.integers(0, 9),
)


@st.composite
def answers(draw: st.DrawFn) -> LLMResponse:
    parts: list[Part] = draw(
        st.lists(
            native | foreign | phased | calls | opaque | pictures | texts.map(Refusal),
            max_size=4,
            unique_by=lambda part: part.id if isinstance(part, ToolCall) else id(part),
        )
    )
    reason, raw = FinishReason.STOP, "completed"
    if any(isinstance(part, ToolCall) for part in parts):
        reason = FinishReason.TOOL_CALLS
    if any(isinstance(part, Refusal) for part in parts):
        reason = FinishReason.CONTENT_FILTER
    elif draw(st.booleans()):
        reason, raw = FinishReason.LENGTH, "max_output_tokens"
    usage = draw(usages)
    if usage is not None:  # searches are counted in the output, not in the usage
        usage = msgspec.structs.replace(usage, web_searches=sum(isinstance(part, Opaque) for part in parts))
    return answer(
        *parts,
        content="".join(part.text for part in parts if isinstance(part, Text)),
        usage=usage,
        finish_reason=reason,
        raw_finish_reason=raw,
        upstream_id="resp_abc",
    )


@given(response=answers(), piece=st.none() | st.integers(1, 3))
@settings(max_examples=60)
def test_an_answer_comes_back_as_it_was(response: LLMResponse, piece: int | None) -> None:
    """decode(encode(x)) == x: streamed in any pieces, and whole. Signatures and payloads of other vendors too."""
    body = encode(SERVER.response_encoder(CREATE.inbound, "resp_abc"), response, piece=piece)
    events = decode(make, body)
    check_order(events)
    # The stream names the model that was asked for, since it begins before the vendor says its own.
    assert same_answer(fold(events), msgspec.structs.replace(response, model="m"))
    whole = SERVER.encode_response(CREATE.inbound, response)
    assert same_answer(fold(CLIENT.decode_response(REQUEST, WireResponse(200, body=whole))), response)


def test_any_split_of_a_stream_decodes_alike_and_no_cut_is_a_success() -> None:
    """Byte by byte, in two anywhere, and cut at every event."""
    response = answer(
        Reasoning(text="hm", encrypted="e", id="rs_1", dialect=NAME),
        Text("né😀"),
        ToolCall(id="c", name="f", arguments='{"a":1}'),
        usage=Usage(input_tokens=1, output_tokens=1),
        finish_reason=FinishReason.TOOL_CALLS,
    )
    body = encode(SERVER.response_encoder(CREATE.inbound, "resp_abc"), response, piece=2)
    check_all_splits(make, body)
    check_truncation(make, body, body.rindex(b"data:"))
    cut = decode(make, body[: body.rindex(b"event:")] + b"data: [DONE]\n\n")
    assert isinstance(cut[-1], Failed)
    assert (cut[-1].failure.kind, cut[-1].failure.partial) == (FailureKind.TRUNCATED, True)


def sse(*events: dict[str, Any]) -> bytes:
    return encode_sse([Frame(event.get("type"), msgspec.json.encode(event)) for event in events])


CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "x", "status": "in_progress"}}


def done(status: str = "completed", /, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": {"id": "resp_1", "model": "x", "status": status, **fields}}


@pytest.mark.parametrize(
    ("error", "kind", "wait"),
    [
        ({"type": "error", "error": {"type": "server_error", "code": "server_error", "message": "x"}},
         FailureKind.SERVER_ERROR, None),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "Please try again in 1.5s."},
         FailureKind.RATE_LIMITED, 1.5),
        ({"type": "error", "error": {"type": "invalid_request_error", "code": "odd", "message": "x"}},
         FailureKind.BAD_REQUEST, None),
        ({"error": {"message": "x", "code": "context_length_exceeded"}}, FailureKind.CONTEXT_LENGTH, None),
        (done("failed", error={"code": "server_error", "message": "x"}), FailureKind.SERVER_ERROR, None),
        (done("failed", error={"code": "invalid_prompt", "message": "x"}), FailureKind.CONTENT_FILTER, None),
        (done("failed", error={"code": "image_too_large", "message": "x"}), FailureKind.BAD_REQUEST, None),
        (done("failed", error={"code": "insufficient_quota", "message": "x"}), FailureKind.QUOTA, None),
        (done("failed", error=None), FailureKind.SERVER_ERROR, None),
        (done("cancelled"), FailureKind.CANCELLED, None),
        (done("completed", status="queued"), FailureKind.PROTOCOL, None),
    ],
)  # fmt: skip
def test_errors_inside_a_stream_have_their_kind(error: dict[str, Any], kind: FailureKind, wait: float | None) -> None:
    """Nested, flat, and in the last snapshot; after it there is nothing more."""
    events = decode(make, sse(CREATED, error, done()))
    assert isinstance(events[-1], Failed)
    assert (events[-1].failure.kind, events[-1].failure.retry_after) == (kind, wait)
    assert len([event for event in events if isinstance(event, Failed | Finished)]) == 1


def test_what_a_server_leaves_out_is_taken_from_the_last_snapshot() -> None:
    """The shortest stream that clients accept is `response.completed` alone."""
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}
    whole = fold(decode(make, sse(done(output=[item]))))
    assert (whole.content, whole.finish_reason, whole.model) == ("hi", FinishReason.STOP, "x")
    delta = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "h"}
    events = decode(make, sse(CREATED, delta, {**delta, "delta": "o"}, done(output=[])))
    check_order(events)
    assert fold(events).content == "ho"
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    events = decode(
        make,
        sse(
            CREATED,
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"},
            done(),
        ),
    )
    assert events[-2:] == [
        ItemDone(index=0, part=ToolCall(id="c", name="f", arguments="{}")),
        Finished(reason=FinishReason.TOOL_CALLS, raw_reason="completed"),
    ]


def test_what_comes_after_an_item_is_done_is_not_another_item() -> None:
    """A repeated delta adds nothing."""
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "h"}]}
    delta = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "h"}
    ended = {"type": "response.output_item.done", "output_index": 0, "item": item}
    assert fold(decode(make, sse(CREATED, delta, ended, delta, done()))).output == (Text("h"),)


def test_unknown_events_and_odd_fields_do_no_harm() -> None:
    """Keepalives, types of tomorrow, nulls where text should be, numbers as strings."""
    odd = {"type": "response.output_text.delta", "output_index": 0, "content_index": "0", "delta": None, "x": [1]}
    events = decode(
        make,
        b": hello\n\n"
        + sse(
            {"type": "keepalive", "sequence_number": 3},
            CREATED,
            {"type": "response.tomorrow", "delta": {"not": "text"}},
            odd,
            odd | {"delta": "a"},
            done(usage={"input_tokens": 1.0, "output_tokens": 2, "total_tokens": 3, "cost": "x"}, output=None),
        ),
    )
    assert fold(events).content == "a"
    assert fold(events).usage == Usage(input_tokens=1, output_tokens=2)


@pytest.mark.parametrize(
    "data",
    [
        b"data: {\n\n",
        b"data: 3\n\n",
        b'data: {"type":"response.output_item.done","item":{"type":"function_call"}}\n\n',
    ],
)
def test_what_cannot_be_understood_is_a_protocol_failure(data: bytes) -> None:
    """Never an exception, never a silent gap."""
    events = decode(make, sse(CREATED) + data + sse(done()))
    assert isinstance(events[-1], Failed)
    assert events[-1].failure.kind == FailureKind.PROTOCOL


def test_a_cut_tool_call_is_never_handed_over() -> None:
    """`max_output_tokens` in the middle of the arguments: told as length, without the half call."""
    item = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c",
        "name": "f",
        "arguments": "",
        "status": "in_progress",
    }
    events = decode(
        make,
        sse(
            CREATED,
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a'},
            {
                "type": "response.output_item.done",
                "output_index": 0,
                "item": item | {"status": "incomplete", "arguments": '{"a'},
            },
            done(
                "incomplete",
                incomplete_details={"reason": "max_output_tokens"},
                output=[item | {"status": "incomplete", "arguments": '{"a'}],
                usage={"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
            ),
        ),
    )
    assert not any(isinstance(event, ItemDone) for event in events)
    assert events[-1] == Finished(reason=FinishReason.LENGTH, raw_reason="max_output_tokens")
    assert not any(isinstance(event, UsageReported) for event in events)


def test_an_unknown_way_of_ending_keeps_the_vendors_word() -> None:
    events = decode(make, sse(CREATED, done("incomplete", incomplete_details={"reason": "steered"})))
    assert events[-1] == Finished(reason=FinishReason.UNKNOWN, raw_reason="steered")


def test_json_in_place_of_a_stream_is_read() -> None:
    """A server that does not stream answers all the same; an error stays an error."""
    body = msgspec.json.encode(done(output=[])["response"])
    assert isinstance(decode(make, body)[-1], Finished)
    error = decode(make, b'{"error":{"message":"x","code":"insufficient_quota"}}')[-1]
    assert isinstance(error, Failed)
    assert error.failure.kind == FailureKind.QUOTA
    assert decode(make, b"<html>")[-1].failure.kind == FailureKind.TRUNCATED  # type: ignore[union-attr]


event_types = st.sampled_from((
    "response.created", "response.output_item.added", "response.content_part.added", "response.output_text.delta",
    "response.refusal.delta", "response.reasoning_summary_text.delta", "response.function_call_arguments.delta",
    "response.output_item.done", "response.completed", "response.incomplete", "response.failed", "error", "odd",
))  # fmt: skip
item_types = st.sampled_from(("message", "reasoning", "function_call", "image_generation_call", "web_search_call"))
loose_items = st.dictionaries(
    st.sampled_from(("type", "role", "id", "call_id", "name", "arguments", "content", "summary", "status", "result")),
    item_types | json_values | st.just([{"type": "output_text", "text": "x"}]),
)
loose_responses = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "status": st.sampled_from(("completed", "incomplete", "failed")) | json_values,
        "output": st.lists(loose_items, max_size=2) | json_values,
        "usage": json_values,
        "error": json_values,
        "incomplete_details": json_values,
    },
)
loose_events = st.fixed_dictionaries(
    {"type": event_types},
    optional={
        "output_index": st.integers(0, 2) | json_values,
        "content_index": st.integers(0, 2) | json_values,
        "summary_index": json_values,
        "delta": json_values,
        "item": loose_items,
        "part": loose_items,
        "response": loose_responses | json_values,
        "error": json_values,
    },
)


@given(events=st.lists(loose_events, max_size=8))
@settings(max_examples=80)
def test_whatever_a_server_sends_there_is_one_proper_end(events: list[dict[str, Any]]) -> None:
    """No exception, the promised order, exactly one terminal event."""
    check_order(decode(make, sse(*events)))


@given(body=loose_responses | json_values | st.binary(max_size=20))
def test_whatever_a_whole_body_is_there_is_one_proper_end(body: Any) -> None:
    """The same for answers that come whole."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    check_order(CLIENT.decode_response(REQUEST, WireResponse(200, body=data)))


def test_parts_of_a_summary_are_joined_by_a_blank_line() -> None:
    """Streamed or whole, several summary parts are one text."""
    base = {"output_index": 0, "item_id": "rs_1"}
    parts = [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]
    deltas = [
        {"type": "response.reasoning_summary_text.delta", **base, "summary_index": at, "delta": text}
        for at, text in enumerate("ab")
    ]
    item = {"type": "reasoning", "id": "rs_1", "summary": parts}
    events = decode(
        make,
        sse(
            CREATED,
            {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "rs_1"}},
            *deltas,
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            done(),
        ),
    )
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "a\n\nb"
    assert fold(events).reasoning == "a\n\nb"


def test_options_default_to_the_apis_own() -> None:
    assert ResponseOptions() == ResponseOptions(store=True, background=False, generate=True)


@pytest.mark.parametrize("delta", [TextDelta, ReasoningDelta])
def test_a_reader_inside_a_joined_delta_gets_exactly_the_rest(delta: type[TextDelta | ReasoningDelta]) -> None:
    """The run log joins what lies far behind. From whatever number a reader goes on, it gets what follows, once."""
    pieces = [f"{number} " for number in range(40)]
    kind = "text" if delta is TextDelta else "reasoning"
    head: list[Event] = [ItemStarted(index=0, kind=kind)]  # type: ignore[arg-type]
    apart: list[Event] = [*head, *(delta(0, piece) for piece in pieces)]
    joined: list[Event] = [*head, join([delta(0, piece) for piece in pieces])]
    numbers = {frame["sequence_number"]: frame for frame in frames_of(apart)}

    assert [frame["sequence_number"] for frame in frames_of(joined)][-1] == max(numbers)
    for after in range(-1, max(numbers) + 1):
        told = frames_of(joined, starting_after=after)
        rest = [frame for number, frame in numbers.items() if number > after]
        assert text_in(told) == text_in(rest)
        assert [frame["type"] for frame in told if "delta" not in frame["type"]] == [
            frame["type"] for frame in rest if "delta" not in frame["type"]
        ]
        assert [frame["sequence_number"] for frame in told[-1:]] == [frame["sequence_number"] for frame in rest[-1:]]


def text_in(frames: list[dict[str, Any]]) -> str:
    return "".join(frame.get("delta", "") for frame in frames)


@pytest.mark.parametrize("kind", [0, "", None, []])
def test_a_message_whose_type_says_nothing_keeps_its_text(kind: Any) -> None:
    item = {"type": kind, "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]}
    body = json.dumps({"id": "resp_1", "object": "response", "status": "completed", "output": [item]}).encode()
    assert fold(CLIENT.decode_response(REQUEST, WireResponse(200, body=body))).content == "Hello."
