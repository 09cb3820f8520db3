"""The orderings of candidates, one small pure function each.

Each takes the choices in their given order and returns them in the order to try, with reasons. All are stable: equal
choices keep the given order. ``draw`` is a random number in [0, 1); the same number gives the same result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from math import inf
from typing import NamedTuple, TypeAlias

from llm_actors.deployment import Candidate
from llm_actors.kernel.errors import exception_site
from llm_actors.selector.ranking import RankedCandidate
from llm_actors.selector.score import LEAST_SCORE
from llm_protocol.policy import Select

log = logging.getLogger(__name__)


class OrderingInputs(NamedTuple):
    """The inputs of an ordering besides the measurements."""

    draw: float = 0.0
    sticky_key: str = ""
    shares: Mapping[Candidate, float] = {}
    """For ``weighted``: the share of traffic for each. Empty: in proportion to 1 / score."""


Order: TypeAlias = Callable[[list[RankedCandidate], OrderingInputs], list[RankedCandidate]]

OrderingFunction: TypeAlias = Callable[[list[RankedCandidate], OrderingInputs], Sequence[RankedCandidate]]
"""``def ordering(choices, inputs)``: an ordering that a program adds. It returns all choices in the order to try, each
with an optional ``reason``. It is called in the thread of the runtime, once for each request that has more than one
candidate and for each model of a strategy, so it must be pure and quick.
"""


def by_score(choices: list[RankedCandidate], _: OrderingInputs) -> list[RankedCandidate]:
    """Return the choices with the lowest weighted score first."""
    ordered = sorted(choices, key=lambda each: each.score)
    return [each._replace(reason=f"place {place} by score") for place, each in enumerate(ordered, 1)]


def in_order(choices: list[RankedCandidate], _: OrderingInputs) -> list[RankedCandidate]:
    """Return the choices in the given order."""
    return [each._replace(reason=f"place {place} as configured") for place, each in enumerate(choices, 1)]


def cheapest(choices: list[RankedCandidate], _: OrderingInputs) -> list[RankedCandidate]:
    """Return the choices with the lowest price first. Unknown prices come last."""
    return [
        each._replace(reason="price unknown" if cost is None else f"about ${cost:.6f} for this request")
        for each in sorted(choices, key=lambda each: _or_last(each.figures.cost_usd))
        for cost in (each.figures.cost_usd,)
    ]


def fastest(choices: list[RankedCandidate], _: OrderingInputs) -> list[RankedCandidate]:
    """Return the choices with the lowest latency first. Unmeasured ones come last."""
    return [
        each._replace(reason="not measured yet" if latency is None else f"about {latency:.2f} s for this request")
        for each in sorted(choices, key=lambda each: _or_last(each.figures.latency_s))
        for latency in (each.figures.latency_s,)
    ]


def weighted(choices: list[RankedCandidate], inputs: OrderingInputs) -> list[RankedCandidate]:
    """Return the choices in a random order, drawn by their shares without replacement."""
    shares = {each.candidate: _share_of(each, inputs) for each in choices}
    everything = sum(shares.values()) or 1.0
    left, draw = list(choices), inputs.draw
    drawn: list[RankedCandidate] = []
    while left:
        total = sum(shares[each.candidate] for each in left)
        index, draw = _pick([shares[each.candidate] / total if total else 1 / len(left) for each in left], draw)
        each = left.pop(index)
        drawn.append(each._replace(reason=f"drawn at random, its share is {shares[each.candidate] / everything:.0%}"))
    return drawn


def sticky(choices: list[RankedCandidate], inputs: OrderingInputs) -> list[RankedCandidate]:
    """Put the same candidate first for all requests of a conversation; without a key, order `by_score`.

    This is rendezvous hashing: when a candidate is added or removed, only its own conversations move.
    """
    if not inputs.sticky_key:
        return by_score(choices, inputs)
    return [
        each._replace(reason=f"place {place} for this conversation")
        for place, each in enumerate(sorted(choices, key=lambda each: _affinity(inputs.sticky_key, each.candidate)), 1)
    ]


ORDERS: dict[Select, Order] = {
    "score": by_score,
    "order": in_order,
    "cheapest": cheapest,
    "fastest": fastest,
    "weighted": weighted,
    "sticky": sticky,
}


def by_own(
    name: str, ordering: OrderingFunction, choices: list[RankedCandidate], inputs: OrderingInputs
) -> list[RankedCandidate]:
    """Return the choices as the program's ``ordering`` puts them. If that raises or returns anything but the choices,
    log it and return the given order.
    """
    try:
        ordered = list(ordering(list(choices), inputs))
        is_complete = sorted(each.candidate for each in ordered) == sorted(each.candidate for each in choices)
        why = "" if is_complete else "it did not return the choices that it was given"
    except Exception as exc:  # raised by the program's function; its text may contain user data
        ordered, why = [], f"it raised {exception_site(exc)}"
    if why:
        log.error("the ordering %s failed, so the configured order is used: %s", name, why)
        return [each._replace(reason=f"as configured: the ordering {name} failed: {why}") for each in choices]
    return [
        each if each.reason else each._replace(reason=f"place {place} by {name}")
        for place, each in enumerate(ordered, 1)
    ]


def _or_last(value: float | None) -> float:
    return inf if value is None else value


def _share_of(choice: RankedCandidate, inputs: OrderingInputs) -> float:
    if inputs.shares:
        return max(0.0, inputs.shares.get(choice.candidate, 0.0))
    return 1 / max(choice.score, LEAST_SCORE)


def _pick(shares: list[float], draw: float) -> tuple[int, float]:
    """Pick an index by ``draw``, and return it with the rest of ``draw``, rescaled to [0, 1) for the next pick."""
    below = 0.0
    for index, share in enumerate(shares):
        if draw < below + share:
            return index, min((draw - below) / share, 1 - 1e-12)
        below += share
    last = max(index for index, share in enumerate(shares) if share == max(shares))
    return last, 0.0  # rounding: the sum of the shares is a little less than 1


def _affinity(key: str, candidate: Candidate) -> bytes:
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8)
    digest.update(b"\0" + str(candidate).encode("utf-8", "surrogatepass"))
    return digest.digest()
