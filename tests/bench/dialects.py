"""What the dialects cost: CPU microseconds per streamed chunk, decoded by the client and encoded by the server side.

The server side of each dialect makes a transcript of one response with many short text deltas, a frame for each. The
client side decodes it frame by frame, as from a socket. Decoding is also compared with the minimum: finding the end of
a frame and decoding its JSON into dicts. Rounds are interleaved, so that other load slows all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import msgspec

from llm_protocol.codec.sse import encode_sse
from llm_protocol.content import Message, Text
from llm_protocol.dialect import ClientDialect, ClientRequest, ServerDialect
from llm_protocol.events import Event, Finished, TextDelta
from llm_protocol.fold import unfold
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.anthropic import Anthropic, AnthropicServer
from llm_protocol.wires.cohere import Cohere, CohereServer
from llm_protocol.wires.gemini import Gemini, GeminiServer
from llm_protocol.wires.openai_chat import CEREBRAS, OpenAIChat, OpenAIChatServer
from llm_protocol.wires.responses import OpenAIResponses, OpenAIResponsesServer

ROUNDS = 15
CHUNKS = 2000
BUDGET_US = 10.0
"""Decoding a chunk may take so many microseconds of CPU."""

DIALECTS: dict[str, tuple[ClientDialect, ServerDialect]] = {
    "openai_chat": (OpenAIChat(), OpenAIChatServer()),
    "cerebras": (OpenAIChat(CEREBRAS), OpenAIChatServer(CEREBRAS)),
    "openai_responses": (OpenAIResponses(), OpenAIResponsesServer()),
    "anthropic": (Anthropic(), AnthropicServer()),
    "gemini": (Gemini(), GeminiServer()),
    "cohere": (Cohere(), CohereServer()),
}

REQUEST = ChatRequest(model="model-1", messages=(Message.of("user", "hi"),))
INBOUND = ClientRequest(REQUEST, stream=True)
_DICTS = msgspec.json.Decoder()


class Transcript(NamedTuple):
    """One streamed answer: what came in, and the frames that say it."""

    client: ClientDialect
    server: ServerDialect
    events: list[Event]
    frames: list[bytes]


def _answer() -> LLMResponse:
    text = "token " * CHUNKS
    return LLMResponse(
        request_id=REQUEST.request_id,
        provider="bench",
        model="model-1",
        content=text,
        output=(Text(text),),
        usage=Usage(input_tokens=5, output_tokens=CHUNKS),
        finish_reason=FinishReason.STOP,
    )


def transcript(client: ClientDialect, server: ServerDialect) -> Transcript:
    """The answer as ``server`` streams it. Raises `AssertionError` unless ``client`` reads the same from it."""
    events = list(unfold(_answer(), piece=len("token ")))
    encoder = server.response_encoder(INBOUND, "resp_1")
    frames = [encode_sse([frame]) for frame in encoder.start()]
    frames += [encode_sse([frame]) for event in events for frame in encoder.encode([event])]
    made = Transcript(client, server, events, frames)
    decoder = client.stream_decoder(REQUEST)
    read = [event for frame in frames for event in decoder.feed(frame)] + decoder.end()
    assert sum(isinstance(event, TextDelta) for event in read) == CHUNKS
    assert isinstance(read[-1], Finished)
    return made


def decode_round(made: Transcript) -> float:
    """Seconds of CPU per frame, decoding."""
    decoder = made.client.stream_decoder(REQUEST)
    begin = time.thread_time()
    for frame in made.frames:
        decoder.feed(frame)
    decoder.end()
    return (time.thread_time() - begin) / len(made.frames)


def encode_round(made: Transcript) -> float:
    """Seconds of CPU per event, encoding to SSE bytes."""
    encoder = made.server.response_encoder(INBOUND, "resp_1")
    begin = time.thread_time()
    for event in made.events:
        encode_sse(encoder.encode((event,)))
    return (time.thread_time() - begin) / len(made.events)


def bare_round(made: Transcript) -> float:
    """Seconds of CPU per frame for the least that any decoder must do."""
    begin = time.thread_time()
    for frame in made.frames:
        line = frame[frame.find(b"data: ") + 6 : -2]
        if line.startswith(b"{"):
            _DICTS.decode(line)
    return (time.thread_time() - begin) / len(made.frames)


KINDS: dict[str, Callable[[Transcript], float]] = {"decode": decode_round, "bare": bare_round, "encode": encode_round}


def measure() -> dict[str, dict[str, float]]:
    """Median microseconds of CPU per chunk, by dialect and kind."""
    made = {name: transcript(client, server) for name, (client, server) in DIALECTS.items()}
    times: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in KINDS} for name in made}
    for _ in range(ROUNDS):
        for name, transcript_ in made.items():
            for kind, run in KINDS.items():
                times[name][kind].append(run(transcript_))
    return {name: {kind: median(values) * 1e6 for kind, values in kinds.items()} for name, kinds in times.items()}


def main() -> int:
    """Print the table; 1 if a dialect decodes slower than the budget."""
    results = measure()
    print(f"CPU µs per streamed chunk, median of {ROUNDS} rounds of {CHUNKS} chunks")
    print(f"{'dialect':18}{'decode':>9}{'bare':>9}{'ratio':>8}{'encode':>9}")
    for name, found in results.items():
        ratio = found["decode"] / found["bare"]
        print(f"{name:18}{found['decode']:9.2f}{found['bare']:9.2f}{ratio:8.2f}{found['encode']:9.2f}")
    slow = [name for name, found in results.items() if found["decode"] > BUDGET_US]
    if slow:
        print(f"over the budget of {BUDGET_US} µs per decoded chunk: {', '.join(slow)}")
    return 1 if slow else 0
