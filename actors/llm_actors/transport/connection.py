"""Connections with HTTP/1.1: the socket, the requests that one connection carries one after another, the idle ones.

`ResponseReader` interprets the peer's bytes. This module moves bytes, and converts every failure to an error of
`errors`. A connection is reused only if that is proven safe: the request was sent completely, the response states where
its body ends, the body was read to its end, and there are no surplus bytes. Otherwise it is closed, so that no byte of
one response can become part of another. The stack accepts connections of both versions of HTTP (`OutgoingConnection`).
"""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable
from typing import Final, Protocol

import trio

from llm_actors.transport.errors import (
    WIRE_ERRORS,
    Broken,
    ProtocolViolation,
    TransportError,
    wire_reason,
)
from llm_actors.transport.http1 import HttpRequest, IncompleteResponse, Origin, ResponseReader, StreamedBody
from llm_actors.transport.response import Headers, HttpResponse, refuse_encodings
from llm_protocol.http1 import LAST_CHUNK, BadHttp, ResponseHead, encode_chunk

CHUNK_BYTES: Final = 64 * 1024
LISTEN_WHILE_SENDING_BYTES: Final = 32 * 1024  # smaller requests fit into the sockets' buffers and never block
STALE_SECONDS: Final = 1.0  # see Stale


class Wire(Protocol):
    """One reader and one writer at a time. Sending and receiving raise ``errors.WIRE_ERRORS``."""

    def send_all(self, data: bytes, /) -> Awaitable[None]:
        """Send all of ``data``. After a cancellation it is unknown how much was sent."""
        ...

    def receive_some(self, max_bytes: int, /) -> Awaitable[bytes]:
        """Return at least one byte, or ``b""`` if the peer ended its side properly. Cancelling this loses nothing."""
        ...

    def is_quiet(self) -> bool:
        """Whether nothing is unread and the peer has not closed. Only then may a wire be reused."""
        ...

    def close(self) -> None:
        """Close the socket now, without a TLS close notification and without waiting."""
        ...


class PlainWire:
    """A socket, taken over from a Trio stream. Trio's own methods try to read before they wait, although the peer has
    usually sent nothing yet, and have a checkpoint after each send. Both would cost time for every chunk.
    """

    __slots__ = ("_socket",)

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = socket.socket(fileno=stream.socket.detach())
        self._socket.setblocking(False)

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``. There is a checkpoint only if one system call does not accept all of it."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except (BlockingIOError, InterruptedError):
                await trio.lowlevel.wait_writable(self._socket)

    async def receive_some(self, max_bytes: int) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(max_bytes)
            except (BlockingIOError, InterruptedError):
                continue

    def is_quiet(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class Stale(Broken):
    """A reused connection that the server closed just before the request arrived.

    Resending is safe then, because the server closed before it read the request. This cannot be known for certain, so
    all signs have to agree: the connection had been used before, no byte of a response arrived, and the end came
    within ``STALE_SECONDS`` of the request, as it does if the close was already under way. A server that received the
    request, worked on it and crashed takes longer.
    """

    def __init__(self, origin: Origin, reason: str) -> None:
        super().__init__(origin, reason, answered=False)


class ClientConnection:
    """A connection for one request at a time. No method has a time limit: the caller's cancel scope provides one."""

    __slots__ = (
        "_answered", "_any_encoding", "_asked_at", "_exchanges", "_failure", "_reader", "_response", "_sent", "_wire",
        "origin",
    )  # fmt: skip

    def __init__(self, origin: Origin, wire: Wire) -> None:
        self.origin = origin
        self._wire = wire
        self._exchanges = 0
        self._reset("")

    def _reset(self, method: str) -> None:
        self._asked_at = trio.current_time()
        self._sent = False  # the whole request has been handed to the kernel
        self._answered = False  # at least one byte of the response has arrived
        self._reader = ResponseReader(method)
        self._any_encoding = False
        self._failure: TransportError | None = None
        self._response: HttpResponse | None = None

    async def ask(self, request: HttpRequest, payload: bytes) -> HttpResponse:
        """Send one request, encoded in ``payload``, and then its streamed body, if it has one. Wait for the head of
        the response.

        Raises :class:`Stale`, Broken, ProtocolViolation or UnsupportedEncoding, and the exceptions of the body. After
        an error or a cancellation, close the connection.
        """
        self._reset(request.method)
        self._exchanges += 1
        self._any_encoding = request.any_encoding
        body = request.body if isinstance(request.body, StreamedBody) else None
        if body is not None or len(payload) > LISTEN_WHILE_SENDING_BYTES:
            await self._send_while_listening(payload, body)
        else:
            await self._send(payload)
        return self._response or await self._receive_head()

    async def receive(self) -> bytes:
        """Return the next piece of the body as it arrives (at most about 128 KiB), or ``b""`` after its proper end.

        Always a cancellation point; other tasks run whenever it waits for the network. Raises Broken if the body was
        cut off, and ProtocolViolation if it is malformed; further calls raise the same error.
        """
        reader = self._reader
        while not reader.ended:
            if reader.starved:
                try:
                    came = await self._wire.receive_some(CHUNK_BYTES)
                except WIRE_ERRORS as exc:
                    raise self._cut(exc) from exc
                if data := reader.read_stream(came):
                    return data
                self._feed(came)
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
            if data := self._read_body():
                return data
        await trio.lowlevel.checkpoint_if_cancelled()
        return b""

    def renew(self) -> bool:
        """Prepare for another request, if reuse is proven safe. Return whether it is."""
        reader = self._reader
        if self._failure is None and self._response is not None and not reader.ended:
            self._read_what_is_here()
        if not (self._sent and reader.ended and reader.framed and reader.keeps) or reader.has_surplus:
            return False
        self._response = None
        return True

    def is_quiet(self) -> bool:
        return self._wire.is_quiet()

    def close(self) -> None:
        self._wire.close()
        # references back to this object, which only the garbage collector would find
        self._response = self._failure = None

    async def _send(self, payload: bytes, body: StreamedBody | None = None) -> None:
        try:
            await self._wire.send_all(payload)
            if body is not None:
                await self._send_pieces(body)
        except WIRE_ERRORS:
            # the server may have sent a reason before it closed, and reading also shows how the connection ended
            return
        self._sent = True

    async def _send_pieces(self, body: StreamedBody) -> None:
        is_chunked = body.length is None
        while piece := await body.receive():
            await self._wire.send_all(encode_chunk(piece) if is_chunked else piece)
        if is_chunked:
            await self._wire.send_all(LAST_CHUNK)

    async def _send_while_listening(self, payload: bytes, body: StreamedBody | None = None) -> None:
        """Send, but stop when an error response arrives first: a server that responds with 413 may never read the
        rest.
        """

        async def listen() -> None:
            try:
                self._response = await self._receive_head()
            except TransportError as exc:
                self._failure = exc
            if self._failure or (self._response and self._response.status >= 400):
                nursery.cancel_scope.cancel()

        fault: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            try:
                await self._send(payload, body)
            except Exception as exc:  # the body's own; raised below, outside of the nursery's exception group
                fault = exc
            if self._sent or fault is not None:
                nursery.cancel_scope.cancel()
        if fault is not None:
            raise fault
        if self._failure:
            raise self._failure

    async def _receive_head(self) -> HttpResponse:
        while (head := self._read_head()) is None:
            try:
                came = await self._wire.receive_some(CHUNK_BYTES)
            except WIRE_ERRORS as exc:
                raise self._cut(exc) from exc
            self._feed(came)
        if not self._any_encoding and (encoding := head.headers.get("content-encoding")) is not None:
            refuse_encodings(self.origin, head.status, encoding)
        self._response = HttpResponse(head.status, Headers(head.headers), self.origin, self.receive)
        return self._response

    def _read_head(self) -> ResponseHead | None:
        try:
            return self._reader.read_head()
        except (BadHttp, IncompleteResponse) as exc:
            raise self._fault(exc) from None

    def _read_body(self) -> bytes:
        """Return the bytes of the body that have arrived; empty if more must be awaited."""
        if self._failure is None:
            try:
                return self._reader.read_body()
            except (BadHttp, IncompleteResponse) as exc:
                self._failure = self._fault(exc)
        raise self._failure

    def _read_what_is_here(self) -> None:
        """Read the bytes that have already arrived: a reader that stopped at the vendor's end marker may have left
        the terminating chunk unread.
        """
        try:
            self._read_body()
        except TransportError as exc:
            self._failure = exc

    def _fault(self, exc: BadHttp | IncompleteResponse) -> TransportError:
        if isinstance(exc, BadHttp):
            return ProtocolViolation(self.origin, f"the response is not valid HTTP/1.1 ({exc.reason})")
        when = "in the middle of the response" if self._answered else "before a response"
        return self._broken(f"the server closed the connection {when}")

    def _cut(self, exc: Exception) -> Broken:
        self._failure = failure = self._broken(wire_reason(exc))
        return failure

    def _feed(self, data: bytes) -> None:
        self._reader.feed(data)
        self._answered = self._answered or bool(data)

    def _broken(self, reason: str) -> Broken:
        fresh = trio.current_time() - self._asked_at <= STALE_SECONDS
        if self._exchanges > 1 and not self._answered and fresh:
            return Stale(self.origin, reason)
        return Broken(self.origin, reason, answered=self._answered)


class OutgoingConnection(Protocol):
    """One connection, used for one request at a time: see `ClientConnection`."""

    origin: Origin

    async def ask(self, request: HttpRequest, payload: bytes) -> HttpResponse:
        """Send one request. Return the response once its head has arrived."""
        ...

    def renew(self) -> bool:
        """Return whether it is proven safe to send another request."""
        ...

    def is_quiet(self) -> bool:
        """Whether nothing is unread and the peer has not closed."""
        ...

    def close(self) -> None:
        """Close the socket at once."""
        ...


MAX_IDLE_PER_ORIGIN: Final = 128
IDLE_SECONDS: Final = 50.0  # common load balancers give up after 60


class IdleStack:
    """A LIFO stack per origin. Pure, except that it closes dropped connections; the time is a parameter."""

    def __init__(self, *, max_per_origin: int = MAX_IDLE_PER_ORIGIN, idle_seconds: float = IDLE_SECONDS) -> None:
        self._max_per_origin = max_per_origin
        self._idle_seconds = idle_seconds
        self._stacks: dict[Origin, list[tuple[OutgoingConnection, float]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._stacks.values()))

    def pop(self, origin: Origin, now: float) -> OutgoingConnection | None:
        """Return the most recently used connection that is young enough and whose peer has neither closed it nor sent
        anything; ``None`` if there is none. Closes the unusable connections that it finds first.
        """
        stack = self._stacks.get(origin)
        while stack:
            connection, since = stack.pop()
            if now - since < self._idle_seconds and connection.is_quiet():
                return connection
            connection.close()
        return None

    def push(self, connection: OutgoingConnection, now: float) -> None:
        """Keep an idle connection. Closes the oldest ones of its origin if they are too many or idle for too long."""
        stack = self._stacks.setdefault(connection.origin, [])
        stack.append((connection, now))
        while stack and (len(stack) > self._max_per_origin or now - stack[0][1] >= self._idle_seconds):
            stack.pop(0)[0].close()

    def clear(self) -> None:
        """Close all idle connections."""
        for stack in self._stacks.values():
            for connection, _ in stack:
                connection.close()
        self._stacks.clear()
