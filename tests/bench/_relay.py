"""What the daemon is measured against: a bare relay on trio and h11, and one on trio-websocket. No policy, no decoding.

HTTP: parse the request with h11, send it on over a kept connection, pass every piece of the answer on as it comes.
WebSocket: a message becomes the upstream request, every piece of the answer one message.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import h11
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

BYTES = 65536


class Upstream:
    """Kept connections to one port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[h11.Connection, trio.SocketStream]] = []

    async def ask(self, body: bytes) -> AsyncIterator[h11.Response | bytes]:
        """The answer's head, then its body in pieces."""
        if self._idle:
            connection, stream = self._idle.pop()
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", self._port)
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
        async for piece in upstream.ask(found[1]):
            if isinstance(piece, bytes):
                await stream.send_all(server.send(h11.Data(piece)) or b"")
            else:
                headers = [(k, v) for k, v in piece.headers if k in (b"content-type", b"content-length")]
                await stream.send_all(server.send(h11.Response(status_code=200, headers=headers)) or b"")
        await stream.send_all(server.send(h11.EndOfMessage()) or b"")
        server.start_next_cycle()


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
    serve = {"http": http, "websocket": websocket}[sys.argv[1]]
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
