"""OpenAI's chat wire, as OpenAI and Cerebras speak it: transcripts decode to what the raw body says, and back."""

from __future__ import annotations

import itertools
import json
import struct
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_protocol.content import Reasoning, Refusal, Text, ToolCall
from llm_protocol.dialect import WireResponse
from llm_protocol.events import Embedded, Event, Finished, Started
from llm_protocol.failures import FailureKind
from llm_protocol.fold import Fold
from llm_protocol.requests import ChatRequest, CompletionRequest, EmbeddingRequest, ImageRequest
from llm_protocol.response import FinishReason, Usage
from llm_protocol.wires.openai_chat import CEREBRAS, OPENAI, OpenAIChat, OpenAIChatServer
from support.conformance import check_failure_again, check_models_again, check_same, retell
from support.streams import check_order, check_truncation, decode, fold
from support.transcripts import Recording, read_sse, recordings, with_request

CLIENTS = {"openai": OpenAIChat(OPENAI), "cerebras": OpenAIChat(CEREBRAS)}
SERVERS = {"openai": OpenAIChatServer(OPENAI), "cerebras": OpenAIChatServer(CEREBRAS)}
CHAT = ChatRequest(model="m", messages=())

REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


def of(vendor: str, *prefixes: str, stream: bool | None = None) -> list[Any]:
    """The recordings of ``vendor`` with its name before each."""
    found = recordings(vendor, *prefixes, stream=stream)
    return [pytest.param(vendor, *param.values, id=f"{vendor}-{param.id}") for param in found]


def message_of(chunks: list[Any]) -> dict[str, Any]:
    """The whole answer that a stream tells, put together without the code under test."""
    whole: dict[str, Any] = {"usage": None, "message": {"tool_calls": []}, "finish_reason": None}
    for chunk in chunks:
        whole |= {"id": chunk["id"], "model": chunk["model"], "usage": chunk.get("usage") or whole["usage"]}
        for choice in chunk["choices"]:
            delta = choice.get("delta", {"content": choice.get("text")})
            whole["finish_reason"] = choice.get("finish_reason") or whole["finish_reason"]
            for key in ("content", "reasoning", "refusal"):
                if delta.get(key):
                    whole["message"][key] = whole["message"].get(key, "") + delta[key]
            for call in delta.get("tool_calls") or ():
                add_call(whole["message"]["tool_calls"], call)
    return whole


def add_call(calls: list[Any], piece: dict[str, Any]) -> None:
    """Put a piece of a call where its index says."""
    while len(calls) <= piece["index"]:
        calls.append({"id": "", "function": {"name": "", "arguments": ""}})
    call = calls[piece["index"]]
    call["id"] = piece.get("id") or call["id"]
    for key, value in piece["function"].items():
        call["function"][key] += value or ""


def expected_parts(message: dict[str, Any], vendor: str) -> list[Any]:
    """The parts of a raw message, in our order."""
    parts: list[Any] = []
    if message.get("reasoning"):
        parts.append(Reasoning(text=message["reasoning"], dialect=CLIENTS[vendor].name))
    if message.get("content"):
        parts.append(Text(message["content"]))
    for call in message.get("tool_calls") or ():
        function = call["function"]
        parts.append(ToolCall(id=call["id"], name=function["name"], arguments=function["arguments"]))
    if message.get("refusal"):
        parts.append(Refusal(message["refusal"]))
    return parts


def expected_usage(raw: dict[str, Any] | None) -> Usage | None:
    """The usage of a raw body."""
    if raw is None:
        return None
    return Usage(
        input_tokens=raw["prompt_tokens"],
        output_tokens=raw["completion_tokens"],
        cached_tokens=(raw.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
        cache_write_tokens=(raw.get("prompt_tokens_details") or {}).get("cache_write_tokens", 0),
        reasoning_tokens=(raw.get("completion_tokens_details") or {}).get("reasoning_tokens", 0),
    )


def check(events: list[Event], whole: dict[str, Any], vendor: str) -> None:
    """Field by field, the events tell ``whole``."""
    check_order(events)
    folded = Fold().add_all(events)
    message = whole["message"]
    assert folded.started == Started(model=whole["model"], upstream_id=whole["id"])
    assert list(folded.parts()) == expected_parts(message, vendor)
    assert folded.usage == expected_usage(whole["usage"])
    assert isinstance(folded.end, Finished)
    assert folded.end.raw_reason == whole["finish_reason"]
    reason = REASONS[whole["finish_reason"]]
    if reason is FinishReason.STOP and message.get("refusal"):
        reason = FinishReason.CONTENT_FILTER
    elif reason is FinishReason.STOP and message.get("tool_calls"):
        reason = FinishReason.TOOL_CALLS
    assert folded.end.reason == reason


def is_stream(recording: Recording) -> bool:
    """Whether the body is SSE, whatever the file is called."""
    return recording.body.startswith("data:")


ANSWERS = of("openai", "chat", "completion") + of("cerebras", "chat")


@pytest.mark.parametrize(("vendor", "recording"), ANSWERS)
def test_recorded_answers_decode(vendor: str, recording: Recording) -> None:
    """Whole and streamed: parts, usage, ids and finish reasons are those of the raw body."""
    client = CLIENTS[vendor]
    if is_stream(recording):
        events = decode(lambda: client.stream_decoder(CHAT), recording.body.encode())
        check(events, message_of(recording.sse()), vendor)
    else:
        raw = json.loads(recording.body)
        choice = raw["choices"][0]
        choice.setdefault("message", {"content": choice.get("text")})
        check(client.decode_response(CHAT, recording.response()), raw | choice, vendor)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("vendor", "recording"), ANSWERS)
def test_the_server_says_the_same(vendor: str, recording: Recording, streamed: bool) -> None:
    """What was read, encoded for a client: the raw body says the same, and our own client reads the same."""
    client, body = CLIENTS[vendor], recording.body.encode()
    events = (
        decode(lambda: client.stream_decoder(CHAT), body)
        if is_stream(recording)
        else client.decode_response(CHAT, recording.response())
    )
    answer = fold(events)
    told = retell(client, SERVERS[vendor], CHAT, answer, streamed=streamed)
    check_same(told.events, answer)
    raw = message_of(read_sse(told.body)) if streamed else (whole := json.loads(told.body)) | whole["choices"][0]
    check(told.events, raw, vendor)


@pytest.mark.parametrize(("vendor", "recording"), ANSWERS)
def test_recorded_streams_under_any_split_and_cut(vendor: str, recording: Recording) -> None:
    """The pieces do not matter, and without the finish reason nothing is a success."""
    if not is_stream(recording):
        return
    body = recording.body.encode()

    def make() -> Any:
        return CLIENTS[vendor].stream_decoder(CHAT)

    whole = decode(make, body)
    finish = body.rfind(b'"finish_reason":"')
    check_truncation(make, body, finish if finish > 0 else body.rfind(b'"finish_reason"'))

    @settings(max_examples=25)
    @given(st.lists(st.integers(0, len(body)), max_size=8))
    def split(cuts: list[int]) -> None:
        bounds = [0, *sorted(cuts), len(body)]
        assert decode(make, *(body[a:b] for a, b in itertools.pairwise(bounds))) == whole

    split()


def normal(body: Any) -> Any:
    """A request body without what has several spellings or is a default of ours."""
    body = json.loads(json.dumps(body))
    for name in ("stream", "stream_options", "encoding_format"):
        body.pop(name, None)
    if "max_tokens" in body and "prompt" not in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    if isinstance(body.get("input"), str):
        body["input"] = [body["input"]]
    if body.get("n") == 1:
        del body["n"]
    for message in body.get("messages", ()):
        normalise_message(message)
    return {name: value for name, value in body.items() if value is not None}


def normalise_message(message: dict[str, Any]) -> None:
    """One text part is a string; an absent, null and empty content of a caller of tools are one."""
    content = message.get("content")
    if isinstance(content, list) and len(content) == 1 and content[0].keys() == {"type", "text"}:
        message["content"] = content[0]["text"]
    if message.get("tool_calls") and not content:
        message.pop("content", None)
    for name in [name for name, value in message.items() if value is None]:
        del message[name]


def has_texts(param: Any) -> bool:
    """Token ids as input are refused: ``test_openai_chat_media.py``."""
    inputs = param.values[1].asked.get("input")
    return not isinstance(inputs, list) or isinstance(inputs[0], str)


@pytest.mark.parametrize(
    ("vendor", "recording"),
    list(
        filter(
            has_texts,
            with_request(of("openai", "chat", "completion", "embedding", "image") + of("cerebras", "chat")),
        )
    ),
)
def test_recorded_requests_come_back(vendor: str, recording: Recording) -> None:
    """What a real client sent decodes, and encodes to the same body."""
    raw = recording.asked
    inbound = SERVERS[vendor].decode_request(recording.path, json.dumps(raw).encode())
    assert inbound.stream == bool(raw.get("stream"))
    assert inbound.include_usage == bool((raw.get("stream_options") or {}).get("include_usage"))
    wire = CLIENTS[vendor].encode_request(inbound.request, stream=inbound.stream)
    assert recording.path.endswith(wire.path)
    assert normal(json.loads(wire.body)) == normal(raw)


KINDS = {
    ("400", "context_length_exceeded"): FailureKind.CONTEXT_LENGTH,
    ("400", "unsupported_parameter"): FailureKind.UNSUPPORTED,
    ("400", "unknown_parameter"): FailureKind.UNSUPPORTED,
    ("400", "unsupported_value"): FailureKind.UNSUPPORTED,
    ("400", "model_not_found"): FailureKind.MODEL_NOT_FOUND,
    ("400", "wrong_api_format"): FailureKind.UNSUPPORTED,
    ("429", "insufficient_quota"): FailureKind.QUOTA,
}
BY_STATUS = {
    "400": FailureKind.BAD_REQUEST,
    "401": FailureKind.AUTH,
    "403": FailureKind.AUTH,
    "404": FailureKind.MODEL_NOT_FOUND,
    "429": FailureKind.RATE_LIMITED,
    "500": FailureKind.SERVER_ERROR,
    "503": FailureKind.OVERLOADED,
}


@pytest.mark.parametrize(("vendor", "recording"), of("openai", "error") + of("cerebras", "error"))
def test_recorded_errors(vendor: str, recording: Recording) -> None:
    """Kind, code, param and the words of the vendor; never a key."""
    failure = CLIENTS[vendor].decode_error(recording.response())
    raw = json.loads(recording.body)
    error = raw.get("error", raw)
    status = str(recording.status)
    assert failure.kind == KINDS.get((status, error["code"]), BY_STATUS[status])
    assert failure.upstream_status == recording.status
    assert failure.upstream_code == (error["code"] or error["type"])
    assert failure.param == error["param"]
    assert failure.message.split()[:3] == error["message"].split()[:3]
    assert "****" not in failure.message
    check_failure_again(CLIENTS[vendor], SERVERS[vendor], failure)


@pytest.mark.parametrize(("vendor", "recording"), of("openai", "models") + of("cerebras", "models"))
def test_recorded_model_lists(vendor: str, recording: Recording) -> None:
    """Every model, in order."""
    page = CLIENTS[vendor].decode_models(recording.body.encode())
    raw = json.loads(recording.body)["data"]
    assert [(m.id, m.created, m.owned_by) for m in page.models] == [(m["id"], m["created"], m["owned_by"]) for m in raw]
    assert page.next is None
    check_models_again(CLIENTS[vendor], SERVERS[vendor], page.models)


@pytest.mark.parametrize(("_vendor", "recording"), of("openai", "embedding"))
def test_recorded_embeddings(_vendor: str, recording: Recording) -> None:
    """The vectors, as numbers or base64."""
    raw = json.loads(recording.body)
    request = EmbeddingRequest(model="m", inputs=("x",) * len(raw["data"]))
    events = CLIENTS["openai"].decode_response(request, recording.response())
    check_order(events)
    vectors = [item["embedding"] for item in raw["data"]]
    plain = [unpacked(v) if isinstance(v, str) else tuple(map(float, v)) for v in vectors]
    assert [event.vectors for event in events if isinstance(event, Embedded)] == [tuple(plain)]
    folded = Fold().add_all(events)
    assert folded.usage == Usage(input_tokens=raw["usage"]["prompt_tokens"])
    assert folded.started.model == raw["model"]
    check_same(retell(CLIENTS["openai"], SERVERS["openai"], request, fold(events), streamed=False).events, fold(events))


def unpacked(text: str) -> tuple[float, ...]:
    """Little-endian float32."""
    data = b64decode(text)
    return tuple(value for (value,) in struct.iter_unpack("<f", data))


@pytest.mark.parametrize(("_vendor", "recording"), of("openai", "image"))
def test_recorded_pictures(_vendor: str, recording: Recording) -> None:
    """By URL or as bytes."""
    raw = json.loads(recording.body)
    events = CLIENTS["openai"].decode_response(ImageRequest(model="m", prompt="x"), recording.response())
    check_order(events)
    parts: list[Any] = list(Fold().add_all(events).parts())
    assert len(parts) == len(raw["data"])
    for part, item in zip(parts, raw["data"], strict=True):
        assert (part.url, part.data) == (item.get("url"), b64decode(item["b64_json"]) if "b64_json" in item else None)
    request, answer = ImageRequest(model="m", prompt="x"), fold(events)
    check_same(retell(CLIENTS["openai"], SERVERS["openai"], request, answer, streamed=False).events, answer)


@pytest.mark.parametrize(("vendor", "recording"), ANSWERS)
def test_recorded_limits(vendor: str, recording: Recording) -> None:
    """The numbers are the headers'."""
    headers = dict(recording.headers)
    limits = CLIENTS[vendor].rate_limits(recording.headers)
    windows = ("requests-day", "tokens-minute") if vendor == "cerebras" else ("requests", "tokens")
    if f"x-ratelimit-limit-{windows[1]}" not in headers:
        assert limits is None
        return
    assert limits is not None
    assert limits.requests_remaining == int(headers[f"x-ratelimit-remaining-{windows[0]}"])
    assert limits.tokens_limit == int(headers[f"x-ratelimit-limit-{windows[1]}"])
    assert limits.tokens_reset_s is not None
    assert limits.requests_reset_s is not None


def test_completions_are_decoded_as_chat_is() -> None:
    """The request type does not change how an answer is read."""
    body = b'{"id":"c","model":"m","choices":[{"text":"x","index":0,"finish_reason":"stop"}]}'
    asked = CompletionRequest(model="m", prompt="p")
    events = CLIENTS["openai"].decode_response(asked, WireResponse(200, (), body))
    assert Fold().add_all(events).parts() == (Text("x"),)
