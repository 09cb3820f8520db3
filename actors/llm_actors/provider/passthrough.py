"""One request that goes to the vendor as it is, and its answer that comes back as it is, piece by piece.

Nothing is kept but the body of an error, which is read for what it says about the provider. Waiting for the client is
bounded by whoever gives and takes the pieces; every other wait is bounded here.
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
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.passthrough import response_headers, target_of
from llm_protocol.policy import Timeouts

ERROR_BODY_BYTES = 256 * 1024
"""What is passed on of an error's body."""

JUDGED = frozenset((401, 402, 403, 429))
"""Statuses below 500 that say something about the provider, and not only about the request."""


class ClientGone(Exception):  # noqa: N818
    """The client has left, is too slow or sends what cannot be read: the request ends here."""


class ResponseSink(Protocol):
    """Where an answer goes. Raises nothing but `ClientGone`."""

    async def begin(self, status: int, headers: tuple[tuple[str, str], ...], length: int | None) -> None:
        """The head. ``length``: bytes of the body, where that is known."""
        ...

    async def send(self, data: bytes) -> None:
        """A piece of the body."""
        ...


class PassthroughRequest(Call["PassthroughResponse"], frozen=True, kw_only=True):
    """Send a request as it is. ``path`` is a `vendor_path` with its query. ``body`` raises nothing but `ClientGone`."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | StreamedBody
    taker: ResponseSink
    timeouts: Timeouts | None = None
    on_sent: Callable[[], None] | None = None


class PassthroughResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. ``status`` is the vendor's; 0: there was no answer. ``failure`` is what it means for the
    provider; where nothing of the answer had ``begun`` to reach the client, the client is told it.
    """

    status: int = 0
    failure: Failure | None = None
    begun: bool = False
    whole: bool = False
    """Whether all of the answer was given to the client."""
    duration_s: float = 0.0
    received: int = 0
    unsent: bool = False


@final
class PassthroughCall:
    """The state of one. Made, run once, thrown away."""

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
        """Carry it out. Raises nothing but `trio.Cancelled` and bugs."""
        began = trio.current_time()
        failure: Failure | None = None
        try:
            with self._scope:
                failure = await self._exchange()
        except ClientGone:
            failure = Failure(kind=FailureKind.CANCELLED, message="the client has disconnected")
        except TransportError as exc:
            self._unsent = isinstance(exc, UNSENT)
            failure = failure_of(exc, self._spec.name)
        if self._scope.cancelled_caught:
            message = f"{self._spec.name}: {self._waiting_for or 'no end of the request'}"
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
        """What comes next must be done within ``seconds``."""
        self._scope.deadline = min(self._latest, trio.current_time() + seconds)
        self._waiting_for = f"{otherwise} within {seconds:g} s"

    async def _exchange(self) -> Failure | None:
        spec, message = self._spec, self._message
        if spec.renewer is not None:
            await spec.renewer.refresh()
        used = spec.secret
        failure = await self._once()
        refused = failure is not None and failure.kind is FailureKind.AUTH and not self._begun
        if refused and spec.renewer is not None and await spec.renewer.renew(used) and isinstance(message.body, bytes):
            failure = await self._once()
        return failure

    async def _once(self) -> Failure | None:
        connect, total = self._timeouts.connect, self._timeouts.total
        self._scope.deadline = self._latest  # connecting has a limit of its own
        sending = self._transport.send(self._request(), connect_timeout=connect, on_sent=self._on_sent)
        async with sending as response:
            self._status = response.status
            if response.status < 400:
                return await self._pass_on(response)
            self._within(total, "no whole error")
            body = await response.read(ERROR_BODY_BYTES, cut=True)
            whole = WireResponse(response.status, tuple(response.headers.items()), body)
            failure = self._spec.dialect.decode_error(whole)
            if response.status == 401:  # it is our key that is refused; the vendor's words may show parts of it
                return msgspec.structs.replace(failure, message=f"{self._spec.name} refuses the configured key")
            await self._begin(response, len(body))
            await self._give(body)
            self._whole = True
            return failure if response.status in JUDGED or response.status >= 500 else None

    def _on_sent(self) -> None:
        if self._message.on_sent is not None:
            self._message.on_sent()
        self._within(self._timeouts.total, "no answer")

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
        """The next piece of the request's body, for which its client has a limit of its own."""
        body = self._message.body
        assert isinstance(body, StreamedBody)
        self._scope.deadline = self._latest
        piece = await body.receive()
        if piece:
            self._within(self._timeouts.idle, "the request's body was not taken")
        else:
            self._within(self._timeouts.total, "no answer")
        return piece

    async def _pass_on(self, response: HttpResponse) -> Failure | None:
        declared = response.headers.get("content-length", "")
        await self._begin(response, int(declared) if declared.isdecimal() else None)
        while True:
            self._within(self._timeouts.idle, "the answer did not go on")
            data = await response.receive()
            if not data:
                self._whole = True
                return None
            await self._give(data)

    async def _begin(self, response: HttpResponse, length: int | None) -> None:
        self._scope.deadline = self._latest
        self._begun = True
        await self._message.taker.begin(response.status, response_headers(response.headers), length)

    async def _give(self, data: bytes) -> None:
        self._received += len(data)
        self._scope.deadline = self._latest  # a client that does not read has a limit of its own
        await self._message.taker.send(data)
