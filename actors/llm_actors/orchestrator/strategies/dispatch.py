"""The only door into this package: a plain request goes straight on, any other to the strategy its policy names."""

from __future__ import annotations

from collections.abc import Awaitable

from llm_actors.orchestrator.attempt import AttemptContext
from llm_actors.orchestrator.attempt_loop import AttemptLoop, RunResult
from llm_actors.orchestrator.services import Services
from llm_actors.run import Run
from llm_protocol.policy import Policy


def answer(services: Services, ask: AttemptContext, run: Run) -> Awaitable[RunResult]:
    """Answer ``run`` in the way its policy says, into its log, and leave in ``ask.record`` what it took.

    Ends by the run's deadline. Raises only `trio.Cancelled` and bugs.
    """
    if _is_plain(ask.policy):
        return AttemptLoop(services, ask).answer()
    # Here, because most programs never need it and every program would wait for it at its start.
    from llm_actors.orchestrator.strategies.several import carried_out

    return carried_out(services, ask, run)


def _is_plain(policy: Policy) -> bool:
    """Whether one model is asked at a time, with no budget to keep and nothing to share."""
    alone = policy.strategy in (None, "single", "fallback")
    unbounded = policy.max_cost is None and policy.max_tokens is None
    return alone and unbounded and policy.share_context in (None, "none") and not policy.share_knowledge
