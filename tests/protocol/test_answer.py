"""What every dialect promises of a streamed answer, whatever its wire."""

from __future__ import annotations

import pytest

from llm_protocol.codec.sse import MAX_EVENT_BYTES, encode_sse
from llm_protocol.content import Message, Text
from llm_protocol.dialect import ClientDialect, ClientRequest, ServerDialect, StreamDecoder, WireResponse
from llm_protocol.embedding import Embedding
from llm_protocol.events import Embedded, Event, Failed, Finished, ItemStarted, Started, TextDelta, UsageReported
from llm_protocol.failures import FailureKind
from llm_protocol.fold import Fold, item_events
from llm_protocol.requests import ChatRequest, EmbeddingRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.anthropic import Anthropic, AnthropicServer
from llm_protocol.wires.cohere import Cohere, CohereServer
from llm_protocol.wires.gemini import Gemini, GeminiServer
from llm_protocol.wires.openai_chat import OpenAIChat, OpenAIChatServer
from llm_protocol.wires.responses import OpenAIResponses, OpenAIResponsesServer

REQUEST = ChatRequest(model="m", messages=(Message.of("user", "hi"),))

DIALECTS = pytest.mark.parametrize(
    ("client", "server"),
    [
        (Anthropic(), AnthropicServer()),
        (Cohere(), CohereServer()),
        (Gemini(), GeminiServer()),
        (OpenAIChat(), OpenAIChatServer()),
        (OpenAIResponses(), OpenAIResponsesServer()),
    ],
    ids=lambda side: side.name if hasattr(side, "decode_error") else "",
)


def begun(client: ClientDialect, server: ServerDialect) -> tuple[StreamDecoder, list[Event]]:
    """A decoder that has read the beginning of a text."""
    encoder = server.response_encoder(ClientRequest(REQUEST, stream=True), "resp_1")
    said = (Started(model="m"), ItemStarted(index=0, kind="text"), TextDelta(0, "To be"))
    frames = encode_sse([*encoder.start(), *encoder.encode(said)])
    decoder = client.stream_decoder(REQUEST)
    return decoder, decoder.feed(frames)


def failure_of(events: list[Event]) -> tuple[FailureKind, bool]:
    """The kind of the failure that ends ``events``, and whether it is partial."""
    assert not any(isinstance(event, Finished) for event in events)
    end = events[-1]
    assert isinstance(end, Failed)
    return end.failure.kind, end.failure.partial


@DIALECTS
def test_a_stream_cut_in_its_text_is_truncated_and_partial(client: ClientDialect, server: ServerDialect) -> None:
    """What had been said before the cut is marked as a part."""
    decoder, events = begun(client, server)
    assert TextDelta(0, "To be") in events
    assert failure_of(decoder.end()) == (FailureKind.TRUNCATED, True)


@DIALECTS
def test_an_empty_body_is_truncated_and_nothing_of_it_was_told(client: ClientDialect, server: ServerDialect) -> None:
    assert server.name == client.name
    assert failure_of(client.stream_decoder(REQUEST).end()) == (FailureKind.TRUNCATED, False)


@DIALECTS
@pytest.mark.parametrize("odd", [b"data: {\n\n", b"data: 1\n\n"])
def test_what_is_not_understood_ends_the_answer(client: ClientDialect, server: ServerDialect, odd: bytes) -> None:
    decoder, _ = begun(client, server)
    assert failure_of(decoder.feed(odd)) == (FailureKind.PROTOCOL, True)


@DIALECTS
def test_an_event_that_is_too_large_ends_the_answer(client: ClientDialect, server: ServerDialect) -> None:
    decoder, _ = begun(client, server)
    assert not decoder.feed(b"data: " + b"x" * (MAX_EVENT_BYTES - len(b"data: ")))
    assert failure_of(decoder.feed(b"x")) == (FailureKind.ANSWER_TOO_LARGE, True)


@DIALECTS
def test_nothing_follows_the_end(client: ClientDialect, server: ServerDialect) -> None:
    decoder, _ = begun(client, server)
    decoder.feed(b"data: {\n\n")
    assert decoder.feed(b"data: {\n\n") == []
    assert decoder.end() == []


@pytest.mark.parametrize(
    ("client", "server"),
    [(Cohere(), CohereServer()), (Gemini(), GeminiServer()), (OpenAIChat(), OpenAIChatServer())],
    ids=("cohere", "gemini", "openai_chat"),
)
def test_vectors_come_whole_even_where_a_stream_was_asked_for(client: ClientDialect, server: ServerDialect) -> None:
    request = EmbeddingRequest(model="m", inputs=("a", "b"))
    vectors = (Embedding.of((1.0, 2.0)), Embedding.of((3.0, 4.0)))
    response = LLMResponse(request_id="r", provider="p", model="m", embeddings=vectors)
    body = server.encode_response(ClientRequest(request), response)
    decoder = client.stream_decoder(request)
    events = [event for at in range(len(body)) for event in decoder.feed(body[at : at + 1])] + decoder.end()
    assert Embedded(vectors) in events
    assert isinstance(events[-1], Finished)


def answered() -> list[Event]:
    part = Text("To be or not.")
    return [Started(model="m"), *item_events(0, part), UsageReported(Usage(input_tokens=3, output_tokens=4))]


@DIALECTS
@pytest.mark.parametrize("ahead", [b"", b"\n\n  ", b"\xef\xbb\xbf"], ids=["as it is", "blank lines", "a BOM"])
def test_one_object_where_a_stream_was_asked_for_is_the_answer(
    client: ClientDialect, server: ServerDialect, ahead: bytes
) -> None:
    """What a body is shows in its first byte, whatever its label says."""
    response = (
        Fold()
        .add_all([*answered(), Finished(reason=FinishReason.STOP)])
        .response(request_id="req_1", response_id="resp_1", provider="p", model="m")
    )
    body = ahead + server.encode_response(ClientRequest(REQUEST, stream=False), response)
    decoder = client.stream_decoder(REQUEST)
    events = [event for byte in body for event in decoder.feed(bytes([byte]))] + decoder.end()
    assert Fold().add_all(events).parts() == (Text("To be or not."),)
    assert isinstance(events[-1], Finished)
    assert decoder.is_whole


@DIALECTS
def test_a_stream_where_one_object_was_asked_for_is_the_answer(client: ClientDialect, server: ServerDialect) -> None:
    encoder = server.response_encoder(ClientRequest(REQUEST, stream=True), "resp_1")
    end = Finished(
        reason=FinishReason.STOP,
        response=Fold().add_all(answered()).response(request_id="req_1", response_id="resp_1", provider="p", model="m"),
    )
    body = encode_sse([*encoder.start(), *encoder.encode([*answered(), end])])
    for whole in (body, b"\n" + body, b": waiting\n\n" + body):
        events = client.decode_response(REQUEST, WireResponse(200, body=whole))
        assert Fold().add_all(events).parts() == (Text("To be or not."),)
        assert isinstance(events[-1], Finished)
    cut = client.decode_response(REQUEST, WireResponse(200, body=body[: len(body) // 2]))
    assert failure_of(cut)[0] is FailureKind.TRUNCATED
