"""From a policy's strategy to who carries it out. The only door into this package."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from llm_actors.orchestrator.asking import Ask
from llm_actors.orchestrator.services import Services
from llm_actors.orchestrator.single import Ending, Single
from llm_actors.orchestrator.strategies.best_of import best_of
from llm_actors.orchestrator.strategies.council import council
from llm_actors.orchestrator.strategies.panel import panel
from llm_actors.orchestrator.strategies.race import race
from llm_actors.orchestrator.strategies.team import Team
from llm_actors.orchestrator.strategies.vote import vote
from llm_actors.run import Run
from llm_protocol.events import Failed
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import Policy, Strategy
from llm_protocol.requests import RequestType

_STRATEGIES: dict[Strategy, Callable[[Team], Awaitable[Ending]]] = {
    "race": race,
    "panel": panel,
    "council": council,
    "best_of": best_of,
    "vote": vote,
}
_TALKS = frozenset((RequestType.CHAT, RequestType.COMPLETION, RequestType.CODE_GENERATION))


async def answer(services: Services, ask: Ask, run: Run) -> Ending:
    """Answer ``run`` in the way its policy says, into its log, and leave in ``ask.record`` what it took.

    Ends by the run's deadline. Raises only `trio.Cancelled` and bugs.
    """
    policy = ask.policy
    strategy = _STRATEGIES.get(policy.strategy or "single")
    if strategy is None and _is_plain(policy):
        return await Single(services, ask).answer()
    if strategy not in (None, race) and ask.request.request_type not in _TALKS:
        return Ending(Failed(failure=_no_words(policy, ask.request.request_type)), None)
    team, ending = Team(services, ask, run), None
    try:
        ending = await (team.alone() if strategy is None else strategy(team))
        return ending
    finally:
        team.close(ending)


def _is_plain(policy: Policy) -> bool:
    """Whether there is no budget to keep and nothing to share."""
    unbounded = policy.max_cost is None and policy.max_tokens is None
    return unbounded and policy.share_context in (None, "none") and not policy.share_knowledge


def _no_words(policy: Policy, asked: RequestType) -> Failure:
    what = asked.value.replace("_", " ")
    message = f"the strategy {policy.strategy} is for chat, completion and code; {what} can be asked by race"
    return Failure(kind=FailureKind.UNSUPPORTED, message=message, param="strategy")
