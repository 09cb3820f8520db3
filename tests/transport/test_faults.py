"""Networks and servers that fail, callers that leave: one typed error, and nothing left open."""

from __future__ import annotations

import errno
import os
import random
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.transport import (
    Broken,
    ConnectFailed,
    ConnectTimeout,
    OutOfResources,
    ProtocolViolation,
    TcpDial,
    Transport,
    TransportError,
    parse_url,
)
from llm_actors.transport.connection import PlainWire
from support.cancelling import cancel_at_every_step
from support.outgoing import fetch, post, transport_to
from support.peer import Call, Peer, Script, chunked, close, pause, raw, reply, reset, stall


async def test_refused_connection_is_named_with_its_host_and_reason() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        origin = parse_url(f"http://127.0.0.1:{unused.getsockname()[1]}")[0]
        with pytest.raises(ConnectFailed, match=rf"^{origin}: Connection refused$"):
            await fetch(Transport(), post(origin=origin))


@contextmanager
def no_free_descriptor() -> Iterator[None]:
    """Let every new descriptor of this process fail."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_without_a_free_descriptor_the_fault_is_ours(host: str) -> None:
    transport, request = Transport(), post(origin=parse_url(f"http://{host}:9")[0])
    with no_free_descriptor(), pytest.raises(OutOfResources):
        await fetch(transport, request)
    with pytest.raises(ConnectFailed):
        await fetch(transport, request)


async def test_idle_connections_are_given_up_when_there_is_no_room_for_a_new_one(autojump_clock: MockClock) -> None:
    """Also those of other transports, which other providers have."""
    async with Peer(reply(b"a"), reply(b"b")) as peer, transport_to(peer) as other:

        async def dial(host: str, port: int) -> trio.SocketStream:
            if other.statistics().open:
                raise OSError(errno.EMFILE, "Too many open files")
            return await peer.dial(host, port)

        transport = Transport(dial=dial)
        async with other.send(post()) as response:
            with pytest.raises(OutOfResources, match="Too many open files"):
                await fetch(transport)
            assert await response.read(9) == b"a", "what is in use stays"
        assert other.statistics().idle == 1
        assert (await fetch(transport))[1] == b"b"
        assert other.statistics().idle == 0
        await transport.aclose()


async def test_unreachable_address_is_a_failed_connection() -> None:
    async def unreachable(host: str, port: int) -> trio.SocketStream:
        raise OSError(101, "Network is unreachable")

    with pytest.raises(ConnectFailed, match="Network is unreachable"):
        await fetch(Transport(dial=unreachable))


async def test_blackhole_ends_at_the_connect_timeout(autojump_clock: MockClock) -> None:
    async def blackhole(host: str, port: int) -> trio.SocketStream:
        await trio.sleep_forever()
        raise AssertionError

    transport = Transport(dial=blackhole)
    start = trio.current_time()
    with pytest.raises(ConnectTimeout, match=r"api.test: no connection within 10 s \(connecting\)"):
        await fetch(transport)
    assert trio.current_time() - start == 10
    assert transport.statistics().connecting == 0


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(stall(), id="silence after the request"),
        pytest.param([raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"), stall()], id="silence after the head"),
        pytest.param([chunked(b"some", end=False), stall()], id="silence in the body"),
        pytest.param([chunked(*[b"x"] * 100, gap=1)], id="drip"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\n" * 3, every=1, gap=1), id="drip in the head"),
    ],
)
async def test_caller_that_leaves_closes_the_socket_at_once(autojump_clock: MockClock, script: Script) -> None:
    """The limits on silence belong to the caller; its cancel ends the upstream call within the same instant."""
    async with Peer(script) as peer, transport_to(peer) as transport:
        with trio.move_on_after(7):
            await fetch(transport)
        left_at = trio.current_time()
        await peer.until(lambda: peer.aborted == 1)
        assert trio.current_time() == left_at
        assert transport.statistics().open == 0


async def test_late_bytes_of_a_half_open_connection_touch_nobody(autojump_clock: MockClock) -> None:
    """The network swallows everything, the caller gives up; after the heal the old answer meets a closed socket."""
    healed = trio.Event()

    async def blackhole(call: Call) -> None:
        with trio.CancelScope(shield=True):  # the peer does not learn that its client left
            await healed.wait()
            await call.send(b"5\r\nlate!\r\n0\r\n\r\n")

    scripts = [chunked(b"first", end=False), blackhole], reply(b"second")
    async with Peer(*scripts) as peer, transport_to(peer) as transport:
        with trio.move_on_after(60):
            await fetch(transport)
        healed.set()
        assert await fetch(transport) == (200, b"second")
        assert [seen.connection for seen in peer.requests] == [1, 2]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([chunked(b"some", end=False), pause(0.05), reset()], id="RST"),
        pytest.param([chunked(b"some", end=False), pause(0.05), close()], id="FIN between chunks"),
        pytest.param(
            [raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nsome"), pause(0.05), close()],
            id="FIN in a chunk",
        ),
        pytest.param(
            [raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome"), pause(0.05), close()], id="short Content-Length"
        ),
        pytest.param([raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome"), close()], id="all at once"),
    ],
)
async def test_cut_body_gives_what_came_and_then_the_error(script: Script) -> None:
    async with Peer(script) as peer, transport_to(peer, dial=TcpDial()) as transport:
        async with transport.send(post(origin=parse_url(peer.url)[0])) as response:
            assert await response.receive() == b"some"
            for _ in range(2):
                with pytest.raises(Broken) as caught:
                    await response.receive()
                assert caught.value.answered
        assert transport.statistics().open == 0


@pytest.mark.parametrize("seed", range(5))
async def test_cancel_storm_leaves_no_trace(autojump_clock: MockClock, seed: int) -> None:
    dice = random.Random(seed)
    async with Peer([pause(0.5), chunked(b"a", b"b", gap=0.5)]) as peer, transport_to(peer) as transport:

        async def worker() -> None:
            for _ in range(10):
                with trio.move_on_after(dice.uniform(0, 2)):
                    await fetch(transport)

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(worker)
        statistics = transport.statistics()
        assert (statistics.connecting, statistics.active) == (0, 0)
        assert [await fetch(transport) for _ in range(20)] == [(200, b"ab")] * 20


@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
@pytest.mark.parametrize("size", [2, 40_000], ids=["small", "large"])
async def test_cancel_at_every_checkpoint_leaves_nothing(autojump_clock: MockClock, size: int, kept: bool) -> None:
    """Whether it hits while connecting, sending, between head and body or at the very end."""
    script = [pause(1), chunked(b"one", b"two", gap=1)]
    async with Peer(script) as peer, transport_to(peer, max_idle_per_origin=int(kept)) as transport:

        async def scenario() -> None:
            await fetch(transport, post(bytes(size)))

        async def scenario_on_kept() -> None:
            with trio.CancelScope(shield=True):
                assert await fetch(transport) == (200, b"onetwo")
            await scenario()

        def check() -> None:
            statistics = transport.statistics()
            assert (statistics.active, statistics.connecting) == (0, 0)

        assert await cancel_at_every_step(scenario_on_kept if kept else scenario, check) >= 4


async def test_body_left_in_the_middle_closes_without_the_garbage_collector(autojump_clock: MockClock) -> None:
    async with Peer([chunked(b"x", end=False), stall()]) as peer, transport_to(peer) as transport:
        kept = []
        async with transport.send(post()) as response:
            kept.append(response)
            await response.receive()
        with trio.fail_after(1):
            await peer.until(lambda: peer.open_connections == 0)


async def test_connection_closed_while_idle_is_not_used(autojump_clock: MockClock) -> None:
    async with Peer([reply(b"1"), close()], reply(b"2")) as peer, transport_to(peer) as transport:
        await fetch(transport)
        await peer.until(lambda: peer.open_connections == 0)
        assert await fetch(transport) == (200, b"2")
        assert transport.statistics().resent_total == 0


async def test_request_that_crossed_the_close_is_sent_again_once(autojump_clock: MockClock) -> None:
    """The server had decided to close before it read: not one byte was answered, and at once."""
    async with Peer(reply(b"1"), close(), reply(b"2")) as peer, transport_to(peer) as transport:
        await fetch(transport)
        assert await fetch(transport) == (200, b"2")
        assert transport.statistics().resent_total == 1
        assert [seen.connection for seen in peer.requests] == [1, 1, 2]


@pytest.mark.parametrize(
    ("answered", "scripts"),
    [
        pytest.param(0, (close(),), id="on a new connection"),
        pytest.param(1, (reply(), close(), close()), id="twice"),
        pytest.param(1, (reply(), [raw(b"H"), close()]), id="after one byte", marks=pytest.mark.http1),
        pytest.param(1, (reply(), [pause(2), close()]), id="after it may have been worked on"),
    ],
)
async def test_other_requests_are_never_sent_again(
    autojump_clock: MockClock, answered: int, scripts: tuple[Script, ...]
) -> None:
    async with Peer(*scripts) as peer, transport_to(peer) as transport:
        for _ in range(answered):
            await fetch(transport)
        with pytest.raises(Broken):
            await fetch(transport)
        assert len(peer.requests) == len(scripts)


async def test_fault_at_every_use_of_the_socket_is_a_typed_error(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kth send or receive of the exchange fails; every one of them, in turn."""
    left = 0

    class Faulty:
        def __init__(self, real: socket.socket) -> None:
            self.real = real

        def __getattr__(self, name: str) -> object:
            return partial(self.use, name) if name in ("recv", "send") else getattr(self.real, name)

        def use(self, name: str, *args: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                with suppress(OSError):
                    self.real.shutdown(socket.SHUT_RDWR)  # a broken socket is readable
                raise ConnectionResetError(104, "CANARY")
            return getattr(self.real, name)(*args)

    class FaultyWire(PlainWire):
        def __init__(self, stream: trio.SocketStream) -> None:
            super().__init__(stream)
            self._socket = Faulty(self._socket)  # type: ignore[assignment]

    monkeypatch.setattr("llm_actors.transport.transport.PlainWire", FaultyWire)
    async with Peer([pause(1), chunked(b"one", b"two", gap=1)]) as peer:
        for k in range(100):
            left = k
            async with transport_to(peer) as transport:
                try:
                    assert await fetch(transport) == (200, b"onetwo")
                except Broken as exc:
                    assert "CANARY" not in str(exc)  # noqa: PT017
                else:
                    break
        assert k > 3


OTHERS_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.http1
@pytest.mark.parametrize("over_tcp", [False, True], ids=["socket pair", "TCP"])
@pytest.mark.parametrize(
    "surplus", [OTHERS_ANSWER, OTHERS_ANSWER[:20], b"\r\n", b"x"], ids=["answer", "part", "CRLF", "x"]
)
@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmine", CHUNKED + b"4\r\nmine\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("read", [True, False], ids=["read", "left early"])
async def test_surplus_bytes_never_reach_the_next_answer(
    answer: bytes, surplus: bytes, read: bool, over_tcp: bool
) -> None:
    """G18: what follows an answer in the same packet has been read along with it, and no look at the socket shows it.
    The next answer on that connection would begin with it: another caller's.
    """
    async with Peer(raw(answer + surplus), reply(b"good")) as peer:
        dial = TcpDial() if over_tcp else None
        request = post(origin=parse_url(peer.url)[0])
        async with transport_to(peer, dial=dial) as transport:
            async with transport.send(request) as response:
                if read:
                    assert await response.read() == b"mine"
            assert transport.statistics().open == 0, "the connection is not kept"
            assert await fetch(transport, request) == (200, b"good")
            assert [seen.connection for seen in peer.requests] == [1, 2]


@pytest.mark.http1
async def test_surplus_bytes_after_the_answer_never_reach_the_next_one(autojump_clock: MockClock) -> None:
    """G18: a second answer that nobody asked for is thrown away with its connection."""
    async with Peer(raw([OTHERS_ANSWER] * 2, gap=1), reply(b"good")) as peer, transport_to(peer) as transport:
        assert await fetch(transport) == (200, b"evil")
        await trio.sleep(5)
        assert await fetch(transport) == (200, b"good")
        assert peer.connections == 2


async def test_errors_carry_neither_headers_nor_what_the_peer_wrote(autojump_clock: MockClock) -> None:
    """A peer that echoes the key in place of an answer; the whole chain of causes is looked at."""

    async def echo(call: Call) -> None:
        assert call.request is not None
        await call.send(call.request.headers["authorization"].encode() + b"\r\n\r\n")

    async def echo_in_header(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\nbad header sk-CANARY\r\n\r\n")

    for script in (echo, echo_in_header, raw(b"HTTP/1.1 200 OK\r\ncontent-encoding: sk-CANARY\r\n\r\n")):
        async with Peer(script) as peer, transport_to(peer) as transport:
            with pytest.raises(TransportError) as caught:
                await fetch(transport, post(headers={"authorization": "Bearer sk-CANARY"}))
            exc: BaseException | None = caught.value
            while exc is not None:
                assert "CANARY" not in repr(exc)
                exc = exc.__cause__ or exc.__context__


@pytest.mark.http1
async def test_malformed_chunk_after_good_ones_gives_the_good_ones_first(autojump_clock: MockClock) -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\nzz\r\nbad"
    async with Peer(raw(answer)) as peer, transport_to(peer) as transport, transport.send(post()) as response:
        assert await response.receive() == b"good"
        for _ in range(2):
            with pytest.raises(ProtocolViolation, match="illegal chunk header"):
                await response.receive()


@pytest.mark.parametrize("kept", [True, False])
async def test_nothing_is_sent_for_a_caller_that_has_left(kept: bool, autojump_clock: MockClock) -> None:
    """It pays nothing, because nothing was sent when it left. It may leave in the moment in which there is a
    connection.
    """
    sent: list[None] = []
    async with Peer(reply(b"1"), reply(b"2")) as peer:
        scope = trio.CancelScope()

        async def dial(host: str, port: int) -> trio.SocketStream:
            stream = await peer.dial(host, port)
            scope.cancel()
            return stream

        transport = Transport(dial=dial)
        if kept:
            await fetch(transport)
        with scope:
            async with transport.send(post(), on_sent=partial(sent.append, None)):
                pytest.fail("the caller has left")
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert len(peer.requests) == int(kept)
        assert not sent
        assert transport.statistics().active == 0
        await transport.aclose()
