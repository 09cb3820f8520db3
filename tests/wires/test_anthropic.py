"""Anthropic's wire: transcripts decode to what the raw body says, and back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_protocol.content import Opaque, Reasoning, Refusal, Text, ToolCall
from llm_protocol.errors import UnsupportedError
from llm_protocol.events import Event, Failed, Finished, Started
from llm_protocol.failures import FailureKind
from llm_protocol.fold import Fold
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason
from llm_protocol.wires.anthropic import Anthropic, AnthropicServer
from support.conformance import check_failure_again, check_models_again, check_same, retell
from support.streams import check_order, check_truncation, decode, fold
from support.transcripts import Recording, read_sse, recordings, with_request

CLIENT, SERVER = Anthropic(), AnthropicServer()
REQUEST = ChatRequest(model="m", messages=())
REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}


def make() -> Any:
    return CLIENT.stream_decoder(REQUEST)


def message_of(frames: list[Any]) -> dict[str, Any]:
    """The whole message that a stream tells, put together without the code under test."""
    message: dict[str, Any] = {}
    for frame in frames:
        match frame["type"]:
            case "message_start":
                message = frame["message"]
            case "content_block_start":
                message["content"].append(dict(frame["content_block"]))
                assert len(message["content"]) == frame["index"] + 1
            case "content_block_delta":
                block, delta = message["content"][frame["index"]], frame["delta"]
                match delta["type"]:
                    case "text_delta":
                        block["text"] += delta["text"]
                    case "thinking_delta":
                        block["thinking"] += delta["thinking"]
                    case "signature_delta":
                        block["signature"] += delta["signature"]
                    case "input_json_delta":
                        block["_input"] = block.get("_input", "") + delta["partial_json"]
                    case "citations_delta":
                        block.setdefault("citations", []).append(delta["citation"])
            case "message_delta":
                message |= frame["delta"]
                message["usage"] |= {k: v for k, v in frame["usage"].items() if v is not None}
    for block in message["content"]:
        if text := block.pop("_input", ""):
            block["input"] = json.loads(text)
    return message


def check(events: list[Event], message: dict[str, Any]) -> None:
    check_order(events)
    folded = Fold().add_all(events)
    assert folded.started == Started(model=message["model"], upstream_id=message["id"])
    assert isinstance(folded.end, Finished)
    assert folded.end.raw_reason == message["stop_reason"]
    assert folded.end.reason == REASONS[message["stop_reason"]]
    parts = [part for part in folded.parts() if not isinstance(part, Refusal)]
    blocks = [b for b in message["content"] if b.get("text", "…") or b.get("citations")]
    parts = [part for part in parts if not (isinstance(part, Text) and not part.text)]
    assert len(parts) == len(blocks)
    for part, block in zip(parts, blocks, strict=True):
        match block["type"]:
            case "text":
                assert isinstance(part, Text)
                assert part.text == block["text"]
            case "thinking":
                assert isinstance(part, Reasoning)
                assert (part.text, part.signature or "") == (block["thinking"], block["signature"])
            case "redacted_thinking":
                assert isinstance(part, Reasoning)
                assert part.encrypted == block["data"]
            case "tool_use":
                assert isinstance(part, ToolCall)
                assert (part.id, part.name, part.parsed()) == (block["id"], block["name"], block["input"])
            case _:
                assert isinstance(part, Opaque)
                assert part.value == block
    usage, raw = folded.usage, message["usage"]
    assert usage is not None
    cached, written = raw.get("cache_read_input_tokens") or 0, raw.get("cache_creation_input_tokens") or 0
    assert usage.input_tokens == raw["input_tokens"] + cached + written
    assert usage.output_tokens == raw["output_tokens"]
    assert (usage.cached_tokens, usage.cache_write_tokens) == (cached, written)
    assert usage.reasoning_tokens == (raw.get("output_tokens_details") or {}).get("thinking_tokens", 0)
    details = message.get("stop_details") or {}
    assert fold(events).refusal == (details.get("explanation") or "")


@pytest.mark.parametrize("recording", recordings("anthropic", "chat-", stream=False))
def test_a_whole_answer_decodes(recording: Recording) -> None:
    """Text, thinking, tool calls, opaque blocks, usage and reason are those of the body."""
    check(CLIENT.decode_response(REQUEST, recording.response()), json.loads(recording.body))


@pytest.mark.parametrize("recording", recordings("anthropic", "chat-", stream=True))
def test_a_stream_decodes(recording: Recording) -> None:
    """The same, for streams; and no cut of one is a success."""
    body = recording.body.encode()
    check(decode(make, body), message_of(recording.sse()))
    check_truncation(make, body, body.rindex(b"event: message_stop"))


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("recording", recordings("anthropic", "chat-"))
def test_the_server_says_the_same(recording: Recording, streamed: bool) -> None:
    """What was read, encoded for a client: the raw body says the same, and our own client reads the same."""
    is_stream = "-stream" in recording.name
    body = recording.body.encode()
    answer = fold(decode(make, body) if is_stream else CLIENT.decode_response(REQUEST, recording.response()))
    told = retell(CLIENT, SERVER, REQUEST, answer, streamed=streamed)
    check_same(told.events, answer)
    check(told.events, message_of(read_sse(told.body)) if streamed else json.loads(told.body))


@pytest.mark.parametrize("recording", recordings("anthropic", "midstream-error"))
def test_an_error_inside_a_stream_fails_it(recording: Recording) -> None:
    """The status was 200, and there was text already."""
    events = decode(make, recording.body.encode())
    error = recording.sse()[-1]["error"]
    last = events[-1]
    assert isinstance(last, Failed)
    assert (last.failure.kind, last.failure.message, last.failure.partial) == (
        FailureKind.OVERLOADED,
        error["message"],
        True,
    )
    assert fold(events).content == "It be"


@pytest.mark.parametrize("recording", recordings("anthropic", "chat-", stream=True))
@given(data=st.data())
@settings(max_examples=8)
def test_a_stream_decodes_in_any_pieces(recording: Recording, data: st.DataObject) -> None:
    """However the bytes are split, the events are the same."""
    body = recording.body.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=30)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert decode(make, *pieces) == decode(make, body)


@pytest.mark.parametrize("recording", recordings("anthropic", "error-"))
def test_an_error_decodes(recording: Recording) -> None:
    """The kind fits the status and the type; nothing of the vendor's text is lost but keys."""
    failure = CLIENT.decode_error(recording.response())
    error = json.loads(recording.body)["error"]
    expected = {
        ("invalid_request_error", "prefill"): FailureKind.UNSUPPORTED,
        ("invalid_request_error", "effort level"): FailureKind.UNSUPPORTED,
        ("invalid_request_error", "prompt is too long"): FailureKind.CONTEXT_LENGTH,
        ("authentication_error", ""): FailureKind.AUTH,
        ("not_found_error", "model: "): FailureKind.MODEL_NOT_FOUND,
        ("billing_error", ""): FailureKind.QUOTA,
        ("permission_error", ""): FailureKind.AUTH,
        ("request_too_large", ""): FailureKind.CONTEXT_LENGTH,
        ("api_error", ""): FailureKind.SERVER_ERROR,
        ("timeout_error", ""): FailureKind.SERVER_ERROR,
        ("rate_limit_error", "spend limit"): FailureKind.QUOTA,
        ("rate_limit_error", ""): FailureKind.RATE_LIMITED,
        ("overloaded_error", ""): FailureKind.OVERLOADED,
        ("invalid_request_error", ""): FailureKind.BAD_REQUEST,
    }
    kind = next(kind for (type_, text), kind in expected.items() if type_ == error["type"] and text in error["message"])
    code = (error.get("details") or {}).get("error_code") or error["type"]
    assert (failure.kind, failure.upstream_status, failure.upstream_code) == (kind, recording.status, code)
    assert failure.message == error["message"]
    check_failure_again(CLIENT, SERVER, failure)


@pytest.mark.parametrize("recording", recordings("anthropic", "models-"))
def test_a_model_list_decodes(recording: Recording) -> None:
    """Ids, windows and limits are those of the body; the page after is asked for by the last id."""
    body = json.loads(recording.body)
    page = CLIENT.decode_models(recording.body.encode())
    got = [(model.id, model.context_window, model.max_output_tokens) for model in page.models]
    assert got == [(entry["id"], entry["max_input_tokens"], entry["max_tokens"]) for entry in body["data"]]
    assert page.next == (body["last_id"] if body["has_more"] else None)
    check_models_again(CLIENT, SERVER, page.models)


def normal(body: dict[str, Any]) -> dict[str, Any]:
    """A request body with its shorthands written out and its defaults left out."""
    body = {key: value for key, value in body.items() if value is not None}
    body.setdefault("stream", False)
    if isinstance(body.get("system"), str):
        body["system"] = [{"type": "text", "text": body["system"]}]
    if "output_format" in body:
        body["output_config"] = {"format": body.pop("output_format")}
    body["messages"] = [{**message, "content": _blocks(message["content"])} for message in body["messages"]]
    body["tools"] = [
        {key: value for key, value in tool.items() if (key, value) != ("type", "custom")}
        for tool in body.get("tools", [])
    ]
    return body


def _blocks(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    found = []
    for block in content:
        block = {key: value for key, value in block.items() if (key, value) != ("is_error", False)}
        if block["type"] == "tool_result" and "content" in block:
            block["content"] = _blocks(block["content"])
        found.append(block)
    return found


@pytest.mark.parametrize("recording", with_request(recordings("anthropic", "chat-", "error-")))
def test_a_request_body_survives_both_directions(recording: Recording) -> None:
    """What the server side reads, the client side writes again: the same body."""
    assert recording.path == "/v1/messages"
    inbound = SERVER.decode_request(recording.path, msgspec.json.encode(recording.asked))
    if "does not support assistant message prefill" in recording.body:
        with pytest.raises(UnsupportedError, match="the last message must have the role user"):
            CLIENT.encode_request(inbound.request, stream=inbound.stream)
        return
    wire = CLIENT.encode_request(inbound.request, stream=inbound.stream)
    again, asked = normal(msgspec.json.decode(wire.body)), normal(recording.asked)
    if "does not support effort level" in recording.body:
        asked["output_config"]["effort"] = "high"  # what the vendor would have taken
    if asked["messages"][-1]["role"] == "assistant":  # a beginning of the answer loses white space at its end
        asked["messages"][-1]["content"][-1]["text"] = asked["messages"][-1]["content"][-1]["text"].rstrip()
    assert again == asked


@pytest.mark.parametrize("recording", recordings("anthropic", "chat-"))
def test_limits_are_read_from_headers(recording: Recording) -> None:
    """Limits by header, resets as seconds; ``retry-after`` on a good answer means nothing."""
    limits, headers = CLIENT.rate_limits(recording.headers), dict(recording.headers)
    if "anthropic-ratelimit-tokens-limit" not in headers:
        assert limits is None or limits.tokens_limit is None
        return
    assert limits is not None
    assert limits.tokens_limit == int(headers["anthropic-ratelimit-tokens-limit"])
    assert limits.tokens_reset_s is not None
    assert 0 <= limits.tokens_reset_s < 120
    if "anthropic-ratelimit-requests-remaining" in headers:
        assert limits.requests_remaining == int(headers["anthropic-ratelimit-requests-remaining"])


@pytest.mark.parametrize("recording", recordings("anthropic", "completion-legacy"))
def test_the_legacy_endpoint_is_not_mistaken_for_messages(recording: Recording) -> None:
    """Its answers are no messages: a failure, never an empty success; its path is refused by name."""
    events = (
        decode(make, recording.body.encode())
        if "stream" in recording.name
        else CLIENT.decode_response(REQUEST, recording.response())
    )
    assert isinstance(events[-1], Failed)
    with pytest.raises(UnsupportedError, match="/v1/complete"):
        SERVER.decode_request("/v1/complete", b"{}")
