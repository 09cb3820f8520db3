"""The hooks that a program may attach to every run: observers, which receive events about it, and middleware, which
is called around it.

Both run in the program's process, even if the runtime is in a daemon. A runtime without hooks has no extra cost.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any, Final, TypeAlias, final

import msgspec
import trio

from llm_actors.kernel.errors import exception_site
from llm_actors.orchestrator import AttemptEnded as AttemptEnded
from llm_actors.orchestrator import AttemptStarted as AttemptStarted
from llm_actors.orchestrator.decision_record import calls_in
from llm_actors.run import LogLimitExceeded, Run
from llm_protocol.errors import LLMClientError, error_for
from llm_protocol.events import DELTAS, Event, Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import unfold
from llm_protocol.requests import AnyRequest, RequestType
from llm_protocol.response import FinishReason, LLMResponse, Usage

OBSERVED_EVENTS: Final = 1_024
"""The most events that wait for observers. Further events are dropped, counted, and reported as `EventsDropped`."""

FLUSH_SECONDS: Final = 1.0
"""The most seconds that the end of a runtime's block waits until the middleware has returned, and then until the
observers have received all events.
"""

MIDDLEWARE_LOG_BYTES: Final = 128 * 1024 * 1024
"""The largest streamed response, in bytes, that passes through middleware. The run's own limit is usually smaller."""

log = logging.getLogger(__name__)


class RunAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """A request was accepted."""

    request_id: str
    request_type: RequestType
    model: str
    stream: bool


class FirstToken(msgspec.Struct, frozen=True, kw_only=True):
    """The first piece of the response's content has arrived, ``seconds`` after the request was made."""

    request_id: str
    seconds: float


class RunFinished(msgspec.Struct, frozen=True, kw_only=True):
    """The response is complete. ``cost`` is the sum of all its attempts, in US dollars; ``None`` if it is unknown."""

    request_id: str
    response_id: str
    provider: str
    model: str
    finish_reason: FinishReason
    usage: Usage | None
    cost: float | None
    seconds: float


class RunFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The request was not accepted, or its response failed. ``cost`` is the cost of its attempts in US dollars."""

    request_id: str
    failure: Failure
    cost: float | None = None
    seconds: float = 0.0


class EventsDropped(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` events were dropped at this point, because observers were too slow."""

    count: int


RunEvent: TypeAlias = RunAccepted | AttemptStarted | AttemptEnded | FirstToken | RunFinished | RunFailed | EventsDropped
Observer: TypeAlias = Callable[[RunEvent], object]
"""A function that is called with every event, in order. If it returns an awaitable, that is awaited. Its exceptions
are logged.
"""

Next: TypeAlias = Callable[[AnyRequest], Awaitable[LLMResponse]]
Middleware: TypeAlias = Callable[[AnyRequest, Next], Awaitable[LLMResponse]]
"""``async def middleware(request, next)``: may change the request, ``await next(request)``, and return the response or
another one, or raise. It may respond without calling ``next``. It may call ``next`` again unless a part of a stream has
been passed on.
"""

Submit: TypeAlias = Callable[[AnyRequest], Awaitable[Run]]


@final
class Observers:
    """The queue of events for the observers. `tell` never waits."""

    def __init__(self, observers: Sequence[Observer], *, ends_attempts: bool = False) -> None:
        """``ends_attempts``: report attempts when their run has ended, from the decision record, because the runtime
        does not report them while they run (it is in a daemon).
        """
        self._ends_attempts = ends_attempts
        self._observers = tuple(observers)
        self._waiting: deque[RunEvent] = deque()
        self._dropped = 0
        self._more = trio.Event()
        self._is_idle = trio.Event()

    def tell(self, event: RunEvent) -> None:
        """Queue an event."""
        if len(self._waiting) >= OBSERVED_EVENTS:
            self._dropped += 1
            return
        self._waiting.append(event)
        self._more.set()

    async def run(self) -> None:
        """Pass events to the observers until cancelled."""
        while True:
            while self._waiting:
                await self._pass_on(self._waiting[0])
                self._waiting.popleft()  # not before: `flush` waits for it
                if self._dropped and len(self._waiting) < OBSERVED_EVENTS:
                    dropped, self._dropped = self._dropped, 0
                    self._waiting.append(EventsDropped(count=dropped))
            self._is_idle.set()
            self._more = trio.Event()
            self._is_idle = trio.Event()
            await self._more.wait()

    async def _pass_on(self, event: RunEvent) -> None:
        for observer in self._observers:
            try:
                result: Any = observer(event)
                if isawaitable(result):
                    await result
            except Exception as exc:
                log.error("an observer failed: %s", exception_site(exc))  # noqa: TRY400 - the text of exc may contain anything

    async def flush(self) -> None:
        """Wait until all events have been passed on, for at most `FLUSH_SECONDS`."""
        with trio.move_on_after(FLUSH_SECONDS, shield=True):
            while self._waiting:
                await self._is_idle.wait()

    def watch(self, run: Run) -> None:
        """Report a run that was accepted, from its beginning to its end."""
        request = run.request
        self.tell(
            RunAccepted(
                request_id=request.request_id,
                request_type=request.request_type,
                model=request.model,
                stream=run.stream,
            )
        )
        has_begun = False

        def look(event: Event) -> None:
            nonlocal has_begun
            if isinstance(event, DELTAS):
                if not has_begun:
                    has_begun = True
                    self.tell(FirstToken(request_id=request.request_id, seconds=run.elapsed_ms / 1000))
            elif isinstance(event, Finished | Failed):
                for ended in _attempts(request.request_id, event.response) if self._ends_attempts else ():
                    self.tell(ended)
                self.tell(_ended(run, event))

        for event in run.log.events:
            look(event)
        run.log.on_append = look


def _attempts(request_id: str, response: LLMResponse | None) -> Iterator[AttemptEnded]:
    for each in calls_in(response.decision) if response is not None else ():
        yield AttemptEnded(
            request_id=request_id,
            provider=each["provider"],
            model=each["model"],
            outcome=each["outcome"],
            duration_s=each["duration_ms"] / 1000,
            usage=msgspec.convert(each.get("usage"), Usage | None),
            cost=each.get("cost"),
        )


def _ended(run: Run, end: Finished | Failed) -> RunEvent:
    response, seconds = end.response, run.elapsed_ms / 1000
    if isinstance(end, Failed):
        cost = None if response is None else response.cost
        return RunFailed(request_id=run.request.request_id, failure=end.failure, cost=cost, seconds=seconds)
    assert response is not None, "the end of a run must have a response"
    return RunFinished(
        request_id=run.request.request_id,
        response_id=response.response_id,
        provider=response.provider,
        model=response.model,
        finish_reason=end.reason,
        usage=response.usage,
        cost=response.cost,
        seconds=seconds,
    )


@final
class Hooks:
    """The observers and the middleware of one runtime. The first middleware is the outermost."""

    def __init__(self, streams: trio.Nursery, observers: Observers | None, middleware: Sequence[Middleware]) -> None:
        """``streams``: the nursery of the tasks that pass streams through the middleware."""
        self._streams = streams
        self._middleware = tuple(middleware)
        self.observers = observers

    async def submit(self, request: AnyRequest, submit: Submit) -> Run:
        """Submit a request, and observe its run."""
        if self.observers is None:
            return await submit(request)
        try:
            run = await submit(request)
        except LLMClientError as exc:
            self.observers.tell(RunFailed(request_id=request.request_id, failure=exc.failure))
            raise
        self.observers.watch(run)
        return run

    @property
    def has_middleware(self) -> bool:
        """Whether there is any middleware."""
        return bool(self._middleware)

    def around(self, answer: Next) -> Next:
        """Return ``answer`` with the middleware around it."""
        for each in reversed(self._middleware):
            answer = _around(each, answer)
        return answer

    async def stream(self, request: AnyRequest, submit: Submit) -> Run:
        """Return an outer run, to which the events of an inner run are passed on. The middleware makes the inner run
        when it calls ``next``. Returns when the inner run is accepted. Raises `LLMClientError`.
        """
        outer = Run(request, stream=True, log_limit_bytes=MIDDLEWARE_LOG_BYTES)
        passage = _Passage(outer, submit)
        self._streams.start_soon(passage.run, self.around(passage.answer))
        try:
            await passage.decided.wait()
        except BaseException:
            outer.cancel("cancelled by the caller")
            raise
        if passage.refused is not None:
            raise passage.refused
        return outer


def _around(middleware: Middleware, answer: Next) -> Next:
    async def answered(request: AnyRequest) -> LLMResponse:
        response: object = await middleware(request, answer)
        if not isinstance(response, LLMResponse):
            raise TypeError(f"a middleware must return an LLMResponse, not {type(response).__name__}")
        return response

    return answered


@final
class _Passage:
    """One streamed response on its way through the middleware: the events of the inner run are appended to the log of
    the outer run.
    """

    def __init__(self, outer: Run, submit: Submit) -> None:
        self._outer = outer
        self._submit = submit
        self.decided = trio.Event()
        """Set when the response has begun, or when it is certain that it never will."""
        self.refused: Exception | None = None
        self._delivered: Run | None = None
        """The inner run whose events are passed on."""

    async def run(self, answer: Next) -> None:
        """Pass on the events of the run until its end. Raises nothing."""
        outer = self._outer
        with outer.scope:
            try:
                self._finish(await answer(outer.request))
            except LLMClientError as exc:
                self._fail(exc, exc.failure, exc.partial)
            except LogLimitExceeded as exc:
                words = f"the response exceeds {outer.log.limit_bytes // 2**20} MiB, the limit with middleware"
                self._fail(exc, Failure(kind=FailureKind.LOG_LIMIT, message=words, partial=True), None)
            except Exception as exc:  # raised by the program; its text may contain anything
                log.error("a middleware failed: %s", exception_site(exc))  # noqa: TRY400
                words = f"a middleware raised {type(exc).__name__}"
                self._fail(exc, Failure(kind=FailureKind.INTERNAL, message=words), None)
        outer.close()
        self.decided.set()

    def _fail(self, error: Exception, failure: Failure, partial: LLMResponse | None) -> None:
        if not self.decided.is_set():
            self.refused = error
        self._outer.fail(failure, partial)

    def _finish(self, response: LLMResponse) -> None:
        is_fresh = not len(self._outer.log)
        for event in unfold(response):
            if isinstance(event, Finished):
                self._outer.finish(event, response)
            elif is_fresh:  # the events of an inner run are in the log already
                self._outer.log.append(event)

    def _deliver(self, inner: Run, event: Event) -> None:
        self._delivered = self._delivered or inner
        if self._delivered is not inner:  # the middleware has called ``next`` twice at the same time
            raise RuntimeError("another response is already being delivered: next cannot be called again")
        self._outer.log.append(event)

    async def answer(self, request: AnyRequest) -> LLMResponse:
        """The innermost ``next``: make the request, and pass its events on."""
        if len(self._outer.log):
            raise RuntimeError("part of the response was already delivered: next cannot be called again")
        inner = await self._submit(request)
        self.decided.set()
        with inner.follow() as follower:
            while events := await follower.next():
                for event in events:
                    if not isinstance(event, Finished | Failed):
                        self._deliver(inner, event)
        end = inner.log.end
        if isinstance(end, Failed):
            raise error_for(end.failure, end.response)
        assert end is not None, "a follower that has come to the end must see an end"
        assert end.response is not None, "the end of a run must have a response"
        return end.response


@asynccontextmanager
async def hooked(
    observers: Sequence[Observer], middleware: Sequence[Middleware], *, ends_attempts: bool = False
) -> AsyncIterator[Hooks | None]:
    """Return the hooks of a block; ``None`` if there are neither observers nor middleware. Exceptions of the block
    propagate unchanged.
    """
    if not observers and not middleware:
        yield None
        return
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        active = Observers(observers, ends_attempts=ends_attempts) if observers else None
        if active is not None:
            nursery.start_soon(active.run)
        try:
            async with trio.open_nursery() as streams:
                try:
                    yield Hooks(streams, active, middleware)
                except trio.Cancelled:
                    raise
                except BaseException as exc:  # raised below, where no nursery wraps it
                    error = exc
                finally:
                    streams.cancel_scope.deadline = trio.current_time() + FLUSH_SECONDS
        finally:
            if active is not None:
                await active.flush()
            nursery.cancel_scope.cancel("the runtime is closed")
    if error is not None:
        raise error
