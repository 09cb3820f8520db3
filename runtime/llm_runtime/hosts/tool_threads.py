"""Tool calls without an event loop: the functions run in threads, all other code in the thread that waits for them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import copy_context
from functools import partial
from inspect import isawaitable, iscoroutine
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, final

from llm_protocol.content import ToolResult
from llm_runtime.tools import FunctionTool, ToolLoop, ToolTooSlow

MOST_THREADS: Final = 40
"""The most tool threads of one event loop, or of all runtimes without an event loop together. Abandoned threads count.
The number is Trio's default for `to_thread`.
"""

LONGEST_SECONDS: Final = threading.TIMEOUT_MAX / 2
"""The longest time limit of a tool, in seconds: some 146 years. Python's locks accept no infinite time limit."""

_room = threading.BoundedSemaphore(MOST_THREADS)


def start_thread(
    name: str, function: Callable[[], object], end: Callable[[object, BaseException | None], object]
) -> None:
    """Call the tool's ``function`` in a separate thread, with a copy of the caller's context variables. ``end`` is
    called in that thread with the result or the exception.
    """
    context = copy_context()

    def run() -> None:
        result: object = None
        error: BaseException | None = None
        try:
            result = context.run(function)
        except BaseException as exc:  # raised where the tool is awaited
            error = exc
        end(result, error)

    threading.Thread(target=run, name=f"llm-runtime tool {name}", daemon=True).start()


def refuse_async_tools(loop: ToolLoop) -> None:
    """Raise `TypeError` if one of the tools is async."""
    for function in loop.functions:
        if function.is_async:
            raise _async_tool(function)


def _async_tool(function: FunctionTool[..., Any]) -> TypeError:
    return TypeError(f"the tool {function.tool.name} must be a plain function: llm_runtime.sync cannot await it")


class _Started(NamedTuple):
    """A function that a job wants to run in a thread. Awaiting it passes it to `run_in_threads`, and returns the
    result.
    """

    name: str
    function: Callable[[], object]

    def __await__(self) -> Generator[_Started, object, object]:
        return (yield self)


async def run_tool(function: FunctionTool[..., Any], arguments: dict[str, Any]) -> object:
    """Return the result of a tool's function. Only jobs of `run_in_threads` may await this."""
    result = await _Started(function.tool.name, partial(function, **arguments))
    if isawaitable(result):
        if iscoroutine(result):
            result.close()
        raise _async_tool(function)
    return result


class _Ended(NamedTuple):
    place: int
    result: object
    error: BaseException | None


def run_in_threads(
    jobs: Sequence[Callable[[], Coroutine[Any, Any, ToolResult]]], *, parallel: int, seconds: float
) -> list[ToolResult]:
    """Return the results of ``jobs``, in order, running at most ``parallel`` at a time. The jobs may await only
    `run_tool`.

    A function that takes longer than ``seconds`` is abandoned in its thread, and its job gets `ToolTooSlow`. If a
    job raises an exception, all jobs end.
    """
    return _ToolThreads(jobs, seconds).run(parallel)


@final
class _ToolThreads:
    def __init__(self, jobs: Sequence[Callable[[], Coroutine[Any, Any, ToolResult]]], seconds: float) -> None:
        self._waiting = deque(enumerate(jobs))
        self._seconds = min(seconds, LONGEST_SECONDS)
        self._jobs: dict[int, Coroutine[Any, Any, ToolResult]] = {}
        self._deadlines: dict[int, float] = {}
        self._results: dict[int, ToolResult] = {}
        self._ended: SimpleQueue[_Ended] = SimpleQueue()

    def run(self, parallel: int) -> list[ToolResult]:
        try:
            while self._waiting or self._jobs:
                while self._waiting and len(self._jobs) < parallel:
                    place, job = self._waiting.popleft()
                    self._jobs[place] = job()
                    self._go_on(_Ended(place, None, None))
                if self._jobs:
                    self._wait()
        finally:
            for unfinished in self._jobs.values():
                unfinished.close()
        return [self._results[place] for place in sorted(self._results)]

    def _wait(self) -> None:
        """Wait until a function has ended, or the first deadline has passed."""
        place = min(self._deadlines, key=self._deadlines.__getitem__)
        try:
            ended = self._ended.get(timeout=max(0.0, self._deadlines[place] - time.monotonic()))
        except Empty:
            ended = _Ended(place, None, ToolTooSlow())
        if ended.place in self._deadlines:  # otherwise the call was left behind
            self._go_on(ended)

    def _go_on(self, ended: _Ended) -> None:
        """Continue a job with the result or exception of its last function, until the job is done or its next function
        runs in a thread.
        """
        place, job = ended.place, self._jobs[ended.place]
        self._deadlines.pop(place, None)
        try:
            started = job.send(ended.result) if ended.error is None else job.throw(ended.error)
        except StopIteration as end:
            self._results[place] = end.value
            del self._jobs[place]
            return
        if not isinstance(started, _Started):
            raise TypeError("approve must be a plain function: llm_runtime.sync cannot await it")
        self._deadlines[place] = time.monotonic() + self._seconds
        if not _room.acquire(timeout=self._seconds):
            self._ended.put(_Ended(place, None, ToolTooSlow()))
            return

        def report(result: object, error: BaseException | None) -> None:
            _room.release()
            self._ended.put(_Ended(place, result, error))

        try:
            start_thread(started.name, started.function, report)
        except BaseException:
            _room.release()
            raise
