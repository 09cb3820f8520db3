"""Functions of a program without an event loop, called by the runtime's thread.

They run in threads of their own. A judge runs in the thread that waits for the response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, TypeAlias, TypedDict, TypeVar, TypeVarTuple, cast, final

import trio

from llm_actors.orchestrator import StrategyFunction, Team
from llm_actors.run import Judge
from llm_protocol.requests import AnyRequest
from llm_protocol.response import LLMResponse
from llm_runtime.hooks import Middleware, Next, Observer, RunEvent
from llm_runtime.hosts.portal import Portal
from llm_runtime.hosts.threads import Box

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SyncMiddleware: TypeAlias = Callable[[AnyRequest, Callable[[AnyRequest], LLMResponse]], LLMResponse]
"""``def middleware(request, next)``, called in a thread of its own; see `llm_runtime.Middleware`."""


@final
class SyncTeam:
    """`llm_runtime.Team` for a strategy that is a plain function, ``def strategy(team)``."""

    def __init__(self, team: Team) -> None:
        self._team = team
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
        found: list[LLMResponse] = trio.from_thread.run(call)
        return found

    def stream(self, model: str, request: AnyRequest | None = None) -> LLMResponse:
        """See `llm_runtime.Team.stream`."""
        response: LLMResponse = trio.from_thread.run(self._team.stream, model, request)
        return response


SyncStrategy: TypeAlias = Callable[[SyncTeam], LLMResponse | str]
"""``def strategy(team)``, called in a thread of its own; see `llm_runtime.StrategyFunction`."""


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
        return await _in_own_thread(strategy, SyncTeam(team))

    return carry_out


def _in_thread(observer: Observer) -> Observer:
    async def call(event: RunEvent) -> None:
        await _in_own_thread(observer, event)

    return call


def _blocking(middleware: SyncMiddleware) -> Middleware:
    async def around(request: AnyRequest, proceed: Next) -> LLMResponse:
        def answered(request: AnyRequest) -> LLMResponse:
            response: LLMResponse = trio.from_thread.run(proceed, request)
            return response

        return await _in_own_thread(middleware, request, answered)

    return around


async def _in_own_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Not in one of Trio's usual threads, whose number is limited: a function may wait for others that need one."""
    return await trio.to_thread.run_sync(function, *args, limiter=trio.CapacityLimiter(1))
