"""One WebSocket connection: many concurrent responses, one writer.

A message that has arrived is read in a small task: an idle connection has no task that waits for it. A request is
admitted to a lane and started in another small task. The writer follows the runs: the log of each run wakes it, and it
takes the new events of all runs, encodes them, and sends them in one write. So a slow client costs the memory of its
responses, and never a growing queue of frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from math import inf
from typing import NamedTuple, final

import trio

from llm_actors.threads import run_large
from llm_protocol.client_headers import without_idempotency
from llm_protocol.errors import LLMClientError
from llm_protocol.events import Failed
from llm_protocol.failures import FailureKind
from llm_protocol.native import RESUME_SECONDS, NativeRequest
from llm_protocol.wires.responses import Create
from llm_runtime.server import native
from llm_runtime.server.access import plain_protocol
from llm_runtime.server.bodies import HeldBodies, byte_count
from llm_runtime.server.client_events import (
    Cancel,
    ClientEventHead,
    Steer,
    check_lane,
    encode_cancelled,
    encode_refusal,
    encode_steer_failed,
    read,
    read_head,
    unknown_type,
)
from llm_runtime.server.heartbeat import Beat, Heartbeat
from llm_runtime.server.http_error import HttpError, crashed, shutting_down, wrong_key
from llm_runtime.server.limits import ECHOED_INPUT_CHARACTERS, UNSAID_BYTES, UNSAID_FRAMES, WRITE_BATCH_BYTES
from llm_runtime.server.message_reader import FAULTS, Hangup
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.response_store import Recent
from llm_runtime.server.socket import Socket
from llm_runtime.server.state import ServerState
from llm_runtime.server.stored import RESPONSES
from llm_runtime.server.subscription import RunSubscription, WakeupEvent
from llm_runtime.server.transitions import SESSION, SessionChange, SessionState, StateMachine
from llm_runtime.server.turn_queue import TurnQueue, encode_failed
from llm_runtime.server.turns import TURN_TYPES, LaneTurn, Streaming, begin_turn, read_turn
from llm_runtime.server.websocket import WebSocket, encode_close

CRASHED = encode_close(1011, "the connection failed with an internal error")


class Close(NamedTuple):
    """How to close the WebSocket."""

    code: int
    reason: str = ""


class SocketEnding(NamedTuple):
    """Why a session accepts no new requests: the error for them, and how to close at the end."""

    refused: HttpError
    close: Close


async def serve(server_state: ServerState, context: RequestContext, socket: Socket, left_over: bytes) -> None:
    """Serve one WebSocket until it ends. An exception is reported to the client, then propagates."""
    session = Session(server_state, context.caller, socket, without_idempotency(context.request.headers))
    server_state.join(session)
    try:
        await session.run(context, left_over)
    except Exception:
        session.abandon()
        with suppress(trio.BrokenResourceError):
            await socket.send(CRASHED)
        await socket.close_gently()
        raise
    finally:
        server_state.leave(session)
        session.abandon()


@final
class Session:
    """The state of one connection."""

    def __init__(self, server_state: ServerState, caller: str, socket: Socket, headers: Mapping[str, str]) -> None:
        self._server_state = server_state
        self._caller = caller
        self._headers = headers
        self._socket = socket
        self._turns = TurnQueue(server_state, caller, self._send)
        self._recent = Recent(server_state.response_store)
        self._streaming: dict[Streaming, None] = {}
        self._ready: list[Streaming] = []  # few, so that a deque would only use more memory
        self._unsaid: list[bytes] = []
        self._unsaid_bytes = 0
        self._wakeup = WakeupEvent()
        self._life: StateMachine[SessionState, SessionChange] = StateMachine(SessionState.OPEN, SESSION)
        self._ending: SocketEnding | None = None
        self._close: Close | None = None
        """How to close, once all active responses have ended."""
        self._cut_some = False
        self._said_goodbye = False
        """Whether either side has sent a close frame. If not, the connection broke, and the client may return to
        resume its responses.
        """
        self._expires = trio.current_time() + (server_state.config.websocket_lifetime_s or float("inf"))
        self._heartbeat = Heartbeat(socket, trio.current_time())
        self._ping_due = False
        self._is_reading = False
        self._reading = HeldBodies(server_state.bodies)
        """The message that is being decoded. Once it is admitted, it counts as a turn."""

    async def run(self, context: RequestContext, left_over: bytes) -> None:
        """Open the WebSocket, read and write until the end, then close it."""
        async with trio.open_nursery() as nursery:
            self._scope, self._soon = nursery.cancel_scope, nursery.start_soon
            socket: WebSocket | None = None
            with suppress(trio.BrokenResourceError):  # the client has disconnected, or does not read
                socket = await WebSocket.open(
                    self._socket,
                    context.request,
                    left_over=left_over,
                    protocol=plain_protocol(context.request.headers),
                    headers=[("x-request-id", context.request_id)],
                    max_bytes=self._server_state.config.max_body_bytes,
                    bodies=self._server_state.bodies,
                )
                try:
                    socket.receive(self._server_state.receiver, partial(self._note_arrival, socket), self._wakeup.wake)
                    await self._write(socket)
                except trio.Cancelled:
                    if context.cut_off is not None:
                        await self._part(socket, context.cut_off)
                    raise
                finally:
                    socket.stop_receiving()
            nursery.cancel_scope.cancel("the session has ended")
        self.abandon()
        if socket is not None and self._close is not None:
            await socket.close(*self._close)
        await self._socket.close_gently()

    def abandon(self) -> None:
        """Stop following all runs. This cancels the runs that have no other follower. After a broken connection,
        clients of the native protocol may resume their responses.
        """
        self._turns.abandon()
        if not self._said_goodbye and self._close is None:
            until = trio.current_time() + RESUME_SECONDS
            sent = [
                stored for stored in self._recent.responses if stored.ended_at + RESUME_SECONDS > trio.current_time()
            ]
            for stored in (*sent, *(each.stored for each in self._streaming)):
                if native.is_native(stored.inbound):
                    self._server_state.response_store.linger(stored, until)
        for streaming in self._streaming:
            streaming.subscription.close()
        self._streaming.clear()
        self._recent.clear()

    # -- the clock, and the end --------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Send pings, and act on a dead peer, on the connection's lifetime and on an expired key."""
        beat = self._heartbeat.look(now)
        if beat is Beat.ABORT:
            self._socket.abort()
            self._scope.cancel("the client does not respond")
            return
        if beat is Beat.PING:
            self._ping_due = True
            self._wakeup.wake()
        self._recent.tidy()
        self._notice_expiry()
        if now >= self._expires and self._life.state is SessionState.OPEN:
            message = "The connection has reached its maximum lifetime; open a new one."
            refused = HttpError(400, "websocket_connection_limit_reached", message)
            self._end(SessionChange.EXPIRED, SocketEnding(refused, Close(1000, "lifetime")))

    def _notice_expiry(self) -> None:
        """Once the caller's key has expired, accept nothing new; active responses continue."""
        if self._life.state is SessionState.OPEN and self._server_state.access.has_expired(self._caller):
            self._end(SessionChange.EXPIRED, SocketEnding(wrong_key(), Close(1008, "the key has expired")))

    def drain(self) -> None:
        """Accept nothing new; close when the active responses have ended."""
        self._end(SessionChange.DRAINED, SocketEnding(shutting_down(), Close(1001, "shutting down")))

    def _end(self, change: SessionChange, ending: SocketEnding) -> None:
        self._life.change(change)
        self._ending = ending
        for turn in self._turns.clear():
            self._refuse(ending.refused, turn.head)
        self._wakeup.wake()

    def _next_close(self) -> Close | None:
        """Return how to close the WebSocket, if it is time to do so."""
        if self._ending is not None and self._turns.is_idle:
            if self._life.state is SessionState.ANNOUNCING:
                self._life.change(SessionChange.ANNOUNCED)
                self._send(encode_refusal(self._ending.refused, None, None))
            elif self._life.state is SessionState.FINISHING:
                self._life.change(SessionChange.FINISHED)
                self._close = Close(1012, "responses were cut off") if self._cut_some else self._ending.close
        return self._close if self._life.state is SessionState.CLOSING else None

    # -- reading -----------------------------------------------------------------------------------------------------

    def _note_arrival(self, socket: WebSocket) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._soon(self._read, socket)

    async def _read(self, socket: WebSocket) -> None:
        """Read the messages that have arrived."""
        try:
            while socket.has_arrived:
                message = socket.take()
                if isinstance(message, str):
                    await self._take(message)
                    self._reading.release_all()
                elif message is not None:
                    self._hang_up(1003, "text frames only")
                await trio.lowlevel.checkpoint()
        except Hangup as hangup:
            self._said_goodbye = not hangup.is_abnormal
            if hangup.code in FAULTS:
                self._life.change(SessionChange.HUNG_UP)
                self._close = Close(hangup.code)
            if hangup.payload is not None:
                await socket.answer_close(hangup.payload)
            elif self._close is not None:
                await socket.close(*self._close)  # now: the cancellation may cut off a write
            self._scope.cancel("the client closed the connection")
        finally:
            self._is_reading = False
            self._reading.release_all()

    def _hang_up(self, code: int, reason: str) -> None:
        if self._life.state is not SessionState.CLOSING:
            self._life.change(SessionChange.HUNG_UP)
            self._close = Close(code, reason)
        self._wakeup.wake()

    async def _take(self, text: str) -> None:
        head, size = ClientEventHead(), byte_count(text)
        with suppress(HttpError):  # if there is no room, a request is refused when it is admitted
            self._reading.hold(size)
        try:
            head = read_head(text)
            check_lane(head.stream_id)
            await self._act(head, text, size)
        except HttpError as refused:
            self._refuse(refused, head)
        except LLMClientError as exc:
            self._send(RESPONSES.error_event(exc.failure, stream_id=head.stream_id, event_id=head.event_id))

    async def _act(self, head: ClientEventHead, text: str, size: int) -> None:
        match head.type:
            case type_ if type_ in TURN_TYPES:
                self._admit(await read_turn(self._server_state, head, text, size, self._caller))
            case "response.cancel":
                cancel = await run_large(len(text), read, text, Cancel)
                await self._server_state.bring(cancel.response_id, self._caller)
                response_id, stop = self._turns.find(cancel)
                self._send(encode_cancelled(head, response_id))
                stop()
            case "response.steer":
                steer = read(text, Steer) if len(text) <= ECHOED_INPUT_CHARACTERS else Steer()
                self._send(encode_steer_failed(head, steer))
            case "response.processed":
                pass  # a notification for servers that keep more state
            case _:
                raise unknown_type(head)

    def _admit(self, turn: LaneTurn) -> None:
        self._notice_expiry()
        if self._ending is not None:
            raise self._ending.refused
        self._reading.release_all()
        self._start(self._turns.admit(turn))
        self._wakeup.wake()  # the writer waits for the deadline

    def _refuse(self, refused: HttpError, head: ClientEventHead) -> None:
        self._send(encode_refusal(refused, head.stream_id, head.event_id))

    def _send(self, frame: bytes) -> None:
        self._unsaid.append(frame)
        self._unsaid_bytes += len(frame)
        self._wakeup.wake()
        count = len(self._unsaid)
        if count > UNSAID_FRAMES or (count > 1 and self._unsaid_bytes > UNSAID_BYTES):
            self._hang_up(1008, "too many pending messages for a client that does not read")
            self._scope.cancel("the client sends requests faster than it reads")

    # -- beginning ---------------------------------------------------------------------------------------------------

    def _start(self, started: list[LaneTurn]) -> None:
        for turn in started:
            self._soon(self._begin, turn)

    async def _begin(self, turn: LaneTurn) -> None:
        head, server_state = turn.head, self._server_state
        try:
            try:
                stored, encoder = await begin_turn(server_state, turn, self._caller, self._headers, self._recent)
            finally:
                self._turns.begun(turn)
        except HttpError as refused:
            self._refuse(refused, head)
        except LLMClientError as exc:
            self._send(encode_failed(turn, exc.failure))
        else:
            streaming = Streaming(turn, stored, encoder, server_state, self._note_ready)
            server_state.response_store.resumed(stored.id)
            self._streaming[streaming] = None
            turn.begun(stored)
            streaming.wake()
            return
        self._start(self._turns.end(turn))
        self._wakeup.wake()

    def _note_ready(self, streaming: Streaming) -> None:
        self._ready.append(streaming)
        self._wakeup.wake()

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, socket: WebSocket) -> None:
        """Write frames as they become available, until the session is to be closed."""
        while True:
            if self._ping_due:
                self._ping_due = False
                socket.ping()
            if self._life.state is not SessionState.CLOSING and (payloads := self._gather()):
                await socket.send(payloads)
            elif socket.has_control:
                await socket.send_control()
            elif self._next_close() is not None:
                return
            elif not self._unsaid:
                await self._sleep(self._turns.next_deadline())
            self._turns.expire(trio.current_time())

    async def _sleep(self, deadline: float) -> None:
        if deadline == inf:
            await self._wakeup.wait()  # without a cancel scope, which would cost an idle connection memory
        else:
            with trio.CancelScope(deadline=deadline):
                await self._wakeup.wait()

    def _gather(self) -> list[bytes]:
        """Return the frames for one write: errors first, then those of each response in turn."""
        payloads, self._unsaid = self._unsaid, []
        self._unsaid_bytes = 0
        size = 0
        while self._ready and size < WRITE_BATCH_BYTES:
            streaming = self._ready.pop(0)
            for frame in streaming.next_frames():
                payloads.append(frame.data)
                size += len(frame.data)
            if streaming.subscription.end is not None:
                self._finish(streaming, streaming.subscription)
        return payloads

    async def _part(self, socket: WebSocket, kind: FailureKind) -> None:
        """Send the end of each incomplete response, and close the WebSocket. Called when the session is being
        cancelled.
        """
        has_crashed = kind is FailureKind.CRASHED
        close = Close(1011, "the runtime crashed") if has_crashed else Close(1012, "responses were cut off")
        self._end(SessionChange.DRAINED, SocketEnding(crashed() if has_crashed else shutting_down(), close))
        for streaming in self._streaming:
            streaming.subscription.shut(kind)
        with self._server_state.parting(), suppress(trio.BrokenResourceError):
            while payloads := self._gather():
                await socket.send_last(payloads)
            await socket.close(*close)

    def _finish(self, streaming: Streaming, subscription: RunSubscription) -> None:
        """Record that a response was sent completely."""
        del self._streaming[streaming]
        subscription.close()
        if isinstance(subscription.end, Failed):
            self._cut_some |= subscription.end.failure.kind is FailureKind.SHUTTING_DOWN
        elif isinstance(streaming.turn.work, Create | NativeRequest):
            self._recent.add(streaming.stored)
        self._start(self._turns.end(streaming.turn))
