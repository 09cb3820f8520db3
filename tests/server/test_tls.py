"""The server speaks TLS itself: requests, streams, WebSockets, who may connect, and a certificate that changes."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio_websocket import connect_websocket

from llm_protocol.secret import Secret
from llm_runtime.config import ConfigError, Key, ServerTls, parse
from llm_runtime.config.certificate import server_context, valid_until
from llm_runtime.server.limits import WRITE_PIECE_BYTES
from llm_runtime.server.tls import TlsBroken, TlsContext, TlsLayer
from support.server import HttpClient, OpenServer, Reply, hanging, open_server, saying

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
LONG = "x" * (4 * WRITE_PIECE_BYTES)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(ca: trustme.CA, tmp_path: Path) -> ServerTls:
    return files(ca, tmp_path)


def files(ca: trustme.CA, folder: Path, **more: Any) -> ServerTls:
    issued = ca.issue_cert("127.0.0.1", **more)
    (folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    return ServerTls(certificate=str(folder / "cert.pem"), key=str(folder / "key.pem"))


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


class TlsClient(HttpClient):
    def close(self) -> None:
        self.stream.transport_stream.socket.close()  # type: ignore[attr-defined]


@asynccontextmanager
async def client(server: OpenServer, context: ssl.SSLContext) -> AsyncIterator[TlsClient]:
    tcp = await trio.open_tcp_stream(server.address.host, server.address.port)
    stream = trio.SSLStream(tcp, context, server_hostname="127.0.0.1")
    one = TlsClient(stream)  # type: ignore[arg-type]
    try:
        await stream.do_handshake()
        yield one
    finally:
        one.close()


async def test_requests_one_after_the_other_and_a_stream(ca: trustme.CA, tls: ServerTls) -> None:
    async with open_server(saying("Hel", "lo"), tls=tls) as server:
        assert server.address.url == f"https://127.0.0.1:{server.address.port}"
        async with client(server, trusting(ca)) as one:
            assert (await one.request("GET", "/livez")).status == 200
            whole = await one.request("POST", "/v1/chat/completions", CHAT)
            assert whole.json["choices"][0]["message"]["content"] == "Hello"
            streamed = await one.request("POST", "/v1/chat/completions", CHAT | {"stream": True})
            assert streamed.events[-1] == "[DONE]"


async def test_a_long_answer_to_a_slow_reader_is_whole(ca: trustme.CA, tls: ServerTls) -> None:
    async with open_server(saying(LONG, LONG), tls=tls) as server, client(server, trusting(ca)) as one:
        await one.begin("POST", "/v1/chat/completions", CHAT)
        await trio.sleep(0.2)
        reply: Reply = await one.reply()
        assert reply.json["choices"][0]["message"]["content"] == LONG * 2


async def test_a_websocket(ca: trustme.CA, tls: ServerTls) -> None:
    async with open_server(saying("Hel", "lo"), tls=tls) as server, trio.open_nursery() as nursery:
        socket = await connect_websocket(
            nursery, "127.0.0.1", server.address.port, "/v1/responses", use_ssl=trusting(ca)
        )
        await socket.send_message('{"type":"response.create","model":"m","input":"hi"}')
        while "response.completed" not in (await socket.get_message()):
            pass
        await socket.aclose()


async def test_a_client_that_leaves_ends_its_request(ca: trustme.CA, tls: ServerTls) -> None:
    async with open_server(hanging, tls=tls) as server:
        async with client(server, trusting(ca)) as one:
            await one.begin("POST", "/v1/chat/completions", CHAT)
            await server.engine.until(lambda: server.engine.open_runs == 1)
        await server.engine.until(lambda: server.engine.open_runs == 0)


async def test_who_speaks_plain_http_is_told(tls: ServerTls) -> None:
    async with open_server(tls=tls) as server, await server.connect() as one:
        await one.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"400 Bad Request" in (said := await one.until_closed())
        assert b"This port speaks TLS: write https://" in said


async def test_garbage_and_silence_end_by_themselves(tls: ServerTls) -> None:
    async with open_server(tls=tls, head_s=1) as server:
        for words in (b"\x00" * 100, b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01", b""):
            async with await server.connect() as one:
                if words:
                    await one.send(words)
                with trio.fail_after(10):
                    await one.until_closed()


async def test_a_client_must_show_its_certificate_where_that_is_wanted(ca: trustme.CA, tmp_path: Path) -> None:
    people = trustme.CA()
    people.cert_pem.write_to_path(str(tmp_path / "people.pem"))
    tls = files(ca, tmp_path)
    tls = ServerTls(certificate=tls.certificate, key=tls.key, client_ca=str(tmp_path / "people.pem"))
    known, stranger = trusting(ca), trusting(ca)
    people.issue_cert("someone@example.org").configure_cert(known)
    async with open_server(tls=tls) as server:
        async with client(server, known) as one:
            assert (await one.request("GET", "/livez")).status == 200
        with pytest.raises(trio.BrokenResourceError):
            async with client(server, stranger) as one:
                await one.request("GET", "/livez")


async def test_a_new_certificate_is_used_for_new_connections(
    ca: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And what cannot be used is not: the old one stays."""

    async def serial(context: TlsContext) -> str:
        ours, theirs = trio.testing.memory_stream_pair()
        peer, layer = trio.SSLStream(ours, trusting(ca), server_hostname="127.0.0.1"), context.layer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.do_handshake)
            for _ in range(2):
                layer.open(bytes(await theirs.receive_some()))
                await theirs.send_all(layer.own_words())
        found = peer.getpeercert()
        return str(found["serialNumber"])

    context = TlsContext(files(ca, tmp_path))
    first = await serial(context)
    context.refresh()
    assert await serial(context) == first
    files(ca, tmp_path)
    context.refresh()
    second = await serial(context)
    assert second != first
    (tmp_path / "key.pem").write_text("nonsense")
    context.refresh()
    context.refresh()
    assert await serial(context) == second
    assert [each.levelname for each in caplog.records].count("ERROR") == 1
    assert "the old one is kept: key: there is no private key (PEM)" in caplog.text


@pytest.mark.parametrize("problem", [ConfigError("cannot read key.pem: Permission denied"), OSError("too many files")])
def test_a_certificate_that_cannot_be_used_at_first_is_tried_again(
    problem: Exception,
    ca: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its files may be the same when they can be read: permissions are no change of a file."""
    caplog.set_level("INFO")
    context = TlsContext(files(ca, tmp_path))
    files(ca, tmp_path)

    def failing(_: ServerTls) -> ssl.SSLContext:
        raise problem

    with monkeypatch.context() as patched:
        patched.setattr("llm_runtime.server.tls.server_context", failing)
        for _ in range(3):
            context.refresh()
    context.refresh()
    assert [each.levelname for each in caplog.records] == ["ERROR", "INFO"]


def test_nothing_is_said_before_the_handshake(tls: ServerTls) -> None:
    layer = TlsLayer(server_context(tls))
    with pytest.raises(TlsBroken):
        layer.seal(b"x")
    assert layer.open(b"") == b""


PAST = datetime.now(UTC) - timedelta(days=3)


def test_mistakes_are_told_in_words(ca: trustme.CA, tmp_path: Path) -> None:
    def told(**changes: bytes | None) -> str:
        files(ca, tmp_path)
        for name, content in changes.items():
            path = tmp_path / f"{name}.pem"
            path.unlink() if content is None else path.write_bytes(content)
        source = '[server.tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n[providers.a]\nkind = "ollama"\n'
        with pytest.raises(ConfigError) as caught:
            parse(source.encode(), {}, folder=tmp_path)
        return str(caught.value).removeprefix("config.toml:").replace(f"{tmp_path}/", "")

    other = trustme.CA().issue_cert("127.0.0.1")
    assert told(key=other.private_key_pem.bytes()) == (
        "3: server.tls.key: the key does not belong to the certificate cert.pem"
    )
    assert told(key=None) == "3: server.tls.key: cannot read key.pem: No such file or directory"
    assert told(key=b"x") == "3: server.tls.key: there is no private key (PEM) in key.pem"
    assert told(cert=None) == "2: server.tls.certificate: cannot read cert.pem: No such file or directory"
    assert told(cert=b"x") == "2: server.tls.certificate: there is no certificate (PEM) in cert.pem"
    broken = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    assert told(cert=broken) == "2: server.tls.certificate: there is no certificate (PEM) in cert.pem"
    old = files(ca, tmp_path, not_after=PAST)
    with pytest.raises(ConfigError, match=rf"certificate: .*cert\.pem expired at {PAST:%Y-%m-%d}"):
        server_context(old)


def test_an_end_that_is_near_is_told(ca: trustme.CA, tmp_path: Path) -> None:
    end = datetime.now(UTC) + timedelta(days=9, hours=1)
    assert abs(valid_until(files(ca, tmp_path, not_after=end)) - end) < timedelta(seconds=2)
    source = '[server]\nhost = "0.0.0.0"\n[server.tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n'
    source += '[keys.me]\nsecret = "env:K"\n[providers.a]\nkind = "ollama"\n'
    config = parse(source.encode(), {"K": "k" * 32}, folder=tmp_path)
    assert config.notes == ("server.tls.certificate expires in 9 days",)
    assert config.keys == {"me": Key(secret=Secret("k" * 32))}, "with TLS it may listen beyond this machine"
