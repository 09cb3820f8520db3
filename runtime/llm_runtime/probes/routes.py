"""Checks against the catalog and the vendors' lists whether the models of routes exist. Pure.

A provider may have models that are not in its list, so a name in no list is only a warning. A route fails if no
provider can serve it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from llm_actors.catalog import Candidate, Catalog
from llm_actors.orchestrator import Router
from llm_actors.orchestrator.strategies.synthesis import WITHOUT_A_MODEL
from llm_protocol.errors import ModelNotFoundError
from llm_protocol.policy import Policy
from llm_protocol.requests import ChatRequest
from llm_runtime.config.conversion import suggestion
from llm_runtime.probes.report import Check, CheckStatus, counted, some

HELPING = ("synthesiser", "judge")
"""Fields whose models only help other models. They serve no request by themselves."""


class Known(NamedTuple):
    """The known facts: the catalog and the router, the vendors' lists, and the providers that failed."""

    catalog: Catalog
    router: Router
    lists: Mapping[str, Collection[str]] = {}
    failed: Collection[str] = ()
    offline: bool = False
    """No vendor was called, so unknown models are not a problem."""


class _Severity(IntEnum):
    GOOD = 0
    UNKNOWN = 1
    DOUBTFUL = 2
    BAD = 3


class _Verdict(NamedTuple):
    severity: _Severity
    problem: str = ""


_GOOD = _Verdict(_Severity.GOOD)


def route(name: str, policy: Policy, known: Known) -> Check:
    """Check one route. A route without models passes if the selector has any candidate."""
    named = [(field, model) for field, model in policy.models() if model not in WITHOUT_A_MODEL]
    verdicts = [_model(f"{field}: {model}", model, known) for field, model in named]
    answering = [verdict for (field, _), verdict in zip(named, verdicts, strict=True) if field not in HELPING]
    if not answering:
        answering = [_chosen(name, known)]
        verdicts += answering
    problems = dict.fromkeys(verdict.problem for verdict in verdicts if verdict.problem)
    shown = counted(len(named), "model") if named else "any model"
    return Check("route", name, _status(answering, verdicts), "; ".join(problems) or shown)


def _status(answering: Sequence[_Verdict], verdicts: Sequence[_Verdict]) -> CheckStatus:
    if all(verdict.severity is _Severity.BAD for verdict in answering):
        return CheckStatus.FAILED
    return CheckStatus.OK if max(verdict.severity for verdict in verdicts) <= _Severity.UNKNOWN else CheckStatus.WARNING


def _model(where: str, model: str, known: Known) -> _Verdict:
    try:
        candidates = known.catalog.resolve(ChatRequest(model=model, messages=()))
    except ModelNotFoundError:
        return _unlisted(where, known) or _Verdict(_Severity.BAD, f"{where}: no enabled provider has this model")
    return min(_candidate(each, known) for each in candidates)


def _chosen(name: str, known: Known) -> _Verdict:
    try:
        candidates = known.router.route(ChatRequest(model=name, messages=())).candidates
    except ModelNotFoundError as exc:
        return _unlisted("any model", known) or _Verdict(_Severity.BAD, exc.failure.message)
    return min(_candidate(each, known) for each in candidates)


def _unlisted(where: str, known: Known) -> _Verdict | None:
    """Return the verdict on an unknown model that may exist at a provider whose list is unknown."""
    if not known.catalog.unlisted:
        return None
    severity = _Severity.UNKNOWN if known.offline else _Severity.DOUBTFUL
    return _Verdict(severity, f"{where}: unknown without the model lists of {some(known.catalog.unlisted)}")


def _candidate(candidate: Candidate, known: Known) -> _Verdict:
    if candidate.provider in known.failed:
        return _Verdict(_Severity.BAD, f"{candidate}: its provider failed")
    listed = known.lists.get(candidate.provider)
    if listed and candidate.model not in listed:
        hint = suggestion(candidate.model, listed)
        return _Verdict(_Severity.DOUBTFUL, f"{candidate}: not in the list of its provider{hint}")
    return _GOOD
