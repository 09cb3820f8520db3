"""``panel``: all members get the same request, and one response is combined from their answers.

A member that fails is dropped and reported. A single remaining answer is used unchanged. With one available member, the
strategy is an ordinary single request.
"""

from __future__ import annotations

from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.ensemble import Ensemble
from llm_actors.orchestrator.strategies.synthesis import needs_model, synthesise


async def panel(ensemble: Ensemble) -> RunResult:
    """Run the strategy; see the module."""
    taken = ensemble.seats()
    if len(taken) == 1:
        return await ensemble.alone(taken[0])
    members = [ensemble.member(seat) for seat in taken]
    answered = await ensemble.gather(members, later=int(needs_model(ensemble)))
    if not answered:
        return ensemble.failed(members)
    ensemble.accept(answered)
    return await synthesise(ensemble, answered)
