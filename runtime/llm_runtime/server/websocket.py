"""WebSocket, reduced to a few calls: open, take, send, ping, close.

The server's receiver delivers the bytes, as it does for HTTP, so an idle WebSocket has no task that reads. Nothing is
received while a message waits to be taken: the client is slowed down, and the memory is bounded.

Frames to the client are encoded here, because a server's frame is only a header of two or four bytes and the unmasked
payload. Several small frames go out in one write. A large message goes out in fragments, so that a pong need not wait
for all of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import final

import trio
from wsproto.utilities import generate_accept_token

from llm_runtime.server.bodies import BodyBudget
from llm_runtime.server.http1 import Request
from llm_runtime.server.limits import CLOSE_SECONDS, WRITE_BATCH_BYTES, WRITE_STALL_SECONDS
from llm_runtime.server.message_reader import Hangup, MessageReader
from llm_runtime.server.receiver import Receiver
from llm_runtime.server.socket import Socket

PING = b"\x89\x00"
_FIN = 0x80
_MORE_OPCODE, _TEXT_OPCODE, _CLOSE_OPCODE, _PONG_OPCODE = 0x0, 0x1, 0x8, 0xA


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
    assert size < 65_536, "a fragment must be smaller than 65536 bytes"
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
    return _frame(_FIN | _CLOSE_OPCODE, payload)


@final
class WebSocket:
    """One open WebSocket. One task takes messages, one sends."""

    __slots__ = (
        "_hangup", "_is_cut", "_is_paused", "_left_over", "_message", "_note_arrival", "_ping", "_reader", "_receiver",
        "_said_close", "_socket", "_wake",
    )  # fmt: skip

    def __init__(self, socket: Socket, reader: MessageReader, left_over: bytes) -> None:
        self._socket = socket
        self._reader = reader
        self._left_over = left_over
        self._receiver: Receiver | None = None
        self._note_arrival: Callable[[], None] = _do_nothing
        self._wake: Callable[[], None] = _do_nothing
        self._message: str | bytes | None = None
        """A message that has arrived and is not taken yet."""
        self._hangup: tuple[int, bytes | None] | None = None
        """How the connection has ended: see `Hangup`."""
        self._is_paused = False
        """Whether nothing is received, because what has arrived is not taken or not read yet."""
        self._ping = b""
        self._is_cut = False
        self._said_close = False

    @classmethod
    async def open(
        cls,
        socket: Socket,
        request: Request,
        *,
        left_over: bytes,
        protocol: str | None,
        headers: Sequence[tuple[str, str]],
        max_bytes: int,
        bodies: BodyBudget,
    ) -> WebSocket:
        """Accept the handshake in ``request``, which must be valid. A message has at most ``max_bytes``; ``bodies``
        counts the bytes of an incomplete one.

        Raises `trio.BrokenResourceError` if the client has disconnected.
        """
        await socket.send(_encode_handshake(request, protocol, headers))
        return cls(socket, MessageReader(max_bytes, bodies), left_over)

    # -- receiving ---------------------------------------------------------------------------------------------------

    def receive(self, receiver: Receiver, note_arrival: Callable[[], None], wake: Callable[[], None]) -> None:
        """Receive until `stop_receiving`. ``note_arrival`` is called when `has_arrived` becomes true, and ``wake`` when
        a pong is to be sent: then `has_control` is true. Neither may wait.
        """
        self._receiver, self._note_arrival, self._wake = receiver, note_arrival, wake
        self._reader.feed(self._left_over)
        self._left_over = b""
        self._receive_again()

    def stop_receiving(self) -> None:
        """Receive nothing more. What has arrived is discarded."""
        if self._receiver is not None:
            self._receiver.remove(self._socket)
            self._receiver = None
        self._reader.release()
        self._note_arrival = self._wake = _do_nothing  # the functions of the session form cycles with it

    @property
    def has_arrived(self) -> bool:
        """Whether `take` is to be called."""
        return self._is_paused

    def take(self) -> str | bytes | None:
        """Return the message that has arrived, if it is complete, and read on. Raises `Hangup` when the connection has
        ended.
        """
        if self._hangup is not None:
            raise Hangup(*self._hangup)  # a new one: if it were stored, its traceback would form a cycle
        message, self._message = self._message, None
        self._receive_again()
        return message

    def _receive_again(self) -> None:
        self._is_paused = False
        if self._receiver is None or self._socket.closed:
            return
        self._read_on()
        if not self._is_paused:
            self._receiver.add(self._socket, self._feed)

    def _feed(self, data: bytes) -> None:
        if data:
            self._reader.feed(data)
            self._read_on()
        else:
            self._hang_up(Hangup())
        if self._is_paused and self._receiver is not None:
            self._receiver.remove(self._socket)

    def _read_on(self) -> None:
        """Read what has arrived, up to the end of a message."""
        try:
            self._message = self._reader.next_message()
        except Hangup as hangup:
            self._hang_up(hangup)
        else:
            if self._message is not None or self._reader.is_busy:
                self._is_paused = True
                self._note_arrival()
        if self._reader.ping is not None:
            self._wake()

    def _hang_up(self, hangup: Hangup) -> None:
        self._hangup = hangup.code, hangup.payload
        self._is_paused = True
        self._note_arrival()

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send(self, payloads: Sequence[bytes]) -> None:
        """Send text messages in few writes, with pings and pongs between them. See `Socket.send`. Once the connection
        has ended, sends nothing more, and waits to be cancelled by the task that takes messages: for at most
        `WRITE_STALL_SECONDS`, as for a client that does not read. Then it raises `trio.BrokenResourceError`.
        """
        self._is_cut = True
        for batch in _batches(payloads):
            if self._hangup is not None:
                await trio.sleep(WRITE_STALL_SECONDS)
                raise trio.BrokenResourceError("the WebSocket is closing")
            await self._socket.send(self._take_control() + batch)
        self._is_cut = False

    async def send_last(self, payloads: Sequence[bytes]) -> None:
        """Send text messages although the session has been cancelled. Sends nothing if a call of `send` was cancelled,
        perhaps in the middle of a message: then only a close frame can follow.
        """
        if not (self._is_cut or self._said_close):
            await self._socket.send(b"".join(_batches(payloads)))

    def ping(self) -> None:
        """Send a ping with the next write. Any byte from the peer counts as the reply."""
        self._ping = PING

    @property
    def has_control(self) -> bool:
        """Whether a ping or a pong is to be sent."""
        return bool(self._ping) or self._reader.ping is not None

    async def send_control(self) -> None:
        """Send pending pings and pongs."""
        control = self._take_control()
        if control and self._hangup is None:
            await self._socket.send(control)

    def _take_control(self) -> bytes:
        payload, self._reader.ping = self._reader.ping, None
        control = self._ping if payload is None else self._ping + _frame(_FIN | _PONG_OPCODE, payload)
        self._ping = b""
        return control

    async def close(self, code: int, reason: str = "") -> None:
        """Send a close frame, unless one was sent already. Takes at most `CLOSE_SECONDS`. `Socket.close_gently` waits
        for the peer's close frame.
        """
        if not self._said_close:
            self._said_close = True
            with suppress(trio.BrokenResourceError), trio.move_on_after(CLOSE_SECONDS):
                await self._socket.send(encode_close(code, reason))

    async def answer_close(self, payload: bytes) -> None:
        """Answer the client's close frame, which had ``payload``, after what is being written. Takes at most
        `CLOSE_SECONDS`.
        """
        if not self._said_close:
            self._said_close = True
            with suppress(trio.BrokenResourceError), trio.move_on_after(CLOSE_SECONDS):
                await self._socket.send(self._take_control() + _frame(_FIN | _CLOSE_OPCODE, payload))


def _do_nothing() -> None:
    pass


def _encode_handshake(request: Request, protocol: str | None, headers: Sequence[tuple[str, str]]) -> bytes:
    """The response to a valid handshake (RFC 6455, 4.2.2)."""
    accept = generate_accept_token(request.headers["sec-websocket-key"].encode("latin-1")).decode()
    fields = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept), *headers]
    if protocol is not None:
        fields.append(("sec-websocket-protocol", protocol))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode("latin-1")
