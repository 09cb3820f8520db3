"""``panel``: all members get the same request, and one response is made of their answers.

The `CrossModelOrchestrator` of this runtime. A member that fails is dropped and reported; a single remaining answer is
used unchanged, and with one available member it is an ordinary single request.
"""

from __future__ import annotations

from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.ensemble import Ensemble
from llm_actors.orchestrator.strategies.synthesis import needs_model, synthesise


async def panel(team: Ensemble) -> RunResult:
    """See the module."""
    taken = team.seats()
    if len(taken) == 1:
        return await team.alone(taken[0])
    members = [team.member(seat) for seat in taken]
    answered = await team.gather(members, later=int(needs_model(team)))
    if not answered:
        return team.failed(members)
    team.accept(answered)
    return await synthesise(team, answered)
