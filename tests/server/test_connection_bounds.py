"""Limits of connections that are not options, one unit below and one above."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from llm_runtime.config import Server
from llm_runtime.server.connection import HttpConnection
from llm_runtime.server.limits import (
    ACCEPTED_AT_ONCE,
    BACKLOG,
    CLOSE_SECONDS,
    DEPARTING_CONNECTIONS,
    LINGERING_CONNECTIONS,
    RESERVED_CONNECTIONS,
)
from llm_runtime.server.listener import Acceptor, bind
from llm_runtime.server.socket import Socket
from llm_runtime.server.state import ServerState
from support.server import FakeEngine, open_server

SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
MOST = int(SOMAXCONN.read_text()) if SOMAXCONN.exists() else 0
"""What the kernel allows."""


@pytest.mark.skipif(not MOST, reason="Linux tells the length of a listening socket's queue")
async def test_the_kernel_holds_so_many_connections() -> None:
    (listener,) = await bind("127.0.0.1", 0)
    with listener:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        (length,) = struct.unpack_from("I", info, 28)  # tcpi_sacked: for a listening socket, the length of its queue
    assert length == min(BACKLOG, MOST)


@pytest.mark.parametrize("more", [0, 1])
async def test_so_many_connections_are_accepted_at_once(more: int, autojump_clock: MockClock) -> None:
    (listener,) = await bind("127.0.0.1", 0)
    taken: list[socket.socket] = []
    may_go_on = trio.Event()

    def admit(accepted: socket.socket) -> None:
        taken.append(accepted)

    async def start(_: None) -> None:
        await may_go_on.wait()

    acceptor = Acceptor(listener, admit, start)
    clients = [socket.create_connection(("127.0.0.1", acceptor.port)) for _ in range(ACCEPTED_AT_ONCE + more)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(acceptor.run)
        await trio.sleep(1)
        assert len(taken) == ACCEPTED_AT_ONCE
        may_go_on.set()
        await trio.sleep(1)
        assert [each.getpeername() for each in taken] == [each.getsockname() for each in clients], "in their order"
        acceptor.close()
    for each in (*clients, *taken):
        each.close()


@pytest.mark.parametrize("more", [0, 1])
async def test_so_many_connections_may_be_on_their_way_out(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is told to make way and does not end keeps its place there; newcomers beyond are turned away at once."""
    told: list[HttpConnection] = []
    monkeypatch.setattr(HttpConnection, "evict", lambda self: told.append(self))
    async with open_server(max_connections=1) as server:
        clients = [await server.connect()]
        assert (await clients[0].request("GET", "/v1/models")).status == 200
        clients += [await server.connect() for _ in range(RESERVED_CONNECTIONS + DEPARTING_CONNECTIONS + more)]
        if more:
            assert (await clients[-1].until_closed()).startswith(b"HTTP/1.1 429 ")
        await server.until(lambda: server.connections == 1 + RESERVED_CONNECTIONS + DEPARTING_CONNECTIONS)
        assert len(told) == DEPARTING_CONNECTIONS + more
        assert server.engine.refusals == ["connection_limit"] * more
        for client in clients:
            client.close()


@pytest.mark.parametrize("more", [0, 1])
async def test_so_many_refused_connections_are_waited_for(more: int, autojump_clock: MockClock) -> None:
    """Of more, each is closed at once."""
    pairs = [socket.socketpair() for _ in range(LINGERING_CONNECTIONS + more)]
    async with trio.open_nursery() as nursery:
        state = ServerState(Server(), {}, FakeEngine(nursery, ()))
        refused = [Socket(ours, state.receiver) for ours, _ in pairs]
        for each in refused:
            nursery.start_soon(state.close_gently, each)
        await trio.testing.wait_all_tasks_blocked()
        assert sum(each.closed for each in refused) == more
        await trio.sleep(CLOSE_SECONDS + 0.1)
        assert all(each.closed for each in refused)
    for _, theirs in pairs:
        theirs.close()


@pytest.mark.parametrize(("pause", "is_kept"), [(8.5, True), (11.5, False)])
async def test_an_idle_connection_is_kept_for_so_long(pause: float, is_kept: bool, jumping_clock: MockClock) -> None:
    async with open_server(keep_alive_s=10) as server, await server.connect() as client:
        await client.request("GET", "/livez")
        await trio.sleep(pause)
        if is_kept:
            assert (await client.request("GET", "/livez")).status == 200
        else:
            assert await client.until_closed() == b""
