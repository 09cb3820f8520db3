"""``vote``: all are asked the same, and what most of them say is the answer.

For short or structured answers: what is compared is the JSON, whatever the order of its keys and its fences, else the
text without case, space and punctuation at its ends. As soon as more than half agree, the others are cancelled. A tie
goes to the answer of whoever stands first. The split is in the decision record, by members' names.
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.ensemble import LAST_SHARE, Ensemble
from llm_actors.orchestrator.strategies.members import Member
from llm_actors.orchestrator.strategies.merging import as_json, canonical


async def vote(team: Ensemble) -> RunResult:
    """See the module."""
    policy = team.policy
    taken = team.seats() if policy.samples is None else team.samples(policy.samples)
    members = [team.member(seat) for seat in taken]
    quorum = min(policy.quorum or len(members), len(members))

    def enough(answers: Sequence[Member]) -> bool:
        most = max(len(group) for group in _groups(answers))
        return len(answers) >= quorum or most * 2 > len(members)

    answered = await team.gather(members, enough, share=LAST_SHARE)
    if not answered:
        return team.failed(members)
    groups = sorted(_groups(answered), key=len, reverse=True)
    team.notes["vote"] = {
        "split": [{"votes": len(group), "members": [member.name for member in group]} for group in groups],
        "majority": len(groups[0]) * 2 > len(answered),
    }
    team.accept(groups[0])
    return team.play(groups[0][0])


def _groups(answers: Sequence[Member]) -> list[list[Member]]:
    """Those that say the same, in the order in which each was first said."""
    found: dict[str, list[Member]] = {}
    for member in answers:
        found.setdefault(_ballot(member), []).append(member)
    return list(found.values())


def _ballot(member: Member) -> str:
    text = member.text
    value = as_json(text)
    return canonical(value) if value is not None else " ".join(text.casefold().split()).strip(" .,;:!?\"'`*")
