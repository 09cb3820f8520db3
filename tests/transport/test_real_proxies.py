"""Through a proxy that others wrote (pproxy, in a process of its own), in each scheme and with a password."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from llm_actors.transport import Origin, Proxy, ProxyRefused, TlsTrust, Transport, TransportError, parse_url
from llm_protocol.secret import Secret
from llm_runtime import open_runtime
from llm_runtime.config import parse
from support.outgoing import fetch, post
from support.peer import Peer, chunked, sse, stall
from support.upstream import END, HELLO

STREAMS = 50
SCHEMES = {"http": "http", "https": "http+ssl", "socks5": "socks5"}
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates for 127.0.0.1, and whom to trust."""
    folder = tmp_path_factory.mktemp("ca")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = ca.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    return folder


@asynccontextmanager
async def proxy(scheme: str, folder: Path, credentials: str | None = "user:p:w") -> AsyncGenerator[Proxy]:
    listen = f"{SCHEMES[scheme]}://127.0.0.1:0" + (f"#{credentials}" if credentials else "")
    command = [sys.executable, "-m", "pproxy", "-l", listen, "--ssl", str(folder / "server.pem")]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ)
    assert process.stdout is not None
    try:
        said = b""
        with trio.fail_after(30):
            while (found := re.search(rb"127\.0\.0\.1:(\d+)", said)) is None:
                piece = await process.stdout.receive_some(4096)
                assert piece, "the proxy ended"
                said += piece
        yield Proxy(scheme, "127.0.0.1", int(found[1]), Secret(credentials) if credentials else None)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


def tls(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


def origin_of(peer: Peer) -> Origin:
    return parse_url(peer.url)[0]


async def nothing_is_left(transport: Transport, peer: Peer) -> None:
    statistics = transport.statistics()
    assert (statistics.connecting, statistics.active) == (0, 0)
    await transport.aclose()
    with trio.fail_after(10):
        await peer.until(lambda: peer.open_connections == peer.open_requests == 0)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="pproxy loses connections on Python 3.13")
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@each_scheme
async def test_fifty_streams_and_as_many_that_are_cancelled(scheme: str, secure: bool, folder: Path) -> None:
    trust = TlsTrust(str(folder / "ca.pem"))
    context = tls(folder) if secure else None
    half = [chunked(b"x", end=False), stall()]
    scripts, forwarded = [sse("a", "b")] * STREAMS, not secure and scheme != "socks5"
    async with proxy(scheme, folder) as through, Peer(*scripts, half, tls=context, forwarded=forwarded) as peer:
        transport, asked = Transport(trust, proxy=through), post(origin=origin_of(peer))
        results: list[tuple[int, bytes]] = []

        async def stream() -> None:
            results.append(await fetch(transport, asked))

        async with trio.open_nursery() as nursery:
            for _ in range(STREAMS):
                nursery.start_soon(stream)
        assert results == [(200, b"data: a\n\ndata: b\n\n")] * STREAMS
        first: list[bytes] = []
        all_are_here = trio.Event()

        async def leave() -> None:
            async with transport.send(asked) as response:
                first.append(await response.receive())
                if len(first) == STREAMS:
                    all_are_here.set()
                await response.receive()

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(STREAMS):
                    nursery.start_soon(leave)
                await all_are_here.wait()
                nursery.cancel_scope.cancel()
        await nothing_is_left(transport, peer)


@each_scheme
async def test_a_wrong_password_is_refused_once(scheme: str, folder: Path) -> None:
    async with proxy(scheme, folder) as through, Peer(tls=tls(folder)) as peer:
        wrong = through._replace(credentials=Secret("user:CANARY"))
        transport = Transport(TlsTrust(str(folder / "ca.pem")), proxy=wrong)
        # pproxy closes the connection where it should answer with a status; a SOCKS5 client is told.
        with pytest.raises(TransportError) as caught:
            await fetch(transport, post(origin=origin_of(peer)))
        assert "CANARY" not in str(caught.value)
        assert "proxy" in caught.value.reason
        if scheme == "socks5":
            assert isinstance(caught.value, ProxyRefused)
        assert peer.requests == []
        await nothing_is_left(transport, peer)


@each_scheme
async def test_a_provider_behind_a_proxy(scheme: str, folder: Path, spoken: str) -> None:
    models = chunked(b'{"object":"list","data":[{"id":"m","object":"model"}]}')
    script: Sequence[object] = [models, sse(*HELLO, *END)]
    async with proxy(scheme, folder) as through, Peer(*script, tls=tls(folder)) as peer:  # type: ignore[arg-type]
        source = f"""
            [providers.far]
            kind = "openai_compatible"
            base_url = "{peer.url}/v1"
            ca_file = "ca.pem"
            http2 = {str(spoken == "2").lower()}
            proxy = "{through.url}"
            proxy_auth = "env:PROXY_AUTH"
        """
        config = parse(source.encode(), {"PROXY_AUTH": "user:p:w"}, folder=folder)
        async with open_runtime(config) as runtime:
            assert await runtime.models() == {"far": ["m"]}
            async with runtime.stream("Say hello.", model="far/m") as stream:
                text = "".join([part async for part in stream.text()])
            assert text == "Hello there"
