"""Turn a run into an HTTP response, streamed or complete, for every dialect.

A streamed response is server-sent events, or one JSON array. An error tells the client whether to retry. SDKs retry by
default: without advice, three attempts of this daemon become nine, and the error about a wrong provider key arrives
half a minute late.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Protocol, final

import trio

from llm_actors.orchestrator.decision_record import count_calls
from llm_actors.run import Run
from llm_protocol.adjustments import HEADER as ADJUSTED
from llm_protocol.adjustments import Adjustment, header_value
from llm_protocol.codec.response_encoding import is_wanted, limit_fields
from llm_protocol.codec.sse import encode_sse
from llm_protocol.dialect import ClientRequest, Frame, ResponseEncoder, ServerDialect, WireResponse
from llm_protocol.events import Failed, Finished, Started
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.http1 import LAST_CHUNK, encode_chunk
from llm_protocol.response import LLMResponse
from llm_runtime.server.bodies import encode_body
from llm_runtime.server.http_error import JSON, LIMIT_OWNER
from llm_runtime.server.limits import LATER_SECONDS, SSE_PING_SECONDS
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.subscription import RunSubscription


class StreamFormat(Protocol):
    """Encodes frames as bytes. ``ping`` may be sent between the results of any two calls; clients ignore it, and it
    keeps the connection alive.
    """

    content_type: str
    ping: bytes

    def encode(self, frames: Iterable[Frame]) -> bytes:
        """The bytes of the next frames."""
        ...

    def end(self) -> bytes:
        """The bytes after the last frame."""
        ...


COMMENT = b": ping\n\n"
"""A comment, as the standard suggests; OpenAI's and Cohere's clients skip it."""

KEEP_ALIVES = {
    # Anthropic's clients know this event. Some count events, not bytes, to tell a slow response from a dead one.
    "anthropic": b'event: ping\ndata: {"type": "ping"}\n\n',
    # google-genai parses a comment as JSON and fails; LiteLLM returns an empty response. Both skip a blank line.
    "gemini": b"\n",
}
"""Keep-alives for wires whose clients need something else, by dialect. Tested by
`tests/clients/test_keep_alives.py`.
"""


@final
class Sse:
    """Server-sent events."""

    content_type = "text/event-stream; charset=utf-8"
    encode = staticmethod(encode_sse)

    def __init__(self, ping: bytes = COMMENT) -> None:
        self.ping = ping

    def end(self) -> bytes:
        """Return no bytes: only the end of the body ends server-sent events."""
        return b""


@final
class JsonArray:
    """The members of one JSON array, for Gemini clients that did not ask for ``alt=sse``."""

    content_type = "application/json"
    ping = b"\n"

    def __init__(self) -> None:
        from llm_protocol.codec.json_array import JsonArrayEncoder

        encoder = JsonArrayEncoder()
        self.encode = encoder.encode
        self.end = encoder.end


def stream_format_for(dialect: ServerDialect, inbound: ClientRequest) -> StreamFormat:
    """Return the stream format that the client asked for."""
    return JsonArray() if inbound.json_array else Sse(KEEP_ALIVES.get(dialect.name, COMMENT))


def respond(
    context: RequestContext, dialect: ServerDialect, inbound: ClientRequest, run: Run, *, hold: bool = True
) -> Awaitable[None]:
    """Respond with ``run``, streamed or complete, as the client asked for. The head of a stream waits for the run's
    first event, at most `hold_head_s` seconds; with ``hold`` false it does not wait.
    """
    if not inbound.stream:
        return _reply(context, dialect, inbound, run)
    hold_s = context.server_state.config.hold_head_s if hold else None
    return _stream(context, dialect, inbound, run, hold_s)


async def _reply(context: RequestContext, dialect: ServerDialect, inbound: ClientRequest, run: Run) -> None:
    await context.reply(await encode_end(dialect, inbound, await end_of(context, run)))


async def end_of(context: RequestContext, run: Run) -> Finished | Failed:
    """Wait for the end of a run, ignoring the events before it."""
    with context.server_state.subscribe(run, context.wakeup.wake, whole=True) as subscription:
        subscription.take()
        while subscription.end is None:
            await context.wakeup.wait()
            subscription.take()
        return subscription.end


async def encode_end(dialect: ServerDialect, inbound: ClientRequest, end: Finished | Failed) -> WireResponse:
    """Return the complete response to a request whose run has ended."""
    if isinstance(end, Finished):
        assert isinstance(end.response, LLMResponse), "the end of a run must have a response"
        return WireResponse(200, (JSON, *fact_headers(end.response)), await encode_body(dialect, inbound, end.response))
    return _encode_failed(dialect, inbound, end)


def fact_headers(response: LLMResponse) -> tuple[tuple[str, str], ...]:
    """Return the main facts of the decision record as header fields of the response."""
    decision = response.decision
    fields = (
        ("x-llm-runtime-provider", response.provider),
        ("x-llm-runtime-model", response.model),
        ("x-llm-runtime-attempts", str(count_calls(decision))),
        ("x-llm-runtime-cache", str(decision.get("cache", "off"))),
        ("x-llm-runtime-budget", str(decision.get("budgets", ""))),
        ("x-llm-runtime-cost", "" if response.cost is None else f"{response.cost:.8f}"),
    )
    # a value may come from a vendor
    own = [field for field in fields if field[1] and field[1].isascii() and field[1].isprintable()]
    return (*own, *_told_changes(response.adjusted)) if response.adjusted else tuple(own)


def _told_changes(adjusted: tuple[Adjustment, ...]) -> tuple[tuple[str, str], ...]:
    """The header that names the adjusted parameters of the request, if there are any."""
    value = header_value(adjusted)
    return () if value is None else ((ADJUSTED, value),)


def encode_failure(
    dialect: ServerDialect, failure: Failure, inbound: ClientRequest | None = None, *, calls: int = 0
) -> WireResponse:
    """Return a failure in the dialect's own format, after ``calls`` attempts, with retry advice for the client. The
    limit owner is in a header. If ``inbound`` has an ``llm_runtime`` object, it is in the body, too.
    """
    response = with_retry_advice(dialect.encode_error(failure), failure, calls)
    if failure.limited_by is None:
        return response
    response = response._replace(headers=(*response.headers, (LIMIT_OWNER, failure.limited_by)))
    if inbound is not None and is_wanted(inbound):
        response = response._replace(body=limit_fields(response.body, failure))
    return response


def _encode_failed(dialect: ServerDialect, inbound: ClientRequest, end: Failed) -> WireResponse:
    """Return the failure of a run, with the header fields of its decision record."""
    if end.response is None:
        return encode_failure(dialect, end.failure, inbound)
    response = encode_failure(dialect, end.failure, inbound, calls=count_calls(end.response.decision))
    return response._replace(headers=(*response.headers, *fact_headers(end.response)))


class FrameSource(Protocol):
    """The source of a stream: the frames of one run, or of several concurrent runs."""

    @property
    def end(self) -> Finished | Failed | None:
        """How the response ended; ``None`` before its end."""
        ...

    @property
    def begun(self) -> bool:
        """Whether a provider has begun to respond; see `RunSubscription`."""
        ...

    @property
    def adjusted(self) -> tuple[Adjustment, ...] | None:
        """The adjusted parameters of the request; ``None`` until they are known."""
        ...

    def start(self) -> list[Frame]:
        """The frames that the wire sends before the first event of the vendor."""
        ...

    def take(self) -> list[Frame]:
        """Return the frames of the events since the last call."""
        ...

    def shut(self, kind: FailureKind) -> None:
        """End the response now, with a failure of this ``kind``."""
        ...


@final
class _RunSource:
    """The frames of one run."""

    __slots__ = ("_encoder", "_subscription", "adjusted", "start")

    def __init__(self, subscription: RunSubscription, encoder: ResponseEncoder) -> None:
        self._subscription = subscription
        self._encoder = encoder
        self.adjusted: tuple[Adjustment, ...] | None = None
        self.start = encoder.start

    @property
    def end(self) -> Finished | Failed | None:
        return self._subscription.end

    @property
    def begun(self) -> bool:
        return self._subscription.begun

    def take(self) -> list[Frame]:
        events = self._subscription.take()
        for event in events:
            if type(event) is Started:  # of the latest attempt
                self.adjusted = event.adjusted
        return self._encoder.encode(events) if events else []

    def shut(self, kind: FailureKind) -> None:
        self._subscription.shut(kind)


async def _stream(
    context: RequestContext, dialect: ServerDialect, inbound: ClientRequest, run: Run, hold_s: float | None
) -> None:
    """Stream a run."""
    with context.server_state.subscribe(run, context.wakeup.wake) as subscription:
        source = _RunSource(subscription, dialect.response_encoder(inbound, run.response_id))
        await stream_from(context, dialect, inbound, source, hold_s)


@final
class BodyStream:
    """The body of a streamed response. Each piece is one write, framed as a chunk. Nothing is sent before the first
    piece, for which the client waits about ``hold_s`` seconds at most: see `is_idle`.
    """

    __slots__ = ("_chunked", "_content_type", "_context", "_quiet_until", "_socket", "begun", "is_idle")

    def __init__(self, context: RequestContext, content_type: str, hold_s: float) -> None:
        self._context = context
        self._socket = context.begin_stream(self)
        self._content_type = content_type
        self._chunked = not context.close
        self._quiet_until = trio.current_time() + hold_s
        self.begun = False
        self.is_idle = hold_s == 0
        """Whether nothing has been sent for the whole interval: since the response began, or since the last bytes."""

    async def write(self, data: bytes) -> None:
        """Send a piece."""
        await self._socket.send(self._noted(encode_chunk(data) if self._chunked else data))

    async def finish(self, data: bytes) -> None:
        """Send the last piece, which may be empty, and the end."""
        if self._chunked:
            data = encode_chunk(data) + LAST_CHUNK if data else LAST_CHUNK
        await self._socket.send(self._noted(data))

    def _noted(self, data: bytes) -> bytes:
        """Return the bytes to send for ``data``, the head before the first ones, and note that they are sent now."""
        if not self.begun:
            self.begun = True
            data = self._context.stream_head(self._content_type) + data
        self.is_idle = False
        self._quiet_until = trio.current_time() + SSE_PING_SECONDS
        return data

    def tick(self, now: float) -> None:
        """Update `is_idle`: check how long ago the last bytes were sent."""
        if now >= self._quiet_until:
            self.is_idle = True
            self._context.wakeup.wake()


async def stream_from(
    context: RequestContext, dialect: ServerDialect, inbound: ClientRequest, source: FrameSource, hold_s: float | None
) -> None:
    """Stream everything from ``source`` until its end.

    The head waits for the first event, at most ``hold_s`` seconds. Until then a failure is an ordinary HTTP error,
    which clients know how to handle. Frames that the wire sends before the vendor's first event are held back with
    the head. If ``hold_s`` is ``None``, nothing waits, and a failure is part of the stream.
    """
    framing, wakeup = stream_format_for(dialect, inbound), context.wakeup
    out = BodyStream(context, framing.content_type, hold_s or 0.0)
    held = source.start()

    async def send() -> bool:
        """Send what is available, and return whether that was the end."""
        nonlocal held
        frames, end = source.take(), source.end
        if isinstance(end, Failed) and not out.begun and not end.failure.partial:
            await context.reply(_encode_failed(dialect, inbound, end))
            return True
        if not out.begun and source.adjusted is not None:
            context.more_headers = _told_changes(source.adjusted)
        frames = [*held, *frames]
        if end is not None:
            await out.finish(framing.encode(frames) + framing.end())
            return True
        if not (out.begun or out.is_idle or source.begun):
            held = frames
            return False
        held = []
        if frames:
            await out.write(framing.encode(frames))
        elif out.is_idle:
            await out.write(framing.ping)
        return False

    try:
        if hold_s is None:
            await out.write(framing.encode(held) or framing.ping)
            held = []
        while not await send():
            await wakeup.wait()
    except trio.Cancelled:
        if context.cut_off is not None and out.begun:  # until then, an ordinary error response is possible
            source.shut(context.cut_off)
            with context.server_state.parting(), suppress(trio.BrokenResourceError):
                await send()
        raise


NO_RETRY = ("x-should-retry", "false")
"""A header that the SDKs of OpenAI and Anthropic obey for all statuses."""

_BUSY = (429, 503)
"""Statuses of temporary conditions."""


def with_retry_advice(response: WireResponse, failure: Failure, calls: int = 0) -> WireResponse:
    """Return the error response with advice. It has `NO_RETRY` if the client must not retry, and after more than one
    ``calls``, the attempts made by this daemon. It has Retry-After only if waiting helps.
    """
    headers = [(name, value) for name, value in response.headers if name not in (NO_RETRY[0], "retry-after")]
    seconds, rule = failure.told_retry_after, failure.rule
    if rule.client_retry and (seconds is not None or rule.status in _BUSY):
        headers.append(("retry-after", str(LATER_SECONDS if seconds is None else max(0, math.ceil(seconds)))))
    if calls > 1 or not failure.client_retry:
        headers.append(NO_RETRY)
    return response._replace(headers=tuple(headers))
