"""The whole tree gives up while clients are served: each is told, where that can still be written, and none is waited
for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llm_actors.kernel import GaveUp, Restart, task_child
from llm_actors.run import Run
from llm_runtime.server.limits import PARTING_SECONDS
from support.server import OpenServer, add_text, begin_text, open_server
from support.ws import connected, handshake, text_of, upgrade

BODIES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "m", "input": "hi"},
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/messages": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
}


async def endless(run: Run) -> None:
    begin_text(run)
    add_text(run, "so far")
    await trio.sleep_forever()


async def flood(run: Run) -> None:
    begin_text(run)
    for _ in range(10):
        add_text(run, "0123456789" * 30_000)
    await trio.sleep_forever()


class Fatal:
    """A sibling of the server that takes the tree down."""

    def __init__(self) -> None:
        self._happens = trio.Event()
        self.set = self._happens.set
        self.crashed_at = 0.0
        """When it did for the last time."""

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self._happens.wait()
        self.crashed_at = trio.current_time()
        raise ValueError


@asynccontextmanager
async def doomed(script: object) -> AsyncIterator[tuple[OpenServer, Fatal]]:
    """A server, and what ends its tree. What follows in the block goes on meanwhile."""
    fatal = Fatal()
    sibling = task_child("fatal", fatal.run, restart=Restart.PERMANENT)
    with pytest.RaisesGroup(GaveUp, flatten_subgroups=True):
        async with open_server(script, beside=[sibling]) as server:  # type: ignore[arg-type]
            with trio.CancelScope(shield=True):
                yield server, fatal
            await trio.sleep_forever()


@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_ends_with_an_error_event(path: str, jumping_clock: MockClock) -> None:
    async with doomed(endless) as (server, end), await server.connect() as client:
        await client.begin("POST", path, BODIES[path] | {"stream": True})
        await client.head()
        body = b""
        while b"so far" not in body:
            body += await client.piece() or b""
        end.set()
        while (piece := await client.piece()) is not None:
            body += piece
        assert b"The runtime crashed; try again." in body


@pytest.mark.parametrize("path", BODIES)
async def test_who_waits_for_a_whole_answer_gets_an_error(path: str, jumping_clock: MockClock) -> None:
    async with doomed(endless) as (server, end), await server.connect() as client:
        await client.begin("POST", path, BODIES[path])
        await server.engine.until(lambda: server.engine.open_runs == 1)
        end.set()
        reply = await client.reply()
        assert (reply.status, reply.json["error"]["message"]) == (500, "The runtime crashed; try again.")


async def test_a_websocket_ends_each_response_and_closes_with_1011(jumping_clock: MockClock) -> None:
    async with doomed(endless) as (server, end), connected(server) as ws:
        for lane in ("a", "b"):
            await ws.create(stream_id=lane)
        await ws.create("waits", stream_id="a")
        seen = [await ws.event()]
        while text_of(seen) != "so farso far" or "response.queued" not in [each["type"] for each in seen]:
            seen.append(await ws.event())
        end.set()
        ends = [each for each in [await ws.event() for _ in range(3)] if each["type"] in ("response.failed", "error")]
        assert sorted(each["type"] for each in ends) == ["error", "response.failed", "response.failed"]
        assert await ws.close_code() == 1011


@pytest.mark.parametrize("kind", ["sse", "websocket"])
async def test_clients_that_do_not_read_are_not_waited_for(kind: str, jumping_clock: MockClock) -> None:
    async with doomed(flood) as (server, end):
        for _ in range(5):
            client = await server.connect(receive_buffer=4096)
            if kind == "sse":
                await client.begin("POST", "/v1/responses", BODIES["/v1/responses"] | {"stream": True})
            else:
                ws = await upgrade(client, handshake())
                await ws.create()
        await server.engine.until(lambda: server.engine.open_runs == 5)
        await trio.sleep(1)
        end.set()
    for client in server.clients:
        client.close()
    assert trio.current_time() - end.crashed_at <= PARTING_SECONDS + 0.1
