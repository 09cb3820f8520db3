"""A response that has ended is gone, however long its client stays."""

from __future__ import annotations

from support.circles import circles
from support.server import hanging, open_server
from support.ws import connected

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


async def test_nothing_of_a_response_on_a_websocket_waits_for_the_collector() -> None:
    async with open_server() as server, connected(server) as ws:
        await ws.create(store=False)
        await ws.response()
        with circles() as found:
            for _ in range(5):
                await ws.create(store=False)
                await ws.response()
    assert not found


async def test_nothing_of_a_stream_over_http_waits_for_the_collector() -> None:
    async with open_server() as server, await server.connect() as client:
        await client.request("POST", "/v1/chat/completions", REQUEST)
        with circles() as found:
            for _ in range(5):
                await client.request("POST", "/v1/chat/completions", REQUEST)
    assert not found


async def test_nothing_of_a_closed_websocket_waits_for_the_collector() -> None:
    async with open_server(hanging) as server:
        with circles() as found:
            for _ in range(5):
                async with connected(server) as ws:
                    await ws.create(store=False)
                    await server.engine.until(lambda: server.engine.open_runs == 1)
                await server.until(lambda: server.connections == 0)
                await server.engine.until(lambda: server.engine.open_runs == 0)
    assert not found


async def test_nothing_of_a_stream_whose_client_disconnects_waits_for_the_collector() -> None:
    async with open_server(hanging) as server:
        with circles() as found:
            for _ in range(5):
                async with await server.connect() as client:
                    await client.begin("POST", "/v1/chat/completions", REQUEST)
                    await client.head()
                await server.until(lambda: server.connections == 0)
                await server.engine.until(lambda: server.engine.open_runs == 0)
    assert not found
