"""A passthrough: one request that is sent to the vendor unchanged, and its response, which is returned unchanged.

Both are passed on piece by piece. Only the body of an error is read completely, because it says what is wrong with the
provider. The server limits the waits for the client; all other waits are limited here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final

import msgspec
import trio

from llm_actors.kernel import Call
from llm_actors.provider.failures import UNSENT, failure_of
from llm_actors.provider.sanitize import clean_failure
from llm_actors.provider.spec import ProviderSpec
from llm_actors.transport import HttpRequest, HttpResponse, StreamedBody, Transport, TransportError
from llm_protocol.dialect import WireRequest, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.passthrough import response_headers, target_of
from llm_protocol.policy import Timeouts

ERROR_BODY_BYTES = 256 * 1024
"""The most bytes of an error's body that are passed on."""

PROVIDER_STATUSES = frozenset((401, 402, 403, 429))
"""Statuses below 500 that are failures of the provider, not only of the request."""


class ClientGone(Exception):  # noqa: N818
    """The client has left, is too slow or has sent an unreadable body, so the request ends."""


class ResponseSink(Protocol):
    """Passes a response on to the client, piece by piece. Its methods raise only `ClientGone`."""

    async def begin(self, status: int, headers: tuple[tuple[str, str], ...], length: int | None) -> None:
        """Pass on the status and the header. ``length``: bytes of the body, if known."""
        ...

    async def send(self, data: bytes) -> None:
        """Pass on a piece of the body."""
        ...


class PassthroughRequest(Call["PassthroughResponse"], frozen=True, kw_only=True):
    """Send a request unchanged. ``path`` is a `vendor_path` with its query. Reading ``body`` raises only
    `ClientGone`.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | StreamedBody
    taker: ResponseSink
    timeouts: Timeouts | None = None
    on_sent: Callable[[], None] | None = None


class PassthroughResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a passthrough. ``status`` is the vendor's status; 0 if there was no response. ``failure`` is
    ``None`` if the request counts as a success of the provider. The client receives the failure as an error, unless a
    part of a response has been sent (``begun``).
    """

    status: int = 0
    failure: Failure | None = None
    begun: bool = False
    whole: bool = False
    """Whether the whole response was passed to the client."""
    duration_s: float = 0.0
    received: int = 0
    unsent: bool = False


@final
class PassthroughCall:
    """One passthrough. Each object is run once."""

    def __init__(
        self, spec: ProviderSpec, transport: Transport, message: PassthroughRequest, scope: trio.CancelScope
    ) -> None:
        self._spec = spec
        self._transport = transport
        self._message = message
        self._timeouts = message.timeouts or spec.timeouts
        self._scope = scope
        self._latest = scope.deadline
        self._waiting_for = ""
        self._status = 0
        self._begun = False
        self._whole = False
        self._received = 0
        self._unsent = False

    async def run(self) -> PassthroughResponse:
        """Send the request and pass on the response. An exception from this is `trio.Cancelled` or a bug."""
        began = trio.current_time()
        failure: Failure | None = None
        try:
            with self._scope:
                failure = await self._exchange()
        except ClientGone:
            failure = Failure(kind=FailureKind.CANCELLED, message="the client has disconnected")
        except LLMClientError as exc:  # there is no key
            self._unsent = True
            failure = exc.failure
        except TransportError as exc:
            self._unsent = isinstance(exc, UNSENT)
            failure = failure_of(exc, self._spec.name)
        if self._scope.cancelled_caught:
            message = f"{self._spec.name}: {self._waiting_for or 'the deadline has passed'}"
            failure = Failure(kind=FailureKind.TIMEOUT_TOTAL, message=message)
        if failure is not None:
            failure = clean_failure(failure, self._spec.secret).at(
                provider=self._spec.name, model="", partial=self._begun
            )
        return PassthroughResponse(
            status=self._status,
            failure=failure,
            begun=self._begun,
            whole=self._whole,
            duration_s=trio.current_time() - began,
            received=self._received,
            unsent=self._unsent,
        )

    def _within(self, seconds: float, otherwise: str) -> None:
        """Set the deadline of the next step to ``seconds`` from now. ``otherwise`` begins the message if the deadline
        passes.
        """
        self._scope.deadline = min(self._latest, trio.current_time() + seconds)
        self._waiting_for = f"{otherwise} within {seconds:g} s"

    async def _exchange(self) -> Failure | None:
        spec, message = self._spec, self._message
        if spec.renewer is not None:
            await spec.renewer.refresh()
        used = spec.secret
        failure = await self._send_once()
        refused = failure is not None and failure.kind is FailureKind.AUTH and not self._begun
        if refused and spec.renewer is not None and await spec.renewer.renew(used) and isinstance(message.body, bytes):
            failure = await self._send_once()
        return failure

    async def _send_once(self) -> Failure | None:
        connect, total = self._timeouts.connect, self._timeouts.total
        self._scope.deadline = self._latest  # the transport limits the time to connect
        sending = self._transport.send(self._request(), connect_timeout=connect, on_sent=self._on_sent)
        async with sending as response:
            self._status = response.status
            if response.status < 400:
                return await self._pass_on(response)
            self._within(total, "no complete error response")
            body = await response.read(ERROR_BODY_BYTES, cut=True)
            whole = WireResponse(response.status, tuple(response.headers.items()), body)
            failure = self._spec.dialect.decode_error(whole)
            if response.status == 401:  # the configured key was refused, and the vendor's text may contain parts of it
                return msgspec.structs.replace(failure, message=f"{self._spec.name} refuses the configured key")
            await self._begin(response, len(body))
            await self._send_piece(body)
            self._whole = True
            return failure if response.status in PROVIDER_STATUSES or response.status >= 500 else None

    def _on_sent(self) -> None:
        if self._message.on_sent is not None:
            self._message.on_sent()
        self._within(self._timeouts.total, "no response")

    def _request(self) -> HttpRequest:
        message, spec = self._message, self._spec
        own = {name for name, _ in spec.headers} | {each.name for each in spec.vendor.account_headers.values()}
        if spec.auth_header is not None:
            own.add(spec.auth_header.name)
        headers = tuple((name, value) for name, value in message.headers if name not in own)
        http = spec.http_request(WireRequest(message.method, "", headers))
        target = target_of(spec.endpoint.base, message.path)
        query = http.target.partition("?")[2]
        if query:
            target += ("&" if "?" in target else "?") + query
        body = message.body
        if isinstance(body, StreamedBody):
            body = StreamedBody(self._next_piece, body.length)
        return HttpRequest(message.method, http.origin, target, http.headers, body, any_encoding=True)

    async def _next_piece(self) -> bytes:
        """Return the next piece of the request's body. The server limits the wait for its client."""
        body = self._message.body
        assert isinstance(body, StreamedBody)
        self._scope.deadline = self._latest
        piece = await body.receive()
        if piece:
            self._within(self._timeouts.idle, "the vendor did not read the body of the request")
        else:
            self._within(self._timeouts.total, "no response")
        return piece

    async def _pass_on(self, response: HttpResponse) -> Failure | None:
        declared = response.headers.get("content-length", "")
        await self._begin(response, int(declared) if declared.isdecimal() else None)
        while True:
            self._within(self._timeouts.idle, "nothing more of the response")
            data = await response.receive()
            if not data:
                self._whole = True
                return None
            await self._send_piece(data)

    async def _begin(self, response: HttpResponse, length: int | None) -> None:
        self._scope.deadline = self._latest
        self._begun = True
        await self._message.taker.begin(response.status, response_headers(response.headers), length)

    async def _send_piece(self, data: bytes) -> None:
        self._received += len(data)
        self._scope.deadline = self._latest  # the server limits the wait for a client that does not read
        await self._message.taker.send(data)
