"""The members to call: those that the policy names, or that the selector chooses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from llm_actors.catalog import Allowed, Candidate, Catalog
from llm_actors.orchestrator.candidates import ranked
from llm_actors.orchestrator.services import AttemptContext, Services
from llm_actors.selector import Ranking
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure
from llm_protocol.policy import MAX_MEMBERS
from llm_protocol.requests import AnyRequest, Parameters

DEFAULT_MEMBERS = 3
"""The default number of members."""

TEMPERATURES = (0.3, 0.9, 0.6, 1.0)
"""The temperatures of the second sample of one model, the third, and so on. The first sample has the caller's
temperature.
"""


class MemberSeat(NamedTuple):
    """One member before it is called. ``nth`` numbers the members of the same model, from 0. ``failure`` is set if no
    provider offers the model.
    """

    name: str
    model: str
    candidates: list[Candidate]
    nth: int = 0
    failure: Failure | None = None


class MemberSeats(NamedTuple):
    """The members to call, possible replacements for one that fails, the best first, and the reasons of the
    selector.
    """

    taken: list[MemberSeat]
    spare: list[MemberSeat]
    ranking: Ranking | None = None


def seats(services: Services, context: AttemptContext) -> MemberSeats:
    """Return the members of a panel. Members chosen by the selector are of as many vendors as possible."""
    policy = context.policy
    if isinstance(policy.members, tuple):
        taken = named(services.catalog, context.request, context.allowed, policy.members)
        known = {candidate for seat in taken for candidate in seat.candidates}
        spare = named(services.catalog, context.request, context.allowed, policy.candidates)
        return MemberSeats(taken, [seat for seat in spare if known.isdisjoint(seat.candidates)])
    ranking = _ranking(services, context)
    ranked = ranking.candidates
    everyone = MAX_MEMBERS if policy.candidates else DEFAULT_MEMBERS
    chosen = diverse(ranked, policy.members or everyone, services.catalog)
    left = [candidate for candidate in ranked if candidate not in chosen]
    return MemberSeats([_seat(each) for each in chosen], [_seat(each) for each in left], ranking)


def samples(services: Services, context: AttemptContext, count: int) -> MemberSeats:
    """Return ``count`` samples of the members in turn, or of the best candidate if no members are named."""
    members, ranking = context.policy.members, None
    names = members if isinstance(members, tuple) else ()
    if not names:
        ranking = _ranking(services, context)
        names = (str(ranking.candidates[0]),)
    taken = named(services.catalog, context.request, context.allowed, [names[at % len(names)] for at in range(count)])
    return MemberSeats(taken, [], ranking)


def seat_for(services: Services, context: AttemptContext, model: str) -> MemberSeat:
    """Return a seat for ``model``."""
    return named(services.catalog, context.request, context.allowed, [model])[0]


def named(catalog: Catalog, request: AnyRequest, allowed: Allowed | None, names: Iterable[str]) -> list[MemberSeat]:
    """Return a seat for each name, with the models of that name that are ``allowed``. A name that occurs twice gets
    two seats, and the second has a number after its name.
    """
    found: list[MemberSeat] = []
    met: Counter[str] = Counter()
    for model in names:
        name = f"{model}#{met[model] + 1}" if met[model] else model
        try:
            found.append(MemberSeat(name, model, catalog.resolve(request.to(model), allowed), met[model]))
        except LLMClientError as exc:
            found.append(MemberSeat(name, model, [], met[model], exc.failure))
        met[model] += 1
    return found


def _ranking(services: Services, context: AttemptContext) -> Ranking:
    """Return the candidates in the selector's order. Those with an open circuit come last."""
    policy = msgspec.structs.replace(context.policy, select=context.policy.select or "score")
    return ranked(services, context.request, context.candidates, policy, draw=services.draw())


def diverse(ranked: Sequence[Candidate], count: int, catalog: Catalog) -> list[Candidate]:
    """Return the best ``count`` candidates, of different vendors first, then of different providers, then any, in
    their order.
    """
    chosen: list[Candidate] = []
    for same in (lambda each: catalog.vendor(each), lambda each: each.provider, lambda each: each):
        for candidate in ranked:
            if len(chosen) < count and same(candidate) not in {same(other) for other in chosen}:
                chosen.append(candidate)
    return sorted(chosen, key=ranked.index)


def varied(parameters: Parameters, nth: int) -> Parameters:
    """Return the parameters for the ``nth`` sample of one model: another seed if the caller set a seed; otherwise
    another temperature, if the caller set neither ``temperature`` nor ``top_p``.
    """
    if nth == 0:
        return parameters
    if parameters.seed is not None:
        return msgspec.structs.replace(parameters, seed=parameters.seed + nth)
    if parameters.temperature is not None or parameters.top_p is not None:
        return parameters
    return msgspec.structs.replace(parameters, temperature=TEMPERATURES[(nth - 1) % len(TEMPERATURES)])


def _seat(candidate: Candidate) -> MemberSeat:
    return MemberSeat(str(candidate), str(candidate), [candidate])
