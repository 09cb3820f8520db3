"""The provider's part of an attempt: adapt and send a request, and receive the response. Every wait has a limit.

The request is sent again over the wire's other API or with a renewed key, if the vendor asks for that.

One cancel scope limits all waits. Its deadline moves: first to the limit for the first token, then with each piece of
content, but never past the total limit. A new scope for each wait would cost more than decoding a token. The scope is
that of the call to the actor, so it is also cancelled when the caller leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import final

import msgspec
import trio

from llm_actors.deployment import AttemptResult
from llm_actors.provider.failures import UNSENT, failure_of
from llm_actors.provider.messages import Prepared, Sink
from llm_actors.provider.sanitize import Oddities, clean_end, clean_failure, clean_start
from llm_actors.provider.spec import ProviderSpec, ProviderWires
from llm_actors.run.log import LogLimitExceeded
from llm_actors.threads import run_large
from llm_actors.transport import BodyTooLarge, Broken, HttpResponse, Transport, TransportError
from llm_protocol.adjustments import Adjustment
from llm_protocol.codec.chat_adapter import spoken
from llm_protocol.codec.code_fences import CodeFenceStripper
from llm_protocol.dialect import ClientDialect, RateLimits, StreamDecoder, WireRequest, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.events import CONTENT, TERMINAL, Event, Failed, Finished, Started, UsageReported
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.model_rules import NO_SUCH_PATH, refuse_incapable
from llm_protocol.parameters import Adapted, EventFilter
from llm_protocol.parameters.requested import with_own_parameters
from llm_protocol.policy import Timeouts
from llm_protocol.requests import AnyRequest, CodeRequest, RequestType, answer_type, size_of
from llm_protocol.response import FinishReason, is_plausible

ERROR_BODY_BYTES = 256 * 1024
"""The most bytes of an error's body that are read."""

_NEVER_LONG_STREAMS = (RequestType.EMBEDDING, RequestType.IMAGE_GENERATION)
"""Types of responses whose size is limited even if they are streamed. For text, the run log limits the size."""

AFTER_END_SECONDS = 0.1
"""Seconds to wait for the end of the body after a complete response, so that the connection can be kept."""


@final
class ProviderCall:
    """One attempt. Each object is run once."""

    __slots__ = (
        "_adjusted",
        "_dialect",
        "_filters",
        "_first_token_at",
        "_ignored",
        "_latest",
        "_limits",
        "_oddities",
        "_on_sent",
        "_path",
        "_resent",
        "_scope",
        "_sink",
        "_spec",
        "_started",
        "_started_at",
        "_timeouts",
        "_transport",
        "_unsent",
        "_waiting_for",
    )  # fmt: skip

    def __init__(
        self,
        spec: ProviderSpec,
        transport: Transport,
        sink: Sink,
        timeouts: Timeouts,
        scope: trio.CancelScope,
        oddities: Oddities,
        on_sent: Callable[[], None] | None = None,
    ) -> None:
        self._spec = spec
        self._dialect = spec.dialect
        self._transport = transport
        self._sink = sink
        self._timeouts = timeouts
        self._started_at = trio.current_time()
        self._first_token_at: float | None = None
        self._limits: RateLimits | None = None
        self._latest = min(self._started_at + timeouts.total, scope.deadline)
        self._scope = scope
        self._on_sent = on_sent
        self._oddities = oddities
        self._ignored: set[str] = set()
        self._waiting_for = FailureKind.TIMEOUT_TOTAL
        self._adjusted: tuple[Adjustment, ...] = ()
        self._filters: list[EventFilter] = []
        self._started = False
        self._resent = False
        self._unsent = False
        self._path = ""

    async def run(self, request: AnyRequest, *, stream: bool, prepared: Prepared | None = None) -> AttemptResult:
        """Make the attempt and return its result. ``prepared``: the request as adapted to the vendor, if that is known.

        Every failure is part of the result: an exception from this is `trio.Cancelled` or a bug.
        """
        end: Finished | Failed | None = None
        if stream:
            self._wait_for(FailureKind.TIMEOUT_FIRST_TOKEN, self._timeouts.first_token)
        elif self._latest < self._scope.deadline:
            self._scope.deadline = self._latest
        try:
            with self._scope:
                end = await self._exchange(request, stream, prepared)
        except LLMClientError as exc:  # the wire cannot express this request
            end = Failed(failure=exc.failure)
        except (TransportError, LogLimitExceeded) as exc:
            self._unsent = isinstance(exc, UNSENT)
            end = Failed(failure=failure_of(exc, self._spec.name))
        return self._outcome(end or self._timed_out(), request.model)

    def _outcome(self, end: Finished | Failed, model: str) -> AttemptResult:
        now = trio.current_time()
        if isinstance(end, Failed):
            end = Failed(failure=self._located(end.failure, model))
        first = self._first_token_at
        if self._ignored:
            self._oddities.note_fields(sorted(self._ignored))
        if isinstance(end, Finished) and end.reason is FinishReason.UNKNOWN:
            self._oddities.note_reason(end.raw_reason or "")
        return AttemptResult(
            end=end,
            first_token_s=None if first is None else first - self._started_at,
            duration_s=now - self._started_at,
            limits=self._limits,
            resent=self._resent,
            unsent=self._unsent,
            wire=self._dialect.name,
        )

    def _located(self, failure: Failure, model: str) -> Failure:
        """Return the failure without keys, and with the provider and model, which a dialect does not know."""
        partial = failure.partial or self._first_token_at is not None
        clean = clean_failure(failure, self._spec.secret)
        return clean.at(provider=self._spec.name, model=model, partial=partial)

    def _timed_out(self) -> Failed:
        kind, limits = self._waiting_for, self._timeouts
        what = f"no complete response within {limits.total:g} s (timeouts.total)"
        if kind is FailureKind.TIMEOUT_FIRST_TOKEN:
            what = f"no first token within {limits.first_token:g} s (timeouts.first_token)"
        elif kind is FailureKind.TIMEOUT_IDLE:
            what = f"the stream was silent for {limits.idle:g} s (timeouts.idle)"
        return Failed(failure=Failure(kind=kind, message=f"{self._spec.name}: {what}"))

    def _wait_for(self, kind: FailureKind, seconds: float) -> None:
        """Set the deadline: the attempt fails with ``kind`` if no content arrives within ``seconds``."""
        deadline, self._waiting_for = trio.current_time() + seconds, kind
        if deadline >= self._latest:
            deadline, self._waiting_for = self._latest, FailureKind.TIMEOUT_TOTAL
        if deadline != self._scope.deadline:  # setting it costs more than comparing
            self._scope.deadline = deadline

    async def _exchange(self, request: AnyRequest, stream: bool, prepared: Prepared | None) -> Finished | Failed:
        """Send the request over the wire that it should take. If the vendor says that the wire is wrong, use the
        other one.
        """
        wires = self._spec.wires
        first = self._dialect = wires.of(request) if prepared is None else prepared.dialect
        end = await self._exchange_over(first, request, stream, prepared)
        if (other := wires.instead_of(first, end)) is None:
            return end
        self._dialect = other
        again = await self._exchange_over(other, request, stream)
        if isinstance(again, Failed) and again.failure.upstream_status in NO_SUCH_PATH:
            self._dialect = first
            return end  # both wires say "not found", so it is the model that does not exist
        if isinstance(again, Finished):
            wires.learn(other, request.model)
        return again

    async def _exchange_over(
        self, dialect: ClientDialect, request: AnyRequest, stream: bool, prepared: Prepared | None = None
    ) -> Finished | Failed:
        size = size_of(request)
        if prepared is None:
            adapted = await run_large(size, adapted_over, dialect, request)
        else:
            adapted = prepared.adapted
        sent = adapted.request
        self._adjusted = adapted.adjusted
        self._filters = [make() for make in adapted.filters]
        if isinstance(request, CodeRequest):
            self._filters.append(CodeFenceStripper())
        wire = await run_large(size, _encoded, dialect, sent, stream)
        self._path = wire.path
        renewer = self._spec.renewer
        if renewer is None:
            exchange = self._sent(wire)
            del wire  # free the memory: the prompt may be large, and the response may take long
            return await self._ask(exchange, request, sent, stream)
        await renewer.refresh()
        used = renewer.current
        end = await self._ask(self._sent(wire), request, sent, stream)
        if isinstance(end, Failed) and end.failure.kind is FailureKind.AUTH and await renewer.renew(used):
            end = await self._ask(self._sent(wire), request, sent, stream)
        return end

    def _sent(self, wire: WireRequest) -> AbstractAsyncContextManager[HttpResponse]:
        http = self._spec.http_request(wire)
        return self._transport.send(http, connect_timeout=self._timeouts.connect, on_sent=self._on_sent)

    async def _ask(
        self, exchange: AbstractAsyncContextManager[HttpResponse], request: AnyRequest, sent: AnyRequest, stream: bool
    ) -> Finished | Failed:
        dialect = self._dialect
        async with exchange as response:
            self._resent = response.resent
            self._limits = dialect.rate_limits(response.headers.fields)
            if not 200 <= response.status < 300:
                error = await response.read(ERROR_BODY_BYTES, cut=True)
                failure = dialect.decode_error(_wire(response, error))
                if response.status == 404:
                    self._oddities.note_not_found(self._spec.url_of(self._path))
                return Failed(failure=_with_hint(failure, response.headers.get("x-should-retry")))
            if stream:
                return await self._stream(response, dialect.stream_decoder(sent), request)
            whole = await _whole(response, self._most_bytes(request))
            return self._deliver(await run_large(len(whole.body), dialect.decode_response, sent, whole, self._ignored))

    def _most_bytes(self, request: AnyRequest) -> int:
        return self._spec.max_answer.bytes_for(self._response_type(request))

    def _response_type(self, request: AnyRequest) -> RequestType:
        return answer_type(request, draws=self._spec.dialect.rules.of(request.model).draws)

    async def _stream(self, response: HttpResponse, decoder: StreamDecoder, request: AnyRequest) -> Finished | Failed:
        end: Finished | Failed | None = None
        self._ignored = decoder.ignored
        is_bounded = self._response_type(request) in _NEVER_LONG_STREAMS
        most = self._most_bytes(request)
        received = 0
        while end is None:
            try:
                data = await response.receive()
            except Broken:
                # Some servers reset the connection right after their end marker: a complete response stays complete.
                data, events = b"", decoder.end()
                if not events or not isinstance(events[-1], Finished):
                    for event in events:
                        if type(event) is UsageReported:  # counts that the decoder held back until the end
                            self._sink(event)
                    raise
            else:
                received += len(data)
                if received > most and (is_bounded or decoder.is_whole):
                    raise BodyTooLarge(response.origin, f"the response's body has more than {most} bytes")
                gathered = received if decoder.is_whole else 0
                events = decoder.feed(data) if data else await run_large(gathered, decoder.end)
            if events:
                end = self._pass_on(events)
            assert end is not None or data, "a decoder's end() must return a terminal event"
        if isinstance(end, Finished) and self._scope.deadline - trio.current_time() > AFTER_END_SECONDS:
            # The response is complete. Neither a deadline nor surplus bytes may turn it into a failure.
            with suppress(TransportError), trio.move_on_after(AFTER_END_SECONDS):
                await response.receive()
        return end

    def _deliver(self, events: list[Event]) -> Finished | Failed:
        end = self._pass_on(events)
        assert end is not None, "a complete response must end with a terminal event"
        return end

    def _checked_end(self, end: Finished | Failed) -> Finished | Failed:
        """Return ``end``, or a failure if the vendor ended the response with an error or without any content."""
        if isinstance(end, Failed):
            return end
        is_empty = end.reason is FinishReason.UNKNOWN and self._first_token_at is None
        if end.reason is not FinishReason.ERROR and not is_empty:
            return clean_end(end, self._spec.secret)
        message = f"{self._spec.name}: the vendor ended its response with {(end.raw_reason or 'an error')[:100]}"
        return Failed(failure=Failure(kind=FailureKind.SERVER_ERROR, message=message, upstream_code=end.raw_reason))

    def _pass_on(self, events: list[Event]) -> Finished | Failed | None:
        for each in self._filters:
            events = each.feed(events)
        for event in events:
            if isinstance(event, TERMINAL):
                return self._checked_end(event)
            if type(event) is Started:
                self._start(event)
                continue
            if not self._started and self._adjusted:  # the vendor has sent no event for the start
                self._start(Started())
            if type(event) is UsageReported and not is_plausible(event.usage):
                continue
            if self._first_token_at is None and isinstance(event, CONTENT):
                self._first_token_at = trio.current_time()
            self._sink(event)
        if self._first_token_at is not None:
            self._wait_for(FailureKind.TIMEOUT_IDLE, self._timeouts.idle)
        return None

    def _start(self, event: Started) -> None:
        self._started = True
        self._sink(clean_start(event, self._spec.name, self._spec.secret, self._adjusted))


def adapted_to(wires: ProviderWires, request: AnyRequest) -> Prepared:
    """Return the request adapted to the provider, for the wire that it takes. Raises `LLMClientError` if the provider
    does not support it.
    """
    dialect = wires.of(request)
    return Prepared(dialect, adapted_over(dialect, request))


def adapted_over(dialect: ClientDialect, request: AnyRequest) -> Adapted:
    """Return the request adapted to the wire of ``dialect``. Raises `LLMClientError` if that wire does not support the
    request.
    """
    if request.parameters.extra:
        request = with_own_parameters(request, dialect.name)
    refuse_incapable(dialect.rules.of(request.model), request)
    if request.request_type not in dialect.request_types:
        request = spoken(request, dialect.request_types)
    return dialect.adapt(request)


def _encoded(dialect: ClientDialect, request: AnyRequest, stream: bool) -> WireRequest:
    return with_client_headers(dialect.encode_request(request, stream=stream), request)


def with_client_headers(wire: WireRequest, request: AnyRequest) -> WireRequest:
    """Return ``wire`` with the header fields of the client's request added. Fields that ``wire`` already has stay
    unchanged.
    """
    own, more = request.parameters.headers, request.forwarded
    if not (own or more):
        return wire
    known = dict(wire.headers)
    added = [each for each in (more | own if own else more).items() if each[0] not in known]
    return WireRequest(wire.method, wire.path, (*wire.headers, *added), wire.body) if added else wire


def _with_hint(failure: Failure, hint: str | None) -> Failure:
    """Return the failure with the vendor's advice about a retry: the header ``x-should-retry``, if it is valid."""
    if hint not in ("true", "false"):
        return failure
    return msgspec.structs.replace(failure, should_retry=hint == "true")


async def _whole(response: HttpResponse, limit: int) -> WireResponse:
    return _wire(response, await response.read(limit))


def _wire(response: HttpResponse, body: bytes) -> WireResponse:
    return WireResponse(response.status, response.headers.fields, body)
