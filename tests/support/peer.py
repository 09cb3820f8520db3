"""A provider that misbehaves by script: raw bytes on real sockets, faults on purpose, and a journal of what it saw.

    async with Peer([chunked(b"one", b"two", end=False), reset()], reply(b"ok")) as peer:
        ...                               # talk to peer.url, or let a transport dial peer.dial
        assert peer.requests[0].target == "/v1/chat/completions"
        await peer.until(lambda: peer.open_connections == 0)

The nth request is answered by the nth script, later ones by the last. A script is one step or several; a step is an
async function of the :class:`Call` in hand, so a test may write its own. While a script runs the peer watches its
client: when that leaves, the script is cancelled and counted in ``aborted``.

``peer.url`` is TCP on loopback. ``peer.dial(host, port)`` is a socket pair instead: no network, no thread, data is
there the moment it is written, so it goes with MockClock and autojump, and any host name leads to the peer.
``tls`` works with both; ``reset()`` needs TCP.

Most scripts speak OpenAI's chat API, so unless ``responses`` is set there is nothing at ``/responses``: such a request
is a 404, and neither in the journal nor counted among the scripts.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import trio

from support.http2_side import Http2Side

Step = Callable[["Call"], Awaitable[None]]
Script = Step | Sequence[Step]
MAX_REQUEST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it came over the wire; header names in lower case; ``connection`` counts from 1."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


class Hangup(Exception):  # noqa: N818
    """Raised by a step to end the connection; what is to be done to the socket has been done."""


@dataclass(slots=True)
class Call:
    """What a step works on: the request, if it has been read, and the stream to answer on."""

    peer: Peer
    stream: trio.abc.Stream
    socket: trio.socket.SocketType
    request: Seen | None = None
    unread: bytearray = field(default_factory=bytearray)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)


class Peer:
    """See the module. ``greeting`` runs on every new connection before its first request is read. With ``http2`` the
    same scripts answer in HTTP/2, unless a proxy has ``forwarded`` the requests, which speaks HTTP/1.1.
    """

    def __init__(
        self,
        *scripts: Script,
        tls: ssl.SSLContext | None = None,
        greeting: Script = (),
        responses: bool = False,
        http2: bool = False,
        forwarded: bool = False,
    ) -> None:
        self._scripts = [_steps(script) for script in scripts] or [_steps(reply())]
        self._greeting = _steps(greeting)
        self._tls = tls
        self._http2 = http2 and not forwarded
        if self._http2 and tls is not None:
            tls.set_alpn_protocols(["h2"])
        self._responses = responses
        self._changed = trio.Event()
        self.requests: list[Seen] = []
        self.connections = self.open_connections = self.open_requests = self.aborted = 0

    async def __aenter__(self) -> Self:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        await self._listen()
        return self

    async def _listen(self) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
        self._listener = listener
        self.port: int = listener.socket.getsockname()[1]
        self._nursery.start_soon(self._accept)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The body's exception goes on by itself, unwrapped; only a fault of the peer comes out of the nursery.
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def dial(self, host: str, port: int) -> trio.SocketStream:
        """A connection to this peer over a socket pair, whatever the address."""
        await trio.lowlevel.checkpoint()
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
        self._nursery.start_soon(self._serve, ours)
        return theirs

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition``, which looks at this peer's counts, is true. Bound it with a scope."""
        while not condition():
            await self._changed.wait()

    def stop_listening(self) -> None:
        """Refuse new TCP connections from now on."""
        self._listener.socket.close()

    async def _accept(self) -> None:
        with self._listener.socket:
            while True:
                try:
                    stream = await self._listener.accept()
                except trio.ClosedResourceError:
                    return
                self._nursery.start_soon(self._serve, stream)

    def _count(self, *, connections: int = 0, requests: int = 0, aborted: int = 0) -> None:
        self.open_connections += connections
        self.open_requests += requests
        self.connections += max(connections, 0)
        self.aborted += aborted
        self._changed.set()
        self._changed = trio.Event()

    async def _serve(self, raw: trio.SocketStream) -> None:
        self._count(connections=1)
        stream: trio.abc.Stream = raw
        if self._tls:
            stream = trio.SSLStream(raw, self._tls, server_side=True)
        if self._http2:
            stream = Http2Side(stream)
        call = Call(self, stream, raw.socket)
        number = self.connections
        try:
            for step in self._greeting:
                await step(call)
            while await self._read_request(call, number):
                assert call.request is not None
                if not self._responses and call.request.target.partition("?")[0].endswith("/responses"):
                    await reply(b'{"detail":"Not Found"}', 404)(call)
                    continue
                self.requests.append(call.request)
                await self._answer(call)
        except (Hangup, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client left, or the script ended the connection
        finally:
            raw.socket.close()
            self._count(connections=-1)

    async def _read_request(self, call: Call, number: int) -> bool:
        buffer = call.unread
        while b"\r\n\r\n" not in buffer:
            if not await self._read_more(call):
                return False
        head, _, _ = bytes(buffer).partition(b"\r\n\r\n")
        request_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        end = len(head) + 4 + int(headers.get("content-length", "0"))
        while len(buffer) < end:
            if not await self._read_more(call):
                return False
        method, target, _ = request_line.split(" ")
        call.request = Seen(method, target, headers, bytes(buffer[len(head) + 4 : end]), number)
        del buffer[:end]
        return True

    async def _read_more(self, call: Call) -> bool:
        data = await call.stream.receive_some(65536)
        call.unread += data
        assert len(call.unread) <= MAX_REQUEST_BYTES
        return bool(data)

    async def _answer(self, call: Call) -> None:
        steps = self._scripts[min(len(self.requests), len(self._scripts)) - 1]
        self._count(requests=1)
        finished = False
        hangup = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, call, nursery.cancel_scope)
                try:
                    for step in steps:
                        await step(call)
                    finished = True
                except Hangup:
                    finished = hangup = True
                except trio.BrokenResourceError:
                    hangup = True
                nursery.cancel_scope.cancel()
        finally:
            self._count(requests=-1, aborted=0 if finished else 1)
        if hangup or not finished:
            raise Hangup

    async def _watch(self, call: Call, script: trio.CancelScope) -> None:
        try:
            while await self._read_more(call):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        script.cancel()


def _steps(script: Script) -> Sequence[Step]:
    return (script,) if callable(script) else tuple(script)


def _head(status: int, headers: Mapping[str, str], framing: str) -> bytes:
    lines = [f"HTTP/1.1 {status} -", framing, *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def reply(body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> Step:
    """A whole answer with Content-Length, in one write."""
    return raw(_head(status, headers or {}, f"content-length: {len(body)}") + body)


def chunked(
    *pieces: bytes,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    gap: float = 0.0,
    end: bool = True,
) -> Step:
    """A chunked answer: each piece is one chunk and one write, ``gap`` seconds apart; ``end`` says it is whole."""

    async def step(call: Call) -> None:
        await call.send(_head(status, headers or {}, "transfer-encoding: chunked"))
        for piece in pieces:
            if gap:
                await trio.sleep(gap)
            await call.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        if end:
            await call.send(b"0\r\n\r\n")

    return step


def sse(*events: str, gap: float = 0.0, end: bool = True) -> Step:
    """An event stream; each event is what follows ``data: ``."""
    pieces = [f"data: {event}\n\n".encode() for event in events]
    return chunked(*pieces, headers={"content-type": "text/event-stream"}, gap=gap, end=end)


def raw(data: bytes | Iterable[bytes], *, every: int | None = None, gap: float = 0.0) -> Step:
    """Bytes exactly as given: at once, piece by piece, or cut after ``every`` bytes with ``gap`` seconds between."""
    pieces = [data] if isinstance(data, bytes) else list(data)
    if every is not None:
        whole = b"".join(pieces)
        pieces = [whole[at : at + every] for at in range(0, len(whole), every)]

    async def step(call: Call) -> None:
        for piece in pieces:
            await call.send(piece)
            if gap:
                await trio.sleep(gap)

    return step


def flood(data: bytes, times: int) -> Step:
    """The same bytes again and again: bombs and endless bodies."""

    async def step(call: Call) -> None:
        for _ in range(times):
            await call.send(data)

    return step


def pause(seconds: float) -> Step:
    async def step(call: Call) -> None:
        await trio.sleep(seconds)

    return step


def stall() -> Step:
    """Say nothing more until the client leaves or the peer ends."""

    async def step(call: Call) -> None:
        await trio.sleep_forever()

    return step


def close() -> Step:
    """Close the socket: FIN, and with TLS no close notice."""

    async def step(call: Call) -> None:
        call.socket.close()
        await trio.lowlevel.checkpoint()
        raise Hangup

    return step


def reset() -> Step:
    """Abort the TCP connection: RST."""

    async def step(call: Call) -> None:
        call.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        call.socket.close()
        await trio.lowlevel.checkpoint()
        raise Hangup

    return step
