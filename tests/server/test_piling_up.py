"""What a client sends faster than it is parsed, or that nobody is going to read, does not pile up in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
import trio.lowlevel

from llm_protocol.codec.json import CheckedJson, JsonLimits
from llm_runtime.server.bodies import decode_body
from llm_runtime.server.http1 import CONTINUE, RequestParser
from llm_runtime.server.limits import PIPELINED_BYTES, RECEIVE_BYTES
from llm_runtime.server.socket import Socket
from support.server import HttpClient, open_server
from support.ws import MORE, PING, PONG, TEXT, connected, frame, text_of

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
CHAT = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
MOST = PIPELINED_BYTES + 2 * RECEIVE_BYTES


class Unread:
    """The most bytes that a parser has held at any time without parsing them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        feed = RequestParser.feed

        def measured(parser: RequestParser, data: bytes) -> None:
            feed(parser, data)
            self.most = max(self.most, parser.unread)

        monkeypatch.setattr(RequestParser, "feed", measured)


async def test_a_body_of_tiny_chunks_is_received_as_fast_as_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    unread = Unread(monkeypatch)
    text = CHAT + b" " * 200_000
    async with open_server() as server, await server.connect() as client:
        await client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        await client.send(b"".join(b"1\r\n%c\r\n" % byte for byte in text) + b"0\r\n\r\n")
        assert (await client.receive()).startswith(b"HTTP/1.1 200 ")
        assert (await client.request("GET", "/livez")).status == 200, "the connection goes on"
    assert unread.most <= MOST


@pytest.mark.parametrize("what", ["a refusal", "100 Continue"])
async def test_what_a_client_sends_while_it_does_not_read_is_left_in_the_kernel(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = Unread(monkeypatch)
    blocked, goes_on = trio.Event(), trio.Event()
    send = Socket.send

    async def blocking(socket: Socket, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 400 ") or data == CONTINUE:
            blocked.set()
            await goes_on.wait()
        await send(socket, data)

    monkeypatch.setattr(Socket, "send", blocking)
    body = CHAT.ljust(2_000_000)
    head = HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    async with open_server() as server, await server.connect() as client, trio.open_nursery() as nursery:
        await client.send(b"nonsense\r\n\r\n" if what == "a refusal" else head % len(body))
        await blocked.wait()
        nursery.start_soon(_pour, client, body)
        for _ in range(200):
            await trio.lowlevel.checkpoint()
        assert unread.most <= MOST
        goes_on.set()
        said = await client.receive()
        assert said.startswith(b"HTTP/1.1 400 " if what == "a refusal" else CONTINUE)
        if what == "100 Continue":
            assert b"HTTP/1.1 200 " in said + await client.receive()
        nursery.cancel_scope.cancel()


async def test_messages_that_are_not_complete_count_among_all_bodies_in_memory() -> None:
    half = frame(TEXT, b'{"type":"' + b"x" * 600_000, fin=False) + frame(PING, b"?")
    async with open_server(max_body_mb=1, max_body_total_mb=1) as server, connected(server) as first:
        await first.raw(half)
        pong = await first.frame()
        assert pong is not None
        assert pong.opcode == PONG, "the server has the half"
        async with connected(server) as second:
            await second.raw(half)
            assert await second.close_code() == 1013
        async with connected(server) as third:
            await third.create()
            assert text_of(await third.response()) == "Hello", "there is room for a small one"
        await first.raw(frame(MORE, b'"}'))
        assert (await first.event())["error"]["code"] == "unknown_event_type"
        reply = await server.request("POST", "/v1/chat/completions", CHAT.ljust(1_000_000))
        assert reply.status == 200, "all is released"


async def test_a_complete_message_counts_while_it_waits_to_be_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that arrive faster than they are decoded would take any amount of memory."""
    decoding, may_decode = trio.Event(), trio.Event()

    async def read_slowly(limits: JsonLimits, body: bytes | str, decode: Callable[[CheckedJson], object]) -> object:
        decoding.set()
        await may_decode.wait()
        return await decode_body(limits, body, decode)

    monkeypatch.setattr("llm_runtime.server.turns.decode_body", read_slowly)
    large = json.dumps({"type": "response.create", "model": "m", "input": "a" * 600_000})
    async with open_server(max_body_mb=1, max_body_total_mb=1) as server, connected(server) as first:
        await first.send(large)
        await decoding.wait()
        async with connected(server) as second:
            await second.send(large)
            assert await second.close_code() == 1013
        may_decode.set()
        assert text_of(await first.response()) == "Hello"
        reply = await server.request("POST", "/v1/chat/completions", CHAT.ljust(1_000_000))
        assert reply.status == 200, "all is released"


async def _pour(client: HttpClient, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await client.send(data)
