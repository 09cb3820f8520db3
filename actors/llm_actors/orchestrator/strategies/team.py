"""The interface for strategies that a program adds: the models of one request.

    async def second_opinion(team: Team) -> LLMResponse:
        first, *others = await team.ask(["a/small", "b/small"])
        if all(other.content == first.content for other in others):
            return first
        return await team.stream("a/large")

The runtime does the rest, as for its own strategies: deadlines, retries, limits, budgets, the decision record, and
the cancellation of all calls that are under way when the function returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, final

from llm_protocol.policy import Policy
from llm_protocol.requests import AnyRequest
from llm_protocol.response import LLMResponse

T = TypeVar("T")

Cross: TypeAlias = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Awaits a call in the runtime's event loop, for a strategy that runs in another event loop."""


class TeamWork(Protocol):
    """The implementation behind a `Team`, in the runtime's own event loop."""

    async def ask(
        self,
        models: Sequence[str] | None,
        request: AnyRequest | None,
        *,
        enough: int | None,
        seconds: float | None,
        later: int,
    ) -> list[LLMResponse]: ...
    async def stream(self, model: str, request: AnyRequest | None) -> LLMResponse: ...
    def about(self, answers: Sequence[LLMResponse], template: str) -> AnyRequest: ...
    def note(self, name: str, value: object) -> None: ...


@final
class Team:
    """The models of one request, for a strategy of a program. The runtime creates it."""

    def __init__(
        self,
        work: TeamWork,
        *,
        request: AnyRequest,
        policy: Policy,
        candidates: tuple[str, ...],
        cross: Cross | None = None,
    ) -> None:
        self.request = request
        """The caller's request."""
        self.policy = policy
        """The effective policy, from request, route and defaults."""
        self.candidates = candidates
        """The models that may serve the request, as ``provider/model``, in no particular order."""
        self._work = work
        self._cross = cross

    def through(self, cross: Cross) -> Team:
        """Return the same team for a function that runs in another event loop."""
        return Team(self._work, request=self.request, policy=self.policy, candidates=self.candidates, cross=cross)

    async def ask(
        self,
        models: Sequence[str] | None = None,
        request: AnyRequest | None = None,
        *,
        enough: int | None = None,
        seconds: float | None = None,
        later: int = 0,
    ) -> list[LLMResponse]:
        """Ask models at the same time, each with its retries and limits. Returns the responses, in the given order.

        Without ``models``, the models that the policy names as members, or that the selector chooses, are asked.
        Without ``request``, they get the caller's request. Returns when all have ended, when ``enough`` of them have
        answered, or after ``seconds`` (at most 95 % of the remaining time). Models that are not ready then are
        cancelled. A model that fails is left out, and is in the decision record. Raises `LLMClientError` if none
        answers. ``later``: the number of calls that will follow, for which a budget keeps a share.
        """
        return await self._there(lambda: self._work.ask(models, request, enough=enough, seconds=seconds, later=later))

    async def stream(self, model: str, request: AnyRequest | None = None) -> LLMResponse:
        """Ask one model, and stream its response as that of the whole request. Returns the response; the strategy
        must return it, too.

        Raises `LLMClientError`. If ``error.failure.partial`` is false, nothing was delivered, and another answer is
        still possible. Otherwise the request has failed with this error.
        """
        return await self._there(lambda: self._work.stream(model, request))

    def about(self, answers: Sequence[LLMResponse], template: str) -> AnyRequest:
        """Return the request, followed by ``template``: a text with ``{answers}`` in it, which is replaced by the
        answers, without names and marked as data. Use the result with `ask` and `stream`.
        """
        return self._work.about(answers, template)

    def note(self, name: str, value: object) -> None:
        """Add ``value``, which msgspec must be able to encode as JSON, to the decision record, as
        ``decision["notes"][name]``. Replaces an earlier value of that name.
        """
        self._work.note(name, value)

    async def _there(self, call: Callable[[], Awaitable[T]]) -> T:
        result: T = await (call() if self._cross is None else self._cross(call))
        return result


StrategyFunction: TypeAlias = Callable[[Team], Awaitable[LLMResponse | str]]
"""``async def strategy(team)``: a strategy that a program adds. It returns one of the team's responses, a response
made from one with ``msgspec.structs.replace``, or a text. Or it raises an `LLMClientError`.
"""
