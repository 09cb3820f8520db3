"""The Responses wire: transcripts decode to what the raw body says, and back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_protocol.content import Opaque, Reasoning, Refusal, Text, ToolCall
from llm_protocol.events import Event, Failed, Finished, ReasoningDelta, RefusalDelta, Started, TextDelta, ToolCallDelta
from llm_protocol.failures import FailureKind
from llm_protocol.fold import Fold
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason
from llm_protocol.wires.responses import NAME, OpenAIResponses, OpenAIResponsesServer
from support.conformance import check_failure_again, check_same, retell
from support.streams import check_order, check_truncation, decode, fold
from support.transcripts import Recording, read_sse, recordings, with_request

CLIENT, SERVER = OpenAIResponses(), OpenAIResponsesServer()
REQUEST = ChatRequest(model="m", messages=())


def exchanges(*prefixes: str) -> list[Any]:
    """The recordings of this endpoint, among files that are named alike for all of the vendor's."""
    found = recordings("openai", *prefixes)
    return [each for each in found if each.values[0].path.endswith("/responses")]


def make() -> Any:
    return CLIENT.stream_decoder(REQUEST)


def expected_parts(body: dict[str, Any]) -> list[Any]:
    """What the output holds, read without the code under test: (kind, fields…) for each part."""
    found: list[Any] = []
    for item in body["output"]:
        match item["type"]:
            case "message":
                found += [(part["type"], part.get("text", part.get("refusal"))) for part in item["content"]]
            case "reasoning":
                text = "\n\n".join(part["text"] for part in item["summary"])
                found.append(("reasoning", text, item.get("encrypted_content"), item["id"]))
            case "function_call":
                found.append(("call", item["call_id"], item["name"], item["arguments"]))
            case _:
                found.append(("opaque", item))
    return found


def as_tuple(part: Any) -> Any:
    match part:
        case Text():
            return "output_text", part.text
        case Refusal():
            return "refusal", part.text
        case Reasoning():
            return "reasoning", part.text, part.encrypted, part.id
        case ToolCall():
            return "call", part.id, part.name, part.arguments
        case Opaque(dialect=dialect):
            assert dialect == NAME
            return "opaque", part.value
        case _:
            raise AssertionError(part)


def expected_reason(body: dict[str, Any]) -> FinishReason:
    if body["status"] == "incomplete":
        reasons = {"max_output_tokens": FinishReason.LENGTH, "content_filter": FinishReason.CONTENT_FILTER}
        return reasons[body["incomplete_details"]["reason"]]
    kinds = [part[0] for part in expected_parts(body)]
    if "refusal" in kinds:
        return FinishReason.CONTENT_FILTER
    return FinishReason.TOOL_CALLS if "call" in kinds else FinishReason.STOP


def check(events: list[Event], body: dict[str, Any]) -> None:
    check_order(events)
    folded = Fold().add_all(events)
    assert folded.started == Started(model=body["model"], upstream_id=body["id"])
    assert isinstance(folded.end, Finished)
    assert folded.end.reason == expected_reason(body)
    assert [as_tuple(part) for part in folded.parts()] == expected_parts(body)
    usage, raw = folded.usage, body["usage"]
    if not raw["total_tokens"]:
        assert usage is None
        return
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (raw["input_tokens"], raw["output_tokens"])
    inside, outside = raw["input_tokens_details"], raw["output_tokens_details"]
    assert (usage.cached_tokens, usage.cache_write_tokens) == (
        inside["cached_tokens"],
        inside.get("cache_write_tokens", 0),
    )
    assert usage.reasoning_tokens == outside["reasoning_tokens"]


@pytest.mark.parametrize("recording", recordings("openai", "responses-", stream=False))
def test_a_whole_answer_decodes(recording: Recording) -> None:
    """Text, reasoning, calls, blocks only the vendor knows, usage and reason are those of the body."""
    check(CLIENT.decode_response(REQUEST, recording.response()), json.loads(recording.body))


@pytest.mark.parametrize("recording", recordings("openai", "responses-", stream=True))
def test_a_stream_decodes(recording: Recording) -> None:
    """The same of streams; the deltas are those of the wire, in order; and no cut of one is a success."""
    sent = recording.sse()
    body = recording.body.encode()
    events = decode(make, body)
    # The last snapshot holds the same items, but the vendor encrypts its reasoning anew each time it writes it.
    items = [event["item"] for event in sent if event["type"] == "response.output_item.done"]
    check(events, sent[-1]["response"] | {"output": items})
    for kind, name in (
        (TextDelta, "output_text"),
        (RefusalDelta, "refusal"),
        (ToolCallDelta, "function_call_arguments"),
    ):
        wanted = [event["delta"] for event in sent if event["type"] == f"response.{name}.delta"]
        assert [event.text for event in events if isinstance(event, kind)] == wanted
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert thought.replace("\n\n", "") == "".join(
        event["delta"] for event in sent if event["type"] == "response.reasoning_summary_text.delta"
    ).replace("\n\n", "")
    check_truncation(make, body, body.rindex(b"data:"))


@pytest.mark.parametrize("recording", recordings("openai", "responses-", stream=True))
@given(data=st.data())
@settings(max_examples=8)
def test_a_stream_decodes_in_any_pieces(recording: Recording, data: st.DataObject) -> None:
    """However the bytes are split, the events are the same."""
    body = recording.body.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=30)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert decode(make, *pieces) == decode(make, body)


@pytest.mark.parametrize("recording", exchanges("error-"))
def test_an_error_of_the_endpoint_decodes(recording: Recording) -> None:
    """The kind fits the status and the code."""
    failure = CLIENT.decode_error(recording.response())
    error = json.loads(recording.body)["error"]
    expected = {
        "model_not_found": FailureKind.MODEL_NOT_FOUND,
        "context_length_exceeded": FailureKind.CONTEXT_LENGTH,
        "insufficient_quota": FailureKind.QUOTA,
        "unsupported_parameter": FailureKind.UNSUPPORTED,
        "invalid_api_key": FailureKind.AUTH,
    }
    assert failure.kind == expected.get(error["code"], FailureKind.BAD_REQUEST)
    assert (failure.upstream_status, failure.param) == (recording.status, error["param"])
    check_failure_again(CLIENT, SERVER, failure)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("recording", recordings("openai", "responses-"))
def test_the_server_says_the_same(recording: Recording, streamed: bool) -> None:
    """What was read, encoded for a client: the raw body says the same, and our own client reads the same."""
    is_stream = "-stream" in recording.name
    body = recording.body.encode()
    answer = fold(decode(make, body) if is_stream else CLIENT.decode_response(REQUEST, recording.response()))
    told = retell(CLIENT, SERVER, REQUEST, answer, streamed=streamed)
    check_same(told.events, answer)
    if answer.usage is not None:
        # A stream names the model that was asked for, because it begins before the vendor names its own.
        raw = read_sse(told.body)[-1]["response"] | {"model": "m"} if streamed else json.loads(told.body)
        check(told.events, raw)


@pytest.mark.parametrize("recording", recordings("openai", "failed-responses-"))
def test_a_failure_inside_an_answer_fails_it(recording: Recording) -> None:
    """Although the status is 200: as an event of a stream, and as the status of a whole response."""
    is_stream = "-stream" in recording.name
    body = recording.body.encode()
    last = (decode(make, body) if is_stream else CLIENT.decode_response(REQUEST, recording.response()))[-1]
    assert isinstance(last, Failed)
    assert last.failure.kind is FailureKind.SERVER_ERROR
    assert last.failure.message == "The model failed to generate a response."
    check_failure_again(CLIENT, SERVER, last.failure)


def normal(body: dict[str, Any]) -> dict[str, Any]:
    """A request body with its shorthands written out, without what we set ourselves."""
    body = {key: value for key, value in body.items() if value is not None and value != []}
    body.setdefault("stream", False)
    for ours in ("store", "include"):
        body.pop(ours, None)
    if body.get("tool_choice") == "auto":
        del body["tool_choice"]
    items = body["input"]
    items = [{"role": "user", "content": items}] if isinstance(items, str) else items
    found = [item for item in map(_item, items) if item is not None]
    if instructions := body.pop("instructions", None):
        found.insert(0, _item({"role": "system", "content": instructions}) or {})
    body["input"] = found
    body["tools"] = [{key: value for key, value in tool.items() if value is not None} for tool in body.get("tools", [])]
    return body


def _item(item: dict[str, Any]) -> dict[str, Any] | None:
    item = {key: value for key, value in item.items() if key not in ("id", "status") and value is not None}
    item.setdefault("type", "message")
    if item["type"] == "reasoning" and "encrypted_content" not in item:
        return None  # nothing is stored at the vendor, so it could make nothing of it
    if isinstance(item.get("content"), str):
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        item["content"] = [{"type": kind, "text": item["content"]}]
    if item["type"] == "message":
        drop: dict[str, Any] = {"annotations": [], "logprobs": []}
        item["content"] = [{k: v for k, v in p.items() if drop.get(k) != v} for p in item["content"]]
    return item


@pytest.mark.parametrize("recording", with_request(exchanges("responses-", "error-")))
def test_a_request_body_survives_both_directions(recording: Recording) -> None:
    """What the server side reads, the client side writes again: the same body."""
    inbound = SERVER.decode_request(recording.path, msgspec.json.encode(recording.asked))
    again = CLIENT.encode_request(inbound.request, stream=inbound.stream)
    assert again.path == "/responses"
    assert normal(json.loads(again.body)) == normal(recording.asked)
