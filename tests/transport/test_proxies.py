"""Through a proxy of each scheme: the same exchange, the same cancelling, and a reason for whatever it refuses."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from llm_actors.transport import (
    ConnectFailed,
    ConnectTimeout,
    Origin,
    Proxy,
    ProxyRefused,
    TlsFailed,
    TlsTrust,
    Transport,
    TransportError,
    parse_proxy,
)
from llm_actors.transport.proxy import open_tunnel
from llm_protocol.secret import Secret
from support.cancelling import cancel_at_every_step
from support.outgoing import fetch, post
from support.peer import Peer, Script, chunked, reply, sse, stall
from support.proxying import FakeProxy

HTTP = Origin("http", "api.test", 80)
HTTPS = Origin("https", "api.test", 443)
SCHEMES = ["http", "https", "socks5"]
both = pytest.mark.parametrize("origin", [HTTP, HTTPS], ids=["http", "https"])
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trust(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> TlsTrust:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    trust = TlsTrust(ca_file=str(path))
    trust.context()
    trust.context(http2=True)
    return trust


def server(ca: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(host).configure_cert(context)
    return context


class Way:
    def __init__(self, peer: Peer, proxy: FakeProxy, transport: Transport) -> None:
        self.peer, self.proxy, self.transport = peer, proxy, transport


@asynccontextmanager
async def way(
    ca: trustme.CA,
    trust: TlsTrust,
    scheme: str,
    origin: Origin,
    *scripts: Script,
    credentials: str | None = None,
    known: str | None = None,
    name: str = "proxy.test",
) -> AsyncGenerator[Way]:
    """A peer behind a proxy. After a body without error nothing is open at any of the three."""
    tls = server(ca, "api.test") if origin.scheme == "https" else None
    own = server(ca, name) if scheme == "https" else None
    async with Peer(*scripts, tls=tls, forwarded=origin is HTTP and scheme != "socks5") as peer:
        async with FakeProxy(peer, scheme, credentials=credentials, known=known, tls=own) as proxy:
            transport = Transport(trust, dial=proxy.dial, proxy=proxy.proxy)
            yield Way(peer, proxy, transport)
            statistics = transport.statistics()
            assert (statistics.connecting, statistics.active) == (0, 0)
            await transport.aclose()
            with trio.fail_after(1):
                await peer.until(lambda: peer.open_connections == peer.open_requests == 0)
            await trio.testing.wait_all_tasks_blocked()
            assert proxy.open == 0


@both
@each_scheme
async def test_exchanges_keep_their_connection(
    autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust, scheme: str, origin: Origin
) -> None:
    body = bytes(range(256)) * 1024
    async with way(ca, trust, scheme, origin, chunked(b"a", body)) as at:
        for _ in range(3):
            assert await fetch(at.transport, post(body, origin=origin)) == (200, b"a" + body)
        forwarded = origin is HTTP and scheme != "socks5"
        assert at.proxy.asked == ["http://api.test/v1/chat/completions" if forwarded else f"api.test:{origin.port}"]
        assert at.peer.connections == 1
        assert at.peer.requests[0].headers["host"] == "api.test"


@each_scheme
async def test_pieces_come_as_they_are_sent(
    autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust, scheme: str
) -> None:
    async with way(ca, trust, scheme, HTTPS, sse("one", "two", gap=5)) as at:
        begun = trio.current_time()
        async with at.transport.send(post(origin=HTTPS)) as response:
            assert await response.receive() == b"data: one\n\n"
            assert trio.current_time() - begun == 5
            assert await response.receive() == b"data: two\n\n"
            assert await response.receive() == b""


@both
@each_scheme
async def test_credentials_go_to_the_proxy_and_no_further(
    autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust, scheme: str, origin: Origin
) -> None:
    async with way(ca, trust, scheme, origin, reply(b"ok"), credentials="u:p:q", known="u:p:q") as at:
        assert await fetch(at.transport, post(origin=origin)) == (200, b"ok")
        if origin is HTTPS or scheme == "socks5":
            assert "proxy-authorization" not in at.peer.requests[0].headers
        assert "p:q" not in repr(at.transport) + repr(at.proxy.proxy)


@both
@each_scheme
@pytest.mark.parametrize("credentials", [None, "u:CANARY"])
async def test_refused_credentials_are_told_and_never_shown(
    autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust, scheme: str, origin: Origin, credentials: str | None
) -> None:
    async with way(ca, trust, scheme, origin, credentials=credentials, known="u:right") as at:
        with pytest.raises(ProxyRefused) as caught:
            await fetch(at.transport, post(origin=origin))
        told = (
            "the proxy refuses the user or password"
            if credentials
            else "the proxy wants a user and password (proxy_auth)"
        )
        assert caught.value.reason.startswith(told)
        assert "CANARY" not in str(caught.value)
        assert at.peer.requests == []


@each_scheme
async def test_a_cancel_at_any_step_leaves_nothing(
    autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust, scheme: str
) -> None:
    async with way(ca, trust, scheme, HTTPS, [chunked(b"x", end=False), stall()]) as at:

        async def scenario() -> None:
            async with at.transport.send(post(origin=HTTPS)) as response:
                assert await response.receive() == b"x"

        def check() -> None:
            assert at.transport.statistics().open == at.transport.statistics().connecting == 0

        assert await cancel_at_every_step(scenario, check) > 3


@each_scheme
async def test_a_proxy_that_is_away_is_named_as_the_reason(trust: TlsTrust, scheme: str) -> None:
    async def refuse(host: str, port: int) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError(111, "refused")

    transport = Transport(trust, dial=refuse, proxy=Proxy(scheme, "proxy.test", 3128))
    with pytest.raises(ConnectFailed, match=r"^https://api\.test: the proxy: Connection refused$"):
        await fetch(transport, post(origin=HTTPS))


async def test_tls_to_the_proxy_is_checked(autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust) -> None:
    async with way(ca, trust, "https", HTTPS, name="other.test") as at:
        with pytest.raises(TlsFailed, match="the proxy: certificate refused: Hostname mismatch"):
            await fetch(at.transport, post(origin=HTTPS))


Greeting = Callable[[trio.abc.Stream], Awaitable[None]]


def says(data: bytes, *, after: int = 1, stay: bool = False) -> Greeting:
    """Read ``after`` times, answer each time with the same, then close."""

    async def greet(stream: trio.abc.Stream) -> None:
        for _ in range(after):
            await stream.receive_some(65536)
            await stream.send_all(data)
        if stay:
            await trio.sleep_forever()

    return greet


@pytest.mark.parametrize(
    ("scheme", "greeting", "kind", "reason"),
    [
        ("http", says(b"HTTP/1.1 403 No\r\n\r\n"), ProxyRefused, "the proxy refuses the connection (403)"),
        ("http", says(b"HTTP/1.1 502 Away\r\n\r\n"), ConnectFailed, "the proxy cannot connect (502)"),
        (
            "http",
            says(b"HTTP/1.1 100 -\r\n\r\nHTTP/1.1 504 -\r\n\r\n"),
            ConnectFailed,
            "the proxy cannot connect (504)",
        ),
        ("http", says(b"HTTP/1.1 200 OK\r\n\r\nx"), ConnectFailed, "the proxy sent more than a response to CONNECT"),
        ("http", says(b"SSH-2.0-x\r\n\r\n"), ConnectFailed, "does not respond as an HTTP proxy"),
        ("http", says(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 5000), ConnectFailed, "(the head has more than 16384"),
        ("http", says(b"HTTP/1.1 200 OK\r\n"), ConnectFailed, "the proxy closed the connection"),
        ("socks5", says(b"HTTP/1.1 400 Bad\r\n\r\n"), ConnectFailed, "does not respond as a SOCKS5 proxy"),
        ("socks5", says(b"\x05"), ConnectFailed, "the proxy closed the connection"),
        ("socks5", says(b"\x05\xff"), ProxyRefused, "the proxy wants a user and password (proxy_auth)"),
        (
            "socks5",
            says(b"\x05\x00\x05\x02\x00\x01", stay=True),
            ProxyRefused,
            "the proxy does not allow this connection",
        ),
        ("socks5", says(b"\x05\x00\x05\x05\x00\x01", stay=True), ConnectFailed, "the proxy was refused by the host"),
        ("socks5", says(b"\x05\x00\x05\x63\x00\x01", stay=True), ConnectFailed, "the proxy failed"),
        ("socks5", says(b"\x05\x00\x04\x00\x00\x01", stay=True), ConnectFailed, "does not respond as a SOCKS5 proxy"),
    ],
)
async def test_what_a_proxy_may_say_instead(
    autojump_clock: MockClock, trust: TlsTrust, scheme: str, greeting: Greeting, kind: type[TransportError], reason: str
) -> None:
    async with Peer() as peer, FakeProxy(peer, scheme, greeting=greeting) as proxy:
        transport = Transport(trust, dial=proxy.dial, proxy=proxy.proxy)
        with pytest.raises(kind) as caught:
            await fetch(transport, post(origin=HTTPS))
        assert reason in caught.value.reason
        assert isinstance(caught.value, ProxyRefused) == (kind is ProxyRefused)
        assert transport.statistics().open == 0


@pytest.mark.parametrize(
    ("scheme", "stage"),
    [("http", "waiting for the proxy"), ("socks5", "waiting for the proxy"), ("https", "TLS handshake with the proxy")],
)
async def test_a_silent_proxy_costs_the_connect_timeout(
    autojump_clock: MockClock, trust: TlsTrust, scheme: str, stage: str
) -> None:
    async with Peer() as peer, FakeProxy(peer, scheme, greeting=says(b"", after=9, stay=True)) as proxy:
        transport = Transport(trust, dial=proxy.dial, proxy=proxy.proxy)
        begun = trio.current_time()
        with pytest.raises(ConnectTimeout, match=stage):
            async with transport.send(post(origin=HTTPS), connect_timeout=3):
                pass
        assert trio.current_time() - begun == 3


class Bytes:
    """A wire that answers with given bytes, in pieces of ``size``."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size, self.sent = data, size, b""

    async def send_all(self, data: bytes) -> None:
        self.sent += data

    async def receive_some(self, max_bytes: int) -> bytes:
        size = min(max_bytes, self.size)
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def is_quiet(self) -> bool:
        return not self.data

    def close(self) -> None:
        pass


@given(
    scheme=st.sampled_from(["http", "socks5"]),
    data=st.one_of(
        st.binary(max_size=64),
        st.binary(max_size=24).map(lambda tail: b"\x05\x00\x05\x00\x00" + tail),
        st.binary(max_size=24).map(lambda tail: b"HTTP/1.1 200 " + tail + b"\r\n\r\n"),
    ),
    size=st.integers(1, 64),
)
def test_whatever_a_proxy_says_it_is_a_tunnel_or_an_error_of_ours(scheme: str, data: bytes, size: int) -> None:
    async def main() -> None:
        wire = Bytes(data, size)
        with suppress(ConnectFailed):
            await open_tunnel(wire, Proxy(scheme, "p", 1, Secret("u:p") if size % 2 else None), HTTPS)

    trio.run(main)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("api.test", b"\x03\x08api.test"),
        ("192.0.2.7", b"\x01\xc0\x00\x02\x07"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
    ],
)
async def test_socks_is_told_names_and_addresses_as_they_are(host: str, address: bytes) -> None:
    wire = Bytes(b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", 64)
    await open_tunnel(wire, Proxy("socks5", "p", 1), Origin("https", host, 443))
    assert wire.sent == b"\x05\x01\x00" + b"\x05\x01\x00" + address + b"\x01\xbb"
    assert wire.data == b"", "no byte of the tunnel was taken, and none of the answer left"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://p.test:3128", Proxy("http", "p.test", 3128)),
        ("https://p.test/", Proxy("https", "p.test", 443)),
        ("socks5h://[::1]:9", Proxy("socks5h", "::1", 9)),
        ("p.test:8080", Proxy("http", "p.test", 8080)),
        ("http://u:p%40%3A@p.test:1", Proxy("http", "p.test", 1, Secret("u:p@:"))),
    ],
)
def test_addresses_of_proxies(url: str, proxy: Proxy) -> None:
    assert parse_proxy(url) == proxy


@pytest.mark.parametrize(
    "url", ["", "ftp://p", "http://", "http://p:0", "http://p:x", "http://p/x", "http://p q", "http://ü"]
)
def test_what_is_no_address_of_a_proxy(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not an address|must start with"):
        parse_proxy(url)
