"""One WebSocket to a daemon, and the runs on it, each on its own lane.

One task reads, one writes, and one checks that the daemon still responds. When the connection ends, for whatever
reason, its runs are marked as cut off.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast, final

import msgspec
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)
from wsproto.utilities import LocalProtocolError

from llm_actors.transport.errors import wire_reason
from llm_protocol.content import JsonObject
from llm_protocol.errors import LLMClientError, NetworkError, error_for
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.native import (
    Accepted,
    Events,
    Refused,
    decode_frame,
    encode_cancel,
    encode_create,
    encode_resume,
    failure_in,
)
from llm_runtime.remote.address import Address
from llm_runtime.remote.remote_run import RemoteRun, RemoteState

OPEN_SECONDS: Final = 10.0
"""The time limit for one attempt to open a connection, in seconds."""

BEAT_SECONDS: Final = 15.0
"""Seconds between two pings, and the time limit for the first bytes of the daemon after a ping. While a large request
is being sent, it is enough that the daemon reads it.
"""

CLOSE_SECONDS: Final = 1.0
"""The time limit for the closing handshake, in seconds."""

MESSAGE_BYTES: Final = 256 * 1024 * 1024
"""The largest message, in bytes, that is accepted from the daemon: a response with images, in base64."""

RECEIVE_BYTES: Final = 64 * 1024
"""The most bytes that one read takes from the socket."""

SEND_BYTES: Final = 64 * 1024
"""The most bytes written to the socket at once, so that a large request is seen to proceed."""

MESSAGES_AHEAD: Final = 16
"""The most messages that were received and not processed yet."""

LIFETIME_OVER: Final = "websocket_connection_limit_reached"
"""The daemon's error code for a request over a connection that accepts no more requests. Responses in progress
continue.
"""

_BREAKS: Final = (
    OSError,
    HandshakeError,
    LocalProtocolError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
"""The exceptions that a network or a peer can cause. trio-websocket raises `LocalProtocolError` for a ping that arrives
during its closing handshake.
"""

log = logging.getLogger(__name__)


class _OpenError(msgspec.Struct):
    error: JsonObject = {}


@final
class _Watched(trio.abc.Stream):
    """A stream that calls ``ended`` when its peer has disconnected. Without that call, trio-websocket would wait for a
    closing handshake. ``moved_at`` is when the peer last sent bytes or made room for more, on Trio's clock.
    """

    def __init__(self, stream: trio.abc.Stream, ended: Callable[[], None]) -> None:
        self._stream = stream
        self._ended = ended
        self.moved_at = trio.current_time()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._ended()
            raise
        if not data:
            self._ended()
        self.moved_at = trio.current_time()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        for at in range(0, len(view), SEND_BYTES):
            if at:
                self.moved_at = trio.current_time()
            await self._stream.send_all(view[at : at + SEND_BYTES])

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@final
class Connection:
    """One connection. Run `live` in a separate task; `can_take` is true once the connection is open. ``capacity``:
    the most concurrent runs. ``is_surplus`` returns whether there are other connections, so that one without runs may
    close. ``note_room`` is called when a lane has become free.
    """

    def __init__(
        self,
        address: Address,
        capacity: int,
        is_surplus: Callable[[], bool],
        note_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._address = address
        self._is_surplus = is_surplus
        self._note_room = note_room
        self._free = deque(str(lane) for lane in range(capacity))
        self._lanes: dict[str, str] = {}
        self._entries: dict[str, RemoteRun] = {}
        self._unsent: deque[bytes] = deque()
        self._more = trio.Event()
        self._takes_new = False
        self._scope = trio.CancelScope()

    @property
    def can_take(self) -> bool:
        """Whether the connection can take another run."""
        return self._takes_new and bool(self._free)

    # -- requests -----------------------------------------------------------------------------------------------

    def create(self, entry: RemoteRun) -> None:
        """Send a request. `can_take` must be true."""
        lane = self._enter(entry)
        self._send(encode_create(entry.body, entry.id, lane, stream=entry.run.stream))

    def resume(self, entry: RemoteRun) -> None:
        """Request the events of a response that have not been received yet. `can_take` must be true."""
        self._send(encode_resume(entry.id, entry.number, self._enter(entry)))

    def cancel(self, entry: RemoteRun) -> None:
        """Ask the daemon to cancel a response. Its lane becomes free when the response has ended."""
        if (lane := self._lanes.get(entry.id)) is not None:
            self._send(encode_cancel(entry.id, lane))

    def _enter(self, entry: RemoteRun) -> str:
        lane = self._free.popleft()
        self._lanes[entry.id] = lane
        self._entries[entry.id] = entry
        return lane

    def _leave(self, entry: RemoteRun) -> None:
        del self._entries[entry.id]
        self._free.append(self._lanes.pop(entry.id))
        self._note_room()

    def _send(self, frame: bytes) -> None:
        self._unsent.append(frame)
        self._more.set()

    # -- lifetime ----------------------------------------------------------------------------------------------------

    async def live(self, opened: Callable[[], None]) -> None:
        """Open the connection, call ``opened``, and serve the connection until it ends. Raises `LLMClientError` if the
        connection cannot be opened; after that, raises nothing.
        """
        is_open, stream = False, None
        try:
            async with trio.open_nursery() as nursery:
                socket: WebSocketConnection | None = None
                watched: _Watched | None = None
                with trio.fail_after(OPEN_SECONDS):
                    stream = await self._dial()
                    with trio.CancelScope() as handshake:
                        watched = _Watched(stream, handshake.cancel)
                        socket = await self._open(watched, nursery)
                if socket is None or watched is None:  # the peer disconnected during the handshake
                    raise trio.BrokenResourceError
                self._takes_new = is_open = True
                opened()
                with self._scope:
                    async with trio.open_nursery() as inner:
                        inner.start_soon(self._write, socket)
                        inner.start_soon(self._beat, socket)
                        inner.start_soon(self._watch, watched)
                        await self._read(socket)
                        inner.cancel_scope.cancel("the connection has ended")
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await socket.aclose()
                nursery.cancel_scope.cancel("the connection has ended")
        except BaseExceptionGroup as group:
            broken, rest = group.split(_BREAKS)
            if rest is not None or broken is None:
                raise
            error = _first(broken)
            if not is_open:
                raise _cannot_open(self._address, error) from None
            log.info("the connection to %s broke: %s", self._address, wire_reason(error))
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)  # close the socket: trio-websocket does not close a broken one
            self._takes_new = False
            entries = list(self._entries.values())
            self._entries.clear()
            self._lanes.clear()
            for entry in entries:
                entry.cut()

    def close(self) -> None:
        """Close the connection with a close frame. Because of the frame, the daemon does not keep the responses of this
        connection for a client that returns.
        """
        self._takes_new = False
        self._scope.cancel("closed")

    async def _dial(self) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
        origin, tls = self._address.origin, await self._address.tls()
        if tls is None:
            return await trio.open_tcp_stream(origin.host, origin.port)
        return await trio.open_ssl_over_tcp_stream(origin.host, origin.port, ssl_context=tls, https_compatible=True)

    async def _open(self, stream: _Watched, nursery: trio.Nursery) -> WebSocketConnection:
        address = self._address
        return await wrap_client_stream(
            nursery,
            cast("trio.SocketStream", stream),
            address.origin.authority,
            address.target("/v1/responses"),
            extra_headers=[(name.encode(), value.encode()) for name, value in address.headers.items()],
            message_queue_size=MESSAGES_AHEAD,
            max_message_size=MESSAGE_BYTES,
            receive_buffer_size=RECEIVE_BYTES,
        )

    async def _write(self, socket: WebSocketConnection) -> None:
        with suppress(ConnectionClosed):  # the reader notices it too
            while True:
                while self._unsent:
                    await socket.send_message(self._unsent.popleft().decode())
                self._more = trio.Event()
                await self._more.wait()

    async def _beat(self, socket: WebSocketConnection) -> None:
        with suppress(ConnectionClosed):
            idle = False
            while True:
                await trio.sleep(BEAT_SECONDS)
                if idle and not self._entries and self._is_surplus():
                    self.close()
                idle = not self._entries
                await socket.ping()

    async def _watch(self, stream: _Watched) -> None:
        """Give the connection up if the daemon, although it was pinged, neither sends nor reads anything for twice
        `BEAT_SECONDS`.
        """
        left = 2 * BEAT_SECONDS
        while left > 0:
            await trio.sleep(left)
            left = stream.moved_at + 2 * BEAT_SECONDS - trio.current_time()
        log.info("the daemon at %s does not respond", self._address)
        self._scope.cancel("the daemon does not respond")

    async def _read(self, socket: WebSocketConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = await socket.get_message()
                try:
                    self._take(message)
                except LLMClientError as exc:
                    log.error("the connection to %s is closed: %s", self._address, exc)  # noqa: TRY400
                    return

    def _take(self, message: str | bytes) -> None:
        frame = decode_frame(message)
        if isinstance(frame, Refused):
            if frame.event_id is None or frame.code == LIFETIME_OVER:
                self._takes_new = False  # regularly: its lifetime is over, or the daemon shuts down
            if frame.event_id is not None and (entry := self._entries.get(frame.event_id)) is not None:
                self._leave(entry)
                entry.refuse(frame)
            return
        entry = self._entries.get(frame.response_id)
        if entry is None:
            return
        if isinstance(frame, Accepted):
            entry.accept()
        elif isinstance(frame, Events):
            entry.add(frame.sequence_number, frame.events)
            if entry.state is RemoteState.ENDED:
                self._leave(entry)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _cannot_open(address: Address, error: BaseException) -> LLMClientError:
    if isinstance(error, ConnectionRejected):
        try:
            detail = msgspec.json.decode(error.body or b"{}", type=_OpenError).error
        except msgspec.MsgspecError:
            detail = {}
        return error_for(failure_in(error.status_code, detail))
    if isinstance(error, trio.TooSlowError):
        words = f"{address}: no connection within {OPEN_SECONDS:g} s"
        return error_for(Failure(kind=FailureKind.TIMEOUT_CONNECT, message=words))
    return NetworkError(f"{address}: {wire_reason(error)}")
