"""The client side of each dialect: what vendors answer, streamed and whole, their errors, headers and model lists.

And what is made of it: a vendor's oddities must not break the answer to a client of any dialect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import msgspec

from fuzz.steps import pieces, step
from fuzz.target import Target
from llm_protocol.codec.sse import encode_sse
from llm_protocol.content import Message, Tool
from llm_protocol.dialect import ClientDialect, ClientRequest, ServerDialect, WireResponse
from llm_protocol.errors import ProtocolError
from llm_protocol.events import Event, Failed, Finished
from llm_protocol.fold import Fold
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CodeRequest,
    CompletionRequest,
    EmbeddingRequest,
    ImageRequest,
)
from llm_protocol.wires.anthropic import Anthropic, AnthropicServer
from llm_protocol.wires.cohere import Cohere, CohereServer
from llm_protocol.wires.gemini import Gemini, GeminiServer
from llm_protocol.wires.openai_chat import CEREBRAS, OPENAI, OpenAIChat, OpenAIChatServer
from llm_protocol.wires.responses import OpenAIResponses, OpenAIResponsesServer
from support.streams import check_order
from support.transcripts import FOLDER, Recording

CLIENTS: tuple[ClientDialect, ...] = (
    OpenAIChat(OPENAI),
    OpenAIChat(CEREBRAS),
    OpenAIResponses(),
    Anthropic(),
    Gemini(),
    Cohere(),
)
SERVERS: tuple[ServerDialect, ...] = (
    OpenAIChatServer(),
    OpenAIResponsesServer(),
    AnthropicServer(),
    GeminiServer(),
    CohereServer(),
)
TOOL = Tool(name="f", parameters={"type": "object", "properties": {"a": {"type": "string"}}})
REQUESTS: tuple[AnyRequest, ...] = (
    ChatRequest(model="m", messages=(Message.of("user", "x"),), tools=(TOOL,)),
    CompletionRequest(model="m", prompt="x"),
    CodeRequest(model="m", instruction="x", language="python"),
    EmbeddingRequest(model="m", inputs=("a", "b")),
    ImageRequest(model="m", prompt="x"),
)
FORMS = ("stream", "whole", "error", "models")
RECORDED = {"openai": (0, 2), "cerebras": (1,), "anthropic": (3,), "gemini": (4,), "cohere": (5,)}
LONGEST = 12 * 1024
"""Bytes of a recorded answer; few say more in more."""
STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 418, 429, 498, 499, 500, 502, 503, 504, 529, 599, 302, 600, 999)


def check(data: bytes) -> None:
    """One terminal event, the last; the same for any split; what it says can be told."""
    (chosen, at), body = data[:2].ljust(2, b"\0"), data[2:]
    client = CLIENTS[chosen % len(CLIENTS)]
    form = FORMS[chosen // len(CLIENTS) % len(FORMS)]
    request = REQUESTS[chosen // len(CLIENTS) // len(FORMS) % len(REQUESTS)]
    headers = fields(body)
    step(client.rate_limits, headers)
    match form:
        case "stream":
            check_stream(client, request, body, at)
        case "whole":
            if request.request_type in client.request_types:
                events = step(client.decode_response, request, WireResponse(200, headers, body))
                check_order(events)
                check_telling(request, events)
        case "error":
            check_error(client, WireResponse(STATUSES[at % len(STATUSES)], headers, body))
        case _:
            check_models(client, body)


def fields(body: bytes) -> tuple[tuple[str, str], ...]:
    """The lines of ``body`` that look like header fields, as such; a transport gives them in latin-1."""
    lines = (line.partition(":") for line in body[:2000].decode("latin-1").split("\n"))
    return tuple((name.strip().lower(), value.strip()) for name, colon, value in lines if colon)


def check_stream(client: ClientDialect, request: AnyRequest, body: bytes, at: int) -> None:
    if request.request_type not in client.request_types:
        return
    whole = decoded(client, request, [body])
    check_order(whole)
    for cut in pieces(body, at):
        assert decoded(client, request, cut) == whole
    check_telling(request, whole)


def decoded(client: ClientDialect, request: AnyRequest, parts: Sequence[bytes]) -> list[Event]:
    decoder = client.stream_decoder(request)
    return [event for part in parts for event in step(decoder.feed, part)] + step(decoder.end)


def check_error(client: ClientDialect, response: WireResponse) -> None:
    failure = step(client.decode_error, response)
    assert failure.upstream_status == response.status
    assert failure.retry_after is None or 0 <= failure.retry_after < float("inf")
    for server in SERVERS:
        step(server.encode_error, failure)


def check_models(client: ClientDialect, body: bytes) -> None:
    try:
        page = step(client.decode_models, body)
    except ProtocolError:
        return
    for server in SERVERS:
        json.loads(step(server.encode_models, page.models))
    if page.next is not None:
        path = client.models_request(page.next).path
        assert re.fullmatch(r"[!-~]+", path), "it would not be one request"


def check_telling(request: AnyRequest, events: list[Event]) -> None:
    """What was understood can be told to any client, streamed and whole."""
    response = Fold().add_all(events).response(request_id="r", response_id="resp_1", provider="p", model="m")
    inbound = ClientRequest(request, stream=True)
    told = [
        msgspec.structs.replace(event, response=response) if isinstance(event, Finished | Failed) else event
        for event in events
    ]
    for server in SERVERS if isinstance(request, ChatRequest) else SERVERS[:1]:
        encoder = server.response_encoder(inbound, "resp_1")
        frames = encoder.start() + step(encoder.encode, told)
        encode_sse(frames)
        for frame in frames:
            assert not {10, 13}.intersection(frame.data)
            if frame.data != b"[DONE]":
                json.loads(frame.data)
        if isinstance(events[-1], Finished):
            json.loads(step(server.encode_response, inbound, response))


def seeds() -> list[bytes]:
    """Recorded traffic, where it is present, and a little by hand."""
    found = [bytes((each, 128)) + b'data: {"a": [1, null, "\\ud83d"]}\n\ndata: [DONE]\n\n' for each in range(24)]
    for vendor, clients in RECORDED.items():
        for path in sorted((FOLDER / vendor).glob("*.json")):
            recording = Recording(path)
            body = recording.body.encode()
            if len(body) <= LONGEST:
                found += [bytes((_chosen(recording, client), 128)) + body for client in clients]
    return found


def _chosen(recording: Recording, client: int) -> int:
    streamed = "-stream" in recording.name or "midstream" in recording.name
    form = 2 if recording.name.startswith("error") else 3 if recording.name.startswith("model") else int(not streamed)
    kind = 3 if recording.name.startswith("embedding") else 4 if recording.name.startswith("image") else 0
    return client + len(CLIENTS) * (form + len(FORMS) * kind)


VENDORS = Target("vendors", check, seeds, prefix=2)
