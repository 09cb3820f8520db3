"""TLS that fails says why and names the host; TLS that works is checked and cannot be switched off."""

from __future__ import annotations

import datetime
import inspect
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.transport import Broken, ConnectTimeout, Origin, TlsFailed, TlsTrust, Transport
from llm_actors.transport.errors import wire_reason
from llm_actors.transport.trust import OP_IGNORE_UNEXPECTED_EOF, _system_has_authorities
from support.cancelling import cancel_at_every_step
from support.outgoing import fetch, post, transport_to
from support.peer import Call, Peer, Script, Step, chunked, close, raw, reply, stall

ORIGIN = Origin("https", "api.test", 443)
REQUEST = post(origin=ORIGIN, headers={"authorization": "Bearer sk-CANARY"})
NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trust(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> TlsTrust:
    """Loaded beforehand: a thread that reads files does not go with virtual time."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    trust = TlsTrust(ca_file=str(path))
    trust.context()
    trust.context(http2=True)
    return trust


def server(
    ca: trustme.CA,
    host: str = "api.test",
    not_before: datetime.datetime | None = None,
    not_after: datetime.datetime | None = None,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(host, not_before=not_before, not_after=not_after).configure_cert(context)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_exchange_over_tls_keeps_its_connection(
    autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust, version: ssl.TLSVersion
) -> None:
    context = server(ca)
    context.minimum_version = context.maximum_version = version
    body = bytes(range(256)) * 2048
    async with Peer(chunked(b"a", body), tls=context) as peer, transport_to(peer, trust=trust) as transport:
        for _ in range(3):
            assert await fetch(transport, post(body, origin=ORIGIN)) == (200, b"a" + body)
        assert peer.connections == 1
        assert peer.requests[0].body == body


@pytest.mark.parametrize(
    ("host", "validity", "reason"),
    [
        ("api.test", {"not_after": NOW - datetime.timedelta(days=1)}, "certificate has expired"),
        (
            "api.test",
            {"not_before": NOW + datetime.timedelta(days=1), "not_after": NOW + datetime.timedelta(days=2)},
            "certificate is not yet valid",
        ),
        ("other.test", {}, "certificate is not valid for 'api.test'"),
    ],
    ids=["expired", "not yet valid", "wrong host"],
)
async def test_certificate_that_is_not_good_is_refused(
    autojump_clock: MockClock,
    ca: trustme.CA,
    trust: TlsTrust,
    host: str,
    validity: dict[str, datetime.datetime],
    reason: str,
) -> None:
    async with Peer(tls=server(ca, host, **validity)) as peer, transport_to(peer, trust=trust) as transport:
        with pytest.raises(TlsFailed, match=f"^https://api.test: certificate refused: .*{reason}"):
            await fetch(transport, REQUEST)
        assert peer.requests == []


@pytest.mark.parametrize("host", [f"{'a' * 64}.test", ".api.test", "api..test"])
async def test_name_that_no_certificate_can_have_is_refused(
    autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust, host: str
) -> None:
    """Through a proxy, no name lookup refuses it before."""
    async with Peer(tls=server(ca)) as peer, transport_to(peer, trust=trust) as transport:
        with pytest.raises(TlsFailed, match="not a valid host name"):
            await fetch(transport, post(origin=Origin("https", host, 443)))
        assert peer.requests == []


async def test_authority_that_nobody_trusts_is_refused(autojump_clock: MockClock, trust: TlsTrust) -> None:
    async with Peer(tls=server(trustme.CA())) as peer, transport_to(peer, trust=trust) as transport:
        with pytest.raises(TlsFailed, match="unable to get local issuer certificate"):
            await fetch(transport, REQUEST)
        assert peer.requests == []


@pytest.mark.http1
async def test_server_is_told_why_its_certificate_was_refused(autojump_clock: MockClock, trust: TlsTrust) -> None:
    heard: list[str] = []

    async def handshake(call: Call) -> None:
        assert isinstance(call.stream, trio.SSLStream)
        try:
            await call.stream.do_handshake()
            await call.stream.receive_some(1)
        except trio.BrokenResourceError as exc:
            heard.append(str(exc.__cause__))
            raise

    async with Peer(greeting=handshake, tls=server(trustme.CA())) as peer, transport_to(peer, trust=trust) as transport:
        with pytest.raises(TlsFailed):
            await fetch(transport, REQUEST)
        await peer.until(lambda: peer.open_connections == 0)
    assert len(heard) == 1
    assert "alert unknown ca" in heard[0].lower().replace("_", " ")


@pytest.mark.http1
async def test_stalled_handshake_ends_at_the_connect_timeout(autojump_clock: MockClock, trust: TlsTrust) -> None:
    async with Peer(greeting=[_read_something, stall()]) as peer:
        transport = Transport(trust, dial=peer.dial)
        start = trio.current_time()
        with pytest.raises(ConnectTimeout, match=r"no connection within 3 s \(in the TLS handshake\)"):
            async with transport.send(REQUEST, connect_timeout=3):
                pass
        assert trio.current_time() - start == 3
        assert transport.statistics().open == transport.statistics().connecting == 0


async def _read_something(call: Call) -> None:
    await call.stream.receive_some(65536)


@pytest.mark.http1
@pytest.mark.parametrize(
    "greeting",
    [[close()], [_read_something, close()], [raw(b"HTTP/1.1 400 Bad\r\n\r\n")]],
    ids=["at once", "late", "no TLS"],
)
async def test_server_that_does_not_speak_tls_is_a_tls_failure(
    autojump_clock: MockClock, trust: TlsTrust, greeting: Sequence[Step]
) -> None:
    async with Peer(greeting=greeting) as peer, transport_to(peer, trust=trust) as transport:
        with pytest.raises(TlsFailed) as caught:
            await fetch(transport, REQUEST)
        assert str(caught.value).startswith("https://api.test: ")
        assert len(caught.value.reason) > 5


@pytest.mark.parametrize(
    ("script", "whole"),
    [
        pytest.param([raw(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"), close()], True, id="framed"),
        pytest.param([raw(b"HTTP/1.0 200 OK\r\n\r\nbody"), close()], False, id="until close", marks=pytest.mark.http1),
        pytest.param([chunked(b"body", end=False), close()], False, id="in the body"),
    ],
)
async def test_close_without_close_notify_is_no_end_of_a_body(
    autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust, script: Script, whole: bool
) -> None:
    """Anyone on the path can forge a FIN; only the message's own framing or TLS itself can say that it is whole."""
    async with (
        Peer(script, tls=server(ca)) as peer,
        transport_to(peer, trust=trust) as transport,
        transport.send(REQUEST) as response,
    ):
        assert await response.receive() == b"body"
        if whole:
            assert await response.receive() == b""
        else:
            # A reset where the server had not read all that HTTP/2 says of the connection.
            with pytest.raises(Broken, match=r"closed without the TLS close notice|Connection reset by peer"):
                await response.receive()


@pytest.mark.http1
async def test_leftover_record_never_reaches_the_next_answer(
    autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust
) -> None:
    """G18: the first answer fills one TLS record exactly; the next record has come with it and nobody asked for it."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %05d\r\n\r\n"
    size = 16384 - len(head % 0)
    first = head % size + bytes(size)
    smuggled = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
    scripts = raw(first + smuggled), reply(b"good")
    async with Peer(*scripts, tls=server(ca)) as peer, transport_to(peer, trust=trust) as transport:
        assert await fetch(transport, REQUEST) == (200, bytes(size))
        assert await fetch(transport, REQUEST) == (200, b"good")
        assert peer.connections == 2


@pytest.mark.http1
async def test_early_error_answer_is_read_over_tls(autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust) -> None:
    """A send that is given up in the middle does not take the answer with it."""
    answer = raw(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge")

    async def handshake(call: Call) -> None:
        assert isinstance(call.stream, trio.SSLStream)
        await call.stream.do_handshake()

    greeting = [handshake, answer, close_later]
    async with Peer(greeting=greeting, tls=server(ca)) as peer, transport_to(peer, trust=trust) as transport:
        assert await fetch(transport, post(bytes(8 * 1024 * 1024), origin=ORIGIN)) == (413, b"large")


async def close_later(call: Call) -> None:
    await trio.sleep(0.5)
    await close()(call)


async def test_cancel_at_every_checkpoint_over_tls_leaves_nothing(
    autojump_clock: MockClock, ca: trustme.CA, trust: TlsTrust
) -> None:
    async def scenario() -> None:
        await fetch(transport, REQUEST)

    def check() -> None:
        statistics = transport.statistics()
        assert (statistics.active, statistics.connecting) == (0, 0)

    script = chunked(b"one", b"two", gap=1)
    async with (
        Peer(script, tls=server(ca)) as peer,
        transport_to(peer, trust=trust, max_idle_per_origin=0) as transport,
    ):
        assert await cancel_at_every_step(scenario, check) >= 6


async def test_unreadable_ca_file_is_named_as_the_reason(tmp_path: Path) -> None:
    async with Peer() as peer:
        transport = Transport(TlsTrust(ca_file=str(tmp_path / "absent.pem")), dial=peer.dial)
        with pytest.raises(TlsFailed, match=r"trusted certificates in \S+ cannot be read: No such file"):
            await fetch(transport, REQUEST)
        assert peer.connections == 0


class SlowTrust(TlsTrust):
    """Reads for as long as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.may_end = trio.Event(), threading.Event()

    def _make(self, protocols: list[str]) -> ssl.SSLContext:
        trio.from_thread.run_sync(self.began.set)
        self.may_end.wait(10)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def test_cancelled_while_certificates_are_read_does_not_leave_the_reading_alone() -> None:
    """A program that ends next would run OpenSSL's exit hook beneath that thread: seen as signal 11."""
    trust = SlowTrust()
    ended = trio.Event()

    async def ask() -> None:
        with scope:
            await fetch(Transport(trust, dial=peer.dial), REQUEST)
        ended.set()

    scope = trio.CancelScope()
    async with Peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trust.began.wait()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert not ended.is_set()
        trust.may_end.set()
        await ended.wait()
        assert (scope.cancelled_caught, peer.connections) == (True, 0)


def test_context_checks_certificate_and_host_and_speaks_tls_1_2_or_newer() -> None:
    trust = TlsTrust()
    assert not trust.is_loaded()
    context = trust.context()
    assert context is trust.context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_context_never_takes_a_cut_connection_for_a_whole_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12's own Python sets the option that would."""
    original = ssl.create_default_context

    def debian(**options: str | None) -> ssl.SSLContext:
        context = original(**options)  # type: ignore[arg-type]
        context.options |= OP_IGNORE_UNEXPECTED_EOF
        return context

    monkeypatch.setattr(ssl, "create_default_context", debian)
    assert debian().options & OP_IGNORE_UNEXPECTED_EOF
    assert not TlsTrust().context().options & OP_IGNORE_UNEXPECTED_EOF


@pytest.mark.parametrize("kind", [ssl.SSLEOFError, ssl.SSLError])
def test_a_cut_connection_has_one_reason_whatever_openssl_calls_it(kind: type[ssl.SSLError]) -> None:
    error = kind(1, "[SSL: UNEXPECTED_EOF_WHILE_READING] unexpected eof while reading")
    error.reason = "UNEXPECTED_EOF_WHILE_READING"
    assert wire_reason(error) == "closed without the TLS close notice"


def test_verification_has_no_switch() -> None:
    """Safe defaults 8: nothing in the signatures turns it off."""
    assert list(inspect.signature(TlsTrust).parameters) == ["ca_file"]
    assert not {"verify", "insecure", "ssl"} & set(inspect.signature(Transport).parameters)


def test_machine_without_authorities_gets_those_of_certifi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert not _system_has_authorities(ssl.create_default_context())
    assert TlsTrust().context().cert_store_stats()["x509_ca"] > 100
