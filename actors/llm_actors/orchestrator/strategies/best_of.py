"""``best_of``: several responses, from which a judge chooses the best.

The judge is a model, or a function of the program that embeds the runtime. It reads the responses without names. If a
judge fails, hangs or gives no usable verdict, the first response in order is used, and the decision record says so.
"""

from __future__ import annotations

import inspect
import operator
import re
from typing import NamedTuple

import trio

from llm_actors.kernel.errors import exception_site
from llm_actors.orchestrator.decision_record import DecisionRecord
from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.ensemble import LAST_SHARE, Ensemble
from llm_actors.orchestrator.strategies.member_seats import seat_for
from llm_actors.orchestrator.strategies.members import Member
from llm_actors.orchestrator.strategies.merging import as_json
from llm_actors.orchestrator.strategies.prompts import JUDGEMENT, about, letter
from llm_actors.run import Judge, RunLog
from llm_protocol.content import Text
from llm_protocol.events import Failed
from llm_protocol.fold import Fold

USUAL_SAMPLES = 3

VERDICT_BYTES = 256 * 1024
"""The size limit of a judge's log, in bytes."""

_LONE = re.compile(r"[\s*_\"'`(\[]*([A-P])(?:[*_\"'`)\]]*(?:[.:,;)\n]|\s[-\u2013\u2014]|$))")
"""A letter that stands alone at the beginning of a judge's text. A letter before a word does not count, because it may
be an article: "A weaker one".
"""

_ANY = re.compile(r"\b([A-P])\b")

_KEYS = ("best", "verdict", "choice", "answer")
"""The keys under which a judge that answers in JSON may name the letter."""


class JudgeVerdict(NamedTuple):
    """The index of the best response. ``None`` if it is unknown; then ``why`` is the reason."""

    choice: int | None
    why: str = ""


async def best_of(ensemble: Ensemble) -> RunResult:
    """Run the strategy; see the module."""
    members = [ensemble.member(seat) for seat in ensemble.samples(ensemble.policy.samples or USUAL_SAMPLES)]
    answered = await ensemble.gather(members, later=0 if ensemble.run.judge else 1)
    if not answered:
        return ensemble.failed(members)
    verdict = await _judged(ensemble, answered) if len(answered) > 1 else JudgeVerdict(0, "there is only one")
    best = answered[verdict.choice or 0]
    by = "callable" if ensemble.run.judge else ensemble.policy.judge or answered[0].seat.model
    decision = {"by": by, "outcome": "ok" if verdict.choice is not None else "degraded", "chose": best.name}
    ensemble.notes["judge"] = decision | ({"why": verdict.why} if verdict.why else {})
    ensemble.accept([best])
    return ensemble.play(best)


async def _judged(ensemble: Ensemble, answered: list[Member]) -> JudgeVerdict:
    if ensemble.run.judge is None:
        return await _model(ensemble, answered)
    with trio.move_on_at(ensemble.until(LAST_SHARE)):
        return await _callable(ensemble.run.judge, answered)
    return JudgeVerdict(None, "it did not decide in time")


async def _callable(judge: Judge, answered: list[Member]) -> JudgeVerdict:
    try:
        verdict = judge([member.answer for member in answered])
        choice = _index(await verdict if inspect.isawaitable(verdict) else verdict)
    except Exception as exc:  # an error of the program's function must not cost it the responses
        return JudgeVerdict(None, f"it raised {exception_site(exc)}")
    if choice is not None and 0 <= choice < len(answered):
        return JudgeVerdict(choice)
    return JudgeVerdict(None, "it chose none of the answers")


def _index(choice: object) -> int | None:
    """Return the index that a function of the program returned, as any type of number. ``True`` is not an index."""
    if isinstance(choice, float):
        return int(choice) if choice.is_integer() else None
    is_index = hasattr(choice, "__index__") and not isinstance(choice, bool)
    return operator.index(choice) if is_index else None  # type: ignore[arg-type]


async def _model(ensemble: Ensemble, answered: list[Member]) -> JudgeVerdict:
    seat = seat_for(ensemble.services, ensemble.context, ensemble.policy.judge or answered[0].seat.model)
    if seat.failure is not None:
        return JudgeVerdict(None, seat.failure.message)
    into = RunLog(limit_bytes=VERDICT_BYTES)
    request = about(ensemble.briefed(seat.model), JUDGEMENT, [member.text for member in answered], suffix="judge")
    ending = await ensemble.consult(request, seat.candidates, into=into, record=DecisionRecord("single"))
    if isinstance(ending.end, Failed):
        return JudgeVerdict(None, f"{ending.end.failure.kind.value}: {ending.end.failure.message}")
    return _read(into, len(answered))


def _read(log: RunLog, count: int) -> JudgeVerdict:
    """Return the verdict in the judge's log. Its visible reasoning is ignored."""
    text = "".join(part.text for part in Fold().add_all(log.events).parts() if isinstance(part, Text))
    return read_verdict(text, count)


def read_verdict(text: str, count: int) -> JudgeVerdict:
    """Return the index for the letter in a judge's text. The letter may be alone, at the beginning, or in JSON. A
    sentence with several letters is ambiguous, so it is no verdict. ``count`` is the number of answers.
    """
    letters = [letter(at) for at in range(count)]
    value = as_json(text)
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if key in value), None)
    if isinstance(value, str):
        text = value
    lone = _LONE.match(text)
    if lone is None or lone[1] not in letters:
        return JudgeVerdict(None, "it named none of the answers by a letter alone")
    if set(_ANY.findall(text)) & set(letters) != {lone[1]}:
        return JudgeVerdict(None, "it named several of the answers")
    return JudgeVerdict(letters.index(lone[1]))
