"""The connected socket of a client: all bytes from and to clients pass here.

It has two features that `trio.SocketStream` lacks: a write that fits into the kernel's buffer returns without a
checkpoint, and a write that does not fit has a time limit.

A write that is interrupted, by its limit or by cancellation, has sent an unknown part of its data. The socket is then
unusable: later writes fail as on a closed connection.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import final

import trio

from llm_runtime.server.limits import (
    CLOSE_SECONDS,
    KEEPALIVE_IDLE_SECONDS,
    KEEPALIVE_INTERVAL_SECONDS,
    LINGER_BYTES,
    MIN_RATE,
    RECEIVE_BYTES,
    UNSENT_BYTES,
    VANISHED_SECONDS,
    WRITE_PIECE_BYTES,
    WRITE_STALL_SECONDS,
)
from llm_runtime.server.receiver import Receiver
from llm_runtime.server.tls import TlsBroken, TlsLayer

UNIX = "unix:"

_HUNG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)

_RESET = struct.pack("ii", 1, 0)

_TCP_OPTIONS = {
    "TCP_NODELAY": 1,
    # With few unsent bytes in the kernel, the next data is chosen when there is space for it, not long before.
    "TCP_NOTSENT_LOWAT": UNSENT_BYTES,
    # Detect a peer that vanished without a FIN even while we send nothing.
    "TCP_KEEPIDLE": KEEPALIVE_IDLE_SECONDS,
    "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_SECONDS,
    "TCP_KEEPCNT": (VANISHED_SECONDS - KEEPALIVE_IDLE_SECONDS) // KEEPALIVE_INTERVAL_SECONDS,
    "TCP_USER_TIMEOUT": VANISHED_SECONDS * 1000,  # overrides TCP_KEEPCNT, and bounds retransmissions, too
}
"""Socket options by name. Not every system has all of them."""


def _host(address: Callable[[], object]) -> str:
    """The host in a socket's ``address``; empty if it has none."""
    with suppress(OSError):
        name = address()
        return str(name[0]) if isinstance(name, tuple) else ""
    return ""


def _set_options(raw: socket.socket) -> None:
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS.items():
        if hasattr(socket, name):
            with suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@final
class Socket:
    """Owns a connected, non-blocking socket. One task, or ``receiver``, may receive. Several tasks may send; their
    writes follow one another.

    With ``tls`` all bytes go through TLS; ``received`` and ``sent`` count the encrypted bytes.
    """

    __slots__ = (
        "_patience", "_raw", "_receiver", "_tls", "_torn", "_unsent", "_waited_until", "_writing", "local_host",
        "peer_host", "received", "sent",
    )  # fmt: skip

    def __init__(self, raw: socket.socket, receiver: Receiver, tls: TlsLayer | None = None) -> None:
        raw.setblocking(False)
        self._raw = raw
        self._tls = tls
        self._unsent = b""
        """TLS bytes that the kernel has not accepted yet. They are sent before all other bytes."""
        self._receiver = receiver
        self._torn = False
        self._writing: trio.StrictFIFOLock | None = None  # until a write has to wait
        self.local_host = UNIX if raw.family == socket.AF_UNIX else _host(raw.getsockname)
        """The address by which the peer has reached this server; `UNIX` for a unix socket."""
        self.peer_host = _host(raw.getpeername)
        """The peer's address."""
        self.received = 0
        """Bytes received so far."""
        self.sent = 0
        """Bytes that the kernel has accepted so far."""
        self._patience = WRITE_STALL_SECONDS
        """Seconds by which the peer may fall behind `MIN_RATE` from now on."""
        self._waited_until = 0.0
        """The time up to which the peer's delay has been computed."""
        _set_options(raw)

    @property
    def closed(self) -> bool:
        """Whether `close` or `abort` has been called."""
        return self._raw.fileno() < 0

    def fileno(self) -> int:
        """The file descriptor; -1 once it is closed."""
        return self._raw.fileno()

    async def receive(self) -> bytes:
        """Wait for bytes; empty at the end of the connection. Raises `trio.BrokenResourceError` if the connection is
        broken and `trio.ClosedResourceError` if it was closed on this side.
        """
        while True:
            if self.closed:
                raise trio.ClosedResourceError
            await trio.lowlevel.wait_readable(self._raw)
            if (data := self.receive_now()) is not None:
                return data

    def receive_now(self) -> bytes | None:
        """Return the bytes that have arrived; empty at the end, ``None`` if there are none yet. Raises as `receive`
        does.
        """
        try:
            data = self._raw.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as exc:
            raise trio.BrokenResourceError from exc
        self.received += len(data)
        return data if self._tls is None else self._opened(self._tls, data)

    def _opened(self, tls: TlsLayer, data: bytes) -> bytes | None:
        try:
            found = tls.open(data)
        except TlsBroken as exc:
            with suppress(trio.BrokenResourceError):
                self._send_now(exc.farewell)
            raise trio.BrokenResourceError from exc
        if not self.is_blocked:  # else these bytes are sent before the next record
            with suppress(trio.BrokenResourceError):
                self._unsent += tls.own_words()
                self._unsent = self._unsent[self._send_now(self._unsent) :] if self._unsent else b""
        return found

    def is_hung_up(self) -> bool:
        """Whether the peer has closed the connection. True even if bytes from the peer are still unread."""
        poll = select.poll()
        poll.register(self._raw, _HUNG_UP)
        return bool(poll.poll(0))

    @property
    def is_blocked(self) -> bool:
        """Whether a write is waiting for the peer to read."""
        return self._writing is not None and self._writing.locked()

    async def send(self, data: bytes | bytearray) -> None:
        """Send all of ``data``. Returns without a checkpoint if the kernel accepts all of it in one call.

        Raises `trio.BrokenResourceError` if the connection is broken. The stall rule: n bytes have
        `WRITE_STALL_SECONDS` + n / `MIN_RATE` seconds to be sent. The socket of a slower peer is aborted. The
        socket of a peer that falls behind `MIN_RATE` by `WRITE_STALL_SECONDS` over several writes is aborted, too. A
        peer catches up if it reads faster, and in the time in which no write waits. Cancellation in the middle of a
        write also breaks the connection.
        """
        if self._tls is not None:
            await self._send_sealed(self._tls, memoryview(data))
            return
        if self.is_blocked:
            async with self._turn():
                await self._send_slowly(memoryview(data))
            return
        sent = self._try_to_send(data)
        if sent < len(data):
            with self._blocking():
                await self._send_slowly(memoryview(data)[sent:])

    async def _send_sealed(self, tls: TlsLayer, data: memoryview) -> None:
        """Send as `send` does. TLS records must leave in the order in which they were sealed, so each is sealed only
        when it is its turn.
        """
        pieces = [data[start : start + WRITE_PIECE_BYTES] for start in range(0, len(data), WRITE_PIECE_BYTES)]
        while pieces and not self.is_blocked:
            sealed = self._sealed(tls, pieces.pop(0))
            sent = self._try_to_send(sealed)
            if sent < len(sealed):
                with self._blocking():
                    await self._send_slowly(memoryview(sealed)[sent:])
                    while pieces:
                        await self._send_slowly(memoryview(self._sealed(tls, pieces.pop(0))))
        if pieces:
            async with self._turn():
                while pieces:
                    await self._send_slowly(memoryview(self._sealed(tls, pieces.pop(0))))

    def _sealed(self, tls: TlsLayer, data: memoryview) -> bytes:
        try:
            sealed = self._unsent + tls.seal(data)
        except TlsBroken as exc:
            raise trio.BrokenResourceError from exc
        self._unsent = b""
        return sealed

    def _turn(self) -> trio.StrictFIFOLock:
        """The lock that a write waits for while another write is blocked."""
        assert self._writing is not None
        return self._writing

    def _try_to_send(self, data: bytes | bytearray) -> int:
        """Send as much as the kernel accepts in one call, and count it for the stall rule."""
        sent = self._send_now(data)
        if self._patience < WRITE_STALL_SECONDS:
            now = trio.current_time()
            self._regain(now - self._waited_until + sent / MIN_RATE)
            self._waited_until = now
        return sent

    @contextmanager
    def _blocking(self) -> Iterator[None]:
        """Let other writes wait for the end of the block."""
        self._writing = self._writing or trio.StrictFIFOLock()
        self._writing.acquire_nowait()
        try:
            yield
        finally:
            self._writing.release()

    def _send_now(self, data: bytes | bytearray | memoryview) -> int:
        if self._torn or self.closed:
            raise trio.BrokenResourceError("the connection is broken")
        try:
            sent = self._raw.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError from exc
        self.sent += sent
        return sent

    async def _send_slowly(self, data: memoryview) -> None:
        for start in range(0, len(data), WRITE_PIECE_BYTES):
            piece = data[start : start + WRITE_PIECE_BYTES]
            allowed, began = len(piece) / MIN_RATE, trio.current_time()
            with trio.move_on_after(self._patience + allowed) as scope:
                await self._send_piece(piece)
            if scope.cancelled_caught:
                self.abort()
                raise trio.BrokenResourceError("the peer does not read")
            self._waited_until = trio.current_time()
            self._regain(began + allowed - self._waited_until)

    def _regain(self, seconds: float) -> None:
        """Let the peer fall behind by ``seconds`` more; negative: by fewer."""
        self._patience = min(WRITE_STALL_SECONDS, max(0.0, self._patience + seconds))

    async def _send_piece(self, rest: memoryview) -> None:
        while rest:
            if self.closed:  # while another write had its turn
                raise trio.BrokenResourceError("the connection is broken")
            try:
                await trio.lowlevel.wait_writable(self._raw)
                rest = rest[self._send_now(rest) :]
            except trio.ClosedResourceError as exc:
                raise trio.BrokenResourceError from exc
            except BaseException:
                self._torn = True
                raise

    def close(self) -> None:
        """Close the socket; data in the kernel's buffer is still sent. A second call does nothing."""
        if not self.closed:
            self._say_goodbye()
            self._receiver.remove(self)
            trio.lowlevel.notify_closing(self._raw)
            self._raw.close()

    def _say_goodbye(self) -> None:
        """With TLS, send the close notification, so that the peer knows that nothing was cut off."""
        if self._tls is not None and not self._torn and not self.is_blocked:
            with suppress(trio.BrokenResourceError):
                self._send_now(self._unsent + self._tls.farewell())
            self._tls = None

    def abort(self) -> None:
        """Close the socket with a reset; data in the kernel's buffer is discarded."""
        if not self.closed:
            self._tls = None
            with suppress(OSError):
                self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close()

    async def close_gently(self) -> None:
        """Shut down sending, read until the peer does the same, and close. An immediate close would reset a peer that
        is still sending, before it has read the last bytes. Bounded by `CLOSE_SECONDS` and `LINGER_BYTES`.
        """
        try:
            if self._tls is not None:
                self._send_now(self._unsent + self._tls.farewell())
                self._unsent = b""
            self._raw.shutdown(socket.SHUT_WR)
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                thrown_away = 0
                while (data := await self.receive()) and thrown_away < LINGER_BYTES:
                    thrown_away += len(data)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the socket is closed already
        finally:
            self.close()
