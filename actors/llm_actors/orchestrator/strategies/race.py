"""``race``: all are asked, the first whole answer wins, the others are cancelled.

For when the slowest answer hurts more than the money. Nothing is shown before the winner is known, so the first token
comes late; where that matters, hedging is the better way (``hedge = true``).
"""

from __future__ import annotations

from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.ensemble import LAST_SHARE, Ensemble


async def race(team: Ensemble) -> RunResult:
    """See the module."""
    taken = team.seats()
    if len(taken) == 1:
        return await team.alone(taken[0])
    members = [team.member(seat) for seat in taken]
    answered = await team.gather(members, lambda answers: len(answers) >= 1, share=LAST_SHARE)
    if not answered:
        return team.failed(members)
    first = min(answered, key=lambda member: member.ended_at)
    team.accept([first])
    return team.play(first)
