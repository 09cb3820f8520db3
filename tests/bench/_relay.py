"""Bare relays without any policy, in a process of their own, that the daemon is compared with.

http       trio and h11: parse the request, send it on over a kept connection, pass on each piece of the response as it
arrives, the head with the first one. limit      about the least that Trio allows: heads are found with `bytes.find`,
and the bodies of both sides are decoded and encoded with msgspec, as a daemon must do. websocket  trio-websocket: a
message becomes the upstream request, every piece of the response one message.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import h11
import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

BYTES = 65536


class Upstream:
    """Kept connections to one port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: list[tuple[h11.Connection, trio.SocketStream]] = []

    async def ask(self, body: bytes) -> AsyncIterator[h11.Response | bytes]:
        """The answer's head, then its body in pieces."""
        if self._idle:
            connection, stream = self._idle.pop()
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            connection = h11.Connection(h11.CLIENT)
        headers = [("host", "localhost"), ("content-type", "application/json"), ("content-length", str(len(body)))]
        head = connection.send(h11.Request(method="POST", target="/v1/chat/completions", headers=headers))
        await stream.send_all((head or b"") + (connection.send(h11.Data(body)) or b""))
        connection.send(h11.EndOfMessage())
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(BYTES))
            elif isinstance(event, h11.Response):
                yield event
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                break
        connection.start_next_cycle()
        self._idle.append((connection, stream))


async def _request(server: h11.Connection, stream: trio.SocketStream) -> tuple[h11.Request, bytes] | None:
    request, body = None, b""
    while True:
        event = server.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some(BYTES)
            server.receive_data(data)
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            return request, body
        else:
            return None


async def http(stream: trio.SocketStream, upstream: Upstream) -> None:
    server = h11.Connection(h11.SERVER)
    while (found := await _request(server, stream)) is not None:
        head = b""
        async for piece in upstream.ask(found[1]):
            if isinstance(piece, bytes):
                await stream.send_all(head + (server.send(h11.Data(piece)) or b""))
                head = b""
            else:
                headers = [(k, v) for k, v in piece.headers if k in (b"content-type", b"content-length")]
                head = server.send(h11.Response(status_code=200, headers=headers)) or b""
        if end := head + (server.send(h11.EndOfMessage()) or b""):
            await stream.send_all(end)
        server.start_next_cycle()


async def _message(stream: trio.SocketStream, buffer: bytearray) -> tuple[bytes, bytes] | None:
    """A head and what it says of its body, by content-length only; what follows stays in ``buffer``."""
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        if not (data := await stream.receive_some(BYTES)):
            return None
        buffer += data
    head = bytes(buffer[: end + 4]).lower()
    at = head.find(b"content-length: ")
    size = int(head[at + 16 : head.index(b"\r", at)]) if at >= 0 else 0
    while len(buffer) < end + 4 + size:
        buffer += await stream.receive_some(BYTES)
    body = bytes(buffer[end + 4 : end + 4 + size])
    del buffer[: end + 4 + size]
    return head, body


def _pieces(data: bytearray) -> list[bytes]:
    """The chunks that ``data`` begins with, whole ones only; they are removed from it."""
    found: list[bytes] = []
    at = 0
    while (line := data.find(b"\r\n", at)) >= 0:
        begin, size = line + 2, int(data[at:line], 16)
        if len(data) < begin + size + 2:
            break
        found.append(bytes(data[begin : begin + size]))
        at = begin + size + 2
    del data[:at]
    return found


async def limit(stream: trio.SocketStream, upstream: Upstream) -> None:
    """One connection, for whole answers and for streams."""
    there = await trio.open_tcp_stream("127.0.0.1", upstream.port)
    mine, theirs = bytearray(), bytearray()
    while (asked := await _message(stream, mine)) is not None:
        body = msgspec.json.encode(msgspec.json.decode(asked[1]))
        await there.send_all(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        found = await _message(there, theirs)
        assert found is not None
        if b"chunked" not in found[0]:
            answer = msgspec.json.encode(msgspec.json.decode(found[1]))
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                % (len(answer), answer)
            )
            continue
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        while True:
            out = head
            pieces = _pieces(theirs)
            for piece in pieces:
                said = b"".join(_again(event) for event in piece.split(b"\n\n") if event)
                out += b"%x\r\n%s\r\n" % (len(said), said)
            if pieces:
                await stream.send_all(out)
                head = b""
            if b"" in pieces:
                break
            theirs += await there.receive_some(BYTES)


def _again(event: bytes) -> bytes:
    data = event.removeprefix(b"data: ")
    return event + b"\n\n" if data == b"[DONE]" else b"data: %s\n\n" % msgspec.json.encode(msgspec.json.decode(data))


async def websocket(stream: trio.SocketStream, upstream: Upstream) -> None:
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, stream)
        connection: WebSocketConnection = await request.accept()
        try:
            while True:
                body = await connection.get_message()
                async for piece in upstream.ask(body.encode() if isinstance(body, str) else body):
                    if isinstance(piece, bytes):
                        await connection.send_message(piece.decode())
        except ConnectionClosed:
            nursery.cancel_scope.cancel()


async def main() -> None:
    serve = {"http": http, "limit": limit, "websocket": websocket}[sys.argv[1]]
    upstream = Upstream(int(sys.argv[2]))

    async def guarded(stream: trio.SocketStream) -> None:
        try:
            await serve(stream, upstream)
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            await trio.aclose_forcefully(stream)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=4096)
    print(listener.socket.getsockname()[1], flush=True)
    await trio.serve_listeners(guarded, [listener])


if __name__ == "__main__":
    trio.run(main)
