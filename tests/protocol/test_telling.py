"""How an answer came to be, told on every wire to the clients that speak of ``llm_runtime`` themselves."""

from __future__ import annotations

import json

import msgspec
import pytest

from llm_protocol.content import Text
from llm_protocol.dialect import ServerDialect
from llm_protocol.embedding import Embedding
from llm_protocol.events import Event, Finished, ItemDone, ItemStarted, Started, TextDelta, UsageReported
from llm_protocol.requests import EmbeddingRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.anthropic import AnthropicServer
from llm_protocol.wires.cohere import CohereServer
from llm_protocol.wires.gemini import GeminiServer
from llm_protocol.wires.openai_chat import OpenAIChatServer

TEXT = Text("hi")
USAGE = Usage(input_tokens=2, output_tokens=1)
RESPONSE = LLMResponse(
    request_id="req_1",
    provider="p",
    model="m",
    response_id="resp_1",
    content="hi",
    output=(TEXT,),
    usage=USAGE,
    cost=0.5,
    finish_reason=FinishReason.STOP,
    decision={"cache": "miss", "attempts": []},
)
EVENTS: list[Event] = [
    Started(model="m"),
    ItemStarted(index=0, kind="text"),
    TextDelta(0, "hi"),
    ItemDone(index=0, part=TEXT),
    UsageReported(USAGE),
    Finished(reason=FinishReason.STOP, response=RESPONSE),
]
MESSAGES = [{"role": "user", "content": "hi"}]
CHATS = [
    pytest.param(OpenAIChatServer(), "/v1/chat/completions", {"model": "m", "messages": MESSAGES}, id="openai"),
    pytest.param(
        AnthropicServer(), "/v1/messages", {"model": "m", "max_tokens": 9, "messages": MESSAGES}, id="anthropic"
    ),
    pytest.param(
        GeminiServer(), "/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]}, id="gemini"
    ),
    pytest.param(CohereServer(), "/v2/chat", {"model": "m", "messages": MESSAGES}, id="cohere"),
]
EMBEDDINGS = [
    pytest.param(OpenAIChatServer(), "/v1/embeddings", {"model": "m", "input": "hi"}, id="openai"),
    pytest.param(
        GeminiServer(), "/v1beta/models/m:embedContent", {"content": {"parts": [{"text": "hi"}]}}, id="gemini"
    ),
    pytest.param(
        CohereServer(),
        "/v2/embed",
        {"model": "m", "texts": ["hi"], "input_type": "classification", "embedding_types": ["float"]},
        id="cohere",
    ),
]


def told(server: ServerDialect, path: str, body: dict[str, object], response: LLMResponse) -> list[object]:
    """What is told to this client: in a whole answer, and in each frame of a streamed one."""
    inbound = server.decode_request(path, json.dumps(body).encode())
    bodies = [server.encode_response(inbound, response)]
    if not isinstance(inbound.request, EmbeddingRequest):
        encoder = server.response_encoder(inbound, response.response_id)
        bodies += [frame.data for frame in [*encoder.start(), *encoder.encode(EVENTS)] if frame.data != b"[DONE]"]
    return [json.loads(data).get("llm_runtime") for data in bodies]


@pytest.mark.parametrize(("server", "path", "body"), CHATS)
def test_who_speaks_of_it_is_told_once_in_each_form_and_nobody_else(
    server: ServerDialect, path: str, body: dict[str, object]
) -> None:
    assert not any(told(server, path, body, RESPONSE))
    whole, *frames = told(server, path, body | {"llm_runtime": {}}, RESPONSE)
    assert isinstance(whole, dict)
    assert (whole["provider"], whole["cost"], whole["decision"]) == ("p", 0.5, RESPONSE.decision)
    assert [each for each in frames if each] == [whole]


@pytest.mark.parametrize(("server", "path", "body"), EMBEDDINGS)
def test_of_vectors_too(server: ServerDialect, path: str, body: dict[str, object]) -> None:
    response = msgspec.structs.replace(RESPONSE, content="", output=(), embeddings=(Embedding.of((1.0, 0.0)),))
    assert told(server, path, body, response) == [None]
    [whole] = told(server, path, body | {"llm_runtime": {}}, response)
    assert isinstance(whole, dict)
    assert whole["decision"] == RESPONSE.decision
