"""A proxy that lets through to a Peer: HTTP CONNECT and forwarding, or SOCKS5, over TLS if asked, with a password.

    async with Peer(reply(b"ok")) as peer, FakeProxy(peer, "socks5", credentials="u:p") as proxy:
        transport = Transport(proxy=proxy.proxy, dial=proxy.dial)

`answers` takes the place of what it would say, to misbehave; a list of requests for tunnels is kept in `asked`.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import trio

from llm_actors.transport import Proxy
from llm_protocol.secret import Secret
from support.peer import Peer

PORTS = {"http": 3128, "https": 3129, "socks5": 1080}


class FakeProxy:
    """See the module. ``greeting`` is run instead of everything on a new connection."""

    def __init__(
        self,
        peer: Peer,
        scheme: str = "http",
        *,
        credentials: str | None = None,
        known: str | None = None,
        tls: ssl.SSLContext | None = None,
        greeting: Callable[[trio.abc.Stream], Awaitable[None]] | None = None,
    ) -> None:
        self._peer, self._known, self._tls, self._greeting = peer, known, tls, greeting
        self.proxy = Proxy(scheme, "proxy.test", PORTS[scheme], Secret(credentials) if credentials else None)
        self.asked: list[str] = []
        self.open = 0

    async def __aenter__(self) -> Self:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)

    async def dial(self, host: str, port: int) -> trio.SocketStream:
        assert (host, port) == (self.proxy.host, self.proxy.port), "nobody else is connected to"
        await trio.lowlevel.checkpoint()
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
        self._nursery.start_soon(self._serve, ours)
        return theirs

    async def _serve(self, raw: trio.SocketStream) -> None:
        self.open += 1
        stream: trio.abc.Stream = trio.SSLStream(raw, self._tls, server_side=True) if self._tls else raw
        try:
            if self._greeting is not None:
                await self._greeting(stream)
            elif self.proxy.is_socks:
                await self._socks(stream)
            else:
                await self._http(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, EOFError):
            pass  # the client left
        finally:
            raw.socket.close()
            self.open -= 1

    async def _http(self, stream: trio.abc.Stream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await _some(stream)
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        self.asked.append(target)
        expected = f"Proxy-Authorization: Basic {base64.b64encode((self._known or '').encode()).decode()}"
        if self._known is not None and expected not in lines:
            await stream.send_all(b"HTTP/1.1 407 Who\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n")
            return
        async with await self._peer.dial("", 0) as upstream:
            if method == "CONNECT":
                await stream.send_all(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 test\r\n\r\n")
            else:
                await upstream.send_all(head)
            await _relay(stream, upstream)

    async def _socks(self, stream: trio.abc.Stream) -> None:
        _, count = await _exactly(stream, 2)
        methods = await _exactly(stream, count)
        wanted = 0 if self._known is None else 2
        await stream.send_all(bytes((5, wanted if wanted in methods else 0xFF)))
        if wanted not in methods:
            return
        if self._known is not None:
            _, size = await _exactly(stream, 2)
            user = await _exactly(stream, size)
            password = await _exactly(stream, (await _exactly(stream, 1))[0])
            is_known = user + b":" + password == self._known.encode()
            await stream.send_all(bytes((1, 0 if is_known else 1)))
            if not is_known:
                return
        _, _, _, kind = await _exactly(stream, 4)
        if kind == 3:
            host = (await _exactly(stream, (await _exactly(stream, 1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await _exactly(stream, 4 if kind == 1 else 16)))
        port = int.from_bytes(await _exactly(stream, 2), "big")
        self.asked.append(f"{host}:{port}")
        async with await self._peer.dial("", 0) as upstream:
            await stream.send_all(b"\x05\x00\x00\x03\x04home\x00\x01")
            await _relay(stream, upstream)


async def _relay(one: trio.abc.Stream, other: trio.SocketStream) -> None:
    async def copy(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some(65536):
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, one, other)
        nursery.start_soon(copy, other, one)


async def _some(stream: trio.abc.Stream, most: int = 65536) -> bytes:
    data = await stream.receive_some(most)
    if not data:
        raise EOFError
    return bytes(data)


async def _exactly(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await _some(stream, size - len(data))
    return data
