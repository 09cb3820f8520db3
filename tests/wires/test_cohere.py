"""Cohere's wire: transcripts decode to what the raw body says, and back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_protocol.content import Reasoning, Text, ToolCall
from llm_protocol.errors import UnsupportedError
from llm_protocol.events import Event, Failed, Finished
from llm_protocol.failures import FailureKind
from llm_protocol.fold import Fold
from llm_protocol.requests import ChatRequest, EmbeddingRequest
from llm_protocol.response import FinishReason
from llm_protocol.wires.cohere import Cohere, CohereServer
from support.conformance import check_failure_again, check_models_again, check_same, retell
from support.streams import check_order, check_truncation, decode, fold
from support.transcripts import Recording, read_sse, recordings, with_request

CLIENT, SERVER = Cohere(), CohereServer()
REQUEST = ChatRequest(model="m", messages=())
REASONS = {
    "COMPLETE": FinishReason.STOP,
    "STOP_SEQUENCE": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "TOOL_CALL": FinishReason.TOOL_CALLS,
}


def make() -> Any:
    return CLIENT.stream_decoder(REQUEST)


def answer_of(frames: list[Any]) -> dict[str, Any]:
    """The whole answer that a stream tells, put together without the code under test."""
    answer: dict[str, Any] = {}
    message: dict[str, Any] = {"tool_plan": "", "content": [], "tool_calls": [], "citations": []}
    for frame in frames:
        told = (frame.get("delta") or {}).get("message") or {}
        match frame["type"]:
            case "message-start":
                answer = {"id": frame.get("id")}
            case "tool-plan-delta":
                message["tool_plan"] += told["tool_plan"]
            case "content-start":
                message["content"].append(dict(told["content"]))
            case "content-delta":
                block = message["content"][frame["index"]]
                block[block["type"]] += told["content"][block["type"]]
            case "tool-call-start":
                message["tool_calls"].append(told["tool_calls"])
            case "tool-call-delta":
                function = message["tool_calls"][frame["index"]]["function"]
                function["arguments"] += told["tool_calls"]["function"]["arguments"]
            case "citation-start":
                message["citations"].append(told["citations"])
            case "message-end":
                answer |= frame["delta"]
    return {**answer, "message": message}


def check(events: list[Event], answer: dict[str, Any]) -> None:
    check_order(events)
    folded, message = Fold().add_all(events), answer["message"]
    assert folded.started.upstream_id == answer["id"]
    failed = answer["finish_reason"] not in REASONS  # then the plan stays open, and an open item is plain reasoning
    plan = "thinking" if failed else "plan"
    expected: list[tuple[str, Any]] = [(plan, message["tool_plan"])] if message.get("tool_plan") else []
    expected += [(block["type"], block[block["type"]]) for block in message.get("content") or []]
    for call in message.get("tool_calls") or []:
        given = call["function"]["arguments"]
        arguments = {} if given in ("", "null") else json.loads(given)
        expected.append(("call", (call["id"], call["function"]["name"], arguments)))
    got: list[tuple[str, Any]] = []
    for part in folded.parts():
        match part:
            case Text():
                got.append(("text", part.text))
            case Reasoning():
                got.append(("plan" if part.id == "tool_plan" else "thinking", part.text))
            case ToolCall():
                got.append(("call", (part.id, part.name, part.parsed())))
    assert got == expected
    texts = [part for part in folded.parts() if isinstance(part, Text)]
    cited = [citation for text in texts for citation in (text.extra or {}).get("cohere", {}).get("citations", [])]
    assert cited == (message.get("citations") or [])
    if failed:
        assert isinstance(folded.end, Failed)
        return
    assert folded.end == Finished(reason=REASONS[answer["finish_reason"]], raw_reason=answer["finish_reason"])
    usage, raw = folded.usage, answer["usage"]
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (raw["tokens"]["input_tokens"], raw["tokens"]["output_tokens"])
    assert usage.reasoning_tokens == raw["tokens"].get("reasoning_tokens", 0)
    assert usage.cached_tokens == raw.get("cached_tokens", 0)
    billed = raw["billed_units"]
    assert (usage.billed_input_tokens, usage.billed_output_tokens) == (billed["input_tokens"], billed["output_tokens"])


@pytest.mark.parametrize("recording", recordings("cohere", "chat-", stream=False))
def test_a_whole_answer_decodes(recording: Recording) -> None:
    """Plan, text, thinking, calls, citations, both usages and the reason are those of the body."""
    check(CLIENT.decode_response(REQUEST, recording.response()), json.loads(recording.body))


@pytest.mark.parametrize("recording", recordings("cohere", "chat-", stream=True))
def test_a_stream_decodes(recording: Recording) -> None:
    """The same, for streams; and no cut of one is a success."""
    body = recording.body.encode()
    check(decode(make, body), answer_of(recording.sse()))
    check_truncation(make, body, body.rindex(b"event: message-end"))


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("recording", recordings("cohere", "chat-"))
def test_the_server_says_the_same(recording: Recording, streamed: bool) -> None:
    """What was read, encoded for a client: the raw body says the same, and our own client reads the same."""
    is_stream = "-stream" in recording.name or "midstream" in recording.name
    body = recording.body.encode()
    events = decode(make, body) if is_stream else CLIENT.decode_response(REQUEST, recording.response())
    if isinstance(events[-1], Failed):
        return
    answer = fold(events)
    told = retell(CLIENT, SERVER, REQUEST, answer, streamed=streamed)
    check_same(told.events, answer)
    check(told.events, answer_of(read_sse(told.body)) if streamed else json.loads(told.body))


@pytest.mark.parametrize("recording", recordings("cohere", "chat-midstream-error"))
def test_an_error_inside_message_end_is_a_failure(recording: Recording) -> None:
    """Although the status was 200 and the stream has its end."""
    last = decode(make, recording.body.encode())[-1]
    assert isinstance(last, Failed)
    delta = recording.sse()[-1]["delta"]
    assert (last.failure.upstream_code, last.failure.message) == (delta["error_type"], delta["error"])
    assert (last.failure.kind, last.failure.partial) == (FailureKind.INVALID_TOOL_CALL, True)


@pytest.mark.parametrize("recording", recordings("cohere", "chat-", stream=True))
@given(data=st.data())
@settings(max_examples=8)
def test_a_stream_decodes_in_any_pieces(recording: Recording, data: st.DataObject) -> None:
    """However the bytes are split, the events are the same."""
    body = recording.body.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=30)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert decode(make, *pieces) == decode(make, body)


@pytest.mark.parametrize("recording", recordings("cohere", "error-"))
def test_an_error_decodes(recording: Recording) -> None:
    """The kind fits the status; the vendor's sentence is kept without what looks like a key."""
    failure = CLIENT.decode_error(recording.response())
    kinds = {401: FailureKind.AUTH, 404: FailureKind.MODEL_NOT_FOUND, 422: FailureKind.BAD_REQUEST}
    kinds |= {402: FailureKind.QUOTA, 498: FailureKind.AUTH, 500: FailureKind.SERVER_ERROR, 503: FailureKind.OVERLOADED}
    kinds |= {400: failure.kind, 429: failure.kind}
    assert (failure.kind, failure.upstream_status) == (kinds[recording.status], recording.status)
    assert "***" not in failure.message
    assert failure.message.split()[0] == json.loads(recording.body)["message"].split()[0]
    check_failure_again(CLIENT, SERVER, failure)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("error-400-1", FailureKind.BAD_REQUEST),
        ("error-400-tokens-1", FailureKind.CONTEXT_LENGTH),
        ("error-429-1", FailureKind.RATE_LIMITED),
        ("error-429-month-1", FailureKind.QUOTA),
    ],
)
def test_the_sentence_tells_what_the_status_does_not(name: str, kind: FailureKind) -> None:
    [param] = [param for param in recordings("cohere", name) if param.id.startswith("own-")]
    assert CLIENT.decode_error(param.values[0].response()).kind is kind


@pytest.mark.parametrize("recording", recordings("cohere", "models-"))
def test_a_model_list_decodes(recording: Recording) -> None:
    """Ids and windows are those of the body; the page after is asked for by its token."""
    body = json.loads(recording.body)
    page = CLIENT.decode_models(recording.body.encode())
    got = [(model.id, model.context_window, model.lifecycle == "deprecated") for model in page.models]
    assert got == [(entry["name"], entry["context_length"], entry["is_deprecated"]) for entry in body["models"]]
    assert page.next == body["next_page_token"]
    check_models_again(CLIENT, SERVER, page.models)


@pytest.mark.parametrize("recording", recordings("cohere", "embedding-"))
def test_embeddings_decode(recording: Recording) -> None:
    """The vectors and the billed tokens, from either version of the endpoint."""
    request = EmbeddingRequest(model="m", inputs=tuple(recording.asked["texts"]))
    events = CLIENT.decode_response(request, recording.response())
    check_order(events)
    check_same(retell(CLIENT, SERVER, request, fold(events), streamed=False).events, fold(events))
    folded, body = Fold().add_all(events), json.loads(recording.body)
    assert [list(vector) for vector in folded.vectors] == body["embeddings"]["float"]
    assert folded.usage is not None
    assert folded.usage.input_tokens == folded.usage.billed_input_tokens == body["meta"]["billed_units"]["input_tokens"]


def normal(body: dict[str, Any]) -> dict[str, Any]:
    """A request body with its shorthands written out and its defaults left out."""
    body = {key: value for key, value in body.items() if value is not None}
    body["messages"] = [_normal_message(message) for message in body.get("messages", [])]
    if "texts" not in body:
        body.setdefault("stream", False)
    return body


def _normal_message(message: dict[str, Any]) -> dict[str, Any]:
    message = {key: value for key, value in message.items() if value not in (None, "", [])}
    if isinstance(message.get("content"), str):
        message["content"] = [{"type": "text", "text": message["content"]}]
    return message


@pytest.mark.parametrize(
    "recording",
    [
        param
        for param in with_request(recordings("cohere", "chat-", "error-", "embedding-"))
        if param.values[0].path.startswith("/v2/")
    ],
)
def test_a_request_body_survives_both_directions(recording: Recording) -> None:
    """What the server side reads, the client side writes again: the same body."""
    inbound = SERVER.decode_request(recording.path, msgspec.json.encode(recording.asked))
    wire = CLIENT.encode_request(inbound.request, stream=inbound.stream)
    assert wire.path == recording.path
    sent = msgspec.json.decode(wire.body)
    if "embedding_types" in sent:  # we ask for base64, whatever the client wants
        sent["embedding_types"] = recording.asked["embedding_types"]
    assert normal(sent) == normal(recording.asked)


@pytest.mark.parametrize("recording", recordings("cohere", "v1chat", "completion-v1"))
def test_the_endpoints_of_before_are_not_mistaken_for_these(recording: Recording) -> None:
    """Their answers fail; their paths are refused by name."""
    assert isinstance(CLIENT.decode_response(REQUEST, recording.response())[-1], Failed)
    with pytest.raises(UnsupportedError, match="/v1/"):
        SERVER.decode_request(recording.path, b"{}")


@pytest.mark.parametrize("recording", recordings("cohere", "chat-"))
def test_trial_limits_are_read_from_headers(recording: Recording) -> None:
    """They are the only ones there are."""
    limits, headers = CLIENT.rate_limits(recording.headers), dict(recording.headers)
    if "x-trial-endpoint-call-remaining" not in headers:
        assert limits is None
    else:
        assert limits is not None
        assert limits.requests_remaining == int(headers["x-trial-endpoint-call-remaining"])
