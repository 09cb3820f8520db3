"""``panel`` and ``council``: all members answer the same request, and one response is combined from their answers.

In a panel each member answers once. In a council, all members draft an answer, see the drafts of the others without
names, and revise their own. Each round costs the time and money of all members once, and a member that fails to revise
keeps its draft. A synthesiser combines the answers or drafts, for one more call.

A member that fails is dropped and reported. A single remaining answer is used unchanged. With one available member, the
strategy is an ordinary single request.
"""

from __future__ import annotations

from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.ensemble import MEMBERS_SHARE, Ensemble
from llm_actors.orchestrator.strategies.members import Member
from llm_actors.orchestrator.strategies.prompts import REVISION, about
from llm_actors.orchestrator.strategies.synthesis import needs_model, synthesise
from llm_protocol.requests import AnyRequest


async def panel(ensemble: Ensemble) -> RunResult:
    """Run the strategy ``panel``; see the module."""
    taken = ensemble.seats()
    if len(taken) == 1:
        return await ensemble.alone(taken[0])
    members = [ensemble.member(seat) for seat in taken]
    answered = await ensemble.gather(members, later=int(needs_model(ensemble)))
    if not answered:
        return ensemble.failed(members)
    ensemble.accept(answered)
    return await synthesise(ensemble, answered)


USUAL_ROUNDS = 1


async def council(ensemble: Ensemble) -> RunResult:
    """Run the strategy ``council``; see the module."""
    taken = ensemble.seats()
    if len(taken) == 1:
        return await ensemble.alone(taken[0])
    rounds = USUAL_ROUNDS if ensemble.policy.rounds is None else ensemble.policy.rounds
    members = [ensemble.member(seat) for seat in taken]
    later = len(members) * rounds + needs_model(ensemble)
    drafts = await ensemble.gather(members, share=_share(0, rounds), later=later)
    for number in range(1, rounds + 1):
        if len(drafts) > 1:
            later = len(drafts) * (rounds - number) + needs_model(ensemble)
            drafts = await _revised(ensemble, drafts, number, share=_share(number, rounds), later=later)
    if not drafts:
        return ensemble.failed(members)
    ensemble.accept(drafts)
    return await synthesise(ensemble, drafts)


def _share(number: int, rounds: int) -> float:
    """Return the share of the remaining time for round ``number`` (0: the drafts). All rounds and the drafts share
    `MEMBERS_SHARE` evenly.
    """
    each = MEMBERS_SHARE / (rounds + 1)
    return each / (1 - each * number)


async def _revised(ensemble: Ensemble, drafts: list[Member], number: int, *, share: float, later: int) -> list[Member]:
    """Return the drafts after each member has seen the others' drafts. A member that did not revise keeps its draft."""
    members = [
        ensemble.member(draft.seat, round_=number, request=_revision(ensemble, draft, drafts)) for draft in drafts
    ]
    await ensemble.gather(list(members), share=share, later=later)
    return [new if new.response is not None else old for old, new in zip(drafts, members, strict=True)]


def _revision(ensemble: Ensemble, draft: Member, drafts: list[Member]) -> AnyRequest:
    others = [other.text for other in drafts if other is not draft]
    return about(ensemble.briefed(draft.seat.model), REVISION, others, own=draft.text)
