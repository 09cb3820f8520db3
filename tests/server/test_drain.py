"""Stopping: what runs may end, the rest is told, everyone is said goodbye to, and nothing is left."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llm_actors.run import Run
from llm_protocol.requests import AnyRequest
from llm_protocol.response import TokenCount
from support.server import OpenServer, add_text, begin_text, end_text, open_server, silent
from support.ws import PING, connected, frame, handshake, text_of, upgrade

CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "hi"}]}


async def two_halves(run: Run) -> None:
    begin_text(run)
    add_text(run, "first ")
    await trio.sleep(3)
    add_text(run, "second")
    end_text(run)


async def endless(run: Run) -> None:
    begin_text(run)
    add_text(run, "so far")
    await trio.sleep_forever()


async def stopped(server: OpenServer) -> float:
    """Stop the server and wait until it listens no more; the time it began."""
    server.root.stop()
    began = trio.current_time()
    while True:
        try:
            (await server.connect()).close()
        except OSError:
            return began
        await trio.sleep(0.1)


async def test_an_idle_websocket_is_closed_with_1001(jumping_clock: MockClock) -> None:
    async with open_server() as server, connected(server) as ws:
        await stopped(server)
        assert await ws.close_code() == 1001


async def test_a_stream_that_ends_in_time_ends_well(jumping_clock: MockClock) -> None:
    """Shorter than the drain: the whole answer, then 1001; meanwhile nothing new."""
    async with open_server(two_halves, drain_s=10) as server, connected(server) as ws:
        await ws.create()
        seen = [await ws.event()]
        while not text_of(seen):
            seen.append(await ws.event())
        await ws.create("queued")
        await ws.create("other lane", stream_id="x")
        await server.engine.until(lambda: len(server.engine.runs) == 2)
        began = await stopped(server)
        events = seen
        while (
            not {"response.completed", "error"} <= {each["type"] for each in events}
            or len([each for each in events if each["type"] == "response.completed"]) < 2
        ):
            events.append(await ws.event())
        refused = [each for each in events if each["type"] == "error"]
        assert [each["error"]["code"] for each in refused] == ["shutting_down"]
        assert await ws.close_code() == 1001
        assert trio.current_time() - began < 6


async def test_a_stream_that_does_not_is_failed_with_what_there_was_and_1012(jumping_clock: MockClock) -> None:
    """Longer than the drain."""
    async with open_server(endless, drain_s=2) as server, connected(server) as ws:
        await ws.create()
        await server.engine.until(lambda: server.engine.open_runs == 1)
        began = await stopped(server)
        events = await ws.response()
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["code"] in ("shutting_down", "server_error")
        assert events[-1]["response"]["output"][0]["content"][0]["text"] == "so far"
        assert await ws.close_code() == 1012
        assert trio.current_time() - began < 2 + 2.5


async def test_http_streams_end_well_or_typed(jumping_clock: MockClock) -> None:
    async with open_server(two_halves, endless, silent, drain_s=5) as server:
        good, cut, never = [await server.connect() for _ in range(3)]
        for client, body in ((good, CHAT | {"stream": True}), (cut, CHAT | {"stream": True}), (never, CHAT)):
            await client.begin("POST", "/v1/chat/completions", body)
            await server.engine.until(lambda: len(server.engine.runs) == [good, cut, never].index(client) + 1)  # noqa: B023
        idle = await server.connect()
        await idle.request("GET", "/livez")
        await stopped(server)
        assert await idle.until_closed() == b""
        assert (await good.reply()).events[-1] == "[DONE]"
        broken = await cut.reply()
        assert broken.status == 200
        assert any("error" in each for each in broken.events if isinstance(each, dict))
        refused = await never.reply()
        assert (refused.status, refused.json["error"]["code"]) == (503, "shutting_down")
        for client in (good, cut, never):
            assert await client.until_closed() == b""


async def test_a_kept_connection_is_closed_after_a_stream_that_began_before(jumping_clock: MockClock) -> None:
    """Its head did not say so."""
    async with open_server(two_halves, drain_s=10) as server, await server.connect() as client:
        await client.begin("POST", "/v1/chat/completions", CHAT | {"stream": True})
        await server.engine.until(lambda: server.engine.open_runs == 1)
        assert "connection" not in (await client.head()).headers
        await stopped(server)
        while await client.piece() is not None:
            pass
        ended = trio.current_time()
        assert await client.until_closed() == b""
        assert trio.current_time() - ended < 0.5


async def test_a_request_that_is_being_submitted_is_waited_for(jumping_clock: MockClock) -> None:
    """It was taken before the drain, so it has the time of the drain."""
    async with open_server(two_halves, drain_s=30) as server:
        submit, asked = server.engine.submit, trio.Event()

        async def slowly(*args: Any, **options: Any) -> Run:
            asked.set()
            await trio.sleep(5)
            return await submit(*args, **options)

        server.engine.submit = slowly  # type: ignore[method-assign]
        async with await server.connect() as client:
            await client.begin("POST", "/v1/chat/completions", CHAT)
            await asked.wait()
            await stopped(server)
            reply = await client.reply()
        assert reply.json["choices"][0]["message"]["content"] == "first second"


async def test_a_request_without_a_run_is_waited_for_too(jumping_clock: MockClock) -> None:
    async with open_server(drain_s=30) as server:
        count_tokens, asked = server.engine.count_tokens, trio.Event()

        async def slowly(request: AnyRequest) -> TokenCount:
            asked.set()
            await trio.sleep(5)
            return await count_tokens(request)

        server.engine.count_tokens = slowly  # type: ignore[method-assign]
        async with await server.connect() as client:
            await client.begin("POST", "/v1/messages/count_tokens", CHAT | {"max_tokens": 1})
            await asked.wait()
            await stopped(server)
            assert (await client.reply()).json == {"input_tokens": 7}


async def test_a_request_on_a_kept_connection_is_refused_while_draining(jumping_clock: MockClock) -> None:
    async with open_server(two_halves, drain_s=10) as server, connected(server) as ws, await server.connect() as client:
        await ws.create()
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
        await trio.sleep(0.1)
        await stopped(server)
        body = b'{"messages":[{"role":"user","content":"a"}]}'
        await client.send(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        answer = await client.until_closed()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in answer
        assert (await ws.response())[-1]["type"] == "response.completed"


async def test_no_upgrade_while_draining(jumping_clock: MockClock) -> None:
    async with open_server(two_halves, drain_s=10) as server, connected(server) as ws, await server.connect() as client:
        await ws.create()
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await client.send(handshake()[:-4])
        await trio.sleep(0.1)
        await stopped(server)
        await client.send(b"\r\n\r\n")
        answer = await client.until_closed()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after" in answer
        await ws.response()


async def test_a_background_response_is_waited_for(jumping_clock: MockClock) -> None:
    async with open_server(two_halves, drain_s=10) as server:
        await server.request("POST", "/v1/responses", {"input": "hi", "background": True})
        await stopped(server)
        await trio.sleep(2)
        assert server.engine.open_runs == 1
        assert server.root.tree().children[1].status.value != "ended"
        await server.engine.until(lambda: server.engine.open_runs == 0)
        assert server.engine.runs[0].log.end is not None


@pytest.mark.parametrize("noise", [b"", frame(PING, b"?") * 1000])
async def test_a_client_that_does_not_say_goodbye_is_not_waited_for(noise: bytes, jumping_clock: MockClock) -> None:
    """Gone by the limit and two seconds."""
    began = 0.0
    async with open_server(endless, drain_s=1) as server:
        client = await upgrade(await server.connect(), handshake())
        await client.create()
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await client.raw(noise)
        began = await stopped(server)
    assert trio.current_time() - began <= 1 + 2 + 2 + 1
    client.http.close()
