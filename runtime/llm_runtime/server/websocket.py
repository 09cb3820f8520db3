"""WebSocket, reduced to a few calls: open, receive, send, ping, close.

trio-websocket reads, checks and closes. This module works around its defects:

- Its reader crashes on a ping that comes after our close, and on endless fragments. `_Protocol` filters both.
- It reacts to a protocol error by closing the socket, without the close code for the peer. The session sends the code.
- It loses bytes that arrive in one packet with the handshake. `_Stream` holds them back until the handshake is done.
- Its `aclose` waits for the peer without a limit. It is not used.
- It reads the next frame only when the last message was taken. So a session always reads, and never waits in between.
- It answers a ping itself and reads nothing meanwhile, which takes long while a slow client is written to. `_Stream`
  keeps the pong for the writer.

Three private names are used, because there is no public way:

- ``WebSocketConnection._get_request`` and ``_reader_task``: `wrap_server_stream` makes its own wsproto connection and
  reads the handshake itself, which this server has read already. They can go when the reader no longer crashes on a
  late ping (python-trio/trio-websocket#184), the reason for a connection object of our own.
- wsproto's ``_proto._frame_decoder.header``: the size of a frame that is still arriving. wsproto reports a message
  only when its bytes have arrived, and leaves limits to its user (python-hyper/wsproto#86).

Frames to the client are encoded here: an unmasked text frame is a few bytes before its payload. So several frames go
out in one write, and a message costs a tenth of the time of `send_message`. A large message goes out in fragments, so
that a pong need not wait for all of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Event, Message, Ping
from wsproto.utilities import ProtocolError

from llm_runtime.server.bodies import BodyBudget, HeldBodies
from llm_runtime.server.http1 import Request
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.limits import CLOSE_SECONDS, MESSAGE_FRAGMENTS, RECEIVE_BYTES, WRITE_BATCH_BYTES
from llm_runtime.server.socket import Socket

PING = b"\x89\x00"
_FIN = 0x80
_MORE_OPCODE, _TEXT_OPCODE, _CLOSE_OPCODE, _PONG_OPCODE = 0x0, 0x1, 0x8, 0xA
FAULTS = frozenset((1002, 1003, 1007, 1008, 1009, 1013))
"""Close codes for errors of the peer, and for messages that there is no room for."""


@final
class Hangup(Exception):  # noqa: N818  (it says what happened, as trio's EndOfChannel does)
    """The connection has ended or is about to end. ``code`` is the close code, 1006 if there was none."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@final
class _Protocol(WSConnection):
    """wsproto's server connection, without the events that trio-websocket's reader cannot handle."""

    def __init__(self, max_bytes: int, arriving: HeldBodies) -> None:
        super().__init__(ConnectionType.SERVER)
        self._max_bytes = max_bytes
        self._arriving = arriving
        """Counts the bytes of the incomplete message."""
        self._fragments = 0

    def events(self) -> Generator[Event, None, None]:
        for event in super().events():
            if isinstance(event, Message):
                self._fragments = 0 if event.message_finished else self._fragments + 1
                if self._fragments > MESSAGE_FRAGMENTS:
                    yield CloseConnection(code=1008, reason="too many fragments")
                    return
                if not self._is_held(event):
                    yield CloseConnection(code=1013, reason="too many bytes of requests in memory")
                    return
            elif isinstance(event, Ping) and self.state is not ConnectionState.OPEN:
                continue  # a ping after our close needs no pong
            yield event
        if self._announced() > self._max_bytes:
            yield CloseConnection(code=1009, reason="message too big")

    def _is_held(self, event: Message[Any]) -> bool:
        """Return whether there is room for more of a message. A complete one is counted when it is admitted."""
        if event.message_finished:
            self._arriving.release_all()
            return True
        try:
            self._arriving.hold(len(event.data))
        except HttpError:
            return False
        return True

    def _announced(self) -> int:
        """The total size in bytes of the frame that is being received, taken from its header."""
        connection = self.handshake.connection
        if connection is None or connection.state is not ConnectionState.OPEN:
            return 0
        header = connection._proto._frame_decoder.header  # wsproto has no public property for this
        return header.payload_len if header else 0


@final
class _Stream(trio.abc.Stream):
    """The stream given to trio-websocket. Closing it leaves the socket open, which belongs to the session.

    A pong is not sent but kept for the writer, which is woken by ``wake``. Only the latest is kept, as RFC 6455 (5.5.3)
    allows.
    """

    def __init__(self, socket: Socket, left_over: bytes, wake: Callable[[], None]) -> None:
        self.opened = trio.Event()
        self.said_close = False
        self.pong = b""
        self._wake = wake
        self._socket = socket
        self._left_over = left_over
        self._closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002
        if self._closed:
            raise trio.ClosedResourceError
        await self.opened.wait()
        if self._left_over:
            data, self._left_over = self._left_over, b""
            return data
        return await self._socket.receive()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        opcode = data[0] & 0x0F if self.opened.is_set() and data else None
        if opcode == _PONG_OPCODE:
            self.pong = bytes(data)
            self._wake()
            return
        if opcode == _CLOSE_OPCODE:
            self.said_close = True
            data, self.pong = self.pong + data, b""
        await self._socket.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._closed = True
        await trio.lowlevel.checkpoint()


def encode_text(payload: bytes) -> list[bytes]:
    """A text message in unmasked frames (RFC 6455, 5.2 and 5.4): one, or fragments of `WRITE_BATCH_BYTES` each."""
    last = max(0, len(payload) - 1) // WRITE_BATCH_BYTES
    if not last:
        return [_frame(_FIN | _TEXT_OPCODE, payload)]
    frames = []
    for index in range(last + 1):
        piece = payload[index * WRITE_BATCH_BYTES : (index + 1) * WRITE_BATCH_BYTES]
        opcode = _MORE_OPCODE if index else _TEXT_OPCODE
        frames.append(_frame(_FIN | opcode if index == last else opcode, piece))
    return frames


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (first, size, payload)
    assert size < 65_536, "fragments are smaller"
    return b"%c\x7e%b%b" % (first, struct.pack("!H", size), payload)


def _batches(payloads: Sequence[bytes]) -> Iterator[bytes]:
    """Return text frames, joined up to `WRITE_BATCH_BYTES`. A fragment stays alone, so that a pong waits for one
    fragment at most.
    """
    batch: list[bytes] = []
    size = 0
    for payload in payloads:
        if batch and size + len(payload) > WRITE_BATCH_BYTES:
            yield b"".join(batch)
            batch, size = [], 0
        *fragments, last = encode_text(payload)
        yield from fragments
        batch.append(last)
        size += len(last)
    if batch:
        yield b"".join(batch)


def encode_close(code: int, reason: str = "") -> bytes:
    """A close frame."""
    payload = struct.pack("!H", code) + reason.encode()[:123]
    return b"\x88%c%b" % (len(payload), payload)


@final
class WebSocket:
    """One open WebSocket. One task receives, one sends."""

    def __init__(self, connection: WebSocketConnection, stream: _Stream, socket: Socket) -> None:
        self._connection = connection
        self._stream = stream
        self._socket = socket
        self._ping = b""
        self._is_cut = False

    @classmethod
    async def open(
        cls,
        nursery: trio.Nursery,
        socket: Socket,
        request: Request,
        *,
        left_over: bytes,
        protocol: str | None,
        headers: Sequence[tuple[str, str]],
        max_bytes: int,
        bodies: BodyBudget,
        wake: Callable[[], None],
    ) -> WebSocket:
        """Accept the handshake in ``request``, which must be valid. The reader runs in ``nursery``. A message has at
        most ``max_bytes``; ``bodies`` counts the bytes of an incomplete one. ``wake`` is called, synchronously, when a
        pong is to be sent; then `has_control` is true.

        Raises `trio.BrokenResourceError` if the client has disconnected.
        """
        arriving = HeldBodies(bodies)
        stream, wire = _Stream(socket, left_over, wake), _Protocol(max_bytes, arriving)
        wire.initiate_upgrade_connection(_needed_fields(request, protocol), request.target)
        connection = WebSocketConnection(
            stream, wire, message_queue_size=1, max_message_size=max_bytes, receive_buffer_size=RECEIVE_BYTES
        )
        nursery.start_soon(_read, connection, arriving)
        # what wrap_server_stream does, but with a protocol object of our own
        proposal = await connection._get_request()
        fields = [(name.encode(), value.encode()) for name, value in headers]
        try:
            await proposal.accept(subprotocol=protocol, extra_headers=fields)
        except ConnectionClosed:
            raise trio.BrokenResourceError("the client has disconnected") from None
        stream.opened.set()
        return cls(connection, stream, socket)

    async def receive(self) -> str | bytes:
        """Wait for a message. Raises `Hangup` when the connection has ended."""
        try:
            return await self._connection.get_message()
        except ConnectionClosed as exc:
            raise Hangup(exc.reason.code if exc.reason else 1006) from None

    async def send(self, payloads: Sequence[bytes]) -> None:
        """Send text messages in few writes, with pings and pongs between them. See `Socket.send`."""
        self._is_cut = True
        for batch in _batches(payloads):
            if self._connection.closed is not None:
                raise trio.BrokenResourceError("the WebSocket is closing")
            await self._socket.send(self._take_control() + batch)
        self._is_cut = False

    async def send_last(self, payloads: Sequence[bytes]) -> None:
        """Send text messages although the reader has been cancelled. Sends nothing if a call of `send` was cancelled,
        perhaps in the middle of a message: then only a close frame can follow.
        """
        if not (self._is_cut or self._stream.said_close):
            await self._socket.send(b"".join(_batches(payloads)))

    def ping(self) -> None:
        """Send a ping with the next write. Any byte from the peer counts as the reply."""
        self._ping = PING

    @property
    def has_control(self) -> bool:
        """Whether a ping or a pong is to be sent."""
        return bool(self._ping or self._stream.pong)

    async def send_control(self) -> None:
        """Send pending pings and pongs."""
        control = self._take_control()
        if control and self._connection.closed is None:
            await self._socket.send(control)

    def _take_control(self) -> bytes:
        control = self._ping + self._stream.pong
        self._ping = self._stream.pong = b""
        return control

    async def close(self, code: int, reason: str = "") -> None:
        """Send a close frame, unless one was sent already. Takes at most `CLOSE_SECONDS`. `Socket.close_gently` waits
        for the peer's close frame.
        """
        if not self._stream.said_close:
            self._stream.said_close = True
            with suppress(trio.BrokenResourceError), trio.move_on_after(CLOSE_SECONDS):
                await self._socket.send(encode_close(code, reason))


def _needed_fields(request: Request, protocol: str | None) -> list[tuple[bytes, bytes]]:
    """The fields of a valid handshake that the answer depends on. The client may have written anything into others,
    which wsproto decodes strictly.
    """
    fields = {
        "host": "localhost",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": request.headers["sec-websocket-key"],
    }
    if protocol is not None:
        fields["sec-websocket-protocol"] = protocol
    return [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]


async def _read(connection: WebSocketConnection, arriving: HeldBodies) -> None:
    """Run trio-websocket's reader. An exception that a peer can cause ends this connection as a hangup, which `receive`
    reports.
    """
    with suppress(ProtocolError, ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
        try:
            await connection._reader_task()
        finally:
            arriving.release_all()
