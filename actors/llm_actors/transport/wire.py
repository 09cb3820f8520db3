"""Bytes to and from one socket, plain or through TLS: send, receive, close at once, and "is anything unread?".

Trio's SSLStream is not used for two reasons. It may contain whole records that were received but not yet read, which
only private attributes show; a reused connection with such surplus would take it for the next response. And it is
unusable after a cancelled send, but an early error response has to be read exactly then.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Awaitable
from typing import Final, Protocol

import trio

CHUNK_BYTES: Final = 64 * 1024
_TLS_SLICE_BYTES: Final = 64 * 1024  # how much plaintext is encrypted ahead of the socket


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


class TlsWire:
    """TLS over another wire, which may be TLS itself (to a proxy), through two memory buffers. The module's docstring
    says why Trio's SSLStream is not used.
    """

    def __init__(self, plain: Wire, context: ssl.SSLContext, host: str) -> None:
        self._plain = plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._sending = False

    async def handshake(self) -> None:
        """Do the handshake. Raises ``WIRE_ERRORS``. If the handshake fails, the TLS alert with the reason is sent to
        the server first.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                await self._flush()
                raise
            else:
                return await self._flush()

    @property
    def protocol(self) -> str | None:
        """The protocol that both sides have agreed on (ALPN), after the handshake; ``None`` if there is none."""
        return self._tls.selected_alpn_protocol()

    async def send_all(self, data: bytes) -> None:
        self._sending = True
        try:
            view = memoryview(data)
            for start in range(0, len(view), _TLS_SLICE_BYTES):
                self._tls.write(view[start : start + _TLS_SLICE_BYTES])
                await self._flush()
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int) -> bytes:
        while True:
            try:
                data = self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                # A key update may need a reply; a sender that is already writing sends it along.
                if self._outgoing.pending and not self._sending:
                    await self._flush()
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""
            else:
                return data

    def is_quiet(self) -> bool:
        return not (self._tls.pending() or self._incoming.pending or not self._plain.is_quiet())

    def close(self) -> None:
        self._plain.close()

    async def _flush(self) -> None:
        while self._outgoing.pending:
            await self._plain.send_all(self._outgoing.read())

    async def _fill(self) -> None:
        data = await self._plain.receive_some(CHUNK_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
