"""Each limit of the server, one unit below and one unit above. docs/limits.md lists them all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import llm_runtime
from llm_protocol.errors import QueueFullError
from llm_protocol.http1 import encode_chunk
from llm_protocol.requests import LLMProvider
from llm_runtime.config import Config, Provider, Server
from llm_runtime.config.server import MIB
from llm_runtime.server.http1 import RequestParser
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.limits import CHUNKS_AT_ONCE, FAILED_LOGINS, HEAD_BYTES, PIPELINED_BYTES
from support.peer import Peer, chunked, stall
from support.server import HttpClient, hanging, open_server, saying
from support.ws import connected

KEYS = {"me": "sk-secret-0123456789"}
MINE = {"authorization": "Bearer sk-secret-0123456789"}
MAX_MB = 4_096 / MIB
"""`max_body_mb` of 4,096 bytes."""


def chat(size: int, **more: object) -> bytes:
    """A chat request of ``size`` bytes."""
    fields = "".join(f'"{name}":{str(value).lower()},' for name, value in more.items())
    body = b'{%s"messages":[{"role":"user","content":"%s"}]}'
    return body % (fields.encode(), b"a" * (size - len(body % (fields.encode(), b""))))


def post(body: bytes, *fields: str) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", f"content-length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


# -- the head decides ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((), 401),
        (("authorization: Bearer wrong",), 401),
        (("authorization: Bearer sk-secret-0123456789", "origin: http://evil.test"), 403),
        (("authorization: Bearer sk-secret-0123456789", "sec-fetch-site: cross-site"), 403),
        (("expect: 100-continue",), 401),
    ],
)
async def test_a_stranger_is_refused_by_the_head_alone_and_the_connection_closed(
    fields: tuple[str, ...], status: int
) -> None:
    async with open_server(keys=KEYS) as server, await server.connect() as client:
        await client.send(post(b"a" * 1000, *fields)[:-999])
        answer = await client.until_closed()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nconnection: close\r\n" in answer
        assert b"100 Continue" not in answer


async def test_nothing_of_a_strangers_body_is_kept() -> None:
    async with open_server(keys=KEYS, max_body_mb=MAX_MB, max_body_total_mb=MAX_MB) as server:
        strangers = [await server.connect() for _ in range(FAILED_LOGINS)]
        for client in strangers:
            await client.send(post(b"a" * 100_000)[:-50_000])
        for client in strangers:
            assert (await client.until_closed()).startswith(b"HTTP/1.1 401 ")
        assert (await server.request("POST", "/v1/chat/completions", chat(4_096), **MINE)).status == 200


async def test_what_is_not_there_is_refused_before_its_body_comes() -> None:
    async with open_server() as server, await server.connect() as client:
        await client.send(b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n")
        assert (await client.until_closed()).startswith(b"HTTP/1.1 404 ")


async def test_json_is_never_sniffed_for_something_else() -> None:
    async with open_server(keys=KEYS) as server:
        for path, headers in (("/v1/models", MINE), ("/livez", {}), ("/v1/models", {}), ("/nowhere", MINE)):
            assert (await server.request("GET", path, **headers)).headers["x-content-type-options"] == "nosniff"
        async with await server.connect() as client:
            await client.send(b"nonsense\r\n\r\n")
            assert b"\r\nx-content-type-options: nosniff\r\n" in await client.until_closed()


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
async def test_a_head_has_so_many_bytes(more: int, status: int) -> None:
    head = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: %s\r\n\r\n"
    async with open_server() as server, await server.connect() as client:
        await client.send(head % (b"a" * (HEAD_BYTES - len(head) + 2 + more)))
        assert (await client.until_closed()).startswith(b"HTTP/1.1 %d " % status)


# -- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "status"), [(4_096, 200), (4_097, 413)])
async def test_a_body_has_so_many_bytes(size: int, status: int) -> None:
    async with open_server(max_body_mb=MAX_MB) as server:
        assert (await server.request("POST", "/v1/chat/completions", chat(size))).status == status
        async with await server.connect() as client:
            body = chat(size)
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
            await client.send(head + encode_chunk(body[:2_000]) + encode_chunk(body[2_000:]) + b"0\r\n\r\n")
            assert (await client.receive()).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(("size", "closes"), [(4_096, False), (4_097, True)])
async def test_a_websocket_message_has_so_many_bytes(size: int, closes: bool) -> None:
    create = '{"type":"response.create","model":"m","input":"%s"}'
    text = create % ("a" * (size - len(create) + 2))
    async with open_server(max_body_mb=MAX_MB) as server, connected(server) as ws:
        await ws.send(text)
        if closes:
            assert await ws.close_code() == 1009
        else:
            assert (await ws.response())[-1]["type"] == "response.completed"


@pytest.mark.parametrize(("size", "status"), [(2_096, 200), (2_097, 503)])
async def test_all_bodies_together_have_so_many_bytes(size: int, status: int) -> None:
    """Those that are being answered count, too: what was read from them is in memory as long as their answer takes."""
    async with open_server(hanging, saying("fine"), max_body_mb=MAX_MB, max_body_total_mb=MAX_MB) as server:
        async with await server.connect() as first:
            await first.begin("POST", "/v1/chat/completions", chat(2_000, stream=True))
            await server.engine.until(lambda: server.engine.open_runs == 1)
            reply = await server.request("POST", "/v1/chat/completions", chat(size))
            assert reply.status == status
            if status == 503:
                assert (reply.headers["retry-after"], reply.json["error"]["code"]) == ("1", "body_memory_full")
        await server.engine.until(lambda: server.engine.open_runs == 0)
        await server.until(lambda: server.connections == 0)
        assert (await server.request("POST", "/v1/chat/completions", chat(4_096))).status == 200, "it is given back"


async def test_half_a_body_counts_until_its_client_leaves() -> None:
    async with open_server(max_body_mb=MAX_MB, max_body_total_mb=MAX_MB) as server:
        async with await server.connect() as slow:
            await slow.send(post(chat(4_000))[:-1])
            async with await server.connect() as other:
                await other.send(post(chat(200))[:-1])
                assert (await other.receive()).startswith(b"HTTP/1.1 503 ")
            await slow.send(b"}")
            assert (await slow.receive()).startswith(b"HTTP/1.1 200 ")
        await server.until(lambda: server.connections == 0)
        assert (await server.request("POST", "/v1/chat/completions", chat(4_096))).status == 200


@pytest.mark.parametrize("text", ["a" * 1_900, "😀" * 475], ids=["letters", "symbols of four bytes"])
async def test_websocket_messages_count_while_they_wait_and_are_answered(text: str) -> None:
    create = '{"type":"response.create","model":"m","stream_id":"%s","input":"' + text + '"}'
    async with open_server(hanging, max_body_mb=MAX_MB, max_body_total_mb=MAX_MB) as server:
        async with connected(server) as ws:
            for lane in ("a", "a", "a"):
                await ws.send(create % lane)
            event: dict[str, Any] = {}
            while event.get("type") != "error":
                event = await ws.event()
            assert event["error"]["code"] == "body_memory_full"
            assert (await server.request("POST", "/v1/chat/completions", chat(300))).status == 503
        await server.until(lambda: server.connections == 0)
        async with await server.connect() as client:
            await client.begin("POST", "/v1/chat/completions", chat(4_096, stream=True))
            assert (await client.head()).status == 200, "it is given back"


async def trickle(client: HttpClient, seconds: int) -> None:
    """Send a body at a good rate for so long."""
    await client.send(post(b"a" * 4_000_000)[:-4_000_000])
    for _ in range(seconds):
        await client.send(b"a" * 32_000)
        await trio.sleep(1)


async def test_a_body_has_so_many_seconds_whatever_its_rate(jumping_clock: MockClock) -> None:
    async with open_server(max_body_s=30) as server, await server.connect() as client:
        await trickle(client, 29)
        with trio.move_on_after(0.5) as scope:
            await client.receive()
        assert scope.cancelled_caught, "there is time left"
        assert b"HTTP/1.1 408 " in await client.until_closed()
        assert trio.current_time() == pytest.approx(31, abs=1.5)


@pytest.mark.parametrize(("pause", "status"), [(8.5, 200), (11.5, 408)])
async def test_a_head_has_so_many_seconds(pause: float, status: int, jumping_clock: MockClock) -> None:
    async with open_server() as server, await server.connect() as client:
        await client.send(b"GET /livez HT")
        await trio.sleep(pause)
        await client.send(b"TP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert (await client.until_closed()).startswith(b"HTTP/1.1 %d " % status)


def test_a_body_of_tiny_chunks_is_read_in_turns() -> None:
    """Sixteen megabytes in chunks of one byte take minutes to read; between two turns others have theirs."""
    parser, body = RequestParser(), b"a" * (3 * CHUNKS_AT_ONCE)
    head = b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    parser.feed(head + b"".join(encode_chunk(bytes([byte])) for byte in body) + b"0\r\n\r\n")
    turns = 1
    while (request := parser.next()) is None:
        assert parser.is_busy
        turns += 1
    assert (request.body, turns) == (body, 4)


@pytest.mark.parametrize("more", [0, 1])
async def test_so_much_may_be_sent_ahead(more: int) -> None:
    async with open_server(hanging) as server, await server.connect() as client:
        await client.begin("POST", "/v1/chat/completions", chat(100, stream=True))
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await client.receive()
        await client.send(b"a" * (PIPELINED_BYTES + more))
        if more:
            await server.engine.until(lambda: server.engine.open_runs == 0)
        else:
            await trio.sleep(0.1)
            assert server.engine.open_runs == 1


# -- runs ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def runtime(server: Server) -> AsyncIterator[llm_runtime.Runtime]:
    async with Peer([chunked(b": hi\n\n", end=False), stall()]) as peer:
        provider = Provider(kind=LLMProvider.OPENAI_COMPATIBLE, base_url=f"{peer.url}/v1", models=("m",))
        async with llm_runtime.open_runtime(Config(server=server, providers={"p": provider})) as rt:
            yield rt


async def test_so_many_requests_are_in_flight() -> None:
    async with runtime(Server(max_runs=2, drain_s=0)) as rt, trio.open_nursery() as nursery:
        for _ in range(2):
            await nursery.start(one_run, rt)
        with pytest.raises(QueueFullError, match="2 requests are in progress already"):
            await rt.chat("hi", model="p/m")
        nursery.cancel_scope.cancel()


async def one_run(rt: llm_runtime.Runtime, *, task_status: trio.TaskStatus[None]) -> None:
    from llm_protocol.content import Message
    from llm_protocol.requests import ChatRequest

    run = await rt.submit(ChatRequest(model="p/m", messages=(Message.of("user", "hi"),)), stream=True)
    with run.follow() as follower:
        task_status.started()
        while await follower.next():
            pass


# -- lanes -----------------------------------------------------------------------------------------------------------


def test_lanes_keep_to_their_options() -> None:
    from llm_runtime.server.turn_queue import Lanes

    lanes: Lanes[int] = Lanes(Server(websocket_responses=1, websocket_lanes=1, websocket_queue=2))
    lanes.admit(None, 1)
    assert lanes.start() == [1]
    lanes.admit("a", 2)
    assert lanes.start() == [], "one is in flight"
    lanes.admit("a", 3)
    with pytest.raises(HttpError, match="2 requests are already waiting on this lane"):
        lanes.admit("a", 4)
    with pytest.raises(HttpError, match="at most 1 named lanes"):
        lanes.admit("b", 5)


async def test_a_websocket_keeps_to_its_options(jumping_clock: MockClock) -> None:
    async with open_server(hanging, websocket_responses=1) as server, connected(server) as ws:
        for lane in ("a", "b"):
            await ws.create(stream_id=lane)
        await ws.event()
        await trio.sleep(1)
        assert len(server.engine.requests) == 1
