"""Listening, accepting, and what happens to the server itself."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Never, Self

import pytest
import trio

from llm_actors.kernel import ChildStatus, StartFailed, Supervisor, running
from llm_runtime.config import Server
from llm_runtime.server import CannotListenError, server_child
from llm_runtime.server.listener import Acceptor, bind
from support.server import FakeEngine, hanging, open_server, saying
from support.ws import connected, text_of


async def test_a_port_in_use_is_told_in_one_line() -> None:
    (taken,) = await bind("127.0.0.1", 0)
    with taken, pytest.raises(CannotListenError, match=r"^port \d+ on 127\.0\.0\.1 is in use: .* --port$"):
        await bind("127.0.0.1", taken.getsockname()[1])


async def test_an_address_that_is_not_ours_is_told_in_one_line() -> None:
    with pytest.raises(CannotListenError, match=r"cannot listen on 203\.0\.113\.1 port 1"):
        await bind("203.0.113.1", 1)


async def why_it_does_not_start(config: Server, inherited: Sequence[socket.socket] = ()) -> str:
    async with trio.open_nursery() as nursery:
        root = Supervisor(server_child(config, FakeEngine(nursery), inherited=inherited))
        with pytest.RaisesGroup(StartFailed, flatten_subgroups=True, allow_unwrapped=True) as caught:
            async with running(root):
                pass
        error: BaseException | None = caught.value
        while error is not None and not isinstance(error, CannotListenError):
            error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
        return str(error)


async def test_a_server_that_cannot_listen_fails_its_start() -> None:
    (taken,) = await bind("127.0.0.1", 0)
    with taken:
        assert "is in use" in await why_it_does_not_start(Server(port=taken.getsockname()[1]))


class _Last(socket.socket):
    """A socket for whose duplicate there is no descriptor left."""

    def dup(self) -> Never:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_without_a_descriptor_for_an_inherited_socket_the_reason_is_told_and_nothing_is_left_open() -> None:
    duplicates: list[socket.socket] = []

    class First(socket.socket):
        def dup(self) -> Self:
            duplicate = super().dup()
            duplicates.append(duplicate)
            return duplicate

    with First() as first, _Last() as last:
        for each in (first, last):
            each.bind(("127.0.0.1", 0))
            each.listen()
        why = await why_it_does_not_start(Server(), (first, last))
    assert why == "cannot listen on the inherited sockets: Too many open files"
    assert [each.fileno() for each in duplicates] == [-1]


class _Listener(socket.socket):
    """A listening socket that fails on purpose."""

    faults: Sequence[int] = ()

    def accept(self) -> tuple[socket.socket, object]:
        if self.faults:
            fault, *self.faults = self.faults
            raise OSError(fault, "on purpose")
        return super().accept()


@pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED])
async def test_no_fault_of_accept_ends_the_loop(
    fault: int, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Descriptors run out for a while; those who wait are served when there are some again, and it is told once."""
    listener = _Listener()
    listener.faults = [fault] * 5
    listener.setblocking(False)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    taken: list[socket.socket] = []
    done = trio.Event()

    async def start(accepted: socket.socket) -> None:
        taken.append(accepted)
        done.set()

    acceptor = Acceptor(listener, lambda accepted: accepted, start)
    client = socket.create_connection(("127.0.0.1", acceptor.port))
    with client, caplog.at_level(logging.ERROR):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(acceptor.run)
            with trio.fail_after(10):
                await done.wait()
            acceptor.close()
    assert len(taken) == 1
    taken[0].close()
    assert len(caplog.records) == (0 if fault == errno.ECONNABORTED else 1)


async def test_one_connection_too_many_is_told_so() -> None:
    async with open_server(max_connections=3) as server:
        kept = [await server.connect() for _ in range(3)]
        for client in kept:
            await client.request("GET", "/v1/models")
        async with await server.connect() as late:
            answer = await late.until_closed()
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b'"connection_limit"' in answer
            assert b"\r\nx-llm-runtime-limit-owner: server\r\n" in answer
            assert b"retry-after: 1\r\n" in answer
        assert server.engine.refusals == ["connection_limit"]
        kept.pop().close()
        await server.until(lambda: server.connections == 2)
        assert (await server.request("GET", "/livez")).status == 200
        for client in kept:
            client.close()


async def test_a_bug_in_one_connection_ends_that_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """G3: the others do not notice, and the client gets a typed end."""
    from llm_runtime.server.turns import Streaming

    original: Callable[..., object] = Streaming.next_frames

    def broken(self: Streaming) -> object:
        if self.turn.head.stream_id == "bug":
            raise ZeroDivisionError("secret text")
        return original(self)

    async with open_server(hanging, saying("fine")) as server, connected(server) as other, connected(server) as ws:
        await other.create()
        await server.engine.until(lambda: server.engine.open_runs == 1)
        monkeypatch.setattr(Streaming, "next_frames", broken)
        await ws.create(stream_id="bug")
        assert await ws.close_code() == 1011
        await other.create(stream_id="x")
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] != "response.completed":
            events.append(await other.event())
        assert text_of([each for each in events if each.get("stream_id") == "x"]) == "fine"
        assert server.engine.open_runs == 1
        assert "secret" not in caplog.text


async def test_a_bug_in_an_endpoint_is_a_500_that_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server() as server:

        def broken(*_: object) -> object:
            raise ZeroDivisionError("secret text")

        monkeypatch.setattr(server.engine, "model_list", broken)
        reply = await server.request("GET", "/v1/models")
        assert (reply.status, reply.json["error"]["code"]) == (500, "server_error")
        assert "secret" not in caplog.text + str(reply)
        assert reply.headers["x-request-id"] in caplog.text
        assert (await server.request("GET", "/livez")).status == 200


async def test_a_server_that_crashes_is_back_at_its_place_and_connections_did_not_notice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = trio.Event()

    async def crash_once(self: object) -> None:
        await now.wait()
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr("llm_runtime.server.receiver.Ticker.run", crash_once)
    async with open_server() as server, connected(server) as ws:
        now.set()

        def is_back() -> bool:
            node = server.root.tree().children[1]
            return node.restarts == 1 and node.status is ChildStatus.RUNNING

        await server.until(is_back)
        assert (await server.request("GET", "/livez")).status == 200
        await ws.create()
        assert text_of(await ws.response()) == "Hello"


async def test_nothing_is_left_after_many_connections() -> None:
    """Connections that come and go in every way leave no child behind."""
    async with open_server(hanging) as server:
        for number in range(60):
            async with connected(server) as ws:
                await ws.create()
                if number % 3 == 0:
                    ws.http.reset()
                elif number % 3 == 1:
                    await ws.event()
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=2)
        await server.until(lambda: server.connections == 0)


async def test_the_websocket_library_is_imported_with_the_first_websocket() -> None:
    code = (
        "import sys, llm_runtime.server; sys.exit(any(name in sys.modules for name in ('trio_websocket', 'wsproto')))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert (await trio.run_process([sys.executable, "-c", code], env=environ, check=False)).returncode == 0
