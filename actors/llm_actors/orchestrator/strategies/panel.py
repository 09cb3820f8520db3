"""``panel``: all are asked the same, and their answers become one.

The `CrossModelOrchestrator` of this runtime. Who fails is dropped and told; with one answer left that one is given,
and with one member to be had it is a plain single request.
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
