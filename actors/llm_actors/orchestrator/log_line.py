"""The log line that is written when a request ends, with the id of the request.

The text form is short; the JSON form contains the fields of `LogFields`. Neither contains a prompt or a key. A vendor's
message may quote the request, so words that also occur in the request are removed from the message.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from typing import Protocol, final, runtime_checkable

import msgspec
import trio

from llm_actors.orchestrator.decision_record import calls_in, count_calls
from llm_actors.run import Run
from llm_protocol.content import JsonObject
from llm_protocol.events import Finished
from llm_protocol.failures import Failure
from llm_protocol.requests import AnyRequest, ChatRequest, CodeRequest, CompletionRequest, EmbeddingRequest
from llm_protocol.response import LLMResponse
from llm_protocol.secret import redact

CLIENT_ID = "x-request-id"

MAX_CLIENT_ID = 200
"""The most characters of a client's own id that are logged."""

MAX_WORDS = 300
"""The most characters of a vendor's message that are logged."""

SEARCHED = 262_144
"""The most characters of a request that are searched for words of a vendor's message."""

WAIT_SECONDS = 0.02
"""The most seconds for which a line waits to be written with others, see `WaitingLines`."""

LINES_AT_ONCE = 64
"""The most lines that wait. When this many wait, all of them are written without waiting longer."""

LOGGER = __name__
"""The logger of the lines."""

log = logging.getLogger(LOGGER)

_WORD = re.compile(r"[^\s\"'`.,;:()\[\]{}<>=/]{5,}")


class LogFields(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The fields of a request's log line. Times are in milliseconds, the cost in US dollars."""

    id: str
    client_id: str = ""
    """The client's ``x-request-id``."""
    caller: str = ""
    model: str
    """The requested model or route."""
    deployment: str = ""
    """The deployment that responded, or that was called last."""
    status: int
    """The HTTP status for the end of the request."""
    failure: str = ""
    """The kind of the failure."""
    upstream_status: int | None = None
    upstream_words: str = ""
    """The vendor's message, without keys and without words of the request."""
    reason: str = ""
    """The runtime's own message, without words of the request, if no deployment was called."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None
    first_token_ms: float | None = None
    ms: float
    attempts: int
    """The number of attempts."""
    not_called: int = 0
    """The number of candidates that were not called: the circuit was open, or a limit or budget refused."""
    cache: str = ""
    """``hit`` or ``coalesced``; empty if the cache had no part."""
    adjusted: list[str] = []
    """The parameters that were changed or left out."""


def log_end(run: Run) -> LogFields | None:
    """Write the line, and return its fields; ``None`` for a run without a response."""
    end, request = run.log.end, run.request
    if end is None or end.response is None:
        return None
    response, decision = end.response, end.response.decision
    made = calls_in(decision)
    failure = None if isinstance(end, Finished) else end.failure
    fields = LogFields(
        id=request.request_id,
        client_id=request.forwarded.get(CLIENT_ID, "")[:MAX_CLIENT_ID],
        caller=request.caller,
        model=request.model,
        deployment=_deployment(response, made),
        status=200 if failure is None else failure.rule.status,
        ms=round(response.processing_time_ms, 1),
        attempts=count_calls(decision),
        not_called=len(decision.get("attempts", ())) - len(made),
        cost=response.cost,
        first_token_ms=_first_token(response, made),
        cache=decision.get("cache", "") if decision.get("cache") in ("hit", "coalesced") else "",
        adjusted=[each.in_words for each in response.adjusted],
    )
    if (usage := response.usage) is not None:
        fields.input_tokens, fields.output_tokens = usage.input_tokens, usage.output_tokens
        fields.cached_tokens, fields.reasoning_tokens = usage.cached_tokens, usage.reasoning_tokens
    if failure is not None:
        fields.failure, fields.upstream_status = failure.kind.value, failure.upstream_status
        fields.upstream_words = words_of(failure, request)
        if not fields.deployment:
            fields.reason = _without_request(failure.message, request)
    if log.isEnabledFor(logging.INFO):
        if _waiting is None:
            _write(fields, time.time())
        else:
            _waiting.add(fields)
    return fields


@runtime_checkable
class BatchHandler(Protocol):
    """A `logging.Handler` that can also write the lines of several requests without a `logging.LogRecord` for each."""

    def emit_requests(self, lines: Sequence[tuple[LogFields, float]]) -> None:
        """Write the lines of requests, each with the time of its end in seconds since the epoch."""
        ...


@final
class WaitingLines:
    """Lines that wait at most `WAIT_SECONDS`, so that several are written together. A line then takes a fraction of the
    time: written between two parts of a request, it would displace the request's code and data from the processor's
    caches. If the root logger's only handler is a `BatchHandler`, it gets all lines in one call.
    """

    def __init__(self) -> None:
        self._lines: list[tuple[LogFields, float]] = []
        self._news = trio.Event()

    def add(self, fields: LogFields) -> None:
        """Add the line of a request that has just ended."""
        self._lines.append((fields, time.time()))
        if len(self._lines) == 1:
            self._news.set()
        elif len(self._lines) >= LINES_AT_ONCE:
            self.write()

    def write(self) -> None:
        """Write all waiting lines."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        handlers = logging.getLogger().handlers
        if len(handlers) == 1 and isinstance(handlers[0], BatchHandler):
            handlers[0].emit_requests(lines)
            return
        for fields, ended_at in lines:
            _write(fields, ended_at)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled, collect the lines of this process, each for up to `WAIT_SECONDS`. Then write the remaining
        lines.
        """
        global _waiting
        before, _waiting = _waiting, self
        try:
            task_status.started()
            while True:
                await self._news.wait()
                await trio.sleep(WAIT_SECONDS)
                self._news = trio.Event()
                self.write()
        finally:
            _waiting = before
            self.write()


_waiting: WaitingLines | None = None


def _write(fields: LogFields, ended_at: float) -> None:
    record = log.makeRecord(log.name, logging.INFO, "", 0, "%s", (_Line(fields),), None, extra={"fields": fields})
    record.created, record.msecs = ended_at, ended_at % 1 * 1000
    log.handle(record)


class _Line:
    """The line as text, formatted only if a handler writes it."""

    __slots__ = ("_fields",)

    def __init__(self, fields: LogFields) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return line_text(self._fields)


def line_text(fields: LogFields) -> str:
    """Return the line in the text form."""
    caller = fields.caller and f" of {fields.caller}"
    ended = f"failed ({fields.failure})" if fields.failure else "completed"
    attempts = "1 attempt" if fields.attempts == 1 else f"{fields.attempts} attempts"
    text = (
        f"request {fields.id}{caller} {ended} by {fields.deployment or 'no provider'} in {fields.ms:.0f} ms, {attempts}"
    )
    if fields.reason:
        text += f", {fields.reason}"
    if fields.not_called:
        text += f", {fields.not_called} candidate{'s' * (fields.not_called != 1)} not called"
    if fields.cache:
        text += ", from the cache" if fields.cache == "hit" else ", shared with an equal request"
    if fields.first_token_ms is not None:
        text += f", first token after {fields.first_token_ms:.0f} ms"
    if fields.input_tokens:
        text += f", {fields.input_tokens} input and {fields.output_tokens} output tokens"
    if fields.cost:
        text += f", ${fields.cost:.6f}"
    if fields.upstream_status:
        text += f", upstream status {fields.upstream_status}"
    if fields.adjusted:
        text += f", adjusted: {', '.join(fields.adjusted)}"
    return text + (fields.client_id and f", client's id {fields.client_id}")


def _deployment(response: LLMResponse, made: list[JsonObject]) -> str:
    if response.provider:
        return f"{response.provider}/{response.model}"
    return f"{made[-1]['provider']}/{made[-1]['model']}" if made else ""  # its deadline passed during this attempt


def _first_token(response: LLMResponse, made: list[JsonObject]) -> float | None:
    """Return the time to the first token of the last attempt, in milliseconds from the beginning of the request."""
    if not made or made[-1].get("first_token_ms") is None:
        return None
    last = made[-1]
    before = max(0.0, response.processing_time_ms - float(last["duration_ms"]))
    return round(before + float(last["first_token_ms"]), 1)


def words_of(failure: Failure, request: AnyRequest) -> str:
    """Return a vendor's message without keys, and without words of the request, which some vendors quote."""
    return "" if failure.upstream_status is None else _without_request(failure.message, request)


def _without_request(message: str, request: AnyRequest) -> str:
    prompt = "\n".join(_texts(request))[:SEARCHED]
    message = _WORD.sub(lambda found: "…" if found[0] in prompt else found[0], message[: 4 * MAX_WORDS])
    return redact(message)[:MAX_WORDS]


def _texts(request: AnyRequest) -> Iterator[str]:
    match request:
        case ChatRequest():
            for message in request.messages:
                for part in message.content:
                    yield str(getattr(part, "text", "") or getattr(part, "arguments", "") or "")
        case CompletionRequest():
            yield request.prompt
            yield request.suffix or ""
        case EmbeddingRequest():
            yield from (str(each) for each in request.inputs)
        case CodeRequest():
            yield from (request.instruction, request.prefix or "", request.suffix or "")
            yield from (each.content for each in request.files)
        case _:
            yield request.prompt
