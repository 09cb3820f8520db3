"""Whatever a provider does, every endpoint gives its clients the whole answer where the policy allows it.

The whole runtime behind the real server; the primary misbehaves by script, the fallback is well. What a server
sends is read with the client side of its own dialect.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest
import trio
from trio_websocket import open_websocket_url

from llm_actors.transport import HttpRequest, Transport, parse_url
from llm_protocol.content import Message
from llm_protocol.dialect import ClientDialect, WireResponse
from llm_protocol.events import Event, Failed, Finished
from llm_protocol.fold import Fold
from llm_protocol.policy import AttemptsPatch, Policy, Timeouts
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_protocol.vendors import VENDORS
from llm_protocol.wires.responses import OpenAIResponses
from llm_runtime.config import Config, Provider, Server
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from support.peer import Peer, Script, raw, reply, reset, sse, stall
from support.upstream import END, HELLO, JSON

TEXT = "Hello there"
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

FAULTS: dict[str, Script] = {
    "overloaded": reply(b'{"error":{"message":"busy","type":"t"}}', status=503, headers=JSON),
    "rate limited": reply(b"{}", status=429, headers={**JSON, "retry-after": "30"}),
    "reset before the head": reset(),
    "silent before the head": stall(),
    "silent after the head": [raw(SSE_HEAD), stall()],
    "cut in the middle": [sse(*HELLO, end=False), reset()],
    "silent in the middle": [sse(*HELLO, end=False), stall()],
    "garbage in the middle": sse(*HELLO, '{"choices": [[['),
    "no end marker": sse(*HELLO),
    "error in the stream": sse(*HELLO, '{"error":{"message":"overloaded","type":"server_error"}}'),
}


class Endpoint(NamedTuple):
    """How a client asks at one endpoint, and how it reads the answer."""

    path: str
    body: dict[str, object]
    dialect: ClientDialect


def _openai(path: str, **body: object) -> Endpoint:
    return Endpoint(path, body, VENDORS[LLMProvider.OPENAI].client())


MESSAGES = [{"role": "user", "content": "Say hello."}]
ENDPOINTS = {
    "chat": _openai("/v1/chat/completions", messages=MESSAGES, stream=True),
    "responses": Endpoint("/v1/responses", {"input": "Say hello.", "stream": True}, OpenAIResponses()),
    "messages": Endpoint(
        "/v1/messages",
        {"messages": MESSAGES, "max_tokens": 100, "stream": True},
        VENDORS[LLMProvider.ANTHROPIC].client(),
    ),
    "gemini": Endpoint(
        "/v1beta/models/careful:streamGenerateContent?alt=sse",
        {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]},
        VENDORS[LLMProvider.GEMINI].client(),
    ),
    "cohere": Endpoint("/v2/chat", {"messages": MESSAGES, "stream": True}, VENDORS[LLMProvider.COHERE].client()),
}


@asynccontextmanager
async def served(primary: Peer, fallback: Peer) -> AsyncIterator[str]:
    """A runtime behind its server; the route ``careful`` buffers and falls back."""
    limits = Timeouts(connect=1, first_token=0.3, idle=0.3, total=5)
    providers = {
        name: Provider(kind=LLMProvider.OPENAI_COMPATIBLE, base_url=f"{peer.url}/v1", models=("m",), timeouts=limits)
        for name, peer in (("primary", primary), ("fallback", fallback))
    }
    route = Policy(
        candidates=("primary/m", "fallback/m"),
        strategy="fallback",
        on_broken_stream="buffer",
        attempts=AttemptsPatch(max=1),
    )
    addresses: list[ListenAddress] = []
    runtime = Runtime(
        Config(providers=providers, routes={"careful": route}),
        servers=lambda rt: server_child(Server(host="127.0.0.1", port=0, drain_s=1), rt, addresses.append),
    )
    async with runtime.running():
        yield addresses[0].url


async def post(url: str, server: Endpoint) -> WireResponse:
    origin, _ = parse_url(url)
    body = msgspec.json.encode({"model": "careful", **server.body})
    transport = Transport()
    request = HttpRequest("POST", origin, server.path, {"content-type": "application/json"}, body)
    try:
        async with transport.send(request) as response:
            return WireResponse(response.status, tuple(response.headers.items()), await response.read())
    finally:
        await transport.aclose()


def read(server: Endpoint, answer: WireResponse) -> tuple[str, Event]:
    """The text and the end that a client of this endpoint gets."""
    decoder = server.dialect.stream_decoder(ChatRequest(messages=(Message.of("user", "Say hello."),)))
    events = [*decoder.feed(answer.body), *decoder.end()]
    text = "".join(getattr(part, "text", "") for part in Fold().add_all(events).parts())
    return text, events[-1]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", ENDPOINTS)
async def test_with_buffer_and_a_healthy_fallback_every_client_gets_the_whole_answer(where: str, fault: str) -> None:
    server = ENDPOINTS[where]
    async with Peer(FAULTS[fault]) as primary, Peer(sse(*HELLO, *END)) as fallback, served(primary, fallback) as url:
        with trio.fail_after(10):
            answer = await post(url, server)

        assert answer.status == 200
        text, end = read(server, answer)
        assert isinstance(end, Finished)
        assert text == TEXT
        assert len(primary.requests) + primary.connections >= 1
        assert len(fallback.requests) == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_websocket_client_gets_it_too(fault: str) -> None:
    async with Peer(FAULTS[fault]) as primary, Peer(sse(*HELLO, *END)) as fallback, served(primary, fallback) as url:
        frame: dict[str, Any] = {"type": ""}
        with trio.fail_after(10):
            async with open_websocket_url(url.replace("http", "ws") + "/v1/responses") as socket:
                await socket.send_message('{"type":"response.create","model":"careful","input":"Say hello."}')
                while frame["type"] not in ("response.completed", "response.failed"):
                    frame = msgspec.json.decode(await socket.get_message())

        assert frame["type"] == "response.completed"
        assert frame["response"]["output"][0]["content"][0]["text"] == TEXT
        decision = frame["response"]["llm_runtime"]["decision"]
        assert [attempt["provider"] for attempt in decision["attempts"]] == ["primary", "fallback"]


async def test_without_a_rescue_a_broken_stream_is_an_error_with_the_text_so_far_at_every_server() -> None:
    for server in ENDPOINTS.values():
        body = {**server.body, "llm_runtime": {"on_broken_stream": "error"}}
        async with Peer(FAULTS["cut in the middle"]) as primary, Peer() as fallback:
            async with served(primary, fallback) as url:
                answer = await post(url, server._replace(body=body))

                text, end = read(server, answer)
                assert isinstance(end, Failed)
                assert text == TEXT
                assert not fallback.requests


WHOLE = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"Hello there"}}]}'
)


@pytest.mark.parametrize(
    ("policy", "calls"), [({}, "1"), ({"strategy": "vote", "members": ["fallback/m", "fallback/m"]}, "2")]
)
async def test_the_head_counts_the_calls_that_were_made(policy: dict[str, Any], calls: str) -> None:
    """Who rests is not called, and each of several is."""
    body = {"messages": MESSAGES, "llm_runtime": policy}
    async with Peer(reply(b"{}", status=401, headers=JSON)) as primary, Peer(reply(WHOLE, headers=JSON)) as fallback:
        async with served(primary, fallback) as url:
            await post(url, _openai("/v1/chat/completions", messages=MESSAGES))
            before = len(primary.requests) + len(fallback.requests)
            answer = await post(url, _openai("/v1/chat/completions", **body))

    assert len(primary.requests) + len(fallback.requests) - before == int(calls)
    assert answer.header("x-llm-runtime-attempts") == calls


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_says_in_its_head_how_it_came_about(stream: bool) -> None:
    body = {"messages": MESSAGES, "stream": stream}
    async with Peer(FAULTS["overloaded"]) as primary, Peer(FAULTS["overloaded"]) as fallback:
        async with served(primary, fallback) as url:
            answer = await post(url, _openai("/v1/chat/completions", **body))

    assert (answer.status, answer.header("x-llm-runtime-provider")) == (503, "fallback")
    assert answer.header("x-llm-runtime-attempts") == "2"


async def test_a_whole_answer_says_in_its_head_how_it_came_to_be() -> None:
    body = {"messages": MESSAGES}
    async with Peer(FAULTS["overloaded"]) as primary, Peer(reply(WHOLE, headers=JSON)) as fallback:
        async with served(primary, fallback) as url:
            answer = await post(url, _openai("/v1/chat/completions", **body))

    assert answer.header("x-llm-runtime-provider") == "fallback"
    assert answer.header("x-llm-runtime-model") == "m"
    assert answer.header("x-llm-runtime-attempts") == "2"
    assert answer.header("x-llm-runtime-cache") == "off"
