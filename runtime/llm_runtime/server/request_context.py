"""One HTTP request and its response, as an endpoint sees them."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias, final

from llm_actors.threads import LARGE_BYTES, run_large
from llm_protocol.dialect import WireResponse
from llm_protocol.failures import FailureKind
from llm_protocol.requests import new_request_id
from llm_runtime.server.bodies import StreamedRequestBody
from llm_runtime.server.client_wire import ANTHROPIC, OPENAI
from llm_runtime.server.content_encoding import decoded
from llm_runtime.server.http1 import Request, encode_head, encode_response
from llm_runtime.server.http_error import NO_SNIFFING, HttpError
from llm_runtime.server.receiver import Ticking
from llm_runtime.server.socket import Socket
from llm_runtime.server.state import ServerState
from llm_runtime.server.subscription import WakeupEvent

Endpoint: TypeAlias = "Callable[[RequestContext], Awaitable[None]]"
"""Handles one request. May raise `HttpError` before the response has begun."""


class RequestConnection(Protocol):
    """The part of a connection that handling a request uses."""

    @property
    def server_state(self) -> ServerState:
        """The state that all connections share."""
        ...

    @property
    def socket(self) -> Socket:
        """The socket that the response is written to."""
        ...

    @property
    def wakeup(self) -> WakeupEvent:
        """Wakes the connection's task."""
        ...

    @property
    def cut_off(self) -> FailureKind | None:
        """Why the connection is being cancelled; ``None`` if it is not, or if the client caused it."""
        ...

    def end_with_client(self) -> None:
        """From now until the response is sent, a disconnect of the client cancels the connection."""
        ...

    def hold_body(self, size: int) -> None:
        """Count ``size`` more bytes as the request's body. Raises `HttpError` if that exceeds the limit."""
        ...

    @property
    def body(self) -> StreamedRequestBody:
        """The request's body, if the endpoint reads it piece by piece."""
        ...


async def unanswered(context: RequestContext) -> None:
    """The endpoint of a request that has not been dispatched yet."""
    raise AssertionError(f"request {context.request_id} has no endpoint")


def refusing(refused: HttpError) -> Endpoint:
    """An endpoint that sends a refusal."""

    async def refuse(context: RequestContext) -> None:
        await context.refuse(refused)

    return refuse


_STREAMED = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))
"""Header fields of a streamed response. Without them, nginx buffers a stream for seconds."""


@final
class RequestContext:
    """Gives an endpoint its request, and sends its response: exactly one `reply` or `stream`."""

    __slots__ = (
        "_connection", "begun", "belongs", "caller", "close", "endpoint", "more_headers", "params", "request",
        "request_id", "server_state", "streaming", "streams_body", "upgraded", "wakeup", "wire",
    )  # fmt: skip

    def __init__(self, connection: RequestConnection, request: Request) -> None:
        self._connection = connection
        self.endpoint: Endpoint = unanswered
        self.server_state = connection.server_state
        self.wakeup = connection.wakeup
        """Wakes this connection's task."""
        self.request = request
        self.request_id = new_request_id()
        self.caller = ""
        self.params: Mapping[str, str] = {}
        self.wire = OPENAI
        """The wire that the client speaks."""
        self.begun = False
        self.belongs = False
        """Whether the caller is authenticated. Always true if no keys are configured."""
        self.close = False
        self.more_headers: tuple[tuple[str, str], ...] = ()
        """Header fields of a streamed response that are known only when it begins."""
        self.streaming: Ticking | None = None
        """The body of a streamed response, which is ticked."""
        self.streams_body = False
        """Whether the endpoint takes the request's body piece by piece: see `body`."""
        self.upgraded = False
        """Whether the connection becomes a WebSocket, instead of a response."""

    @property
    def target(self) -> str:
        """The path and query of the request, normalized: see `routes.find`."""
        request = self.request
        return f"{request.path}?{request.query}" if request.query else request.path

    @property
    def local_host(self) -> str:
        """The local address of the connection."""
        return self._connection.socket.local_host

    @property
    def peer_host(self) -> str:
        """The client's address."""
        return self._connection.socket.peer_host

    async def take_body(self) -> bytes:
        """Return the request's body, decompressed and without a byte order mark. Call this once: a large body must not
        stay in memory until the response is complete. The additional bytes count towards the bytes of all bodies in
        memory. Raises `HttpError`: 415 for an unknown encoding, 413 if the result is too large, 400 if the body is
        corrupt.
        """
        body, self.request.body = self.request.body, b""
        encodings = self.request.headers.get("content-encoding", "")
        if encodings:
            limit, before = self.server_state.config.max_body_bytes, len(body)
            # Always in a thread: a few hundred bytes may decompress to megabytes.
            body = await run_large(limit, decoded, body, encodings, limit)
            self.hold_body(len(body) - before)
        return body.removeprefix(BOM_UTF8) if body.startswith(BOM_UTF8) else body

    @property
    def body(self) -> StreamedRequestBody:
        """The request's body, piece by piece, if the endpoint ``streams_body``."""
        return self._connection.body

    def hold_body(self, size: int) -> None:
        """Count ``size`` more bytes as this request's body, until the response is complete. Raises `HttpError`."""
        self._connection.hold_body(size)

    def upgrade(self) -> None:
        """Let the connection become a WebSocket when the endpoint returns, instead of sending a response."""
        self.upgraded = True

    def end_with_client(self) -> None:
        """From now on, a disconnect of the client cancels the endpoint and ends the connection."""
        self._connection.end_with_client()

    @property
    def cut_off(self) -> FailureKind | None:
        """Why this connection is being cancelled; ``None`` if it is not, or if the client caused it."""
        return self._connection.cut_off

    async def reply(self, response: WireResponse) -> None:
        """Send a complete response."""
        self.close = self.close or self.server_state.draining
        self.begun = True
        bare = self.request.method == "HEAD"
        socket, headers = self._connection.socket, self._own_headers()
        if bare or len(response.body) < LARGE_BYTES:
            await socket.send(encode_response(response, headers, close=self.close, bare=bare))
            return
        await socket.send(encode_response(response, headers, close=self.close, bare=True))
        await socket.send(response.body)  # sent separately: appending it to the head would copy it

    async def refuse(self, refused: HttpError) -> None:
        """Send a refusal."""
        self.server_state.engine.refused(refused.code, is_limit=refused.is_limit)
        self.close = self.close or refused.close
        await self.reply(refused.response(self.wire.shape))

    def begin_stream(self, body: Ticking) -> Socket:
        """Begin a response whose ``body`` is sent piece by piece, and return the socket to write to. ``body`` is ticked
        until the response is complete.
        """
        self.close = self.close or self.server_state.draining or self.request.version == "1.0"
        self.streaming = body
        return self._connection.socket

    async def send(self, data: bytes) -> None:
        """Send bytes of a response that has begun."""
        await self._connection.socket.send(data)

    def passed_head(self, status: int, headers: tuple[tuple[str, str], ...], length: int | None) -> bytes:
        """Begin a response that comes from another server, and return its head. ``length``: the bytes of its body, if
        known.
        """
        self.begun = True
        self.close = self.close or self.server_state.draining or (length is None and self.request.version == "1.0")
        return encode_head(status, (*headers, *self._own_headers()), close=self.close, length=length)

    def abort(self) -> None:
        """Break the connection, so that the client does not take the part that was sent for a complete response."""
        self._connection.socket.abort()

    def stream_head(self, content_type: str) -> bytes:
        """The head of a streamed response."""
        self.begun = True
        headers = (("content-type", content_type), *_STREAMED, *self.more_headers, *self._own_headers())
        return encode_head(200, headers, close=self.close, length=None)

    def _own_headers(self) -> list[tuple[str, str]]:
        own = [("x-request-id", self.request_id), NO_SNIFFING]
        if self.wire is ANTHROPIC:
            own.append(("request-id", self.request_id))
        origin = self.request.headers.get("origin")
        if origin is not None and self.server_state.access.allows_origin(origin):
            own += [("access-control-allow-origin", origin), ("access-control-expose-headers", "*"), ("vary", "origin")]
        return own
