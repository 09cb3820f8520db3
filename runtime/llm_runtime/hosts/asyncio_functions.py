"""Functions of an asyncio program that the runtime's thread calls: they run in the host's event loop and context."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from inspect import iscoroutinefunction
from typing import Any, TypeVar

import trio

from llm_actors.kernel.errors import exception_site
from llm_actors.orchestrator import StrategyFunction, Team
from llm_actors.run import Judge
from llm_protocol.errors import ShuttingDownError
from llm_protocol.requests import AnyRequest
from llm_protocol.response import LLMResponse
from llm_runtime.hooks import Middleware, Next, Observer, RunEvent
from llm_runtime.hosts.asyncio_loop import AsyncioCall, HostLoop
from llm_runtime.hosts.portal import Portal

log = logging.getLogger(__name__)

T = TypeVar("T")


def judge_here(judge: Judge, portal: Portal[Any], loop: HostLoop) -> Judge:
    """Return a judge that the other thread can call. ``judge`` runs in the event loop and with the context variables of
    the caller of this function.
    """
    context = copy_context()

    async def ask(responses: Sequence[LLMResponse]) -> int:
        async def act() -> int:
            verdict = judge(responses)
            return await verdict if isinstance(verdict, Awaitable) else verdict

        return await _run_here(act, portal, loop, context)

    return ask


def middleware_here(middleware: Middleware, portal: Portal[Any], loop: HostLoop) -> Middleware:
    """Return middleware that the other thread can call. ``middleware`` runs in the host's event loop, with the context
    variables of the task that made the request.
    """

    async def around(request: AnyRequest, proceed: Next) -> LLMResponse:
        async def next_here(request: AnyRequest) -> LLMResponse:
            response: LLMResponse = await AsyncioCall(portal, loop, lambda _: proceed(request)).result()
            return response

        return await _run_here(lambda: middleware(request, next_here), portal, loop, copy_context())

    return around


def strategy_here(strategy: StrategyFunction, portal: Portal[Any], loop: HostLoop) -> StrategyFunction:
    """Return a strategy that the other thread can call. ``strategy`` runs in the host's event loop. The calls that it
    makes into the runtime end when it ends, or when its run is cancelled.
    """

    async def carry_out(team: Team) -> LLMResponse | str:
        answers: list[LLMResponse | str] = []
        errors: list[Exception] = []
        async with trio.open_nursery() as calls:
            there = team.through(lambda call: AsyncioCall(portal, loop, lambda _: call(), nursery=calls).result())
            try:
                answers.append(await _run_here(lambda: strategy(there), portal, loop, copy_context()))
            except Exception as exc:  # raised below, where no nursery wraps it
                errors.append(exc)
            calls.cancel_scope.cancel("the strategy has ended")
        if errors:
            raise errors[0]
        return answers[0]

    return carry_out


def observer_here(observer: Observer, portal: Portal[Any], loop: HostLoop) -> Observer:
    """Return an observer that the Trio thread can call. ``observer`` runs in the host's event loop. If it is a
    coroutine function, the next event waits until it has returned.
    """
    if iscoroutinefunction(observer):
        return lambda event: _run_here(lambda: observer(event), portal, loop, copy_context())
    running: set[asyncio.Future[Any]] = set()

    def call(event: RunEvent) -> None:
        try:
            result: Any = observer(event)
            if isinstance(result, Awaitable):
                task = asyncio.ensure_future(result, loop=loop.loop)
                running.add(task)
                task.add_done_callback(ended)
        except Exception as exc:
            log.error("an observer failed: %s", exception_site(exc))  # noqa: TRY400 - the text of exc may contain anything

    def ended(task: asyncio.Future[Any]) -> None:
        running.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("an observer failed: %s", exception_site(exc))

    return lambda event: loop.post(lambda: call(event))


async def _run_here(fn: Callable[[], Awaitable[T]], portal: Portal[Any], loop: HostLoop, context: Context) -> T:
    """Run ``fn`` in a task of the host's event loop, and wait for its result. Called in the Trio thread. Cancelling
    this cancels that task.
    """
    ended, results, errors = trio.Event(), list[T](), list[Exception]()
    tasks: list[asyncio.Task[None]] = []

    async def act() -> None:
        try:
            results.append(await fn())
        except Exception as exc:
            errors.append(exc)

    def begin() -> None:
        task = loop.loop.create_task(act(), context=context)
        tasks.append(task)
        task.add_done_callback(end)  # called also for a task that is cancelled before it begins

    def end(task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is not None:
            errors.append(RuntimeError("the event loop of the program cancelled the call"))
        with suppress(ShuttingDownError):
            portal.post(ended.set)

    loop.post(begin)
    try:
        await ended.wait()
    finally:
        loop.post(lambda: [task.cancel() for task in tasks])
    if errors:
        raise errors[0]
    return results[0]
