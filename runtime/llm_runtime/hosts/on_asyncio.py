"""The asyncio side of a runtime in another thread: streams, and the methods that make requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, final

from llm_actors.run import Judge
from llm_actors.selector import Ranking
from llm_protocol.events import Event
from llm_protocol.requests import AUTO, AnyRequest, ChatRequest
from llm_protocol.response import LLMResponse, TokenCount
from llm_runtime.hosts.asyncio_functions import judge_here
from llm_runtime.hosts.asyncio_loop import AsyncioCall, HostLoop, Waiters
from llm_runtime.hosts.portal import Portal
from llm_runtime.hosts.stream import HostStream
from llm_runtime.hosts.tool_threads import MOST_THREADS, start_thread
from llm_runtime.requesting import RequestMethods
from llm_runtime.stream import Partials, TextPieces, wanted
from llm_runtime.tools import FunctionTool, ToolTooSlow

if TYPE_CHECKING:
    from llm_runtime.runtime import Runtime
    from llm_runtime.statistics import Statistics

T = TypeVar("T")


@final
class AsyncioStream(HostStream):
    """One streamed response: `llm_runtime.ResponseStream` for asyncio."""

    def __init__(self, portal: Portal[Any], loop: HostLoop, request: AnyRequest) -> None:
        self._waiters = Waiters(loop.loop)
        super().__init__(portal, request, loop.post, self._waiters.wake)
        self._loop = loop
        self._call: AsyncioCall | None = None

    async def __aenter__(self) -> AsyncioStream:
        self._loop.check()
        self._call = call = AsyncioCall(self._portal, self._loop, self._feed.run, waiters=self._waiters)
        try:
            await self._waiters.wait()
        except asyncio.CancelledError:
            await call.cancel()
            raise
        if not self._received.is_accepted and call.error is not None:
            raise call.error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        call = self._entered()
        self._is_left = True
        if not self._received.has_ended:  # otherwise the call ends without being cancelled, and need not be awaited
            await call.cancel()

    def __aiter__(self) -> AsyncioStream:
        return self

    async def __anext__(self) -> Event:
        while (event := self._received.next(self._resume)) is None:
            if self._received.has_ended:
                raise StopAsyncIteration
            if (error := self._entered().error) is not None:
                raise error
            await self._waiters.wait()
        return event

    def text(self) -> AsyncIterator[str]:
        """Iterate over the text alone, piece by piece as it arrives."""
        return TextPieces(self)

    def partials(self) -> AsyncIterator[Any]:
        """See `llm_runtime.ResponseStream.partials`."""
        return Partials(self.text(), wanted(self.response_type).partial)

    def _entered(self) -> AsyncioCall:
        if self._call is None:
            raise RuntimeError("this stream has not begun; use `async with rt.stream(...) as stream:`")
        return self._call


class AsyncioRequests(RequestMethods[AsyncioStream]):
    """The async methods of a runtime."""

    def __init__(self, portal: Portal[Any], loop: HostLoop) -> None:
        self._portal = portal
        self._loop = loop
        self._tool_threads = asyncio.Semaphore(MOST_THREADS)

    async def send(self, request: AnyRequest, *, judge: Judge | None = None) -> LLMResponse:
        """Send ``request`` and return the complete response. Raises `LLMClientError`."""
        here = None if judge is None else judge_here(judge, self._portal, self._loop)
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
        running = function(**arguments) if function.is_async else self._in_thread(function, arguments)
        bound = asyncio.timeout(seconds)
        try:
            async with bound:
                result: object = await running
                return await result if isawaitable(result) else result
        except TimeoutError:
            if not bound.expired():
                raise  # an exception of the tool itself
            raise ToolTooSlow from None

    async def _in_thread(self, function: FunctionTool[..., Any], arguments: dict[str, Any]) -> object:
        """Call a tool's function in a separate thread, and return its result. The threads of the loop's executor are
        not used: the program needs them, and asyncio waits for them at its end.
        """
        await self._tool_threads.acquire()
        ended: asyncio.Future[tuple[object, BaseException | None]] = self._loop.loop.create_future()

        def end(result: object, error: BaseException | None) -> None:
            self._tool_threads.release()
            if not ended.done():
                ended.set_result((result, error))

        def end_there(result: object, error: BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop is closed, so nothing waits
                self._loop.loop.call_soon_threadsafe(end, result, error)

        try:
            start_thread(function.tool.name, partial(function, **arguments), end_there)
        except BaseException:
            self._tool_threads.release()
            raise
        result, error = await ended
        if error is not None:
            raise error
        return result

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
        result: T = await AsyncioCall(self._portal, self._loop, fn).result()
        return result
