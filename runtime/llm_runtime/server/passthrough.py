"""``/passthrough/{provider}/…``: requests that go to a vendor as they are, for the callers whose key allows it.

The body is not read before the request is allowed, and never as a whole: pieces go on as they arrive, in both
directions, and whoever is slower decides how fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import final
from urllib.parse import unquote

import msgspec
import trio

from llm_actors.provider import ClientGone, PassOn
from llm_actors.transport import StreamedBody
from llm_protocol.dialect import WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure
from llm_protocol.passthrough import ids_of_created, is_plain, request_headers, vendor_path
from llm_protocol.wire_headers import IDEMPOTENCY
from llm_runtime.server.engine import own_key
from llm_runtime.server.http_error import SERVER_ERROR, HttpError
from llm_runtime.server.limits import CREATED_BYTES, PASSTHROUGH_BYTES, PASSTHROUGH_WHOLE_BYTES
from llm_runtime.server.request_context import Endpoint, PassedBody, RequestContext
from llm_runtime.server.retry_advice import with_retry_advice

PREFIX = "/passthrough/"

COST = ("x-llm-runtime-cost", "unknown")


def passing(exchange: RequestContext) -> Endpoint:
    """The endpoint for a request below `PREFIX`, whose caller is known. Raises `HttpError`."""
    request, service = exchange.request, exchange.service
    provider, _, rest = request.path.removeprefix(PREFIX).partition("/")
    provider = unquote(provider)
    if not is_plain(rest):
        message = "The path has an empty segment, a dot segment, or an encoded slash; write it plainly."
        raise HttpError(400, "passthrough_path", message, close=True)
    base = service.engine.upstream_base(provider)
    path = vendor_path(base or "", rest)
    rules = service.passthrough.get(exchange.caller, ())
    if base is None or not any(rule.allows(request.method, provider, path) for rule in rules):
        shown = f"{request.method} {provider}/{path}"[:200]
        message = f"This key may not send {shown}: see passthrough in [keys.{exchange.caller or 'NAME'}]."
        raise HttpError(403, "passthrough_not_allowed", message, close=True)
    if "upgrade" in request.headers:
        raise HttpError(400, "passthrough_upgrade", "A connection cannot be upgraded here.", close=True)
    exchange.streams_body = True

    async def endpoint(exchange: RequestContext) -> None:
        await _Passing(exchange, provider, path).run()

    return endpoint


@final
class _Passing:
    """One request. It is also where its answer goes: see `llm_actors.provider.Taker`."""

    def __init__(self, exchange: RequestContext, provider: str, path: str) -> None:
        self._exchange = exchange
        self._provider = provider
        query = exchange.request.query
        self._path = f"{path}?{query}" if query else path
        self._answer: PassedBody | None = None
        self._refused: HttpError | trio.BrokenResourceError | None = None
        """Why the client was given up."""
        self._created: bytearray | None = None
        """The response to a POST, for the ids in it."""

    async def run(self) -> None:
        """Carry it out. Raises `HttpError` while nothing was answered, and `trio.BrokenResourceError` when the client
        is gone or the answer was cut.
        """
        exchange = self._exchange
        exchange.end_with_client()
        exchange.hold_body(PASSTHROUGH_BYTES)
        try:
            with exchange.service.busy():
                passed = await exchange.service.engine.pass_through(
                    self._provider, await self._message(), caller=exchange.caller, request_id=exchange.request_id
                )
        except LLMClientError as exc:
            raise _refusal(exc.failure) from None
        finally:
            exchange.close = exchange.close or not exchange.body.is_read
        if self._answer is None:
            if self._refused is not None:
                raise self._refused
            assert passed.failure is not None, "a request without an answer has failed"
            raise _refusal(passed.failure)
        if not passed.whole:
            exchange.abort()
            raise trio.BrokenResourceError("the answer was cut")
        await self._answer.finish()
        self._note_created()

    async def _message(self) -> PassOn:
        exchange = self._exchange
        headers = exchange.request.headers
        secret, given = exchange.service.access.secret_of(exchange.caller), headers.get(IDEMPOTENCY)
        idempotency = None if given is None or secret is None else own_key(given, exchange.caller, secret)
        return PassOn(
            method=exchange.request.method,
            path=self._path,
            headers=request_headers(headers, idempotency),
            body=await self._body(),
            taker=self,
        )

    async def _body(self) -> bytes | StreamedBody:
        """A small body whole, so that it can be sent again; else where its pieces come from."""
        request = self._exchange.request
        if request.chunks is not None:
            return StreamedBody(self._next_piece)
        if request.length > PASSTHROUGH_WHOLE_BYTES:
            return StreamedBody(self._next_piece, request.length)
        pieces: list[bytes] = []
        while piece := await self._exchange.body.next_piece():
            pieces.append(piece)
        return b"".join(pieces)

    async def _next_piece(self) -> bytes:
        try:
            return await self._exchange.body.next_piece()
        except (HttpError, trio.BrokenResourceError) as exc:
            self._refused = exc
            raise ClientGone from None

    async def begin(self, status: int, headers: tuple[tuple[str, str], ...], length: int | None) -> None:
        """See `Taker`."""
        exchange = self._exchange
        is_json = any(name == "content-type" and value.startswith("application/json") for name, value in headers)
        if exchange.request.method == "POST" and status < 300 and is_json:
            self._created = bytearray()
        # What still comes of the request behind an early answer is not wanted.
        exchange.close = exchange.close or not exchange.body.is_read
        self._answer = exchange.passed_on(status, (*headers, COST), length)
        with self._giving():
            await self._answer.begin()

    async def send(self, data: bytes) -> None:
        """See `Taker`."""
        if self._created is not None:
            self._created += data
            if len(self._created) > CREATED_BYTES:
                self._created = None
        assert self._answer is not None, "the head is first"
        with self._giving():
            await self._answer.write(data)

    @contextmanager
    def _giving(self) -> Iterator[None]:
        try:
            yield
        except trio.BrokenResourceError as exc:
            self._refused = exc
            raise ClientGone from None

    def _note_created(self) -> None:
        """What the vendor made for this caller is the caller's to use."""
        exchange = self._exchange
        if self._created and exchange.caller:
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                body = msgspec.json.decode(bytes(self._created))
                exchange.service.issued.note(exchange.caller, ids_of_created(body))


def _refusal(failure: Failure) -> HttpError:
    """Why nothing came back, as an error of ours."""
    advice = with_retry_advice(WireResponse(failure.rule.status), failure).headers
    return HttpError(failure.rule.status, failure.kind.value, failure.message, kind=SERVER_ERROR, headers=advice)
