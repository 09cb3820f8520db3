"""Log probabilities: clients of every wire that has them get them, whichever wire the provider speaks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.transcripts import REQUEST, WIRES
from llm_protocol.codec import logprobs
from llm_protocol.codec.sse import encode_sse
from llm_protocol.content import JsonObject, Text
from llm_protocol.dialect import ClientRequest, WireResponse
from llm_protocol.fold import unfold
from llm_protocol.response import LLMResponse
from support.streams import fold

TOKENS = [
    {"token": "Grü", "logprob": -0.5, "bytes": list("Grü".encode()), "top_logprobs": []},
    {
        "token": "ße",
        "logprob": -1.25,
        "bytes": list("ße".encode()),
        "top_logprobs": [{"token": "ss", "logprob": -2.0, "bytes": [115, 115]}],
    },
]
GEMINI: dict[str, list[Any]] = {
    "chosenCandidates": [{"token": "Grü", "logProbability": -0.5}, {"token": "ße", "logProbability": -1.25}],
    "topCandidates": [{"candidates": []}, {"candidates": [{"token": "ss", "logProbability": -2.0}]}],
}
WHOLE: dict[str, Any] = {
    "openai_chat": {
        "choices": [{"message": {"content": "Grüße"}, "finish_reason": "stop", "logprobs": {"content": TOKENS}}]
    },
    "openai_responses": {
        "id": "resp_1", "status": "completed",
        "output": [{
            "type": "message", "id": "m", "role": "assistant",
            "content": [{"type": "output_text", "text": "Grüße", "annotations": [], "logprobs": TOKENS}],
        }],
    },
    "gemini": {
        "candidates": [{"content": {"parts": [{"text": "Grüße"}]}, "finishReason": "STOP", "logprobsResult": GEMINI}]
    },
}  # fmt: skip
INBOUND = ClientRequest(REQUEST, stream=True)


def read(wire: str) -> LLMResponse:
    return fold(WIRES[wire].client.decode_response(REQUEST, WireResponse(200, (), json.dumps(WHOLE[wire]).encode())))


def of(answer: LLMResponse) -> list[JsonObject]:
    return [each for part in answer.output if isinstance(part, Text) for each in part.logprobs]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("to", WHOLE)
@pytest.mark.parametrize("wire", WHOLE)
def test_they_reach_clients_of_every_wire_that_has_them(wire: str, to: str, stream: bool) -> None:
    answer = read(wire)
    assert of(answer) == TOKENS
    server, client = WIRES[to].server, WIRES[to].client
    if stream:
        encoder = server.response_encoder(INBOUND, "resp_1")
        frames = encoder.start()
        for event in unfold(answer, piece=2):
            frames += encoder.encode([event])
        decoder = client.stream_decoder(REQUEST)
        back = fold([*decoder.feed(encode_sse(frames)), *decoder.end()])
    else:
        back = fold(client.decode_response(REQUEST, WireResponse(200, (), server.encode_response(INBOUND, answer))))
    assert (back.content, of(back)) == ("Grüße", TOKENS)


def test_pieces_of_a_stream_are_joined() -> None:
    chat = [
        {"choices": [{"index": 0, "delta": {"content": token["token"]}, "logprobs": {"content": [token]}}]}
        for token in TOKENS
    ]
    gemini = [
        {
            "candidates": [{
                "content": {"parts": [{"text": chosen["token"]}]},
                "logprobsResult": {"chosenCandidates": [chosen], "topCandidates": [top]},
            }]
        }
        for chosen, top in zip(GEMINI["chosenCandidates"], GEMINI["topCandidates"], strict=True)
    ]  # fmt: skip
    last: dict[str, Any] = {
        "openai_chat": {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        "gemini": {"candidates": [{"finishReason": "STOP"}]},
    }
    for wire, chunks in (("openai_chat", chat), ("gemini", gemini)):
        decoder = WIRES[wire].client.stream_decoder(REQUEST)
        body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in [*chunks, last[wire]])
        assert of(fold([*decoder.feed(body), *decoder.end()])) == TOKENS


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("token", "logprob", "logProbability", "chosenCandidates", "topCandidates", "candidates")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(anything)
def test_whatever_a_provider_sends_nothing_raises(value: Any) -> None:
    for found in (logprobs.from_openai(value), logprobs.from_gemini(value)):
        logprobs.to_gemini(found)
