"""The entry point of the strategies: run the implementation of a policy's strategy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.services import AttemptContext, Services
from llm_actors.orchestrator.strategies.best_of import best_of
from llm_actors.orchestrator.strategies.ensemble import Ensemble
from llm_actors.orchestrator.strategies.own import carry_out
from llm_actors.orchestrator.strategies.panel import council, panel
from llm_actors.orchestrator.strategies.race import race
from llm_actors.orchestrator.strategies.vote import vote
from llm_actors.run import Run
from llm_protocol.events import Failed
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import Policy, Strategy
from llm_protocol.requests import RequestType

_STRATEGIES: dict[Strategy, Callable[[Ensemble], Awaitable[RunResult]]] = {
    "single": Ensemble.alone,
    "fallback": Ensemble.alone,
    "race": race,
    "panel": panel,
    "council": council,
    "best_of": best_of,
    "vote": vote,
}
_FOR_ANYTHING = frozenset(("single", "fallback", "race"))
_TALKS = frozenset((RequestType.CHAT, RequestType.COMPLETION, RequestType.CODE_GENERATION))


async def carried_out(services: Services, context: AttemptContext, run: Run) -> RunResult:
    """Run the strategy of the policy in ``context``. However it ends, the usage of its calls is recorded."""
    name = context.policy.strategy or "fallback"
    own = services.strategies.get(name)
    if own is None and name not in _FOR_ANYTHING and context.request.request_type not in _TALKS:
        return RunResult(Failed(failure=_no_words(context.policy, context.request.request_type)), None)
    ensemble, ending = Ensemble(services, context, run), None
    context.record.ensemble = ensemble.so_far
    try:
        ending = await (
            _STRATEGIES[cast("Strategy", name)](ensemble) if own is None else carry_out(own, name, ensemble)
        )
        return ending
    finally:
        ensemble.close(ending)


def _no_words(policy: Policy, request_type: RequestType) -> Failure:
    what = request_type.value.replace("_", " ")
    message = (
        f"the strategy {policy.strategy} is for chat, completion and code, not for {what} requests; use race instead"
    )
    return Failure(kind=FailureKind.UNSUPPORTED, message=message, param="strategy")
