"""The request methods for runtimes that are used on Trio: one in this process, and one in a daemon."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, TypeVar

import trio

from llm_actors.run import Judge, Run
from llm_protocol.requests import AnyRequest, ChatRequest
from llm_protocol.response import LLMResponse
from llm_runtime.hooks import Hooks
from llm_runtime.hosts.tool_threads import MOST_THREADS
from llm_runtime.requesting import RequestMethods
from llm_runtime.stream import ResponseStream, outcome
from llm_runtime.tools import FunctionTool, ToolTooSlow

T = TypeVar("T")


class TrioRequests(RequestMethods[ResponseStream]):
    """All request methods except `submit`, which subclasses define."""

    @abstractmethod
    async def submit(self, request: AnyRequest, *, stream: bool, judge: Judge | None = None) -> Run:
        """Submit a request and return its run, for the caller to follow. Returns when the request is accepted; raises
        `LLMClientError` if it is not. The run is cancelled when its last follower leaves.
        """

    _hooks: Hooks | None = None
    """The hooks that are called around every run; ``None`` if there are none."""

    def stream_request(self, request: AnyRequest) -> ResponseStream:
        """Stream the response to any request."""
        return ResponseStream(lambda: self.submit_stream(request))

    async def submit_stream(self, request: AnyRequest) -> Run:
        """Submit a request for streaming, through the middleware. See `submit`."""
        if self._hooks is None or not self._hooks.has_middleware:
            return await self._observed(request, stream=True)
        return await self._hooks.stream(request, lambda request: self._observed(request, stream=True))

    async def send(self, request: AnyRequest, *, judge: Judge | None = None) -> LLMResponse:
        """Send ``request`` and return the complete response. Raises `LLMClientError`."""

        async def answer(request: AnyRequest) -> LLMResponse:
            run = await self._observed(request, stream=False, judge=judge)
            with run.follow():
                await run.log.wait_ended()
            return outcome(run)

        return await (answer if self._hooks is None else self._hooks.around(answer))(request)

    async def _observed(self, request: AnyRequest, *, stream: bool, judge: Judge | None = None) -> Run:
        if self._hooks is None:
            return await self.submit(request, stream=stream, judge=judge)
        return await self._hooks.submit(request, lambda request: self.submit(request, stream=stream, judge=judge))

    async def _told(self, request: ChatRequest, tell: Callable[[Any], object]) -> LLMResponse:
        async with self.stream_request(request) as stream:
            async for event in stream:
                tell(event)
        return stream.response

    async def _run_tool(self, function: FunctionTool[..., Any], arguments: dict[str, Any], seconds: float) -> object:
        with trio.move_on_after(seconds):
            if function.is_async:
                return await function(**arguments)
            name = f"llm-runtime tool {function.tool.name}"
            [result] = await trio.to_thread.run_sync(
                lambda: [function(**arguments)],  # in a list: Trio refuses a result that can be awaited
                thread_name=name,
                abandon_on_cancel=True,
                limiter=_tool_threads(),
            )
            return await result if isawaitable(result) else result
        raise ToolTooSlow

    async def _run_all(self, jobs: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
        results: dict[int, T] = {}
        errors: list[Exception] = []
        room = trio.CapacityLimiter(limit)

        async def run(place: int, job: Callable[[], Awaitable[T]]) -> None:
            async with room:
                try:
                    results[place] = await job()
                except Exception as exc:  # raised below, outside of the nursery's exception group
                    errors.append(exc)
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for place, job in enumerate(jobs):
                nursery.start_soon(run, place, job)
        if errors:
            raise errors[0]
        return [results[place] for place in range(len(jobs))]


_threads: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("threads for tools")


def _tool_threads() -> trio.CapacityLimiter:
    """Return the limiter for the threads of tools. Tools do not use Trio's default limiter: if tools that hang filled
    it, certificates and keys could not be read any more.
    """
    try:
        return _threads.get()
    except LookupError:
        limiter = trio.CapacityLimiter(MOST_THREADS)
        _threads.set(limiter)
        return limiter
