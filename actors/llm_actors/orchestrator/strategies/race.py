"""``race``: all members are called, the first complete response wins, the others are cancelled.

For cases in which latency matters more than cost. Nothing is delivered before the winner is known, so the first token
comes late; if that matters, use hedging (``hedge = true``).
"""

from __future__ import annotations

from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.ensemble import LAST_SHARE, Ensemble


async def race(ensemble: Ensemble) -> RunResult:
    """Run the strategy; see the module."""
    taken = ensemble.seats()
    if len(taken) == 1:
        return await ensemble.alone(taken[0])
    members = [ensemble.member(seat) for seat in taken]
    answered = await ensemble.gather(members, lambda answers: len(answers) >= 1, share=LAST_SHARE)
    if not answered:
        return ensemble.failed(members)
    first = min(answered, key=lambda member: member.ended_at)
    ensemble.accept([first])
    return ensemble.play(first)
