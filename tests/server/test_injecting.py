"""Cancellation at every point of the way from the vendor's socket to a client of the server, and back.

A victim and a bystander ask. At one point after the other something happens to the victim: its client closes or resets
the connection, its run is cancelled, its deadline passes. Nothing crashes, the books, the connections and the tasks
are back at zero, and the bystander's answer is whole.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import h11
import pytest
import trio

from llm_actors.run import Run
from llm_actors.testing import Injector, Order, nothing_left, run_virtual
from llm_protocol.policy import Limits
from llm_protocol.requests import ChatRequest
from support.attempts import ANSWER, answering
from support.harm import assert_unharmed, nothing_logged
from support.served import served
from support.server import HttpClient, OpenServer, Reply
from support.ws import TERMINAL, handshake, text_of, upgrade

GAP = 0.001
GONE = (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError, h11.LocalProtocolError)


VICTIM, BYSTANDER = "Count for the victim.", "Count for the bystander."


def chat(prompt: str, *, stream: bool) -> dict[str, object]:
    return {"model": "a/m-a", "messages": [{"role": "user", "content": prompt}], "stream": stream}


def text(reply: Reply) -> str:
    """The text of a stream of the chat API."""
    chunks = [each for each in reply.events if each != "[DONE]"]
    return "".join(each["choices"][0]["delta"].get("content", "") for each in chunks if each["choices"])


class Victim:
    """Whoever something happens to, and its connection."""

    def __init__(self, server: OpenServer) -> None:
        self._server = server
        self._before = len(server.engine.runs)
        self._reset = trio.Event()
        self.client: HttpClient | None = None

    async def ask_over_http(self, *, stream: bool) -> None:
        with suppress(*GONE):
            self.client = await self._server.connect()
            await self.client.request("POST", "/v1/chat/completions", chat(VICTIM, stream=stream))

    async def ask_over_websocket(self) -> None:
        with suppress(*GONE, AssertionError):  # the raw client asserts that the connection has not ended
            self.client = await self._server.connect()
            ws = await upgrade(self.client, handshake())
            await ws.create(VICTIM, model="a/m-a")
            await ws.response()

    def close(self) -> None:
        # At the system, since Trio's own close may not be called while its loop hands out what is readable.
        if self.client is not None:
            with suppress(OSError), socket.socket(fileno=os.dup(self.client.stream.socket.fileno())) as raw:
                raw.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        self._reset.set()

    async def reset_when_told(self) -> None:
        await self._reset.wait()
        if self.client is not None:
            with suppress(OSError):
                self.client.reset()

    @property
    def runs(self) -> list[Run]:
        runs = self._server.engine.runs[self._before :]
        return [run for run in runs if isinstance(run.request, ChatRequest) and VICTIM in repr(run.request.messages)]

    def cancel(self) -> None:
        for run in self.runs:
            run.cancel("a test says so")

    def expire(self) -> None:
        for run in self.runs:
            run.scope.deadline = trio.current_time()


HAPPENINGS: dict[str, Callable[[Victim], None]] = {
    "closes": Victim.close,
    "resets": Victim.reset,
    "is cancelled": Victim.cancel,
    "expires": Victim.expire,
}
LIMITS = Limits(max_concurrency=4)


@pytest.mark.parametrize("order", Order, ids=lambda order: order.value)
@pytest.mark.parametrize("happening", HAPPENINGS)
@pytest.mark.parametrize("kind", ["streamed", "whole", "websocket"])
def test_whatever_happens_to_one_client_no_other_notices(kind: str, happening: str, order: Order) -> None:
    injector = Injector()

    async def main() -> None:
        async with nothing_left(), served(limits=LIMITS, a=[answering(gap=GAP)]) as (w, server):
            bystander = await server.connect()
            assert text(await ask(bystander)) == ANSWER
            tasks = w.task_count()
            for at in injector.every_point(
                (3 if kind == "streamed" else 6) * (1 if order is Order.OLDEST_FIRST else 2)
            ):
                victim = Victim(server)
                asking = victim.ask_over_websocket if kind == "websocket" else victim.ask_over_http
                options = {} if kind == "websocket" else {"stream": kind == "streamed"}
                with injector.at(at, lambda: HAPPENINGS[happening](victim)):  # noqa: B023  (called within the block)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(victim.reset_when_told)
                        async with trio.open_nursery() as asks:
                            asks.start_soon(partial(asking, **options))
                            reply = await ask(bystander)
                        nursery.cancel_scope.cancel()
                    if victim.client is not None:
                        victim.client.close()
                    await w.settled()
                assert (at, text(reply)) == (at, ANSWER)
                await server.until(lambda: server.connections == 1)
                assert w.task_count() == tasks
                assert all(run.log.end is not None or not run.log.events for run in server.engine.runs)
                assert_unharmed(w.tree)
                server.engine.runs.clear()
            assert injector.points > 100

    with nothing_logged():
        run_virtual(main, seed=order, instruments=[injector])


async def ask(bystander: HttpClient) -> Reply:
    return await bystander.request("POST", "/v1/chat/completions", chat(BYSTANDER, stream=True))


@pytest.mark.parametrize("order", Order, ids=lambda order: order.value)
@pytest.mark.parametrize("happening", ["is cancelled", "expires"])
def test_whatever_happens_to_one_response_the_others_on_its_websocket_do_not_notice(
    happening: str, order: Order
) -> None:
    injector = Injector()

    async def main() -> None:
        async with nothing_left(), served(limits=LIMITS, a=[answering(gap=GAP)]) as (w, server):
            ws = await upgrade(await server.connect(), handshake())
            for at in injector.every_point(2):
                victim = Victim(server)
                with injector.at(at, lambda: HAPPENINGS[happening](victim)):  # noqa: B023  (called within the block)
                    await ws.create(VICTIM, model="a/m-a", stream_id="victim")
                    await ws.create(BYSTANDER, model="a/m-a", stream_id="bystander")
                    lanes: dict[str, list[dict[str, Any]]] = {"victim": [], "bystander": []}
                    while not all(events and events[-1]["type"] in TERMINAL for events in lanes.values()):
                        event = await ws.event()
                        lanes[event["stream_id"]].append(event)
                    await w.settled()
                assert (at, text_of(lanes["bystander"])) == (at, ANSWER)
                assert lanes["bystander"][-1]["type"] == "response.completed"
                assert_unharmed(w.tree)
                server.engine.runs.clear()
            assert injector.points > 100

    with nothing_logged():
        run_virtual(main, seed=order, instruments=[injector])
