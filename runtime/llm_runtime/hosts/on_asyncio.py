"""The asyncio side of a runtime in another thread: calls, streams, the methods that make requests, and the block."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import Context, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import trio

from llm_actors.kernel.trace import exception_site
from llm_actors.orchestrator import StrategyFunction, Team
from llm_actors.run import Judge
from llm_actors.selector import Ranking
from llm_protocol.errors import ShuttingDownError
from llm_protocol.events import Event
from llm_protocol.requests import AUTO, AnyRequest, ChatRequest
from llm_protocol.response import LLMResponse, TokenCount
from llm_runtime.hooks import Middleware, Next, Observer, RunEvent
from llm_runtime.hosts.actions import Action, Actions
from llm_runtime.hosts.feed import Feed, Received
from llm_runtime.hosts.portal import Portal
from llm_runtime.requesting import RequestMethods
from llm_runtime.stream import Partials, TextPieces, wanted
from llm_runtime.tools import FunctionTool, ToolTooSlow
from llm_runtime.typed import ResponseType

if TYPE_CHECKING:
    from llm_runtime.runtime import Runtime
    from llm_runtime.statistics import Statistics

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
H = TypeVar("H")

JOIN_SECONDS: Final = 1.0
"""How long leaving the block waits for the runtime's thread to exit."""

CANCEL_SECONDS: Final = 1.0
"""How long a cancelled task waits for its call to end in the other thread."""


@final
class HostLoop:
    """The host's event loop, for the runtime's thread. Does nothing once the loop is closed."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._actions = Actions(self.loop.call_soon_threadsafe)

    def post(self, action: Action) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nothing waits
            self._actions.post(action)

    def check(self) -> None:
        """Raise `RuntimeError` in any other event loop."""
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError("this runtime was opened in another event loop: open one in each")


@final
class _Call:
    """One call into the runtime's thread, and its result."""

    def __init__(self, portal: Portal[Any], loop: HostLoop, fn: Callable[[Any], Awaitable[Any]]) -> None:
        self._ended = asyncio.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        self._call = portal.submit(fn, lambda result, error: loop.post(lambda: self._end(result, error)))
        self.watch: Callable[[], object] = lambda: None
        """Called when the call has ended."""

    def _end(self, result: object, error: BaseException | None) -> None:
        self._result, self._error = result, error
        self._ended.set()
        self.watch()

    @property
    def error(self) -> BaseException | None:
        """The exception it raised."""
        return self._error

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def result(self) -> Any:
        """Wait for the end. Cancelling this cancels the call, and waits at most `CANCEL_SECONDS` for it to end."""
        try:
            await self._ended.wait()
        except asyncio.CancelledError:
            await self.cancel()
            raise
        if self._error is not None:
            raise self._error
        return self._result

    async def cancel(self) -> None:
        """Cancel the call; returns when it has ended, after `CANCEL_SECONDS` at most."""
        if self.has_ended:
            return
        self._call.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), CANCEL_SECONDS)


@final
class AsyncioStream:
    """One streamed response: `llm_runtime.ResponseStream` for asyncio."""

    def __init__(self, portal: Portal[Any], loop: HostLoop, request: AnyRequest) -> None:
        self._portal = portal
        self._loop = loop
        self._request = request
        self._feed = Feed(
            request, lambda: loop.post(self._accept), lambda batch: loop.post(lambda: self._receive(batch))
        )
        self._received = Received(request, lambda: portal.post(self._feed.take))
        self._accepted = False
        self._news = asyncio.Event()
        self._call: _Call | None = None
        self.response_type: ResponseType[Any] | None = None

    async def __aenter__(self) -> AsyncioStream:
        self._loop.check()
        self._call = call = _Call(self._portal, self._loop, self._feed.run)
        call.watch = self._news.set
        try:
            await self._news.wait()
        except asyncio.CancelledError:
            await call.cancel()
            raise
        if not self._accepted and call.error is not None:
            raise call.error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._entered().cancel()

    @property
    def request_id(self) -> str:
        """The request's id."""
        return self._request.request_id

    @property
    def response(self) -> LLMResponse:
        """The complete response once the iteration is over; before that, the part received so far."""
        self._entered()
        return self._received.response

    def cancel(self) -> None:
        """End the response now; the iteration then raises `RequestCancelledError` with the partial response."""
        self._entered()
        self._portal.post(self._feed.cancel)

    def __aiter__(self) -> AsyncioStream:
        return self

    async def __anext__(self) -> Event:
        call = self._entered()
        while True:
            if (event := self._received.next()) is not None:
                return event
            if self._received.has_ended:
                raise StopAsyncIteration
            if call.error is not None:
                raise call.error
            self._news.clear()
            await self._news.wait()

    def text(self) -> AsyncIterator[str]:
        """The text alone, piece by piece as it arrives."""
        return TextPieces(self)

    def partials(self) -> AsyncIterator[Any]:
        """See `llm_runtime.ResponseStream.partials`."""
        return Partials(self.text(), wanted(self.response_type).partial)

    @property
    def parsed(self) -> Any:
        """See `llm_runtime.ResponseStream.parsed`."""
        return wanted(self.response_type).parse(self.response).parsed

    def _accept(self) -> None:
        self._accepted = True
        self._news.set()

    def _receive(self, batch: Sequence[Event]) -> None:
        self._received.add(batch)
        self._news.set()

    def _entered(self) -> _Call:
        if self._call is None:
            raise RuntimeError("use it as: async with rt.stream(...) as answer")
        return self._call


class AsyncioRequests(RequestMethods[AsyncioStream]):
    """The async methods of a runtime."""

    def __init__(self, portal: Portal[Any], loop: HostLoop) -> None:
        self._portal = portal
        self._loop = loop

    async def send(self, request: AnyRequest, *, judge: Judge | None = None) -> LLMResponse:
        """The complete response to ``request``. Raises `LLMClientError`."""
        here = None if judge is None else _judge_here(judge, self._portal, self._loop)
        return await self._ask(lambda rt: rt.send(request, judge=here))

    def stream_request(self, request: AnyRequest) -> AsyncioStream:
        """Stream the response to any request."""
        return AsyncioStream(self._portal, self._loop, request)

    async def models(self) -> dict[str, list[str]]:
        """See `llm_runtime.Runtime.models`."""
        return await self._ask(lambda rt: rt.models())

    async def explain(self, model: str = AUTO, *, caller: str = "") -> Ranking:
        """See `llm_runtime.Runtime.explain`."""
        return await self._ask(lambda rt: rt.explain(model, caller=caller))

    async def count_tokens(self, request: AnyRequest) -> TokenCount:
        """See `llm_runtime.Runtime.count_tokens`."""
        return await self._ask(lambda rt: rt.count_tokens(request))

    async def metrics(self) -> bytes:
        """See `llm_runtime.Runtime.metrics`."""
        return await self._ask(lambda rt: rt.metrics())

    async def statistics(self, caller: str | None = None) -> Statistics:
        """See `llm_runtime.Runtime.statistics`."""
        return await self._ask(lambda rt: rt.statistics(caller))

    async def _told(self, request: ChatRequest, tell: Callable[[Any], object]) -> LLMResponse:
        async with self.stream_request(request) as stream:
            async for event in stream:
                tell(event)
        return stream.response

    async def _run_tool(self, function: FunctionTool[..., Any], arguments: dict[str, Any], seconds: float) -> object:
        running = function(**arguments) if function.is_async else asyncio.to_thread(function, **arguments)
        bound = asyncio.timeout(seconds)
        try:
            async with bound:
                return await running
        except TimeoutError:
            if not bound.expired():
                raise  # an exception of the tool itself
            raise ToolTooSlow from None

    async def _run_all(self, jobs: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
        room = asyncio.Semaphore(limit)

        async def run(job: Callable[[], Awaitable[T]]) -> T:
            async with room:
                return await job()

        tasks: list[asyncio.Task[T]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks += [group.create_task(run(job)) for job in jobs]
        except* Exception as group_:  # only the first, as on Trio
            error = group_.exceptions[0]
        else:
            return [task.result() for task in tasks]
        raise error

    async def _ask(self, fn: Callable[[Runtime], Awaitable[T]]) -> T:
        self._loop.check()
        result: T = await _Call(self._portal, self._loop, fn).result()
        return result


def _judge_here(judge: Judge, portal: Portal[Any], loop: HostLoop) -> Judge:
    """``judge``, called in this thread's event loop and context at the request of the other thread."""
    context = copy_context()

    async def ask(responses: Sequence[LLMResponse]) -> int:
        async def act() -> int:
            verdict = judge(responses)
            return await verdict if isinstance(verdict, Awaitable) else verdict

        return await _run_here(act, portal, loop, context)

    return ask


def middleware_here(middleware: Middleware, portal: Portal[Any], loop: HostLoop) -> Middleware:
    """``middleware``, called in the host's event loop, in the context of the task that made the request."""

    async def around(request: AnyRequest, proceed: Next) -> LLMResponse:
        async def next_here(request: AnyRequest) -> LLMResponse:
            response: LLMResponse = await _Call(portal, loop, lambda _: proceed(request)).result()
            return response

        return await _run_here(lambda: middleware(request, next_here), portal, loop, copy_context())

    return around


def strategy_here(strategy: StrategyFunction, portal: Portal[Any], loop: HostLoop) -> StrategyFunction:
    """``strategy``, called in the host's event loop, in the context of the task that made the request."""

    async def carry_out(team: Team) -> LLMResponse | str:
        there = team.through(lambda call: _Call(portal, loop, lambda _: call()).result())
        return await _run_here(lambda: strategy(there), portal, loop, copy_context())

    return carry_out


def observer_here(observer: Observer, loop: HostLoop) -> Observer:
    """``observer``, called in the host's event loop."""
    running: set[asyncio.Future[Any]] = set()

    def call(event: RunEvent) -> None:
        try:
            result: Any = observer(event)
            if isinstance(result, Awaitable):
                task = asyncio.ensure_future(result, loop=loop.loop)
                running.add(task)
                task.add_done_callback(ended)
        except Exception as exc:
            log.error("an observer failed: %s", exception_site(exc))  # noqa: TRY400 - its text may hold anything

    def ended(task: asyncio.Future[Any]) -> None:
        running.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("an observer failed: %s", exception_site(exc))

    return lambda event: loop.post(lambda: call(event))


async def _run_here(fn: Callable[[], Awaitable[T]], portal: Portal[Any], loop: HostLoop, context: Context) -> T:
    """In the Trio thread: run ``fn`` in a task of the host's event loop, and wait for its result. Cancelling this
    cancels that task.
    """
    ended, results, errors = trio.Event(), list[T](), list[BaseException]()
    tasks: list[asyncio.Task[None]] = []

    async def act() -> None:
        try:
            results.append(await fn())
        except Exception as exc:
            errors.append(exc)
        except BaseException as exc:
            errors.append(exc)
            raise
        finally:
            with suppress(ShuttingDownError):
                portal.post(ended.set)

    loop.post(lambda: tasks.append(loop.loop.create_task(act(), context=context)))
    try:
        await ended.wait()
    finally:
        loop.post(lambda: [task.cancel() for task in tasks])
    if errors:
        raise errors[0] if isinstance(errors[0], Exception) else RuntimeError("the host cancelled it")
    return results[0]


def _current_task() -> asyncio.Task[Any]:
    with suppress(RuntimeError):
        task = asyncio.current_task()
        assert task is not None, "a coroutine of asyncio runs in a task"
        return task
    raise RuntimeError("llm_runtime.aio runs on asyncio; on Trio, use llm_runtime.open_runtime")


@asynccontextmanager
async def block(
    open_runtime: Callable[[Portal[R], HostLoop], AbstractAsyncContextManager[R]],
    make: Callable[[Portal[R], HostLoop, R], H],
) -> AsyncIterator[H]:
    """Open a runtime with ``open_runtime`` on Trio, around a block of an asyncio program, which receives the result of
    ``make``. It is a class, because asyncio closes all nested async generators at once at its end.

    If the runtime fails, the task in the block is cancelled, and the runtime's error is raised when the block has
    ended.
    """
    owner = _current_task()
    loop, opened, closed = HostLoop(), asyncio.Event(), asyncio.Event()
    portal: Portal[R] = Portal(lambda: open_runtime(portal, loop))
    runtimes: list[R] = []
    errors: list[BaseException] = []
    in_block = False

    def on_open(runtime: R | None, error: BaseException | None) -> None:
        runtimes.extend([runtime] if runtime is not None else [])
        errors.extend([error] if error is not None else [])
        opened.set()
        if runtime is None:
            closed.set()

    def on_close(error: BaseException | None) -> None:
        errors.extend([error] if error is not None else [])
        closed.set()
        if in_block and error is not None:
            owner.cancel()

    portal.start(
        lambda runtime, error: loop.post(lambda: on_open(runtime, error)),
        lambda error: loop.post(lambda: on_close(error)),
    )
    at_once = True
    try:
        await opened.wait()
        if not runtimes:
            raise errors.pop()
        in_block = True
        yield make(portal, loop, runtimes[0])
        at_once = False
    except asyncio.CancelledError:
        if not errors:
            raise
        owner.uncancel()  # this cancellation came from the runtime
    finally:
        in_block = False
        portal.stop(at_once=at_once)
        try:
            await closed.wait()
        except asyncio.CancelledError:
            portal.stop(at_once=True)
            await closed.wait()
            raise
        finally:
            portal.join(JOIN_SECONDS)
    if errors:
        raise errors[0]
