"""Gemini's wire: transcripts decode to what the raw body says, and back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_protocol.content import Image, Message, Reasoning, Text, ToolCall
from llm_protocol.events import Embedded, Event, Failed, Finished, Started
from llm_protocol.failures import FailureKind
from llm_protocol.requests import ChatRequest, EmbeddingRequest
from llm_protocol.response import FinishReason
from llm_protocol.wires.gemini import Gemini, GeminiServer
from support.conformance import check_failure_again, check_models_again, check_same, retell
from support.streams import check_order, decode, fold
from support.transcripts import Recording, read_sse, recordings

CLIENT = Gemini()
SERVER = GeminiServer()

REQUEST = ChatRequest(model="m", messages=(Message.of("user", "x"),))
REASONS = {"STOP": FinishReason.STOP, "MAX_TOKENS": FinishReason.LENGTH, "SAFETY": FinishReason.CONTENT_FILTER}


def make() -> Any:
    return CLIENT.stream_decoder(REQUEST)


def events_of(recording: Recording) -> list[Event]:
    if "-stream" in recording.name:
        return decode(make, recording.body.encode())
    return CLIENT.decode_response(REQUEST, recording.response())


def chunks_of(recording: Recording) -> list[Any]:
    """The JSON chunks of an answer, whole, as SSE or as an array."""
    if recording.body.lstrip().startswith("data:"):
        return recording.sse()
    value = json.loads(recording.body)
    return value if isinstance(value, list) else [value]


ANSWERS = [
    param
    for param in recordings("gemini", "chat-", "image-")
    if param.values[0].status == 200 and "midstream-error" not in param.values[0].name
]


@pytest.mark.parametrize("recording", ANSWERS)
def test_an_answer_says_what_its_chunks_say(recording: Recording) -> None:
    """Text, thoughts, calls, pictures, signatures, usage, finish reason, model and id, field by field."""
    check(events_of(recording), chunks_of(recording))


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("recording", ANSWERS)
def test_the_server_says_the_same(recording: Recording, streamed: bool) -> None:
    """What was read, encoded for a client: the raw body says the same, and our own client reads the same."""
    answer = fold(events_of(recording))
    told = retell(CLIENT, SERVER, REQUEST, answer, streamed=streamed)
    check_same(told.events, answer)
    check(told.events, read_sse(told.body) if streamed else [json.loads(told.body)])


def check(events: list[Event], chunks: list[Any]) -> None:
    check_order(events)
    candidates = [c for chunk in chunks for c in chunk.get("candidates", []) if not c.get("index")]
    parts = [part for c in candidates for part in c.get("content", {}).get("parts", [])]
    answer = fold(events)

    def texts(thought: bool) -> str:
        return "".join(p["text"] for p in parts if "text" in p and p.get("thought", False) is thought)

    assert answer.content == texts(thought=False)
    assert answer.reasoning == texts(thought=True)
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    assert [(c.name, c.parsed()) for c in answer.tool_calls] == [(c["name"], c["args"]) for c in calls]
    assert all(made.id == said.get("id", made.id) for made, said in zip(answer.tool_calls, calls, strict=True))
    assert len({call.id for call in answer.tool_calls}) == len(calls)
    pictures = [part["inlineData"] for part in parts if "inlineData" in part]
    assert [image.data for image in answer.images] == [base64.b64decode(p["data"]) for p in pictures]
    assert [image.media_type for image in answer.images] == [p["mimeType"] for p in pictures]
    signatures = [part.signature for part in answer.output if isinstance(part, Text | Reasoning | ToolCall | Image)]
    assert [s for s in signatures if s] == [p["thoughtSignature"] for p in parts if "thoughtSignature" in p]
    check_end(answer, chunks, candidates, bool(calls))


def check_end(answer: Any, chunks: list[Any], candidates: list[Any], calls: bool) -> None:
    usage = next((chunk["usageMetadata"] for chunk in reversed(chunks) if "usageMetadata" in chunk), None)
    if usage is None:
        assert answer.usage is None
    else:
        thoughts = usage.get("thoughtsTokenCount", 0)
        assert answer.usage.input_tokens == usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0)
        assert answer.usage.output_tokens == usage.get("candidatesTokenCount", 0) + thoughts
        assert answer.usage.reasoning_tokens == thoughts
        assert answer.usage.cached_tokens == usage.get("cachedContentTokenCount", 0)
        assert answer.usage.total_tokens == usage["totalTokenCount"]
        details = usage.get("candidatesTokensDetails", [])
        assert answer.usage.image_tokens == sum(d["tokenCount"] for d in details if d["modality"] == "IMAGE")
    raw = next((c["finishReason"] for c in reversed(candidates) if "finishReason" in c), None)
    raw = raw or chunks[-1]["promptFeedback"]["blockReason"]
    assert answer.raw_finish_reason == raw
    assert answer.finish_reason is (FinishReason.TOOL_CALLS if calls and raw == "STOP" else REASONS[raw])
    assert answer.upstream_id == chunks[0].get("responseId")
    assert answer.model == chunks[0].get("modelVersion", "m")


@pytest.mark.parametrize("recording", recordings("gemini", "chat-midstream-error"))
def test_an_error_in_plain_json_inside_a_stream_fails_the_answer(recording: Recording) -> None:
    """The chunks before it bore a finishReason, and it is a failure all the same."""
    events = decode(make, recording.body.encode())
    assert isinstance(events[-1], Failed)
    assert events[-1].failure.message == json.loads(recording.body[recording.body.index("\n{") :])["error"]["message"]
    said = [json.loads(line[5:]) for line in recording.body.splitlines() if line.startswith("data:")]
    assert fold(events).content == "".join(chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in said)


@pytest.mark.parametrize("recording", recordings("gemini", "chat-", stream=True))
@given(data=st.data())
@settings(max_examples=15)
def test_any_split_of_a_recorded_stream_gives_the_same_events(recording: Recording, data: st.DataObject) -> None:
    body = recording.body.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert decode(make, *pieces) == decode(make, body)


@pytest.mark.parametrize("recording", recordings("gemini", "chat-", stream=True))
def test_a_recorded_stream_cut_before_its_last_chunk_is_no_success(recording: Recording) -> None:
    """Cut after any chunk that bears no finishReason."""
    body, at = recording.body, 0
    while (at := body.find("\n", at) + 1) and '"finishReason"' not in body[:at]:
        assert isinstance(decode(make, body[:at].encode())[-1], Failed)


@pytest.mark.parametrize("recording", recordings("gemini", "embedding-"))
def test_vectors_come_in_the_order_of_their_texts(recording: Recording) -> None:
    inbound = SERVER.decode_request(recording.path, json.dumps(recording.asked).encode())
    assert isinstance(inbound.request, EmbeddingRequest)
    events = CLIENT.decode_response(inbound.request, recording.response())
    raw = json.loads(recording.body)
    vectors = [item["values"] for item in raw.get("embeddings", [raw.get("embedding")])]
    check_same(retell(CLIENT, SERVER, inbound.request, fold(events), streamed=False).events, fold(events))
    embedded = next(event for event in events if isinstance(event, Embedded))
    assert [list(vector) for vector in embedded.vectors] == vectors
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("recording", recordings("gemini", "models-"))
def test_the_model_list(recording: Recording) -> None:
    raw = json.loads(recording.body)
    page = CLIENT.decode_models(recording.body.encode())
    assert [f"models/{model.id}" for model in page.models] == [entry["name"] for entry in raw["models"]]
    assert [model.context_window for model in page.models] == [e.get("inputTokenLimit") for e in raw["models"]]
    assert [model.max_output_tokens for model in page.models] == [e.get("outputTokenLimit") for e in raw["models"]]
    assert page.next == raw.get("nextPageToken")
    check_models_again(CLIENT, SERVER, page.models)


KINDS = {
    "API_KEY_INVALID": FailureKind.AUTH,
    "User location": FailureKind.AUTH,
    "enable billing": FailureKind.QUOTA,
    "FAILED_PRECONDITION": FailureKind.UNSUPPORTED,
    "PERMISSION_DENIED": FailureKind.AUTH,
    "NOT_FOUND": FailureKind.MODEL_NOT_FOUND,
    "RESOURCE_EXHAUSTED": FailureKind.RATE_LIMITED,
    "INTERNAL": FailureKind.SERVER_ERROR,
    "UNAVAILABLE": FailureKind.OVERLOADED,
    "DEADLINE_EXCEEDED": FailureKind.SERVER_ERROR,
    "INVALID_ARGUMENT": FailureKind.BAD_REQUEST,
}


@pytest.mark.parametrize("recording", recordings("gemini", "error-"))
def test_every_error_is_of_its_kind(recording: Recording) -> None:
    error = json.loads(recording.body)["error"]
    failure = CLIENT.decode_error(recording.response())
    assert failure.kind is next(kind for word, kind in KINDS.items() if word in recording.body)
    assert failure.message == " ".join(error["message"].split())
    assert failure.upstream_status == recording.status
    assert failure.upstream_code == error["status"]
    delays = [detail["retryDelay"] for detail in error.get("details", []) if "retryDelay" in detail]
    assert failure.retry_after == (float(delays[0][:-1]) if delays else None)
    check_failure_again(CLIENT, SERVER, failure)


def normal(value: Any) -> Any:
    """A request body in one spelling: camelCase, JSON schema, lists for lists, no nulls, defaults or empty objects."""
    if isinstance(value, list):
        return [normal(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, item in value.items():
        name = "".join(w if at == 0 else w.capitalize() for at, w in enumerate(key.split("_")))
        name = {"parameters": "parametersJsonSchema", "responseSchema": "responseJsonSchema"}.get(name, name)
        if name in ("type", "thinkingLevel") and isinstance(item, str):
            item = item.lower()
        if name in ("parts", "contents") and isinstance(item, dict):
            item = [item]
        if item not in (None, {}, False):
            found[name] = normal(item)
    return found


@pytest.mark.parametrize(
    "recording",
    [
        param
        for param in recordings("gemini", "chat-", "embedding-", "error-", "image-")
        if isinstance(param.values[0].asked, dict)
    ],
)
def test_a_request_body_survives_both_directions(recording: Recording) -> None:
    """Through the server side into the canonical form, and out of the client side, nothing is lost."""
    inbound = SERVER.decode_request(recording.path, json.dumps(recording.asked).encode())
    again = CLIENT.encode_request(inbound.request, stream=inbound.stream)
    assert recording.path == again.path.partition("?")[0]
    asked, said = normal(recording.asked), normal(json.loads(again.body))
    asked.pop("model", None)
    asked.get("generationConfig", {}).pop("candidateCount", None)
    asked.get("systemInstruction", {}).pop("role", None)
    for item in (*asked.get("requests", ()), *said.get("requests", ())):
        item["content"].pop("role", None)
    assert said == {name: value for name, value in asked.items() if value}


@pytest.mark.parametrize("recording", recordings("gemini", "chat-stream"))
def test_a_stream_begins_with_started(recording: Recording) -> None:
    assert isinstance(events_of(recording)[0], Started)
