"""A run: the execution of one request, owned by the orchestrator.

A run has one cancel scope and one deadline, whether the request came from a program or over HTTP. When its last
follower leaves, it is cancelled. A background run is not cancelled: it waits for later followers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import TypeAlias, final

import msgspec
import trio

from llm_actors.run.log import LOG_LIMIT_BYTES, Follower, RunLog
from llm_protocol.client_headers import TraceContext
from llm_protocol.content import JsonObject
from llm_protocol.events import CONTENT, Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import Fold
from llm_protocol.requests import AnyRequest, new_response_id
from llm_protocol.response import LLMResponse, Usage

DESERTED = "all clients of this response have left"
"""The reason why a run is cancelled when its last follower has left."""

Judge: TypeAlias = Callable[[Sequence[LLMResponse]], int | Awaitable[int]]
"""A program's function that chooses among several responses: it returns the index of the best, or an awaitable of
it."""


@final
class Run:
    """One request in progress. ``started_at`` is when it was accepted, on Trio's clock; the deadline counts from then.
    ``judge`` chooses the best response for the strategy ``best_of``.
    """

    __slots__ = (
        "_cancelled_as", "background", "cancelled_because", "judge", "log", "request", "response_id", "scope",
        "started_at", "stream", "timed", "trace",
    )  # fmt: skip

    def __init__(
        self,
        request: AnyRequest,
        *,
        stream: bool,
        background: bool = False,
        response_id: str | None = None,
        log_limit_bytes: int = LOG_LIMIT_BYTES,
        judge: Judge | None = None,
        started_at: float | None = None,
        deadline_s: float = inf,
    ) -> None:
        self.request = request
        self.judge = judge
        self.stream = stream
        self.background = background
        self.response_id = response_id or new_response_id()
        self.started_at = trio.current_time() if started_at is None else started_at
        self.trace: TraceContext | None = None
        """The run's place in a trace; `None` if it is not traced."""
        self.timed: tuple[float, float] | None = None
        """The end of the run by the wall clock, and its duration in seconds. Set when the run has ended, for logs and
        traces.
        """
        self.scope = trio.CancelScope(deadline=self.started_at + deadline_s)
        self.cancelled_because: str | None = None
        self._cancelled_as = FailureKind.CANCELLED
        self.log = RunLog(limit_bytes=log_limit_bytes, on_deserted=None if background else self._deserted)

    def follow(self, start: int = 0, wake: Callable[[], None] | None = None, *, at_end: bool = False) -> Follower:
        """Return a follower of the log from event ``start`` on; see `RunLog.follow`."""
        return Follower(self.log, start, wake, at_end=at_end)

    def cancel(self, reason: str, kind: FailureKind = FailureKind.CANCELLED) -> None:
        """Cancel the run. Its log will end with a failure of this ``kind``, unless the log has already ended."""
        if self.log.end is None and self.cancelled_because is None:
            self.cancelled_because, self._cancelled_as = reason, kind
            self.scope.cancel(reason)

    @property
    def is_cancelled_by_client(self) -> bool:
        """Whether a client cancelled or deleted the response. False if the clients only disconnected, and for a run
        that a shutdown or a crash has ended.
        """
        return self.cancelled_because not in (None, DESERTED) and self._cancelled_as is FailureKind.CANCELLED

    def _deserted(self) -> None:
        self.cancel(DESERTED)

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the start."""
        return (trio.current_time() - self.started_at) * 1000

    @property
    def has_content(self) -> bool:
        """Whether any content was produced, even if it was retracted."""
        return any(isinstance(event, CONTENT) for event in self.log.events)

    def folded(
        self,
        *,
        provider: str = "",
        cost: float | None = None,
        decision: JsonObject | None = None,
        processing_time_ms: float | None = None,
    ) -> LLMResponse:
        """Return the response as it is now. ``processing_time_ms`` is the time since the start by default; pass it
        outside the thread of the runtime, where Trio's clock cannot be read.
        """
        fold = self.fold()
        return fold.response(
            request_id=self.request.request_id,
            response_id=self.response_id,
            provider=provider or fold.started.provider,
            model=self.request.model,
            processing_time_ms=self.elapsed_ms if processing_time_ms is None else processing_time_ms,
            cost=cost,
            decision=decision,
        )

    def fold(self) -> Fold:
        """Return the current events, folded into one response."""
        return Fold().add_all(self.log.events)

    def finish(self, end: Finished, response: LLMResponse) -> None:
        """Close the log with the success ``end``, and with the complete ``response``."""
        self.log.append(Finished(reason=end.reason, raw_reason=end.raw_reason, response=response))

    def fail(self, failure: Failure, response: LLMResponse | None = None) -> None:
        """Close the log with a failure. Does nothing if the log has already ended."""
        if self.log.end is None:
            self.log.append(Failed(failure=failure, response=response or self.folded(provider=failure.provider or "")))

    def close(
        self,
        decision: JsonObject | None = None,
        tried: str = "",
        *,
        usage: Usage | None = None,
        cost: float | None = None,
    ) -> None:
        """Close the log with a failure if it has no end yet. ``decision`` and ``tried`` (text for the failure's
        message) describe the attempts until now; ``usage`` and ``cost`` are their sums.
        """
        if self.log.end is None:
            message = "; ".join(filter(None, (self._words(), tried)))
            failure = Failure(kind=self._why(), message=message, partial=self.has_content)
            partial = self.folded(decision=decision, cost=cost)
            self.fail(failure, partial if usage is None else msgspec.structs.replace(partial, usage=usage))

    def _why(self) -> FailureKind:
        if self.cancelled_because is not None:
            return self._cancelled_as
        return FailureKind.DEADLINE if self.is_late else FailureKind.SHUTTING_DOWN

    def _words(self) -> str:
        if self.cancelled_because is not None:
            return self.cancelled_because
        if self.is_late:
            return f"no complete response within the request's deadline of {self.scope.deadline - self.started_at:g} s"
        return "the runtime is shutting down"

    @property
    def is_late(self) -> bool:
        """Whether the deadline of the run has passed."""
        return trio.current_time() >= self.scope.deadline
