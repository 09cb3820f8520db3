"""Citations: the provider's own form for clients of its wire, and its sources in their own form for all others."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.transcripts import REQUEST, WIRES
from llm_protocol.codec import citations
from llm_protocol.codec.sse import encode_sse
from llm_protocol.content import Citation, Text
from llm_protocol.dialect import ClientRequest, WireResponse
from llm_protocol.fold import unfold
from llm_protocol.requests import ChatRequest, Parameters
from llm_protocol.response import FinishReason, LLMResponse
from support.streams import fold

TEXT = "Grüße from Oslo."
URL, TITLE = "https://a.example/1", "A page"
INBOUND = ClientRequest(REQUEST, stream=True)

PLACE = (TEXT.index("Oslo"), TEXT.index("Oslo") + 4)
BYTES = tuple(len(TEXT[:at].encode()) for at in PLACE)

GROUNDING = {
    "webSearchQueries": ["oslo"],
    "groundingChunks": [{"web": {"uri": URL, "title": TITLE}}],
    "groundingSupports": [
        {"segment": {"startIndex": BYTES[0], "endIndex": BYTES[1], "text": "Oslo"}, "groundingChunkIndices": [0]}
    ],
}
ANNOTATION = {"url": URL, "title": TITLE, "start_index": PLACE[0], "end_index": PLACE[1]}
CHAT_ANNOTATION = {"type": "url_citation", "url_citation": ANNOTATION}
ANTHROPIC_CITATION = {
    "type": "web_search_result_location", "url": URL, "title": TITLE, "cited_text": "Oslo is …", "encrypted_index": "E",
}  # fmt: skip
COHERE_CITATION = {
    "start": PLACE[0], "end": PLACE[1], "text": "Oslo", "type": "TEXT_CONTENT",
    "sources": [{"type": "document", "id": "d", "document": {"id": "d", "url": URL, "title": TITLE}}],
}  # fmt: skip

WHOLE: dict[str, Any] = {
    "openai_chat": {
        "choices": [
            {"message": {"content": TEXT, "annotations": [CHAT_ANNOTATION]}, "finish_reason": "stop", "index": 0}
        ]
    },
    "anthropic": {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": TEXT, "citations": [ANTHROPIC_CITATION]}], "usage": {},
    },
    "gemini": {
        "candidates": [
            {"content": {"parts": [{"text": TEXT}]}, "finishReason": "STOP", "groundingMetadata": GROUNDING}
        ]
    },
    "cohere": {
        "id": "c", "finish_reason": "COMPLETE",
        "message": {"content": [{"type": "text", "text": TEXT}], "citations": [COHERE_CITATION]},
    },
    "openai_responses": {
        "id": "resp_1", "status": "completed",
        "output": [{
            "type": "message", "id": "msg_1", "role": "assistant",
            "content": [{"type": "output_text", "text": TEXT, "annotations": [{"type": "url_citation", **ANNOTATION}]}],
        }],
    },
}  # fmt: skip


def read(wire: str) -> LLMResponse:
    body = json.dumps(WHOLE[wire]).encode()
    answer = fold(WIRES[wire].client.decode_response(REQUEST, WireResponse(200, (), body)))
    assert answer.content == TEXT
    assert answer.finish_reason is FinishReason.STOP
    return answer


def sources(answer: LLMResponse) -> list[tuple[str, str]]:
    return [(each.url, each.title) for part in answer.output if isinstance(part, Text) for each in part.citations]


def told(wire: str, answer: LLMResponse, *, stream: bool) -> LLMResponse:
    """What a client of a wire reads."""
    server, client = WIRES[wire].server, WIRES[wire].client
    if not stream:
        body = server.encode_response(INBOUND, answer)
        return fold(client.decode_response(REQUEST, WireResponse(200, (), body)))
    encoder = server.response_encoder(INBOUND, "resp_1")
    frames = encoder.start()
    for event in unfold(answer, piece=4):
        frames += encoder.encode([event])
    decoder = client.stream_decoder(REQUEST)
    return fold([*decoder.feed(encode_sse(frames)), *decoder.end()])


@pytest.mark.parametrize("wire", WIRES)
def test_every_wire_names_its_sources(wire: str) -> None:
    [text] = read(wire).output
    assert isinstance(text, Text)
    quote = "Oslo is …" if wire == "anthropic" else ""
    start, end = (None, None) if wire == "anthropic" else PLACE
    assert text.citations == (Citation(url=URL, title=TITLE, start=start, end=end, quote=quote),)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("to", WIRES)
@pytest.mark.parametrize("wire", WIRES)
def test_clients_of_every_wire_are_told_of_them(wire: str, to: str, stream: bool) -> None:
    back = told(to, read(wire), stream=stream)
    assert back.content == TEXT
    assert sources(back) == [(URL, TITLE)]
    [text] = back.output
    assert isinstance(text, Text)
    [found] = text.citations
    if wire != "anthropic" and to != "anthropic":  # there a citation is of a whole block
        assert (found.start, found.end) == PLACE


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wire", WIRES)
def test_clients_of_the_same_wire_get_the_providers_own_form(wire: str, stream: bool) -> None:
    answer = read(wire)
    back = told(wire, answer, stream=stream)
    assert [getattr(part, "extra", None) for part in back.output] == [
        getattr(part, "extra", None) for part in answer.output
    ]
    assert back.extra == answer.extra


def test_grounding_comes_back_verbatim() -> None:
    candidate = WHOLE["gemini"]["candidates"][0] | {
        "safetyRatings": [{"category": "HARM_CATEGORY_HATE_SPEECH", "probability": "LOW"}],
        "citationMetadata": {"citationSources": [{"startIndex": 0, "endIndex": 3, "uri": "https://b.example"}]},
        "avgLogprobs": -0.25,
        "brandNew": {"x": [1, None]},
    }
    chunks = [
        {"candidates": [{"content": {"parts": [{"text": TEXT[:5]}]}, "safetyRatings": candidate["safetyRatings"]}]},
        {"candidates": [candidate | {"content": {"parts": [{"text": TEXT[5:]}]}}]},
    ]
    decoder = WIRES["gemini"].client.stream_decoder(REQUEST)
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    answer = fold([*decoder.feed(body), *decoder.end()])
    back = json.loads(WIRES["gemini"].server.encode_response(INBOUND, answer))["candidates"][0]

    names = ("groundingMetadata", "safetyRatings", "citationMetadata", "avgLogprobs", "brandNew")
    assert {name: back[name] for name in names} == {name: candidate[name] for name in names}
    assert sources(answer) == [(URL, TITLE), ("https://b.example", "")]


def test_unknown_fields_of_a_gemini_part_come_back() -> None:
    parts = [
        {"text": "a", "partMetadata": {"x": 1}},
        {"functionCall": {"name": "f", "args": {}, "id": "1"}, "mystery": True},
    ]
    body = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    answer = fold(WIRES["gemini"].client.decode_response(REQUEST, WireResponse(200, (), json.dumps(body).encode())))
    assert [part.extra for part in answer.output] == [  # type: ignore[union-attr]
        {"gemini": {"partMetadata": {"x": 1}}},
        {"gemini": {"mystery": True}},
    ]
    back = json.loads(WIRES["gemini"].server.encode_response(INBOUND, answer))
    assert back["candidates"][0]["content"]["parts"] == parts


def test_a_citation_of_ours_is_not_sent_back_to_anthropic() -> None:
    """It has no index that Anthropic sealed."""
    block = json.loads(WIRES["anthropic"].server.encode_response(INBOUND, read("gemini")))["content"][0]
    assert block["citations"][0]["url"] == URL
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [block]}]
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": turns}).encode()
    request = WIRES["anthropic"].server.decode_request("/v1/messages", body).request
    assert request.messages[1].content == (Text(TEXT),)  # type: ignore[union-attr]


def test_sources_of_perplexity() -> None:
    body = {"citations": [URL], "choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]}
    found = WIRES["openai_chat"].client.decode_response(REQUEST, WireResponse(200, (), json.dumps(body).encode()))
    assert sources(fold(found)) == [(URL, "")]


def test_places_count_from_the_beginning_of_the_whole_answer() -> None:
    """Where a wire has one text, and the provider had two."""
    texts = (Text("One. ", citations=(Citation(url="https://1", start=0, end=3),)), Text("Two.", citations=(
        Citation(url="https://2", start=0, end=3),
    )))  # fmt: skip
    answer = LLMResponse(
        request_id="r", provider="p", model="m", output=texts, content="One. Two.", finish_reason=FinishReason.STOP
    )
    for stream in (False, True):
        for wire in ("openai_chat", "gemini"):
            [text] = told(wire, answer, stream=stream).output
            assert isinstance(text, Text)
            assert [text.text[each.start : each.end] for each in text.citations] == ["One", "Two"]


NAMES = (
    "url", "title", "start_index", "end_index", "url_citation", "cited_text", "start", "end", "sources", "document",
    "web", "uri", "segment", "groundingChunks", "groundingSupports", "groundingChunkIndices", "groundingMetadata",
    "citationMetadata", "citationSources", "startIndex", "endIndex",
)  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(anything, st.text(max_size=5))
def test_whatever_a_provider_sends_nothing_raises(value: Any, text: str) -> None:
    found = [
        *citations.from_annotations(value, text, 1),
        *citations.from_urls(value),
        *citations.from_anthropic(value),
        *citations.from_cohere(value, text),
        *citations.from_gemini(value if isinstance(value, dict) else {}, text),
    ]
    for each in found:
        assert each.start is None or 0 <= each.start < (each.end or 0) <= len(text)
    citations.to_chat(found, text)
    citations.to_anthropic(found)
    citations.to_cohere(found, text, 0)
    citations.to_gemini([(text, found)])


@pytest.mark.parametrize("to", WIRES)
def test_grounding_after_a_function_call_is_of_the_text_before_it(to: str) -> None:
    """Gemini sends the grounding with its last chunk."""
    call = {"functionCall": {"name": "f", "args": {}, "id": "1"}}
    last = {"content": {"parts": [{"text": ""}]}, "finishReason": "STOP", "groundingMetadata": GROUNDING}
    candidates = [{"content": {"parts": [{"text": TEXT}]}}, {"content": {"parts": [call]}}, last]
    decoder, encoder = WIRES["gemini"].client.stream_decoder(REQUEST), WIRES[to].server.response_encoder(INBOUND, "r_1")
    pieces = [b"data: " + json.dumps({"candidates": [each]}).encode() + b"\n\n" for each in candidates]
    events = [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()
    answer = fold(events)
    assert [type(part).__name__ for part in answer.output] == ["Text", "ToolCall"]
    assert sources(answer) == [(URL, TITLE)]
    frames = encoder.start()
    for event in (*events[:-1], list(unfold(answer))[-1]):
        frames += encoder.encode([event])
    assert URL.encode() in encode_sse(frames)


def _searching() -> ChatRequest:
    parameters = Parameters(extra={"openai_chat": {"web_search_options": {}}})
    return msgspec.structs.replace(REQUEST, parameters=parameters)


@pytest.mark.parametrize("searches", [True, False])
def test_annotations_after_a_tool_call_are_of_the_text_before_it(searches: bool) -> None:
    """Servers of the chat wire send them in a chunk of their own, at the end."""
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    deltas = [{"content": TEXT}, {"tool_calls": [call]}, {"annotations": [CHAT_ANNOTATION]}]
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": each}]} for each in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    decoder = WIRES["openai_chat"].client.stream_decoder(_searching() if searches else REQUEST)
    events = [event for each in chunks for event in decoder.feed(b"data: " + json.dumps(each).encode() + b"\n\n")]
    answer = fold([*events, *decoder.feed(b"data: [DONE]\n\n"), *decoder.end()])
    assert [type(part).__name__ for part in answer.output] == ["Text", "ToolCall"]
    # Without a search there are none, and clients of all wires get the pieces of the call as they arrive.
    assert sources(answer) == ([(URL, TITLE)] if searches else [])
