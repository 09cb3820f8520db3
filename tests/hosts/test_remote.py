"""The way to a daemon breaks, is slow, or leads elsewhere."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request

import llm_runtime
from hosts.adapters import DAEMONS, KEY
from hosts.conftest import Upstream
from llm_actors.run import Run
from llm_protocol.codec.json import encode_json
from llm_protocol.errors import AuthenticationError, BadRequestError, NetworkError, error_for
from llm_protocol.events import Failed, TextDelta
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.native import RESUME_SECONDS, Accepted, Events
from llm_runtime import ChatRequest, LLMClientError, Message, RemoteRuntime, ResponseStream
from llm_runtime.remote import link
from llm_runtime.remote.address import Address
from llm_runtime.remote.connection import BEAT_SECONDS, OPEN_SECONDS, RECEIVE_BYTES, Connection
from llm_runtime.remote.remote_run import RemoteRun, RemoteState
from llm_runtime.server.client_events import encode_refusal
from llm_runtime.server.http_error import HttpError

SLOW = "one two three four five six seven eight nine ten eleven twelve"


class Proxy:
    """Between a client and a daemon. ``deaf``: what clients say does not arrive."""

    def __init__(self, target: str) -> None:
        self.host, port = target.removeprefix("http://").split(":")
        self.port = int(port)
        self.url = ""
        self.deaf = False
        self.opened = 0
        self._streams: set[trio.SocketStream] = set()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self._pass, [listener])

    async def _pass(self, client: trio.SocketStream) -> None:
        try:
            daemon = await trio.open_tcp_stream(self.host, self.port)
        except OSError:
            await trio.aclose_forcefully(client)
            return
        self.opened += 1
        self._streams |= {client, daemon}
        async with client, daemon, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, client, daemon, nursery.cancel_scope, True)
            nursery.start_soon(self._pump, daemon, client, nursery.cancel_scope, False)
        self._streams -= {client, daemon}

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope, asks: bool
    ) -> None:
        try:
            while data := await source.receive_some():
                if not (asks and self.deaf):
                    await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    def cut(self) -> None:
        """Break all connections, as a network does: without a word of either side."""
        for stream in self._streams:
            stream.socket.close()
            trio.lowlevel.notify_closing(stream.socket)


@asynccontextmanager
async def proxied(upstream: Upstream) -> AsyncIterator[tuple[Proxy, RemoteRuntime]]:
    proxy = Proxy(DAEMONS[upstream.config.providers["fake"].base_url])
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        error: Exception | None = None
        try:
            async with llm_runtime.connect(proxy.url, key=KEY) as rt:
                yield proxy, rt
        except Exception as exc:
            error = exc
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error


async def read(stream: ResponseStream, pieces: list[str]) -> None:
    async for event in stream:
        pieces += [event.text] if isinstance(event, TextDelta) else []


async def test_an_answer_goes_on_after_a_cut_without_a_gap_or_a_repetition(upstream: Upstream) -> None:
    async with proxied(upstream) as (proxy, rt):
        pieces: list[str] = []
        async with rt.stream("Hi.", model="fake/slow") as stream, trio.open_nursery() as nursery:
            nursery.start_soon(read, stream, pieces)
            for _ in range(3):
                await trio.sleep(0.12)
                proxy.cut()
        assert "".join(pieces) == stream.response.content == SLOW
        assert proxy.opened >= 4
        assert len(stream.response.decision["attempts"]) == 1


async def test_many_answers_go_on_after_a_cut(upstream: Upstream) -> None:
    async with proxied(upstream) as (proxy, rt), trio.open_nursery() as nursery:
        answers: list[str] = []

        async def ask() -> None:
            answers.append((await rt.chat("Hi.", model="fake/slow")).content)

        for _ in range(20):
            nursery.start_soon(ask)
        await trio.sleep(0.3)
        proxy.cut()
        nursery.start_soon(ask)
    assert answers == [SLOW] * 21


async def test_a_request_that_was_lost_on_its_way_is_sent_again_and_made_once(upstream: Upstream) -> None:
    async with proxied(upstream) as (proxy, rt):
        await rt.chat("Hi.", model="fake/m")
        before = upstream.journal()["asked"]
        proxy.deaf = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_answered, rt)
            await trio.sleep(0.1)
            assert upstream.journal()["asked"] == before
            proxy.deaf = False
            proxy.cut()
        assert upstream.journal()["asked"] == before + 1


async def _answered(rt: RemoteRuntime) -> None:
    assert (await rt.chat("Again.", model="fake/m")).content == "You said: Again."


async def test_a_call_that_is_left_while_the_connection_is_broken_ends(upstream: Upstream) -> None:
    async with proxied(upstream) as (proxy, rt):
        with trio.move_on_after(0.2) as scope:
            async with rt.stream("Hi.", model="fake/slow") as stream:
                await anext(stream)
                proxy.deaf = True
                proxy.cut()
                async for _ in stream:
                    pass
        assert scope.cancelled_caught
        proxy.deaf = False
    assert upstream.is_left()


async def test_a_call_that_is_left_before_it_was_accepted_is_cancelled(upstream: Upstream) -> None:
    async with proxied(upstream) as (_, rt):
        await rt.chat("Hi.", model="fake/m")
        for _ in range(20):
            with trio.move_on_after(0.003):
                await rt.chat("Hi.", model="fake/slow")
        await trio.sleep(0.2)
        assert upstream.journal()["open"] == 0
        assert (await rt.chat("Hi.", model="fake/m")).content == "You said: Hi."


async def test_fifty_streams_take_as_many_connections_as_they_need(upstream: Upstream) -> None:
    async with proxied(upstream) as (proxy, rt):
        texts: list[str] = []

        async def ask() -> None:
            pieces: list[str] = []
            async with rt.stream("Hi.", model="fake/slow") as stream:
                await read(stream, pieces)
            texts.append("".join(pieces))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
        assert texts == [SLOW] * 50
        assert proxy.opened <= 6, "16 answers on each, and one that asked for the greeting"


async def test_a_daemon_that_is_gone_is_waited_for_a_while(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "RESUME_SECONDS", 0.5)
    async with proxied(upstream) as (proxy, rt):
        pieces: list[str] = []
        async with rt.stream("Hi.", model="fake/slow") as stream:
            await anext(stream)
            proxy.port = 1
            proxy.cut()
            began = time.monotonic()
            with pytest.raises(NetworkError) as caught:
                await read(stream, pieces)
            assert time.monotonic() - began < 2
        assert caught.value.partial is not None
    assert upstream.is_left(), "it was kept for us, and made to its end"


async def test_leaving_the_block_ends_what_is_being_answered(upstream: Upstream) -> None:
    errors: list[LLMClientError] = []

    async def ask(rt: RemoteRuntime) -> None:
        try:
            await rt.chat("Hi.", model="fake/silent")
        except LLMClientError as exc:
            errors.append(exc)

    async with trio.open_nursery() as nursery:
        async with proxied(upstream) as (_, rt):
            nursery.start_soon(ask, rt)
            await trio.sleep(0.1)
    [error] = errors
    assert error.failure.kind.value == "shutting_down"
    await trio.sleep(0.2)
    assert upstream.journal()["open"] == 0


async def test_what_the_block_raises_comes_out_as_itself(upstream: Upstream) -> None:
    with pytest.raises(KeyError):
        async with proxied(upstream):
            raise KeyError


async def test_a_wrong_key_is_told_at_once(upstream: Upstream) -> None:
    url = DAEMONS[upstream.config.providers["fake"].base_url]
    with pytest.raises(AuthenticationError, match="API key"):
        async with llm_runtime.connect(url, key="wrong"):
            pass


async def test_a_server_that_is_no_daemon_is_told_at_once(upstream: Upstream) -> None:
    with pytest.raises(LLMClientError):
        async with llm_runtime.connect(upstream.url):
            pass
    with pytest.raises(NetworkError, match="refused"):
        async with llm_runtime.connect("http://127.0.0.1:1"):
            pass
    with pytest.raises(ValueError, match="must start with https://"):
        async with llm_runtime.connect("127.0.0.1:8080"):
            pass


async def test_a_request_that_the_daemon_would_not_take_is_refused_here(upstream: Upstream) -> None:
    async with proxied(upstream) as (_, rt):
        with pytest.raises(BadRequestError, match="max_body_mb"):
            await rt.chat("x" * 17_000_000, model="fake/m")
        with pytest.raises(BadRequestError, match="cannot be sent"):
            await rt.chat("x", model="fake/m", metadata={"what": object()})
        assert (await rt.chat("Hi.", model="careful")).content == "You said: Hi."
        assert rt.routes["careful"].candidates == ("fake/m",)


async def test_what_a_daemon_must_not_be_told_is_not_believed(upstream: Upstream) -> None:
    async with proxied(upstream) as (_, rt):
        with pytest.raises(LLMClientError, match="can only act for the caller"):
            await rt.model_list("somebody")
        request = llm_runtime.ChatRequest(
            model="fake/m", messages=(llm_runtime.Message.of("user", "Hi."),), caller="somebody"
        )
        response = await rt.send(request)
        callers = (await rt.statistics()).callers
        assert response.content == "You said: Hi."
        assert "somebody" not in callers
        assert callers["tests"].requests > 0


async def test_a_connection_whose_lifetime_is_over_is_asked_for_nothing_new() -> None:
    """Its last responses may take minutes, in which it would refuse each request again."""
    connection = Connection(Address("http://127.0.0.1:1", None, None), 2, lambda: False)
    connection._takes_new = True
    run = Run(ChatRequest(messages=(Message.of("user", "Hi."),)), stream=True)
    entry = RemoteRun(run, b"{}")
    connection.create(entry)
    over = HttpError(400, "websocket_connection_limit_reached", "It is over.")
    connection._take(encode_refusal(over, "0", entry.id).decode())
    assert entry.state is RemoteState.REFUSED
    assert not connection.can_take


async def test_requests_that_wait_for_a_daemon_that_is_away_give_up_together(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(connection: Connection, opened: object) -> None:
        await trio.sleep(OPEN_SECONDS)
        raise error_for(Failure(kind=FailureKind.TIMEOUT_CONNECT, message="no connection"))

    monkeypatch.setattr(Connection, "live", silent)
    ended: list[float] = []
    async with trio.open_nursery() as nursery:
        away = link.Link(nursery, Address("http://127.0.0.1:1", None, None), 4)

        async def ask() -> None:
            with pytest.raises(LLMClientError, match="no connection"):
                await away.submit(Run(ChatRequest(messages=(Message.of("user", "Hi."),)), stream=False), b"{}")
            ended.append(trio.current_time())

        for _ in range(20):
            nursery.start_soon(ask)
    assert len(ended) == 20
    assert max(ended) <= RESUME_SECONDS + 3 * OPEN_SECONDS


async def stay_open(connection: Connection, opened: Callable[[], None]) -> None:
    """In place of `Connection.live`: the test sends what the daemon would."""
    connection._takes_new = True
    opened()
    await trio.sleep_forever()


def said(connection: Connection, frame: object) -> None:
    """The daemon sends this frame."""
    connection._take(encode_json(frame).decode())


async def test_a_request_that_was_refused_once_and_then_accepted_ends_with_its_own_failure(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first connection had reached its lifetime."""
    monkeypatch.setattr(Connection, "live", stay_open)
    async with trio.open_nursery() as nursery:
        daemon = link.Link(nursery, Address("http://127.0.0.1:1", None, None), 4)
        run = Run(ChatRequest(messages=(Message.of("user", "Hi."),)), stream=True, deadline_s=10)
        nursery.start_soon(daemon.submit, run, b"{}")
        await wait_all_tasks_blocked()
        over = HttpError(400, "websocket_connection_limit_reached", "It is over.")
        daemon._connections[0]._take(encode_refusal(over, "0", run.response_id).decode())
        await wait_all_tasks_blocked()
        said(daemon._connections[1], Accepted(response_id=run.response_id))
        await run.log.wait_ended()
        assert isinstance(run.log.end, Failed)
        assert run.log.end.failure.kind is FailureKind.DEADLINE
        nursery.cancel_scope.cancel()


async def test_a_lane_of_a_cancelled_run_is_free_for_the_next(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "live", stay_open)
    monkeypatch.setattr(link, "MOST_CONNECTIONS", 1)
    async with trio.open_nursery() as nursery:
        daemon = link.Link(nursery, Address("http://127.0.0.1:1", None, None), 1)
        first, second = (Run(ChatRequest(messages=(Message.of("user", "Hi."),)), stream=True) for _ in range(2))
        for run in first, second:
            nursery.start_soon(daemon.submit, run, b"{}")
            await wait_all_tasks_blocked()
        [connection] = daemon._connections
        said(connection, Accepted(response_id=first.response_id))
        await wait_all_tasks_blocked()
        first.cancel("by the program")
        await wait_all_tasks_blocked()
        ended = Failed(failure=Failure(kind=FailureKind.CANCELLED, message="by the client"))
        said(connection, Events(response_id=first.response_id, sequence_number=0, events=(ended,)))
        await wait_all_tasks_blocked()
        assert second.response_id in connection._entries
        nursery.cancel_scope.cancel()


async def test_a_ping_of_the_daemon_during_the_closing_handshake_ends_nothing_else() -> None:
    async def daemon(stream: trio.SocketStream) -> None:
        server = WSConnection(ConnectionType.SERVER)
        while True:
            server.receive_data(bytes(await stream.receive_some()) or None)
            for event in server.events():
                if isinstance(event, Request):
                    await stream.send_all(server.send(AcceptConnection()))
                if isinstance(event, CloseConnection):
                    await stream.send_all(b"\x89\x00" + server.send(event.response()))
                    return

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, daemon, [listener])
        connection = Connection(Address(url, None, None), 1, lambda: False)
        await connection.live(connection.close)
        nursery.cancel_scope.cancel()


class SlowLine(trio.abc.SendStream):
    """Takes ``pause`` seconds for each chunk."""

    def __init__(self, stream: trio.abc.SendStream, pause: float) -> None:
        self._stream = stream
        self.pause = pause

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for at in range(0, len(data), RECEIVE_BYTES):
            await trio.sleep(self.pause if len(data) > RECEIVE_BYTES // 2 else 0)
            await self._stream.send_all(data[at : at + RECEIVE_BYTES])

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def answer_pings(stream: trio.abc.Stream) -> None:
    server = WSConnection(ConnectionType.SERVER)
    async for data in stream:
        server.receive_data(bytes(data))
        for event in server.events():
            if isinstance(event, Request):
                await stream.send_all(server.send(AcceptConnection()))
            elif isinstance(event, Ping | CloseConnection):
                await stream.send_all(server.send(event.response()))


async def over_slow_line(monkeypatch: pytest.MonkeyPatch, size: int, pause: float) -> float:
    """Send a request of this size, and return the seconds until the connection is given up, at most 1,000."""
    ours, theirs = memory_stream_pair()

    async def dial(_: Connection) -> trio.abc.Stream:
        return trio.StapledStream(SlowLine(ours.send_stream, pause), ours.receive_stream)

    monkeypatch.setattr(Connection, "_dial", dial)
    connection = Connection(Address("http://127.0.0.1:1", None, None), 1, lambda: False)
    entry = RemoteRun(Run(ChatRequest(messages=(Message.of("user", "Hi."),)), stream=True), b'"%b"' % (b"x" * size))
    began = trio.current_time()
    with trio.move_on_after(1_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_pings, theirs)
            await connection.live(lambda: connection.create(entry))
            nursery.cancel_scope.cancel()
    return trio.current_time() - began


async def test_a_large_request_over_a_slow_line_is_not_cut(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await over_slow_line(monkeypatch, 20 * RECEIVE_BYTES, 5.0) == 1_000
    assert 2 * BEAT_SECONDS <= await over_slow_line(monkeypatch, 20 * RECEIVE_BYTES, 500.0) <= 3 * BEAT_SECONDS
