"""One HTTP connection: one task, in its actor's cancel scope.

The task handles one request after another. The receiver delivers bytes concurrently, so a disconnect is noticed even
while a response is being produced or written. The ticker enforces timeouts. A WebSocket handshake ends the HTTP part:
the socket and any surplus bytes go to a WebSocket session.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Never, final

import trio

from llm_actors.kernel import Inbox
from llm_actors.kernel.errors import exception_site
from llm_protocol.failures import FailureKind
from llm_runtime.server.bodies import HeldBodies, StreamedRequestBody
from llm_runtime.server.http1 import CONTINUE, Request, RequestParser, encode_response
from llm_runtime.server.http_error import (
    NO_SNIFFING,
    SERVER_ERROR,
    HttpError,
    crashed,
    shutting_down,
    too_many_connections,
)
from llm_runtime.server.limits import BODY_SECONDS, MIN_RATE, PIPELINED_BYTES
from llm_runtime.server.request_context import RequestContext, refusing
from llm_runtime.server.routes import endpoint_of
from llm_runtime.server.socket import Socket
from llm_runtime.server.state import ServerState
from llm_runtime.server.subscription import WakeupEvent
from llm_runtime.server.transitions import ANSWERING, HTTP, UNREAD, HttpChange, HttpState, StateMachine

log = logging.getLogger("llm_runtime.server")


@final
class HttpConnection:
    """Serves one connected socket until the client or the server closes it."""

    __slots__ = (
        "_bodies",
        "_body",
        "_cancel",
        "_context",
        "_deadline",
        "_head_seconds",
        "_is_paused",
        "_life",
        "_parser",
        "_since",
        "cut_off",
        "server_state",
        "socket",
        "wakeup",
    )  # fmt: skip

    def __init__(self, socket: Socket, server_state: ServerState) -> None:
        self.socket = socket
        self.server_state = server_state
        self.wakeup = WakeupEvent()
        self._parser = RequestParser(server_state.config.max_body_bytes)
        self._life: StateMachine[HttpState, HttpChange] = StateMachine(HttpState.IDLE, HTTP)
        self._head_seconds = server_state.config.head_s
        self._deadline = trio.current_time() + self._head_seconds
        self._bodies = HeldBodies(server_state.bodies)
        self._is_paused = False
        """Whether nothing is received for a moment, because what has arrived is not parsed yet."""
        self.cut_off: FailureKind | None = None
        """Why the connection is being cancelled; ``None`` if it is not, or if the client caused it."""
        self._body: StreamedRequestBody | None = None
        self._since = 0.0
        self._context: RequestContext | None = None

    async def run(self, inbox: Inbox[Never], *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until the connection ends or is asked to stop, then close the socket. An exception in an endpoint
        propagates.
        """
        task_status.started()
        self._cancel = inbox.scope.cancel
        inbox.when_stopping(lambda: self._stop(crashed=inbox.failed))
        self.server_state.join(self)
        try:
            self.server_state.receiver.add(self.socket, self._take)
            upgraded = await self._serve_requests()
            self.server_state.receiver.remove(self.socket)
            if upgraded is not None:
                from llm_runtime.server.session import serve  # costs 40 ms, which plain HTTP does not need

                await serve(self.server_state, upgraded, self.socket, self._parser.left_over())
            elif self._life.state is HttpState.LAST_WORDS:
                await self.server_state.close_gently(self.socket)
        except trio.BrokenResourceError:
            pass  # a client that disconnected or does not read is an ordinary end; its request is cancelled already
        finally:
            self._bodies.release_all()
            self.server_state.admission.remove(self)
            self.server_state.leave(self)
            self.socket.close()

    def _stop(self, *, crashed: bool) -> None:
        self.cut_off = FailureKind.CRASHED if crashed else FailureKind.SHUTTING_DOWN
        self._cancel("the connection was asked to stop")

    # -- receiving ---------------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        self.wakeup.wake()
        if data and self._life.state in UNREAD:
            return
        if data:
            self._parser.feed(data)
            if self._body is not None and not self._body.is_read:
                self._body.note_arrival()
                return
            if self._life.state not in ANSWERING or self._parser.received <= PIPELINED_BYTES:
                return
            self.socket.abort()  # without reading, a disconnect would go unnoticed
        self._change(HttpChange.CLIENT_LEFT, "the client has disconnected")

    def hold_body(self, size: int) -> None:
        """Count ``size`` more bytes towards the body of the current request. Raises `HttpError`."""
        self._bodies.hold(size)

    @property
    def body(self) -> StreamedRequestBody:
        """The body of the current request, if the endpoint reads it piece by piece."""
        assert self._body is not None, "the endpoint must read the request's body piece by piece"
        return self._body

    def end_with_client(self) -> None:
        """From now until the response is complete, a disconnect ends the connection."""
        self._change(HttpChange.BOUND, "the client has disconnected")

    def _change(self, change: HttpChange, reason: str = "") -> None:
        """Apply a transition. If the new state cuts the connection off, cancel its task for ``reason``."""
        was = self._life.state
        if self._life.change(change) is HttpState.CUT and was is not HttpState.CUT:
            self._cancel(reason)

    # -- timeouts and drain ------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Act on timeouts that have passed."""
        if self._context is not None and self._context.streaming is not None:
            self._context.streaming.tick(now)
        if self._body is not None and self._body.is_hung_up():
            self._change(HttpChange.CLIENT_LEFT, "the client has disconnected")
        if self._life.state is HttpState.BODY:
            seconds = BODY_SECONDS + self._parser.received / MIN_RATE
            self._deadline = self._since + min(seconds, self.server_state.config.max_body_s)
        if now >= self._deadline:
            self._change(HttpChange.TOO_LATE)
            self.wakeup.wake()

    @property
    def peer_host(self) -> str:
        """The client's address; empty for a unix socket."""
        return self.socket.peer_host

    def evict(self) -> None:
        """Close now to make way for another connection. See `ConnectionAdmission`."""
        self._change(HttpChange.EVICTED, "the connection makes way for another")
        if self._life.state is HttpState.CUT:
            self.socket.abort()
        self.wakeup.wake()

    def hurry(self, seconds: float) -> None:
        """Allow ``seconds`` from now for the first request head."""
        self._head_seconds = seconds
        self._deadline = trio.current_time() + seconds

    def drain(self) -> None:
        """Close the connection after the current response, or now if there is none."""
        self._change(HttpChange.DRAINED)
        self.wakeup.wake()

    def _go_on(self, change: HttpChange, seconds: float) -> None:
        """Apply a transition that the connection itself causes. The new state times out after ``seconds``."""
        was = self._life.state
        self._change(change)
        if self._life.state is was:
            return
        if seconds == inf:
            self._deadline = inf
        else:
            self._since = trio.current_time()
            self._deadline = self._since + seconds

    # -- answering ---------------------------------------------------------------------------------------------------

    async def _serve_requests(self) -> RequestContext | None:
        """Serve requests until the last. Returns the request that upgrades to a WebSocket, if there is one."""
        while (context := await self._next_context()) is not None:
            self._go_on(HttpChange.ARRIVED, inf)
            self._context = context
            self.server_state.begin()
            try:
                await self._answer(context)
            finally:
                self.server_state.finish()
                self._context = None
                # the reference forms a cycle, which would keep both alive until garbage collection
                context.streaming = None
            self._bodies.release_all()
            if self._body is not None:
                self._body.receive_again()
                self._body = None
            if context.upgraded:
                self._change(HttpChange.UPGRADED)
                return context
            self._go_on(
                HttpChange.ANSWERED_LAST if context.close or self.server_state.draining else HttpChange.ANSWERED,
                self.server_state.config.keep_alive_s,
            )
            if self._life.state is not HttpState.IDLE:
                return None
        return None

    async def _next_context(self) -> RequestContext | None:
        """Return the next request, checked and complete; ``None`` if the connection has ended or must end.

        The key is in the head, so it is verified before any of the body is read. If a request is refused with an unread
        body, the connection is closed, because the end of that body is unknown.
        """
        context: RequestContext | None = None
        try:
            request = await self._arrival(self._parser.next_head)
            if request is None:
                return None
            context = RequestContext(self, request)
            is_here = self._judge(context)
            if context.streams_body:
                server_state = self.server_state
                self._body = StreamedRequestBody(
                    self._parser, self.socket, server_state.receiver, self.wakeup, self._take
                )
            elif not is_here and await self._arrival(self._next_whole) is None:
                return None
        except HttpError as refused:
            await self._end_refusing(refused, context)
            return None
        context.close = context.close or not request.keep_alive
        return context

    def _judge(self, context: RequestContext) -> bool:
        """Choose the endpoint, and return whether the body has been read. Raises `HttpError`, unless the connection can
        stay open after the refusal: then the endpoint sends the refusal.
        """
        admission = self.server_state.admission
        try:
            context.endpoint = endpoint_of(context, operators_only=admission.is_reserved(self))
        except HttpError as refused:
            if refused.close or self._parser.next() is None:
                raise
            context.endpoint = refusing(refused)
            return True
        if context.belongs:
            admission.mark_verified(self)
        context.close = admission.is_reserved(self)
        return False

    async def _arrival(self, read: Callable[[], Request | None]) -> Request | None:
        """Wait for the result of ``read``. Returns ``None`` if the connection has ended or must end. Raises
        `HttpError`.
        """
        while True:
            # another connection has taken its place, so it is too late to serve a request
            if self._life.state is HttpState.EVICTED:
                raise too_many_connections()
            if (request := read()) is not None:
                self._receive_again()
                return request
            match self._life.state:
                case HttpState.LATE | HttpState.DONE if self.server_state.admission.is_reserved(self):
                    raise too_many_connections()
                case HttpState.LEFT | HttpState.DONE:
                    return None
                case HttpState.LATE:
                    raise HttpError(408, "request_timeout", "The request took too long to arrive.", close=True)
            await self._progress()

    async def _progress(self) -> None:
        """Wait until more bytes of a request have arrived."""
        if self._parser.is_busy:
            self._pause()  # else more could arrive in each pass than is parsed in it
            await trio.lowlevel.checkpoint()
            return
        if self._parser.in_body:
            if self._life.state is not HttpState.BODY and self._parser.awaits_continue:
                self._pause()  # the client may send without waiting for this, and read nothing
                await self.socket.send(CONTINUE)
            self._go_on(HttpChange.BODY_BEGINS, BODY_SECONDS)
        elif self._parser.received:
            self._go_on(HttpChange.HEAD_BEGINS, self._head_seconds)
        self._receive_again()
        await self.wakeup.wait()

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self.server_state.receiver.remove(self.socket)

    def _receive_again(self) -> None:
        if self._is_paused and not self.socket.closed:
            self._is_paused = False
            self.server_state.receiver.add(self.socket, self._take)

    async def _end_refusing(self, refused: HttpError, context: RequestContext | None) -> None:
        """Send a refusal, and read nothing more."""
        self._parser.discard()
        self._bodies.release_all()
        self._change(HttpChange.REFUSED)
        if context is None:
            self.server_state.engine.refused(refused.code, is_limit=refused.is_limit)
            await self.socket.send(encode_response(refused.response(), (NO_SNIFFING,), close=True, bare=False))
        else:
            context.close = True
            await context.refuse(refused)

    async def _answer(self, context: RequestContext) -> None:
        try:
            await context.endpoint(context)
        except HttpError as refused:
            await context.refuse(refused)
        except trio.BrokenResourceError:
            raise
        except trio.Cancelled:
            if self.cut_off is not None and not context.begun:
                with self.server_state.parting(), suppress(trio.BrokenResourceError):
                    await context.refuse(crashed() if self.cut_off is FailureKind.CRASHED else shutting_down())
            raise
        except Exception as exc:
            site = exception_site(exc)
            log.error("internal error in request %s; its connection is closed: %s", context.request_id, site)  # noqa: TRY400
            if not context.begun:
                message = "Internal error. The daemon's log has the details, with the x-request-id of this response."
                await context.refuse(HttpError(500, "server_error", message, kind=SERVER_ERROR, close=True))
            elif context.close:  # the client would take the end of the connection for the end of the body
                context.abort()
            raise

    def _next_whole(self) -> Request | None:
        """Return the next request if it is complete. The bytes of its body that have arrived are counted. Raises
        `HttpError`.
        """
        request = self._parser.next()
        here = self._parser.body_bytes if request is None else len(request.body)
        self._bodies.hold(here - self._bodies.size)
        return request
