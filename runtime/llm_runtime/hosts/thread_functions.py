"""Functions of a program without an event loop, called by the runtime's thread.

Each call has a separate thread. If the call is cancelled, the function is left behind in its thread, so that nothing
waits for a function that never returns. A judge runs in the thread that waits for the response.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, TypeAlias, TypedDict, TypeVar, cast, final

import trio

from llm_actors.orchestrator import StrategyFunction, Team
from llm_actors.run import Judge
from llm_protocol.requests import AnyRequest
from llm_protocol.response import LLMResponse
from llm_runtime.hooks import Middleware, Next, Observer, RunEvent
from llm_runtime.hosts.portal import Portal
from llm_runtime.hosts.threads import Box

T = TypeVar("T")

SyncMiddleware: TypeAlias = Callable[[AnyRequest, Callable[[AnyRequest], LLMResponse]], LLMResponse]
"""``def middleware(request, next)``, called in a separate thread; see `llm_runtime.Middleware`."""


class FunctionAbandoned(BaseException):
    """Raised when a function calls the runtime after the call of the function was cancelled."""


@final
class RuntimeCalls:
    """The calls of one function in a thread into the runtime. They are tasks of ``nursery``, and end with it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def make(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``call``, which runs in the runtime's thread. Called in the function's thread."""
        result: T = trio.from_thread.run(self._make, call)
        return result

    async def _make(self, call: Callable[[], Awaitable[T]]) -> T:
        ended, results, errors = trio.Event(), list[T](), list[Exception]()

        async def act() -> None:
            try:
                results.append(await call())
            except Exception as exc:
                errors.append(exc)
            finally:
                ended.set()

        try:
            self._nursery.start_soon(act)
        except RuntimeError:  # the nursery is closed
            raise FunctionAbandoned from None
        await ended.wait()
        if errors:
            raise errors[0]
        if not results:
            raise FunctionAbandoned
        return results[0]


@final
class SyncTeam:
    """`llm_runtime.Team` for a strategy that is a plain function, ``def strategy(team)``."""

    def __init__(self, team: Team, calls: RuntimeCalls) -> None:
        self._team = team
        self._calls = calls
        self.request = team.request
        self.policy = team.policy
        self.candidates = team.candidates
        self.about = team.about
        self.note = team.note

    def ask(
        self,
        models: Sequence[str] | None = None,
        request: AnyRequest | None = None,
        *,
        enough: int | None = None,
        seconds: float | None = None,
        later: int = 0,
    ) -> list[LLMResponse]:
        """See `llm_runtime.Team.ask`."""
        call = partial(self._team.ask, models, request, enough=enough, seconds=seconds, later=later)
        return self._calls.make(call)

    def stream(self, model: str, request: AnyRequest | None = None) -> LLMResponse:
        """See `llm_runtime.Team.stream`."""
        return self._calls.make(partial(self._team.stream, model, request))


SyncStrategy: TypeAlias = Callable[[SyncTeam], LLMResponse | str]
"""``def strategy(team)``, called in a separate thread; see `llm_runtime.StrategyFunction`."""


def judge_in_thread(judge: Judge, portal: Portal[Any], box: Box) -> Judge:
    """Return a judge that the runtime can call. ``judge`` runs in the thread that waits for the call."""
    if iscoroutinefunction(judge):
        raise TypeError("judge must be a plain function: llm_runtime.sync cannot await it")

    async def ask(responses: Sequence[LLMResponse]) -> int:
        ended, results, errors = trio.Event(), list[int](), list[Exception]()

        def act() -> None:
            try:
                results.append(cast("int", judge(responses)))  # the caller reports a value that is no index
            except Exception as exc:
                errors.append(exc)
            finally:
                portal.post(ended.set)

        box.put(act)
        await ended.wait()
        if errors:
            raise errors[0]
        return results[0]

    return ask


class HookFunctions(TypedDict):
    observers: list[Observer]
    middleware: list[Middleware]


def hooks_in_threads(observers: Sequence[Observer], middleware: Sequence[SyncMiddleware]) -> HookFunctions:
    """Return the observers and middleware, called in worker threads. Raises `TypeError` for async functions, because
    no event loop could await them.
    """
    refuse_async((*observers, *middleware), "observers and middleware")
    return {
        "observers": [_in_thread(each) for each in observers],
        "middleware": [_blocking(each) for each in middleware],
    }


def refuse_async(functions: Iterable[Callable[..., object]], what: str) -> None:
    if any(iscoroutinefunction(each) for each in functions):
        raise TypeError(f"{what} must be plain functions: llm_runtime.sync cannot await them")


def strategy_in_thread(strategy: SyncStrategy) -> StrategyFunction:
    async def carry_out(team: Team) -> LLMResponse | str:
        return await _in_own_thread(lambda calls: strategy(SyncTeam(team, calls)))

    return carry_out


def _in_thread(observer: Observer) -> Observer:
    async def call(event: RunEvent) -> None:
        await _in_own_thread(lambda _: observer(event))

    return call


def _blocking(middleware: SyncMiddleware) -> Middleware:
    async def around(request: AnyRequest, proceed: Next) -> LLMResponse:
        return await _in_own_thread(
            lambda calls: middleware(request, lambda changed: calls.make(partial(proceed, changed)))
        )

    return around


async def _in_own_thread(function: Callable[[RuntimeCalls], T]) -> T:
    """Call ``function`` in a thread, and return its result. Cancelling this leaves the function behind.

    Trio's default limit for threads does not apply to this thread: a function may wait for other functions that need a
    thread.
    """
    results, errors = list[T](), list[Exception]()
    async with trio.open_nursery() as nursery:
        try:
            results.append(
                await trio.to_thread.run_sync(
                    function, RuntimeCalls(nursery), abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
                )
            )
        except Exception as exc:  # raised below, where no nursery wraps it
            errors.append(exc)
    if errors:
        raise errors[0]
    return results[0]
