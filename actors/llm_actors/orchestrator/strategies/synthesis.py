"""Make one response from several answers.

A model writes the response, streamed, or a rule selects it without a model. If the model or the rule fails before any
of the response was delivered, the best single answer is used instead, and the decision record says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.ensemble import Ensemble
from llm_actors.orchestrator.strategies.member_seats import seat_for
from llm_actors.orchestrator.strategies.members import Member
from llm_actors.orchestrator.strategies.merging import merge_json
from llm_actors.orchestrator.strategies.prompts import SYNTHESIS, about
from llm_protocol.content import Text
from llm_protocol.events import Failed, Finished, Started
from llm_protocol.fold import item_events
from llm_protocol.response import FinishReason

WITHOUT_A_MODEL: Final = ("longest", "first", "merge_json", "none")


def needs_model(ensemble: Ensemble) -> bool:
    """Whether a model will be called to combine several responses into one."""
    way = ensemble.policy.synthesiser or ("" if ensemble.services.synthesize else "none")
    return way not in WITHOUT_A_MODEL


def _way(ensemble: Ensemble, answers: Sequence[Member]) -> str:
    """Return the model or rule that makes the response: that of the policy, else the model of the first member that
    answered, or the rule ``none`` if synthesis is disabled.
    """
    usual = answers[0].seat.model
    return ensemble.policy.synthesiser or (usual if ensemble.services.synthesize else "none")


def best_of_all(answers: Sequence[Member]) -> Member:
    """Return the answer that is used without a synthesis: the first in order that was not truncated."""
    whole = [member for member in answers if member.answer.finish_reason is not FinishReason.LENGTH]
    return (whole or answers)[0]


async def synthesise(ensemble: Ensemble, answers: Sequence[Member]) -> RunResult:
    """Make the run's response from ``answers``, which must not be empty."""
    best = best_of_all(answers)
    if len(answers) == 1:
        return ensemble.play(best)
    way = _way(ensemble, answers)
    if any(member.answer.tool_calls for member in answers):
        return _without(ensemble, way, best, "tool calls are not merged")
    match way:
        case "none":
            return _noted(ensemble, way, ensemble.play(best))
        case "longest":
            return _noted(ensemble, way, ensemble.play(max(answers, key=lambda member: len(member.text))))
        case "first":
            return _noted(ensemble, way, ensemble.play(min(answers, key=lambda member: member.ended_at)))
        case "merge_json":
            merged = merge_json([member.text for member in answers])
            if merged is None:
                return _without(ensemble, way, best, "none of the answers is a JSON object")
            return _noted(ensemble, way, respond(ensemble, merged, best))
        case _:
            return await _by_model(ensemble, way, answers, best)


async def _by_model(ensemble: Ensemble, model: str, answers: Sequence[Member], best: Member) -> RunResult:
    seat = seat_for(ensemble.services, ensemble.context, model)
    if seat.failure is not None:
        return _without(ensemble, model, best, seat.failure.message)
    template = ensemble.policy.template or SYNTHESIS
    ending = await ensemble.consult(
        about(ensemble.briefed(model), template, [member.text for member in answers]),
        seat.candidates,
        into=ensemble.run.log,
        record=ensemble.context.record,
        # What nobody has seen yet can be retracted.
        mode=ensemble.context.on_broken_stream if ensemble.run.stream else "buffer",
    )
    if isinstance(ending.end, Finished):
        if not ensemble.run.fold().parts():
            return _without(ensemble, model, best, "the synthesiser's response is empty")
        return _noted(ensemble, model, ending)
    failure = ending.end.failure
    if failure.partial:
        ensemble.notes["synthesis"] = {"by": model, "outcome": "broken", "why": failure.kind.value}
        return ending
    return _without(ensemble, model, best, f"{failure.kind.value}: {failure.message}")


def respond(ensemble: Ensemble, text: str, like: Member) -> RunResult:
    """Use ``text`` as the response, as if from the model of ``like``."""
    start = Started(model=like.answer.model, provider=ensemble.who(like).provider)
    return ensemble.deliver((start, *item_events(0, Text(text))), Finished(reason=FinishReason.STOP), like)


def _noted(ensemble: Ensemble, way: str, ending: RunResult) -> RunResult:
    ensemble.notes["synthesis"] = {"by": way, "outcome": "ok" if not isinstance(ending.end, Failed) else "failed"}
    return ending


def _without(ensemble: Ensemble, way: str, best: Member, why: str) -> RunResult:
    """Use the best single answer instead, and record why."""
    ensemble.notes["synthesis"] = {"by": way, "outcome": "degraded", "why": why, "answer": best.name}
    return ensemble.play(best)
