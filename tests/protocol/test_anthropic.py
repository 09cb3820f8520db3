"""Anthropic's answers and errors, in both directions; streams are written here by the wire's description."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.content import Citation, Image, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from llm_protocol.dialect import ClientRequest, ModelInfo, WireResponse
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
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.anthropic import Anthropic, AnthropicServer
from support.adapting import encoded
from support.conversations import arguments, json_objects, names, texts, tokens
from support.mutations import mutated
from support.streams import check_all_splits, check_order, check_truncation, decode, encode, fold, same_answer

CLIENT, SERVER = Anthropic(), AnthropicServer()
REQUEST = ChatRequest(model="claude-x", messages=())
USAGE = {"input_tokens": 5, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 1}
MESSAGE = {"id": "msg_1", "model": "claude-x", "role": "assistant", "content": [], "usage": USAGE}
START = {"type": "message_start", "message": MESSAGE}
STOP = {"type": "message_stop"}


def sse(*frames: dict[str, Any], crlf: bool = False) -> bytes:
    text = "".join(f"event: {frame['type']}\ndata: {json.dumps(frame)}   \n\n" for frame in frames)
    return (text.replace("\n", "\r\n") if crlf else text).encode()


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text_block(index: int, *pieces: str) -> list[dict[str, Any]]:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def call_block(index: int, *pieces: str) -> list[dict[str, Any]]:
    start = {"type": "tool_use", "id": f"toolu_{index}", "name": "f", "input": {}}
    return block(index, start, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))


def message_delta(reason: str | None, output: int = 9, **delta: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, **delta}, "usage": {"output_tokens": output}}


def make() -> Any:
    return CLIENT.stream_decoder(REQUEST)


def told(*frames: dict[str, Any]) -> list[Event]:
    events = decode(make, sse(*frames))
    check_order(events)
    return events


# ---------------------------------------------------------------- streams


def test_the_events_of_a_stream() -> None:
    """Every block is an item: its start, its deltas, its whole; usage is cumulative and total."""
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    events = told(
        START,
        {"type": "ping"},
        *block(
            0, thinking, {"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "s"}
        ),
        *text_block(1, "Hel", "", "lo"),
        *call_block(2, "", '{"a"', ":1}"),
        message_delta("tool_use"),
        STOP,
    )
    first = Usage(input_tokens=10, output_tokens=1, cached_tokens=3, cache_write_tokens=2)
    assert events == [
        Started(model="claude-x", upstream_id="msg_1"),
        UsageReported(first, final=False),
        ItemStarted(index=0, kind="reasoning"),
        ReasoningDelta(0, "hm"),
        ItemDone(index=0, part=Reasoning(text="hm", signature="s", dialect="anthropic")),
        ItemStarted(index=1, kind="text"),
        TextDelta(1, "Hel"),
        TextDelta(1, "lo"),
        ItemDone(index=1, part=Text("Hello")),
        ItemStarted(index=2, kind="tool_call", id="toolu_2", name="f"),
        ToolCallDelta(2, '{"a"'),
        ToolCallDelta(2, ":1}"),
        UsageReported(msgspec.structs.replace(first, output_tokens=9)),
        ItemDone(index=2, part=ToolCall(id="toolu_2", name="f", arguments='{"a":1}')),
        Finished(reason=FinishReason.TOOL_CALLS, raw_reason="tool_use"),
    ]


@pytest.mark.parametrize("crlf", [False, True])
def test_any_split_gives_the_same_events(crlf: bool) -> None:
    """Also in the middle of a character, and with other line ends."""
    frames = (START, *text_block(0, "Grüße 👋", "\u2028x"), *call_block(1), message_delta("tool_use"), STOP)
    check_all_splits(make, sse(*frames, crlf=crlf))


def test_a_cut_stream_is_never_a_success() -> None:
    """Only message_stop is: not even the stop reason before it."""
    body = sse(START, *text_block(0, "a"), *call_block(1, "{}"), message_delta("end_turn"), STOP)
    check_truncation(make, body, body.rindex(b"event: message_stop"))
    cut = decode(make, body[: body.rindex(b"event: message_stop")])[-1]
    assert isinstance(cut, Failed)
    assert (cut.failure.kind, cut.failure.partial) == (FailureKind.TRUNCATED, True)


@pytest.mark.parametrize("arguments", [(), ('{"a": ',), ('{"a": 1}',)])
def test_a_tool_call_in_which_the_answer_hit_its_limit_is_not_done(arguments: tuple[str, ...]) -> None:
    """Its block is closed like any other; only the stop reason tells. The text before it is whole."""
    events = told(START, *text_block(0, "a"), *call_block(1, *arguments), message_delta("max_tokens"), STOP)
    assert events[-1] == Finished(reason=FinishReason.LENGTH, raw_reason="max_tokens")
    assert fold(events).output == (Text("a"),)


def test_a_call_without_fragments_has_empty_arguments() -> None:
    """And its deltas add up to them, as for any other call."""
    events = told(START, *call_block(0, ""), message_delta("tool_use"), STOP)
    assert ToolCallDelta(0, "{}") in events
    assert fold(events).tool_calls[0].arguments == "{}"


def test_of_several_tool_calls_only_the_last_can_be_cut() -> None:
    """Those before it were whole."""
    events = told(START, *call_block(0, "{}"), *call_block(1, "{"), message_delta("max_tokens"), STOP)
    assert [call.id for call in fold(events).tool_calls] == ["toolu_0"]


def test_a_server_tool_call_in_which_the_answer_hit_its_limit_is_not_done() -> None:
    """It cannot be sent back either."""
    start = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    cut = block(1, start, {"type": "input_json_delta", "partial_json": '{"q'})
    events = told(START, *text_block(0, "a"), *cut, message_delta("max_tokens"), STOP)
    assert fold(events).output == (Text("a"),)
    whole = {**MESSAGE, "content": [{"type": "text", "text": "a"}, start], "stop_reason": "max_tokens"}
    events = CLIENT.decode_response(REQUEST, WireResponse(200, (), json.dumps(whole).encode()))
    assert fold(events).output == (Text("a"),)


def test_a_refusal_gives_its_explanation() -> None:
    """An ordinary end, with the reason content_filter and the vendor's words."""
    details = {"type": "refusal", "category": "cyber", "explanation": "No."}
    events = told(START, *text_block(0, "a"), message_delta("refusal", stop_details=details), STOP)
    answer = fold(events)
    assert (answer.finish_reason, answer.refusal) == (FinishReason.CONTENT_FILTER, "No.")


def test_unknown_things_survive() -> None:
    """Unknown events and deltas are skipped; unknown blocks, fields and reasons are kept."""
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    answer = fold(
        told(
            START,
            {"type": "brand_new", "x": 1},
            *block(0, search, {"type": "input_json_delta", "partial_json": '{"q":"x"}'}, {"type": "new_delta", "x": 1}),
            *block(1, {"type": "text", "text": "H", "new": 1}, {"type": "citations_delta", "citation": {"url": "u"}}),
            message_delta("brand_new_reason"),
            STOP,
        )
    )
    assert answer.output == (
        Opaque(dialect="anthropic", value={**search, "input": {"q": "x"}}),
        Text("H", extra={"anthropic": {"new": 1, "citations": [{"url": "u"}]}}, citations=(Citation(url="u"),)),
    )
    assert (answer.finish_reason, answer.raw_finish_reason) == (FinishReason.UNKNOWN, "brand_new_reason")


@pytest.mark.parametrize(
    "frames",
    [
        [START, START | {"message": {**MESSAGE, "id": "another"}}],
        [STOP],
        [START, {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}],
        [START, *text_block(0, "x")[:1], {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}}],
        [START, *block(0, {"type": "text", "text": ""}, {"type": "thinking_delta", "thinking": "x"})],
        [START, *text_block(0)[:1], *text_block(0)[:1]],
        [
            START,
            {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": {}, "name": "f"}},
        ],
        [START, {"type": "message_delta", "delta": 3}],
        [{"type": "message_start"}],
    ],
)
def test_malformed_streams_are_protocol_failures(frames: list[dict[str, Any]]) -> None:
    """Never an exception, never a success."""
    last = told(*frames, message_delta("end_turn"), STOP)[-1]
    assert isinstance(last, Failed)
    assert last.failure.kind == FailureKind.PROTOCOL


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", FailureKind.TRUNCATED),
        (b"event: message_start\ndata: {garbage\n\n", FailureKind.PROTOCOL),
        (b"data: " + b"x" * (5 << 20), FailureKind.ANSWER_TOO_LARGE),
        (b"<html>Bad gateway</html>", FailureKind.PROTOCOL),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', FailureKind.OVERLOADED),
    ],
)
def test_what_is_no_stream_fails(body: bytes, kind: FailureKind) -> None:
    """With the right kind."""
    [last] = decode(make, body)
    assert isinstance(last, Failed)
    assert last.failure.kind == kind


def test_an_error_in_mid_stream_ends_it() -> None:
    """With its own kind; nothing comes after it."""
    error = {"type": "error", "error": {"details": None, "type": "overloaded_error", "message": "Overloaded"}}
    events = told(START, *text_block(0, "a"), error, message_delta("end_turn"), STOP)
    assert events[-1] == Failed(
        failure=Failure(
            kind=FailureKind.OVERLOADED, message="Overloaded", partial=True, upstream_code="overloaded_error"
        )
    )


def test_lone_surrogates_do_not_break_a_stream() -> None:
    """Tokenisers cut emoji in two; the halves are replaced."""
    delta = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\\ud83d"}}'
    body = sse(START, *text_block(0)[:1]) + b"event: content_block_delta\ndata: " + delta + b"\n\n"
    assert TextDelta(0, "a\ufffd") in decode(make, body)


@given(st.binary(max_size=200))
def test_garbage_never_raises(data: bytes) -> None:
    """A decoder of a peer's bytes answers with a failure."""
    assert isinstance(decode(make, data)[-1], Failed)
    assert isinstance(CLIENT.decode_response(REQUEST, WireResponse(200, (), data))[-1], Failed)
    assert CLIENT.decode_error(WireResponse(500, (), data)).kind == FailureKind.SERVER_ERROR


FRAMES = [
    START,
    *block(
        0,
        {"type": "thinking", "thinking": "a", "signature": "b"},
        {"type": "thinking_delta", "thinking": "hm"},
        {"type": "signature_delta", "signature": "s"},
    ),
    *block(1, {"type": "text", "text": "a", "citations": [{}]}, {"type": "citations_delta", "citation": {"url": "u"}}),
    *call_block(2, '{"a":', "1}"),
    *block(3, {"type": "server_tool_use", "input": {}}, {"type": "input_json_delta", "partial_json": "{}"}),
    message_delta("refusal", stop_details={"type": "refusal", "explanation": "No."}),
    {"type": "error", "error": {"type": "api_error", "message": "m", "details": {"error_code": "c"}}},
]


@given(mutated(FRAMES))
def test_odd_streams_never_raise(frames: Any) -> None:
    """A stream in which anything is anything else."""
    body = "".join(f"data: {json.dumps(frame)}\n\n" for frame in (frames if isinstance(frames, list) else [frames]))
    check_order(decode(make, body.encode()))


WHOLE = {
    "id": "m",
    "model": "x",
    "stop_reason": "refusal",
    "stop_details": {"type": "refusal", "explanation": "No."},
    "usage": {**USAGE, "output_tokens_details": {"thinking_tokens": 1}},
    "content": [
        {"type": "thinking", "thinking": "a", "signature": "llm-runtime:e30="},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "a", "citations": []},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]},
    ],
}
ERROR = {"type": "error", "error": {"type": "api_error", "message": "m", "details": {"error_code": "c"}}}
LIST = {"data": [{"id": "a", "created_at": "2026-01-01", "max_tokens": 1}], "has_more": True, "last_id": "a"}


@given(mutated(WHOLE), mutated(ERROR), mutated(LIST))
def test_odd_answers_never_raise(whole: Any, error: Any, models: Any) -> None:
    """Neither whole answers, nor errors, nor model lists."""
    check_order(CLIENT.decode_response(REQUEST, WireResponse(200, (), json.dumps(whole).encode())))
    CLIENT.decode_error(WireResponse(400, (), json.dumps(error).encode()))
    with contextlib.suppress(ProtocolError):
        CLIENT.decode_models(json.dumps(models).encode())


# ---------------------------------------------------------------- whole answers


def test_a_whole_answer_with_a_cut_tool_call() -> None:
    """As in a stream."""
    content = [{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "name": "f", "input": {}}]
    body = {"id": "m", "model": "x", "content": content, "stop_reason": "max_tokens", "usage": USAGE}
    events = CLIENT.decode_response(REQUEST, WireResponse(200, (), json.dumps(body).encode()))
    check_order(events)
    assert fold(events).output == (Text("a"),)


@pytest.mark.parametrize("body", [b"{}", b'{"content":[1]}', b"[]", b"{"])
def test_a_malformed_answer_is_a_protocol_failure(body: bytes) -> None:
    """Never an exception."""
    [failed] = CLIENT.decode_response(REQUEST, WireResponse(200, (), body))
    assert isinstance(failed, Failed)
    assert failed.failure.kind == FailureKind.PROTOCOL


def test_a_model_list_that_is_none() -> None:
    """Is a `ProtocolError`."""
    with pytest.raises(ProtocolError):
        CLIENT.decode_models(b'{"models": []}')


def test_the_next_page_follows_the_last_id() -> None:
    """Only while there is more."""
    body = {"data": [{"id": "a", "created_at": "2026-01-01T00:00:00Z"}], "has_more": True, "last_id": "a"}
    page = CLIENT.decode_models(json.dumps(body).encode())
    assert (page.models[0].created, page.next) == (1767225600, "a")


# ---------------------------------------------------------------- errors


def failure(status: int, type_: str, message: str = "m", *headers: tuple[str, str], **details: Any) -> Failure:
    body = {"type": "error", "error": {"type": type_, "message": message, "details": details or None}}
    return CLIENT.decode_error(WireResponse(status, headers, json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("status", "type_", "message", "kind"),
    [
        (400, "invalid_request_error", "max_tokens: Field required", FailureKind.BAD_REQUEST),
        (400, "invalid_request_error", "temperature: Extra inputs are not permitted", FailureKind.UNSUPPORTED),
        (400, "invalid_request_error", "prompt is too long: 3 tokens > 2 maximum", FailureKind.CONTEXT_LENGTH),
        (400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2 > 2",
            FailureKind.CONTEXT_LENGTH),
        (400, "invalid_request_error", "Your credit balance is too low to access the API", FailureKind.QUOTA),
        (400, "invalid_request_error", "Output blocked by content filtering policy", FailureKind.CONTENT_FILTER),
        (401, "authentication_error", "invalid x-api-key", FailureKind.AUTH),
        (402, "billing_error", "pay", FailureKind.QUOTA),
        (403, "permission_error", "no", FailureKind.AUTH),
        (404, "not_found_error", "model: x", FailureKind.MODEL_NOT_FOUND),
        (404, "not_found_error", "file file_1 not found", FailureKind.BAD_REQUEST),
        (413, "request_too_large", "too large", FailureKind.CONTEXT_LENGTH),
        (429, "rate_limit_error", "slow down", FailureKind.RATE_LIMITED),
        (500, "api_error", "oops", FailureKind.SERVER_ERROR),
        (504, "timeout_error", "slow", FailureKind.SERVER_ERROR),
        (529, "overloaded_error", "Overloaded", FailureKind.OVERLOADED),
        (418, "new_error", "?", FailureKind.BAD_REQUEST),
    ],
)  # fmt: skip
def test_kinds_of_errors(status: int, type_: str, message: str, kind: FailureKind) -> None:
    """By type, by sentence where the type says nothing, by status where the type is not known."""
    found = failure(status, type_, message)
    assert (found.kind, found.upstream_status, found.message) == (kind, status, message)


def test_the_field_at_fault_is_named() -> None:
    """Where the vendor's sentence names it."""
    assert failure(400, "invalid_request_error", "temperature: Extra inputs are not permitted").param == "temperature"
    assert failure(400, "invalid_request_error", "messages.0.content: bad").param == "messages.0.content"
    assert failure(400, "invalid_request_error", "Something is wrong").param is None


def test_quota_is_told_from_rate() -> None:
    """By code, and by the vendor's word that a retry is of no use."""
    spent = failure(429, "rate_limit_error", error_code="enforced_spend_limit_reached")
    assert spent.kind == FailureKind.QUOTA
    ramp = failure(429, "rate_limit_error", "m", ("retry-after", "7"), error_code="ramp_limit_exceeded")
    assert (ramp.kind, ramp.retry_after) == (FailureKind.RATE_LIMITED, 7.0)
    assert failure(429, "rate_limit_error", "m", ("x-should-retry", "false")).kind == FailureKind.QUOTA
    assert failure(529, "overloaded_error", "m", ("x-should-retry", "true")).kind == FailureKind.OVERLOADED


def test_an_anthropic_limit_is_the_accounts_or_a_models() -> None:
    """Money is the account's; a limit whose sentence names a model is that model's."""
    for code in ("enforced_spend_limit_reached", "contract_spend_limit_reached"):
        assert failure(429, "rate_limit_error", error_code=code).account_wide is True
    assert failure(402, "billing_error", "pay").account_wide is True
    for message in ("Your credit balance is too low", "You have reached your specified workspace API usage limits."):
        assert failure(400, "invalid_request_error", message).account_wide is True
    said = "This request would exceed your organization's rate limit of 30,000 input tokens per minute"
    model = f"{said} (org: 1, model: claude-x)."
    assert failure(429, "rate_limit_error", model).account_wide is False
    stubborn = failure(429, "rate_limit_error", model, ("x-should-retry", "false"))
    assert (stubborn.kind, stubborn.account_wide) == (FailureKind.QUOTA, False)
    assert failure(429, "rate_limit_error", "slow down").account_wide is None
    assert failure(400, "invalid_request_error", "model: bad").account_wide is None


def test_limits_need_no_equal_clocks() -> None:
    """Resets are counted from the vendor's own date."""
    headers = (
        ("date", "Tue, 26 Mar 2024 19:59:59 GMT"),
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("anthropic-ratelimit-requests-reset", "2024-03-26T20:00:09Z"),
        ("anthropic-ratelimit-input-tokens-limit", "100"),
        ("anthropic-ratelimit-input-tokens-remaining", "40"),
    )
    limits = CLIENT.rate_limits(headers)
    assert limits is not None
    assert (limits.requests_remaining, limits.requests_reset_s) == (0, 10.0)
    assert (limits.tokens_limit, limits.tokens_remaining) == (100, 40)
    assert CLIENT.rate_limits((("date", "x"),)) is None


def test_no_key_in_a_message() -> None:
    """Whatever the vendor repeats."""
    assert "sk-ant" not in failure(401, "authentication_error", "invalid x-api-key: sk-ant-api03-abcdefgh").message


@pytest.mark.parametrize("kind", list(FailureKind))
def test_our_failures_survive_the_wire(kind: FailureKind) -> None:
    """Status and shape are the vendor's, so its SDK raises the class it should; the code tells us the kind."""
    given = Failure(kind=kind, message="what is wrong", retry_after=1.5)
    wire = SERVER.encode_error(given)
    assert wire.status == RULES[kind].status
    body = json.loads(wire.body)
    assert (body["type"], body["error"]["message"]) == ("error", "what is wrong")
    back = CLIENT.decode_error(wire)
    assert RULES[back.kind].code == RULES[kind].code
    assert back.retry_after == 2.0
    stream = SERVER.response_encoder(ClientRequest(REQUEST), "msg_1").encode([Failed(failure=given)])
    assert json.loads(stream[-1].data) == body


# ---------------------------------------------------------------- the server side

texts_ = texts.map(Text) | st.builds(
    Text, texts, extra=st.builds(lambda c: {"anthropic": {"citations": [c]}}, json_objects)
)
parts: st.SearchStrategy[Part] = (
    texts_
    | st.builds(Reasoning, text=texts, signature=tokens, dialect=st.just("anthropic"))
    | st.builds(Reasoning, encrypted=tokens, dialect=st.just("anthropic"))
    | st.builds(Reasoning, text=texts | st.just(""), encrypted=tokens, id=tokens, dialect=st.just("openai_responses"))
    | st.builds(ToolCall, id=tokens, name=names, arguments=arguments)
    | st.builds(Opaque, dialect=st.just("anthropic"), value=st.just({"type": "web_search_tool_result", "content": []}))
)
usages = st.builds(
    Usage,
    input_tokens=st.integers(20, 99),
    output_tokens=st.integers(0, 99),
    cached_tokens=st.integers(0, 9),
    cache_write_tokens=st.integers(0, 9),
    reasoning_tokens=st.integers(0, 9),
)
ends = st.sampled_from(
    (
        (FinishReason.STOP, "end_turn"),
        (FinishReason.STOP, "stop_sequence"),
        (FinishReason.TOOL_CALLS, "tool_use"),
        (FinishReason.CONTENT_FILTER, "refusal"),
    )
)


@st.composite
def answers(draw: st.DrawFn) -> LLMResponse:
    output = tuple(draw(st.lists(parts, max_size=4, unique_by=lambda part: getattr(part, "id", None) or id(part))))
    has_calls = any(isinstance(part, ToolCall) for part in output)
    reason, raw = draw(ends)
    if has_calls != (reason is FinishReason.TOOL_CALLS) and reason is not FinishReason.CONTENT_FILTER:
        reason, raw = (FinishReason.TOOL_CALLS, "tool_use") if has_calls else (FinishReason.STOP, "end_turn")
    if reason == FinishReason.CONTENT_FILTER:
        output = (*output, Refusal(draw(texts)))
    return LLMResponse(
        request_id="r",
        response_id="msg_9",
        upstream_id="msg_9",
        provider="p",
        model="claude-x",
        content="".join(part.text for part in output if isinstance(part, Text)),
        output=output,
        usage=draw(usages),
        finish_reason=reason,
        raw_finish_reason=raw,
    )


@given(answers(), st.none() | st.integers(1, 5))
def test_answers_survive_the_stream(answer: LLMResponse, piece: int | None) -> None:
    """``decode(encode(x)) == x``, in any pieces, foreign reasoning included."""
    body = encode(SERVER.response_encoder(ClientRequest(REQUEST), "msg_9"), answer, piece=piece)
    events = decode(make, body)
    check_order(events)
    assert same_answer(fold(events), answer)


@given(answers())
def test_whole_answers_survive(answer: LLMResponse) -> None:
    """The same for whole answers, and they decode to what the stream would."""
    body = SERVER.encode_response(ClientRequest(REQUEST), answer)
    events = CLIENT.decode_response(REQUEST, WireResponse(200, (), body))
    check_order(events)
    assert same_answer(fold(events), answer)


def test_interleaved_items_come_one_after_the_other() -> None:
    """The wire has one block open at a time; adjacent deltas are joined."""
    encoder = SERVER.response_encoder(ClientRequest(REQUEST), "msg_1")
    frames = encoder.encode(
        [
            Started(model="gpt"),
            ItemStarted(index=0, kind="tool_call", id="a", name="f"),
            ItemStarted(index=1, kind="tool_call", id="b", name="g"),
            ToolCallDelta(1, "{"),
            ToolCallDelta(0, "{"),
            ToolCallDelta(0, "}"),
            ToolCallDelta(1, "}"),
            ItemDone(index=1, part=ToolCall(id="b", name="g")),
            ItemDone(index=0, part=ToolCall(id="a", name="f")),
            Finished(reason=FinishReason.TOOL_CALLS),
        ]
    )
    told = [json.loads(frame.data) for frame in frames]
    assert [frame.event for frame in frames] == [value["type"] for value in told]
    shape = [(value["type"].removeprefix("content_block_"), value.get("index")) for value in told]
    assert shape == [
        ("message_start", None),
        ("start", 0),
        ("delta", 0),
        ("stop", 0),
        ("start", 1),
        ("delta", 1),
        ("delta", 1),
        ("stop", 1),
        ("message_delta", None),
        ("message_stop", None),
    ]
    assert told[2]["delta"] == {"type": "input_json_delta", "partial_json": "{}"}
    assert told[0]["message"]["model"] == "gpt"


def test_a_cut_tool_call_is_closed_at_the_end() -> None:
    """It stays as it came, and what waited behind it is still told."""
    encoder = SERVER.response_encoder(ClientRequest(REQUEST), "msg_1")
    frames = encoder.encode(
        [
            ItemStarted(index=0, kind="tool_call", id="a", name="f"),
            ToolCallDelta(0, "{"),
            ItemStarted(index=1, kind="text"),
            TextDelta(1, "x"),
            ItemDone(index=1, part=Text("x")),
            Finished(reason=FinishReason.LENGTH),
        ]
    )
    told = [json.loads(frame.data) for frame in frames]
    assert [value["index"] for value in told if "index" in value] == [0, 0, 0, 1, 1, 1]
    assert told[-2]["delta"]["stop_reason"] == "max_tokens"


def test_pictures_in_an_answer_become_blocks() -> None:
    """Another vendor's model made them."""
    answer = LLMResponse(request_id="r", provider="p", model="m", output=(Image(data=b"\x89PNG"),))
    [told] = json.loads(SERVER.encode_response(ClientRequest(REQUEST), answer))["content"]
    assert told["source"]["media_type"] == "image/png"


def body_of(**fields: Any) -> bytes:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return json.dumps({key: value for key, value in body.items() if value != "absent"}).encode()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": "absent"}, "max_tokens"),
        ({"model": "absent"}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"temperature": 2}, "temperature"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type"),
        ({"base_url": "http://x"}, "base_url"),
        ({"extra": {"api_key": "x"}}, "extra.api_key"),
    ],
)
def test_wrong_bodies_are_refused_by_field(fields: dict[str, Any], param: str) -> None:
    """With one line that says what would be right."""
    with pytest.raises(BadRequestError) as caught:
        SERVER.decode_request("/v1/messages", body_of(**fields))
    assert caught.value.failure.param == param
    assert "\n" not in str(caught.value)


def test_an_empty_list_is_told_in_words() -> None:
    """Not in those of the library that checks."""
    with pytest.raises(BadRequestError, match=r"^messages must be a list of at least one message$"):
        SERVER.decode_request("/v1/messages", body_of(messages=[]))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"model": NaN}'])
def test_bodies_that_are_no_object(body: bytes) -> None:
    """Are refused."""
    with pytest.raises(BadRequestError):
        SERVER.decode_request("/v1/messages", body)


BODY = {
    "model": "m",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "s"}],
    "messages": [
        {"role": "user", "content": WHOLE["content"]},
        {"role": "assistant", "content": "x"},
    ],
    "tools": [{"name": "f", "input_schema": {}, "strict": True}, {"type": "web_search", "name": "w"}],
    "tool_choice": {"type": "tool", "name": "f"},
    "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {}}},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["x"],
}


@given(mutated(BODY))
def test_odd_bodies_are_read_or_refused(body: Any) -> None:
    """And what was read can be sent on, or is refused by name."""
    with contextlib.suppress(BadRequestError, UnsupportedError):
        inbound = SERVER.decode_request("/v1/messages", json.dumps(body).encode())
        encoded(CLIENT, inbound.request, stream=inbound.stream)


def test_unknown_fields_are_kept_for_the_same_vendor() -> None:
    """And the runtime's own object goes to the policy, undecoded."""
    inbound = SERVER.decode_request("/v1/messages?beta=true", body_of(speed="fast", llm_runtime={"cache": "off"}))
    assert inbound.request.parameters.extra == {"anthropic": {"speed": "fast"}}
    assert inbound.policy is not None
    assert json.loads(bytes(inbound.policy)) == {"cache": "off"}


@pytest.mark.parametrize(
    ("fields", "effort", "budget", "kept"),
    [
        ({"thinking": {"type": "adaptive"}}, None, None, {"thinking": {"type": "adaptive"}}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, "high", None, {}),
        ({"output_config": {"effort": "high"}}, "high", None, {"thinking": None}),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, None, 2000, {}),
        ({"thinking": {"type": "disabled"}}, "none", None, {}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}},
            None,
            2000,
            {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}},
        ),
        ({"thinking": {"type": "between_tools"}}, None, None, {"thinking": {"type": "between_tools"}}),
    ],
)
def test_thinking_is_read_as_far_as_others_can_follow(
    fields: dict[str, Any], effort: str | None, budget: int | None, kept: dict[str, Any]
) -> None:
    """And the rest of it is kept for the same vendor."""
    parameters = SERVER.decode_request("/v1/messages", body_of(**fields)).request.parameters
    assert (parameters.reasoning_effort, parameters.reasoning_budget) == (effort, budget)
    assert parameters.extra.get("anthropic", {}) == kept


def test_the_model_list() -> None:
    """Ours, as the vendor's client reads it."""
    models = (ModelInfo(id="a/b", created=1_700_000_000, context_window=9, max_output_tokens=3), ModelInfo(id="c"))
    page = CLIENT.decode_models(SERVER.encode_models(models))
    assert [msgspec.structs.replace(model, owned_by="") for model in page.models] == list(models)
    assert page.next is None


def test_a_call_that_is_not_whole_fails_the_answer() -> None:
    """It is the model's mistake, not the wire's: another candidate may do better."""
    last = told(START, *call_block(0, "{")[:-1], message_delta("tool_use"), STOP)[-1]
    assert isinstance(last, Failed)
    assert last.failure.kind is FailureKind.INVALID_TOOL_CALL


def test_tool_use_without_a_call_fails_the_answer() -> None:
    last = told(START, *text_block(0, "I will"), message_delta("tool_use"), STOP)[-1]
    assert isinstance(last, Failed)
    assert (last.failure.kind, last.failure.partial) == (FailureKind.INVALID_TOOL_CALL, True)


def test_with_a_call_the_reason_is_the_call() -> None:
    events = told(START, *call_block(0, '{"a":1}'), message_delta("end_turn"), STOP)
    assert events[-1] == Finished(reason=FinishReason.TOOL_CALLS, raw_reason="end_turn")
