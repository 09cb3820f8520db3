"""What HTTP/2 has and HTTP/1.1 has not: agreement, windows, frames that end a stream or a connection.

All else is in the tests that run over both; see conftest.py.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import h2.connection
import h2.errors
import h2.settings
import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.transport import Broken, HttpRequest, Origin, ProtocolViolation, TlsTrust, Transport, TransportError
from llm_actors.transport.http1 import StreamedBody
from llm_actors.transport.http2 import WINDOW_BYTES, Http2Connection
from llm_runtime.config import ConfigError, parse
from support.http2_side import Http2Side
from support.outgoing import ORIGIN, fetch, post
from support.peer import Call, Peer, Step, chunked, reply, sse, stall

HTTPS = Origin("https", "api.test", 443)
MIB = 1024 * 1024


def transport_to(peer: Peer, trust: TlsTrust | None = None) -> Transport:
    return Transport(trust, dial=peer.dial, http2=True)


def frames(act: Callable[[h2.connection.H2Connection, int], None], *, end: bool = False) -> Step:
    """A server that says something by frames, and then perhaps nothing more."""

    async def step(call: Call) -> None:
        assert isinstance(call.stream, Http2Side)
        act(call.stream.h2, call.stream.stream_id)
        await call.stream.flush()
        if end:
            await trio.sleep_forever()

    return step


def resets(code: h2.errors.ErrorCodes) -> Step:
    return frames(lambda server, stream: server.reset_stream(stream, code), end=True)


# -- agreement


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trust(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> TlsTrust:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    trust = TlsTrust(str(path))
    trust.context(http2=True)
    return trust


def server(ca: trustme.CA, *protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("api.test").configure_cert(context)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)], ids=["silent", "refuses"])
async def test_a_server_that_does_not_agree_is_spoken_to_in_http_1(
    autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust, protocols: tuple[str, ...]
) -> None:
    async with Peer(reply(b"ok"), tls=server(ca, *protocols)) as peer:
        transport = transport_to(peer, trust)
        for _ in range(2):
            assert await fetch(transport, post(origin=HTTPS)) == (200, b"ok")
        assert peer.connections == 1
        await transport.aclose()


async def test_a_server_that_speaks_http_1_to_http_2_is_told_at_once(autojump_clock: MockClock) -> None:
    async def speak(call: Call) -> None:
        await call.stream.receive_some(10)
        await call.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await trio.sleep_forever()

    async with Peer(greeting=speak) as peer:
        with pytest.raises(ProtocolViolation, match=r"not valid HTTP/2 \(FrameTooLargeError\)"):
            await fetch(transport_to(peer))


def test_without_its_package_the_configuration_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    source = b'[providers.a]\nkind = "openai"\napi_key = "env:K"\nhttp2 = true'
    assert parse(source, {"K": "k-0123456789"}).providers["a"].http2
    monkeypatch.setattr("llm_runtime.config.providers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"http2.* is not installed: .* -m pip install 'h2>="):
        parse(source, {"K": "k-0123456789"})


# -- what ends a stream


async def test_a_cancelled_stream_ends_at_the_server_and_no_other_does(autojump_clock: MockClock) -> None:
    """Each has a connection of its own."""
    endless = [chunked(*[b"x"] * 1000, gap=1)]
    async with Peer(endless, sse("a", "b", gap=10), http2=True) as peer:
        transport = transport_to(peer)
        others: list[tuple[int, bytes]] = []

        async def other() -> None:
            others.append(await fetch(transport))

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(5):
                async with transport.send(post()) as response:
                    nursery.start_soon(other)
                    while await response.receive():
                        pass
            left_at = trio.current_time()
            await peer.until(lambda: peer.aborted == 1)
            assert trio.current_time() == left_at
        assert others == [(200, b"data: a\n\ndata: b\n\n")]
        assert [each.connection for each in peer.requests] == [1, 2]
        await transport.aclose()


async def test_pieces_before_a_reset_are_read_first(autojump_clock: MockClock) -> None:
    script = [chunked(b"one", b"two", end=False), resets(h2.errors.ErrorCodes.INTERNAL_ERROR)]
    async with Peer(script, http2=True) as peer:
        transport = transport_to(peer)
        pieces: list[bytes] = []

        async def read() -> None:
            async with transport.send(post()) as response:
                while piece := await response.receive():
                    pieces.append(piece)

        with pytest.raises(Broken, match="the server ended the stream") as caught:
            await read()
        assert (b"".join(pieces), caught.value.answered) == (b"onetwo", True)
        assert transport.statistics().open == 0


@pytest.mark.parametrize(
    "refuses",
    [
        pytest.param(resets(h2.errors.ErrorCodes.REFUSED_STREAM), id="refused"),
        pytest.param(frames(lambda server, _: server.close_connection(last_stream_id=1), end=True), id="closing"),
    ],
)
async def test_what_the_server_has_not_begun_is_sent_again_from_a_kept_connection(
    autojump_clock: MockClock, refuses: Step
) -> None:
    """Even late: it is the server's own word."""

    async def late(call: Call) -> None:
        await trio.sleep(5)
        await refuses(call)

    async with Peer(reply(b"1"), late, reply(b"2"), http2=True) as peer:
        transport = transport_to(peer)
        assert [await fetch(transport) for _ in range(2)] == [(200, b"1"), (200, b"2")]
        assert [each.connection for each in peer.requests] == [1, 1, 2]
        assert transport.statistics().resent_total == 1
        await transport.aclose()


async def test_what_is_refused_on_a_new_connection_is_the_callers_to_try_again(autojump_clock: MockClock) -> None:
    async with Peer(resets(h2.errors.ErrorCodes.REFUSED_STREAM), http2=True) as peer:
        with pytest.raises(Broken) as caught:
            await fetch(transport_to(peer))
        assert (caught.value.answered, len(peer.requests)) == (False, 1)


async def test_a_server_that_closes_finishes_its_answer_and_the_connection_is_not_kept(
    autojump_clock: MockClock,
) -> None:
    async with Peer(reply(b"whole", headers={"connection": "close"}), http2=True) as peer:
        transport = transport_to(peer)
        for _ in range(2):
            assert await fetch(transport) == (200, b"whole")
        await wait_all_tasks_blocked()
        assert [each.connection for each in peer.requests] == [1, 2]
        await transport.aclose()


# -- windows and bounds


async def test_an_early_refusal_is_read_though_the_server_reads_no_more(autojump_clock: MockClock) -> None:
    async def refuse(call: Call) -> None:
        side = call.stream
        assert isinstance(side, Http2Side)
        while not side.stream_id:
            await side.read_frames()
        side.h2.send_headers(side.stream_id, [(":status", "413"), ("content-length", "5")])
        side.h2.send_data(side.stream_id, b"large", end_stream=True)
        await side.flush()
        await trio.sleep_forever()

    async with Peer(greeting=refuse, http2=True) as peer:
        transport = transport_to(peer)
        begun = trio.current_time()
        assert await fetch(transport, post(bytes(8 * MIB))) == (413, b"large")
        assert (trio.current_time(), transport.statistics().open) == (begun, 0)


async def test_large_bodies_go_both_ways_on_one_connection(autojump_clock: MockClock) -> None:
    """More than a window each, and several windows together: what was read is given back."""
    body = bytes(range(256)) * 4096 * 2
    async with Peer(reply(body), http2=True) as peer:
        transport = transport_to(peer)
        for _ in range(3):
            assert await fetch(transport, post(body)) == (200, body)
        assert (peer.connections, peer.requests[2].body == body) == (1, True)
        await transport.aclose()


async def test_a_small_body_waits_for_room_in_a_smaller_window(autojump_clock: MockClock) -> None:
    def shrink(server: h2.connection.H2Connection, stream: int) -> None:
        server.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100})

    body = bytes(5_000)
    async with Peer([frames(shrink), reply(b"ok")], reply(body), http2=True) as peer:
        transport = transport_to(peer)
        with trio.fail_after(10):
            assert await fetch(transport, post(b"small")) == (200, b"ok")
            assert await fetch(transport, post(body)) == (200, body)
        assert (peer.connections, peer.requests[1].body == body) == (1, True)
        await transport.aclose()


async def test_a_ping_is_answered_while_an_upload_waits_for_its_source(autojump_clock: MockClock) -> None:
    """A server closes a connection that answers no ping."""
    answered: list[float] = []

    async def ping(call: Call) -> None:
        side = call.stream
        assert isinstance(side, Http2Side)
        for number in range(3):
            await trio.sleep(10)
            side.h2.ping(bytes(8))
            await side.flush()
            while side.pongs <= number:
                await side.read_frames()
            answered.append(trio.current_time() - begun)

    pieces = [b"", b"last", b"first"]

    async def receive() -> bytes:
        if len(pieces) == 2:
            await trio.sleep(60)
        return pieces.pop()

    async with Peer(reply(b"ok"), greeting=ping, http2=True) as peer:
        transport, begun = transport_to(peer), trio.current_time()
        request = HttpRequest("POST", ORIGIN, "/upload", {}, StreamedBody(receive, 9))
        assert await fetch(transport, request) == (200, b"ok")
        assert peer.requests[0].body == b"firstlast"
        assert answered == [10, 20, 30]
        await transport.aclose()


async def test_what_nobody_reads_is_one_window(autojump_clock: MockClock) -> None:
    async with Peer([chunked(b"x", end=False), _send_until_full, stall()], http2=True) as peer:
        transport = transport_to(peer)
        async with transport.send(post()) as response:
            assert await response.receive()
            await trio.sleep(10)
            assert _sent[-1] <= WINDOW_BYTES
        await peer.until(lambda: peer.open_connections == 0)


_sent: list[int] = []


async def _send_until_full(call: Call) -> None:
    assert isinstance(call.stream, Http2Side)
    server, stream = call.stream.h2, call.stream.stream_id
    _sent.append(1)
    while (room := min(server.local_flow_control_window(stream), server.max_outbound_frame_size)) > 0:
        server.send_data(stream, bytes(room))
        _sent[-1] += room
        with trio.move_on_after(1):
            await call.stream.flush()


def _interim_heads(server: h2.connection.H2Connection, stream: int) -> None:
    for _ in range(17):
        server.send_headers(stream, [(":status", "103")])


def _many_headers(server: h2.connection.H2Connection, stream: int) -> None:
    server.send_headers(stream, [(":status", "200"), *[("a", "b")] * 257])


@pytest.mark.parametrize(
    ("act", "reason"),
    [(_interim_heads, "more than 16 interim responses"), (_many_headers, "more than 256 headers")],
)
async def test_what_is_too_much_is_refused(
    autojump_clock: MockClock, act: Callable[[h2.connection.H2Connection, int], None], reason: str
) -> None:
    async with Peer(frames(act, end=True), http2=True) as peer:
        transport = transport_to(peer)
        with pytest.raises(ProtocolViolation, match=reason):
            await fetch(transport)
        assert transport.statistics().open == 0


class Rubbish:
    """A wire on which a server says what it likes."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.pieces.pop(0) if self.pieces else b""

    def is_quiet(self) -> bool:
        return True

    def close(self) -> None:
        self.pieces = []


_FRAME = st.builds(
    lambda kind, flags, stream, body: len(body).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + body,
    st.integers(0, 10),
    st.integers(0, 255),
    st.sampled_from((0, 1, 2, 3)),
    st.binary(max_size=40),
)


@given(st.lists(st.one_of(_FRAME, st.binary(min_size=1, max_size=30)), max_size=8))
def test_whatever_comes_is_an_answer_or_a_typed_error(pieces: list[bytes]) -> None:
    async def read() -> None:
        connection = Http2Connection(ORIGIN, Rubbish(list(pieces)))
        try:
            response = await connection.ask(HttpRequest("POST", ORIGIN, "/", {}, b"{}"), b"")
            while await response.receive():
                pass
        except TransportError:
            pass
        connection.close()

    trio.run(read)
