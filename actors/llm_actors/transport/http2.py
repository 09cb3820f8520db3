"""One HTTP/2 connection: requests one after another over one wire, each on its own stream.

A connection never has more than one stream. So the guarantees are those of HTTP/1.1, by the same means: cancelling
closes the socket, which ends the stream at the server; no stream waits for the flow control of another; a connection
buffers at most one window. Frames are handled by the library ``h2``, which only this module and `http2_frames` import.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from hyperframe.frame import Frame, GoAwayFrame

from llm_actors.transport.connection import CHUNK_BYTES, LISTEN_WHILE_SENDING_BYTES, STALE_SECONDS, Stale, Wire
from llm_actors.transport.errors import WIRE_ERRORS, Broken, ProtocolViolation, TransportError, wire_reason
from llm_actors.transport.http1 import MAX_HEADERS, MAX_INTERIM_HEADS, HttpRequest, Origin, StreamedBody
from llm_actors.transport.http2_frames import FrameLengths
from llm_actors.transport.response import Headers, HttpResponse, refuse_encodings

WINDOW_BYTES: Final = 1024 * 1024
"""The most bytes of a body that the server may send before the reader has taken them."""

MOST_OWED: Final = 1_000
"""The most frames of the server that may wait for an acknowledgement, because the server does not read."""

_CONFIG: Final = h2.config.H2Configuration(client_side=True, header_encoding="latin-1")
_NOT_BEGUN: Final = h2.errors.ErrorCodes.REFUSED_STREAM
"""The error code by which a server says that it has not processed a request (RFC 9113, 8.7)."""


class _Frames(h2.connection.H2Connection):
    """Continues after the server's GOAWAY frame, because the response in progress may still be completed."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        """Process the frame, but keep the state of the connection: otherwise ``h2`` would treat every later frame as an
        error. This method is private to ``h2``: it exists in the versions that pyproject.toml allows (from 4.3, below
        5), and a test fails if it does not.
        """
        state = self.state_machine.state
        found = super()._receive_goaway_frame(frame)
        self.state_machine.state = state
        return found

    def clear_outbound_data_buffer(self) -> None:
        """Do nothing. ``h2`` calls this at GOAWAY, but the bytes that were queued by then must still be sent."""


class Http2Connection:
    """A connection for one request at a time over HTTP/2, with the contract of `ClientConnection`."""

    __slots__ = (
        "_answered", "_any_encoding", "_asked_at", "_body", "_ended", "_exchanges", "_failure", "_frames", "_h2",
        "_interim", "_is_torn", "_keeps", "_owed", "_response", "_room", "_sent", "_stream", "_taken", "_wire",
        "_written", "origin",
    )  # fmt: skip

    def __init__(self, origin: Origin, wire: Wire) -> None:
        self.origin = origin
        self._wire = wire
        self._exchanges = 0
        self._h2 = _Frames(_CONFIG)
        self._frames = FrameLengths()
        self._keeps = True  # the server has not said that it closes the connection
        self._is_torn = False  # a frame was left unfinished: nothing more can be sent
        self._owed = 0  # acknowledgements that are not yet sent
        self._taken = 0  # bytes that were read but not yet acknowledged to the server
        self._written: trio.Event | None = None  # set when what is being sent beside an upload has been sent
        self._reset()

    def _reset(self) -> None:
        self._asked_at = trio.current_time()
        self._stream = 0
        self._sent = self._answered = self._ended = False
        self._any_encoding = False
        self._interim = 0
        self._body: deque[bytes] = deque()
        self._room = trio.Event()  # set whenever something has arrived
        self._failure: TransportError | None = None
        self._response: HttpResponse | None = None

    async def ask(self, request: HttpRequest, payload: bytes) -> HttpResponse:  # noqa: ARG002
        """Send ``request`` and wait for the head of its response; see `ClientConnection.ask`."""
        self._reset()
        self._exchanges += 1
        self._any_encoding = request.any_encoding
        try:
            self._begin(request)
            # Data beyond the window can be sent only after the server has enlarged it, so reading must go on meanwhile.
            at_once = min(LISTEN_WHILE_SENDING_BYTES, self._h2.local_flow_control_window(self._stream))
            if isinstance(request.body, StreamedBody) or len(request.body) > at_once:
                await self._send_while_listening(request.body)
            else:
                await self._send(request.body)
        except h2.exceptions.ProtocolError as exc:
            self._violate(exc)
        while self._response is None:
            await self._receive_more()
        return self._response

    async def receive(self) -> bytes:
        """Return the next piece of the body, or ``b""`` after its proper end; see `ClientConnection.receive`."""
        while not self._body and not self._ended:
            await self._receive_more()
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._body:
            return b""
        piece = self._body.popleft()
        self._taken += len(piece)
        return piece

    def renew(self) -> bool:
        """Prepare for another request, if reuse is proven safe. Return whether it is."""
        if self._failure is not None or not (self._sent and self._ended and self._keeps):
            return False
        self._taken += sum(map(len, self._body))  # a reader may stop before the end, though it is here
        self._tell_what_was_taken()
        self._response = None
        return True

    def is_quiet(self) -> bool:
        """Whether the server has sent nothing since the last response. Frames about the connection count, too."""
        return self._wire.is_quiet()

    def close(self) -> None:
        self._wire.close()
        self._response = self._failure = None

    # -- sending

    def _begin(self, request: HttpRequest) -> None:
        """Write the head of the request; on a new connection, the preface first."""
        if self._exchanges == 1:
            codes = h2.settings.SettingCodes
            values = {codes.ENABLE_PUSH: 0, codes.INITIAL_WINDOW_SIZE: WINDOW_BYTES}
            self._h2.local_settings = h2.settings.Settings(client=True, initial_values=values)
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(WINDOW_BYTES - 65_535)
        self._stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(self._stream, _head(request), end_stream=request.body == b"")

    async def _send(self, body: bytes | StreamedBody) -> None:
        try:
            await self._flush()
            if isinstance(body, StreamedBody):
                while piece := await body.receive():
                    await self._send_data(piece)
                self._h2.end_stream(self._stream)
            elif body:
                await self._send_data(body)
                self._h2.end_stream(self._stream)
            await self._flush()
        except WIRE_ERRORS:
            return  # the server may have said why before it closed
        self._sent = True

    async def _send_data(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            room = min(self._h2.local_flow_control_window(self._stream), self._h2.max_outbound_frame_size)
            if room > 0:
                self._h2.send_data(self._stream, bytes(rest[:room]))
                rest = rest[room:]
                await self._flush()
            else:
                await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        """Wait until the server sends bytes. Queued bytes are sent meanwhile."""
        await self._room.wait()
        self._room = trio.Event()
        await self._flush()

    async def _send_while_listening(self, body: bytes | StreamedBody) -> None:
        """Send the body, and read meanwhile: the server may grant more flow control, or refuse the rest."""

        async def listen() -> None:
            try:
                while not self._ended and (self._response is None or self._response.status < 400):
                    await self._receive_more(flush=False)
                    await self._acknowledge()
            except TransportError as exc:
                self._failure = exc
            nursery.cancel_scope.cancel()

        fault: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            try:
                await self._send(body)
            except h2.exceptions.ProtocolError as exc:
                if self._failure is None and self._response is None:
                    fault = exc
            except Exception as exc:  # the body's own; raised below, outside of the nursery's exception group
                fault = exc
            nursery.cancel_scope.cancel()
        if fault is not None:
            raise fault
        if self._failure is not None:
            raise self._failure

    async def _acknowledge(self) -> None:
        """Reply to the server's frames while the task that sends the body does not, because it waits for the next
        piece.
        """
        # The upload may have ended in the instant in which the frames arrived: a send that begins now would be cut off.
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_torn:
            return
        self._written = trio.Event()
        try:
            with suppress(*WIRE_ERRORS):  # the next read raises the same error
                await self._send_queued()
        finally:
            self._written.set()
            self._written = None

    async def _flush(self) -> None:
        while self._written is not None:  # the next acknowledgement may have begun before this task goes on
            await self._written.wait()
        await self._send_queued()

    async def _send_queued(self) -> None:
        while not self._is_torn and (data := self._h2.data_to_send()):
            self._is_torn = True
            self._owed = 0
            await self._wire.send_all(data)
            self._is_torn = False

    # -- receiving

    async def _receive_more(self, *, flush: bool = True) -> None:
        """Wait for bytes of the server, and process them.

        Raises a failure that was received before, or the error of the wire.
        """
        if self._failure is not None:
            raise self._failure
        try:
            if flush:
                self._tell_what_was_taken()
                await self._flush()
                self._check_room()
            came = await self._wire.receive_some(CHUNK_BYTES)
        except WIRE_ERRORS as exc:
            raise self._cut(wire_reason(exc)) from exc
        if not came:
            when = "in the middle of the response" if self._answered else "before a response"
            raise self._cut(f"the server closed the connection {when}")
        try:
            self._frames.check(came)
            self._read(self._h2.receive_data(came))
        except h2.exceptions.ProtocolError as exc:
            self._violate(exc)
        self._room.set()  # a failure is raised next time: what came before it is read first

    def _tell_what_was_taken(self) -> None:
        """Grant the server flow control for the bytes that the reader has taken. ``h2`` sends that in large pieces."""
        if self._taken and not self._is_torn:
            self._h2.acknowledge_received_data(self._taken, self._stream)
            self._taken = 0

    def _check_room(self) -> None:
        """Raise `Broken` if the rest of the response cannot arrive: an early refusal is larger than the window, and
        after an unfinished frame no more flow control can be granted.
        """
        if self._is_torn and self._answered and self._h2.remote_flow_control_window(self._stream) <= 0:
            raise self._cut(
                "the server responded before the request was finished, and no flow control is left for the rest of the "
                "response"
            )

    def _read(self, events: Iterable[h2.events.Event]) -> None:
        for event in events:
            match event:
                case h2.events.ConnectionTerminated():
                    self._keeps = False
                    if (event.last_stream_id or 0) < self._stream:
                        self._disown("the server closes the connection")
                case h2.events.PingReceived() | h2.events.RemoteSettingsChanged():
                    self._owed += 1
                    if self._owed > MOST_OWED:
                        self._violate(f"more than {MOST_OWED} frames to be acknowledged")
                case _ if getattr(event, "stream_id", None) == self._stream:
                    self._read_of_stream(event)
                case _:
                    pass  # of the connection, or of an earlier request

    def _read_of_stream(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.InformationalResponseReceived():
                self._answered = True  # the server has begun
                self._interim += 1
                if self._interim > MAX_INTERIM_HEADS:
                    self._violate(f"more than {MAX_INTERIM_HEADS} interim responses")
            case h2.events.ResponseReceived():
                self._answered = True
                self._response = self._read_head(event)
            case h2.events.DataReceived():
                self._take(event)
            case h2.events.StreamEnded():
                self._ended = True
            case h2.events.StreamReset():
                self._read_reset(event)

    def _take(self, event: h2.events.DataReceived) -> None:
        if event.data:
            self._body.append(bytes(event.data))
        self._taken += (event.flow_controlled_length or 0) - len(event.data or b"")  # padding takes room, too

    def _read_reset(self, event: h2.events.StreamReset) -> None:
        if event.error_code == _NOT_BEGUN and not self._answered:
            self._not_begun("the server refused the stream")
        elif not self._ended:  # after the whole response it only says that it wants no more of the request
            self._cut("the server ended the stream")
        self._sent = False

    def _disown(self, reason: str) -> None:
        """Record that the server ignores the stream from now on. A response that has begun will not be completed."""
        if not self._answered:
            self._not_begun(reason)
        elif not self._ended:
            self._cut(reason)

    def _read_head(self, event: h2.events.ResponseReceived) -> HttpResponse | None:
        pairs = event.headers or []
        if len(pairs) > MAX_HEADERS:
            self._violate(f"more than {MAX_HEADERS} headers")
            return None
        found: dict[str, str] = {}
        for raw_name, raw_value in pairs:
            name, value = _text(raw_name), _text(raw_value)
            found[name] = f"{found[name]}, {value}" if name in found else value
        status = found.pop(":status", "")
        if not (status.isascii() and status.isdecimal() and len(status) == 3):
            self._violate("no status")
            return None
        if not self._any_encoding and (encoding := found.get("content-encoding")) is not None:
            refuse_encodings(self.origin, int(status), encoding)
        return HttpResponse(int(status), Headers(found), self.origin, self.receive)

    # -- faults: each is remembered, and raised whenever more is to be read

    def _cut(self, reason: str) -> Broken:
        fresh = trio.current_time() - self._asked_at <= STALE_SECONDS
        is_stale = self._exchanges > 1 and not self._answered and fresh
        found = Stale(self.origin, reason) if is_stale else Broken(self.origin, reason, answered=self._answered)
        self._failure = found
        return found

    def _not_begun(self, reason: str) -> None:
        """Record that the server has not processed the request. If the connection was reused, the request is sent
        again.
        """
        is_kept = self._exchanges > 1
        self._failure = Stale(self.origin, reason) if is_kept else Broken(self.origin, reason, answered=False)

    def _violate(self, exc: Exception | str) -> None:
        reason = exc if isinstance(exc, str) else type(exc).__name__
        self._failure = ProtocolViolation(self.origin, f"the response is not valid HTTP/2 ({reason})")


def _head(request: HttpRequest) -> list[tuple[str, str]]:
    """Return the header fields of a request. `encode` has checked them."""
    origin, body = request.origin, request.body
    fields = [
        (":method", request.method),
        (":scheme", origin.scheme),
        (":authority", origin.authority),
        (":path", request.target),
        ("accept-encoding", "identity"),
    ]
    fields += [(name.lower(), value) for name, value in request.headers.items()]
    length = body.length if isinstance(body, StreamedBody) else len(body) if body or request.method != "GET" else None
    return fields if length is None else [*fields, ("content-length", str(length))]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
