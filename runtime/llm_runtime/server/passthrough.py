"""``/passthrough/{provider}/…``: requests that are sent to a vendor unchanged, if the caller's key allows that.

No byte of the body is read before the request is allowed. A large body is never in memory as a whole: its pieces are
passed on as they arrive, in both directions, at the pace of the slower side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import final
from urllib.parse import unquote

import msgspec
import trio

from llm_actors.provider import ClientGone, PassthroughRequest
from llm_actors.transport import StreamedBody
from llm_protocol.client_headers import IDEMPOTENCY
from llm_protocol.dialect import WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure
from llm_protocol.http1 import LAST_CHUNK, encode_chunk
from llm_protocol.passthrough import ids_of_created, is_plain, request_headers, vendor_path
from llm_runtime.server.bodies import own_key
from llm_runtime.server.http1 import BODILESS
from llm_runtime.server.http_error import SERVER_ERROR, HttpError
from llm_runtime.server.limits import CREATED_BYTES, PASSTHROUGH_BYTES, PASSTHROUGH_WHOLE_BYTES
from llm_runtime.server.request_context import Endpoint, RequestContext
from llm_runtime.server.run_response import with_retry_advice

PREFIX = "/passthrough/"

COST = ("x-llm-runtime-cost", "unknown")


def passing(context: RequestContext) -> Endpoint:
    """Return the endpoint for a request below `PREFIX`. The caller must be known. Raises `HttpError`."""
    request, server_state = context.request, context.server_state
    provider, _, rest = request.path.removeprefix(PREFIX).partition("/")
    provider = unquote(provider)
    if not is_plain(rest):
        message = "The path has an empty segment, a dot segment, or an encoded slash; write it plainly."
        raise HttpError(400, "passthrough_path", message, close=True)
    base = server_state.engine.upstream_base(provider)
    path = vendor_path(base or "", rest)
    rules = server_state.passthrough.get(context.caller, ())
    if base is None or not any(rule.allows(request.method, provider, path) for rule in rules):
        shown = f"{request.method} {provider}/{path}"[:200]
        message = f"This key may not send {shown}: see passthrough in [keys.{context.caller or 'NAME'}]."
        raise HttpError(403, "passthrough_not_allowed", message, close=True)
    if "upgrade" in request.headers:
        message = "Omit the header Upgrade: WebSockets and other upgrades cannot be passed through."
        raise HttpError(400, "passthrough_upgrade", message, close=True)
    context.streams_body = True

    async def endpoint(context: RequestContext) -> None:
        await _Passing(context, provider, path).run()

    return endpoint


@final
class _Passing:
    """One passthrough request. It also receives the provider's response: see `llm_actors.provider.ResponseSink`."""

    def __init__(self, context: RequestContext, provider: str, path: str) -> None:
        self._context = context
        self._provider = provider
        query = context.request.query
        self._path = f"{path}?{query}" if query else path
        self._response: PassedBody | None = None
        self._refused: HttpError | trio.BrokenResourceError | None = None
        """Why the client was given up."""
        self._created: bytearray | None = None
        """The response to a POST, for the ids in it."""

    async def run(self) -> None:
        """Send the request and pass the response on. Raises `HttpError` as long as no part of the response was sent,
        and `trio.BrokenResourceError` if the client has disconnected or the response was truncated.
        """
        context = self._context
        context.end_with_client()
        context.hold_body(PASSTHROUGH_BYTES)
        try:
            passed = await context.server_state.engine.pass_through(
                self._provider, await self._message(), caller=context.caller, request_id=context.request_id
            )
        except LLMClientError as exc:
            raise _refusal(exc.failure) from None
        finally:
            context.close = context.close or not context.body.is_read
        if self._response is None:
            if self._refused is not None:
                raise self._refused
            assert passed.failure is not None, "a request without a response must have failed"
            raise _refusal(passed.failure)
        if not passed.whole:
            context.abort()
            raise trio.BrokenResourceError("the response was truncated")
        await self._response.finish()
        self._note_created()

    async def _message(self) -> PassthroughRequest:
        context = self._context
        headers = context.request.headers
        secret, given = context.server_state.access.secret_of(context.caller), headers.get(IDEMPOTENCY)
        idempotency = None if given is None or secret is None else own_key(given, context.caller, secret)
        return PassthroughRequest(
            method=context.request.method,
            path=self._path,
            headers=request_headers(headers, idempotency),
            body=await self._body(),
            taker=self,
        )

    async def _body(self) -> bytes | StreamedBody:
        """Return a small body as bytes, so that it can be sent again, and a larger one as a stream of pieces."""
        request = self._context.request
        if request.chunks is not None:
            return StreamedBody(self._next_piece)
        if request.length > PASSTHROUGH_WHOLE_BYTES:
            return StreamedBody(self._next_piece, request.length)
        pieces: list[bytes] = []
        while piece := await self._context.body.next_piece():
            pieces.append(piece)
        return b"".join(pieces)

    async def _next_piece(self) -> bytes:
        try:
            return await self._context.body.next_piece()
        except (HttpError, trio.BrokenResourceError) as exc:
            self._refused = exc
            raise ClientGone from None

    async def begin(self, status: int, headers: tuple[tuple[str, str], ...], length: int | None) -> None:
        """See `ResponseSink`."""
        context = self._context
        is_json = any(name == "content-type" and value.startswith("application/json") for name, value in headers)
        if context.request.method == "POST" and status < 300 and is_json:
            self._created = bytearray()
        # After an early response the rest of the request is not read.
        context.close = context.close or not context.body.is_read
        self._response = PassedBody(context, status, (*headers, COST), length)
        with self._giving():
            await self._response.begin()

    async def send(self, data: bytes) -> None:
        """See `ResponseSink`."""
        if self._created is not None:
            self._created += data
            if len(self._created) > CREATED_BYTES:
                self._created = None
        assert self._response is not None, "the head must arrive before the body"
        with self._giving():
            await self._response.write(data)

    @contextmanager
    def _giving(self) -> Iterator[None]:
        try:
            yield
        except trio.BrokenResourceError as exc:
            self._refused = exc
            raise ClientGone from None

    def _note_created(self) -> None:
        """Record the ids that the vendor created for this caller: the caller may use them in later requests."""
        context = self._context
        if self._created and context.caller:
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                body = msgspec.json.decode(bytes(self._created))
                context.server_state.issued.issue(context.caller, list(ids_of_created(body)))


def _refusal(failure: Failure) -> HttpError:
    """Return this server's error for a request that received no response."""
    advice = with_retry_advice(WireResponse(failure.rule.status), failure).headers
    return HttpError(failure.rule.status, failure.kind.value, failure.message, kind=SERVER_ERROR, headers=advice)


@final
class PassedBody:
    """The body of the vendor's response to a passthrough request, framed for this client."""

    __slots__ = ("_context", "_head", "_is_bare", "_is_chunked")

    def __init__(
        self, context: RequestContext, status: int, headers: tuple[tuple[str, str], ...], length: int | None
    ) -> None:
        self._context = context
        self._head = context.passed_head(status, headers, length)
        self._is_bare = context.request.method == "HEAD" or status in BODILESS
        self._is_chunked = length is None and not context.close and not self._is_bare

    async def begin(self) -> None:
        """Send the head now: the first piece of the body may take long to arrive."""
        head, self._head = self._head, b""
        await self._context.send(head)

    async def write(self, data: bytes) -> None:
        """Send a piece."""
        if data and not self._is_bare:
            await self._context.send(encode_chunk(data) if self._is_chunked else data)

    async def finish(self) -> None:
        """Send the end of the body."""
        if self._is_chunked:
            await self._context.send(LAST_CHUNK)
