"""``vote``: all members get the same request, and the majority answer is the response.

For short or structured answers. Answers are compared as JSON, regardless of key order and fences, else as text,
without case, surrounding space and punctuation. As soon as more than half agree, the others are cancelled. A tie goes
to the answer of the first member. The votes are in the decision record, by members' names.
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.ensemble import LAST_SHARE, Ensemble
from llm_actors.orchestrator.strategies.members import Member
from llm_actors.orchestrator.strategies.merging import as_json, canonical


async def vote(ensemble: Ensemble) -> RunResult:
    """Run the strategy; see the module."""
    policy = ensemble.policy
    taken = ensemble.seats() if policy.samples is None else ensemble.samples(policy.samples)
    members = [ensemble.member(seat) for seat in taken]
    quorum = min(policy.quorum or len(members), len(members))

    def enough(answers: Sequence[Member]) -> bool:
        most = max(len(group) for group in _groups(answers))
        return len(answers) >= quorum or most * 2 > len(members)

    answered = await ensemble.gather(members, enough, share=LAST_SHARE)
    if not answered:
        return ensemble.failed(members)
    groups = sorted(_groups(answered), key=len, reverse=True)
    ensemble.notes["vote"] = {
        "split": [{"votes": len(group), "members": [member.name for member in group]} for group in groups],
        "majority": len(groups[0]) * 2 > len(answered),
    }
    ensemble.accept(groups[0])
    return ensemble.play(groups[0][0])


def _groups(answers: Sequence[Member]) -> list[list[Member]]:
    """Groups of equal answers, in the order in which each first appeared."""
    found: dict[str, list[Member]] = {}
    for member in answers:
        found.setdefault(_ballot(member), []).append(member)
    return list(found.values())


def _ballot(member: Member) -> str:
    text = member.text
    value = as_json(text)
    return canonical(value) if value is not None else " ".join(text.casefold().split()).strip(" .,;:!?\"'`*")
