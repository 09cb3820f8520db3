"""The stages of a request in the orchestrator. Each stage is a function of its input and of the next stage:

    route     the candidates and the policy                          routing.py
    share     from the cache, or one flight for equal requests       single_flight.py
    plan      one model at a time, or several by a strategy          `upstream`, below; attempt_loop.py, strategies/
    reserve   within the limits, a slot, a budget, a closed circuit  reserve.py
    attempt   one attempt at one deployment                          attempt.py
    settle    into limiter, selector and estimator                   attempt.py
    close     the log folded into a response, and closed             ending.py

The stages return a `RunResult`, and finally the end of the run. They do not return the events: the provider writes
these into the run's log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias, final

import trio

from llm_actors.catalog import refresh
from llm_actors.kernel import KernelError
from llm_actors.orchestrator.attempt_context import AttemptContext
from llm_actors.orchestrator.attempt_loop import AttemptLoop
from llm_actors.orchestrator.decision_record import DecisionRecord
from llm_actors.orchestrator.ending import RunResult, close_early, fold
from llm_actors.orchestrator.routing import ResolvedRoute, Router, is_plain
from llm_actors.orchestrator.services import Services
from llm_actors.provider import failure_of
from llm_actors.run import Run
from llm_protocol.errors import error_for
from llm_protocol.events import Failed, Finished
from llm_protocol.requests import AnyRequest

Until: TypeAlias = Callable[[], float]
"""Returns the current deadline, on Trio's clock."""


@final
class Setup:
    """Services and router of one configuration. A reload replaces it as a whole; a run keeps the setup with which it
    began. Used as a context manager, the setup counts as in use until the end of the block.
    """

    __slots__ = ("_idle", "_users", "router", "services")

    def __init__(self, services: Services, router: Router) -> None:
        self.services = services
        self.router = router
        self._users = 0
        self._idle: trio.Event | None = None

    def __enter__(self) -> Self:
        """Count a user until the end of the block."""
        self._users += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._users -= 1
        if not self._users and self._idle is not None:
            self._idle.set()

    async def unused(self) -> None:
        """Wait until no run uses the setup. Call this only after the setup was replaced, because then it gets no new
        users.
        """
        if self._users:
            self._idle = self._idle or trio.Event()
            await self._idle.wait()
        else:
            await trio.lowlevel.checkpoint()


class Work(NamedTuple):
    """The input of the last stages: a run, its policy, its deadline, and its decision record."""

    run: Run
    routed: ResolvedRoute
    until: Until
    record: DecisionRecord


Upstream: TypeAlias = Callable[[Services, Work], Awaitable[Finished | Failed]]
"""The type of the stages after single flight, which are `upstream`."""


async def listed_route(services: Services, router: Router, request: AnyRequest) -> ResolvedRoute:
    """Return the candidates for a request whose model is on no list, after fetching the models of providers that have
    no list yet. Raises `LLMClientError`.
    """
    try:
        await refresh(services.lister, only_unlisted=True)
    except KernelError as exc:  # the last list remains valid, and may well lack a model that the provider offers
        raise error_for(failure_of(exc, "catalog")) from exc
    return router.route(request)


async def upstream(services: Services, work: Work) -> Finished | Failed:
    """Serve a run by calling providers. Events are written into its log, which is still open at the end. Returns the
    end with which to close it.

    Takes until the run's deadline at most. Raises only `trio.Cancelled`, after closing the log, and bugs.
    """
    run, routed, until, record = work
    context = AttemptContext(
        request=run.request,
        candidates=routed.candidates,
        policy=routed.policy,
        on_broken_stream=routed.rescue(run.request, stream=run.stream),
        stream=run.stream,
        log=run.log,
        until=until,
        record=record,
        allowed=routed.allowed,
        payer=services.accounting.payer(run.request),
    )
    try:
        result = await _answer(services, context, run)
    except BaseException as exc:
        if not isinstance(exc, Exception):  # a cancellation, which a nursery below may have put into an exception group
            close_early(run, record)  # a request whose deadline passed reports what was tried, too
        raise
    return fold(services, run, result, record)


def _answer(services: Services, context: AttemptContext, run: Run) -> Awaitable[RunResult]:
    if is_plain(context.policy):
        return AttemptLoop(services, context).answer()
    # Imported here, because most programs never need it and every program would wait for it at its start.
    from llm_actors.orchestrator.strategies.several import carried_out

    return carried_out(services, context, run)
