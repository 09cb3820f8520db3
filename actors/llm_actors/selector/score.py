"""The weighted score: one number from latency, price and unavailability. Lower is better.

Each term is a measurement divided by the worst value among the candidates. So all terms are in 0..1 and keep their
proportions. A candidate that was never measured gets the mean latency of those that were. An unknown price counts as
the highest known one.

The price is `expected_cost`: the cost of the same usage at each candidate, which is the estimate for the request, or
the usage that is typical of its type. The prices are list prices (`llm_protocol.prices`, through `CostOf`). Without a
list price, the mean cost of earlier requests is used. Without either, the cost is unknown: ``None``, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from llm_actors.deployment import Candidate
from llm_actors.selector.performance import Performance
from llm_protocol.requests import RequestType
from llm_protocol.response import Usage

CostOf: TypeAlias = Callable[[str, str, Usage], float | None]
"""``cost_of(provider, model, usage)`` returns US dollars, or ``None`` if the price is unknown."""

TYPICAL_USAGE: dict[RequestType, Usage] = {
    RequestType.CHAT: Usage(input_tokens=1_000, output_tokens=300),
    RequestType.COMPLETION: Usage(input_tokens=500, output_tokens=200),
    RequestType.CODE_GENERATION: Usage(input_tokens=1_000, output_tokens=500),
    RequestType.EMBEDDING: Usage(input_tokens=500),
    RequestType.IMAGE_GENERATION: Usage(input_tokens=100, output_tokens=1_300, image_tokens=1_300),
}
"""The usage that is typical of each type of request. Only the proportions matter, because candidates are compared."""


def expected_cost(cost_of: CostOf, candidate: Candidate, known: Performance, usage: Usage, now: float) -> float | None:
    """Return the cost of ``usage`` in US dollars; ``None`` if unknown.

    The cached fraction of the prompt is assumed to be the same as in recent requests.
    """
    cached = round(usage.input_tokens * known.cached_share(now))
    here = msgspec.structs.replace(usage, cached_tokens=cached) if cached else usage
    listed = cost_of(candidate.provider, candidate.model, here)
    if listed is not None or not known.cost_per_token.count:
        return listed
    return known.cost_per_token.value * usage.total_tokens


LEAST_UNAVAILABILITY = 0.2
"""The divisor for unavailability is at least this, because small differences are noise."""

LEAST_LATENCY_SECONDS = 0.05
"""The divisor for latency, in seconds, is at least this."""


LEAST_SCORE = 0.05
"""A score that is used as a divisor is at least this."""


class Weights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much each term counts. Only the proportions matter."""

    performance: float = 0.5
    cost: float = 0.3
    availability: float = 0.2

    def __post_init__(self) -> None:
        given = (self.performance, self.cost, self.availability)
        if min(given) < 0 or not 0 < sum(given) < float("inf"):
            raise ValueError(f"the weights must not be negative, and at least one must be greater than 0, not {given}")


class Figures(NamedTuple):
    """The measurements of a candidate. ``None`` means unknown. ``availability`` is in 0..1."""

    latency_s: float | None
    cost_usd: float | None
    availability: float


class Terms(NamedTuple):
    """The measurements, divided by the worst among the candidates: 0 is best, 1 is worst."""

    latency: float
    price: float
    unavailability: float

    def at_best(self) -> Terms:
        """Return the terms with the best possible latency and availability."""
        return Terms(0.0, self.price, 0.0)

    def score(self, weights: Weights) -> float:
        """Return the weighted sum. Lower is better."""
        return (
            weights.performance * self.latency + weights.cost * self.price + weights.availability * self.unavailability
        )


NOT_JUDGED = Figures(None, None, 1.0)
AT_BEST = Terms(0.0, 0.0, 0.0)


def normalised(candidates: Sequence[Figures]) -> list[Terms]:
    """Return the terms of all candidates, in their order."""
    latencies = [each.latency_s for each in candidates if each.latency_s is not None]
    prices = [each.cost_usd for each in candidates if each.cost_usd is not None]
    mean_latency, worst_price = sum(latencies) / max(1, len(latencies)), max(prices, default=0.0)
    # At least the smallest divisor. Without a known price all prices are 0, whatever they are divided by.
    latency = max([LEAST_LATENCY_SECONDS, *latencies])
    price = worst_price or 1.0
    unavailability = max([LEAST_UNAVAILABILITY, *(1 - each.availability for each in candidates)])
    return [
        Terms(
            min(1.0, (mean_latency if each.latency_s is None else each.latency_s) / latency),
            min(1.0, (worst_price if each.cost_usd is None else each.cost_usd) / price),
            min(1.0, (1 - each.availability) / unavailability),
        )
        for each in candidates
    ]


def excess(other: Figures, best: Figures, other_score: float, best_score: float, select: str) -> float:
    """Return how much more an attempt at ``other`` costs than one at ``best``, as a fraction of the latter.

    The result is the additional time as a fraction or, if ``select`` is ``score``, the largest of the fractions of
    additional time, money and score. Unknown values count as no difference. The risk of a failure is added, as if a
    failure cost one more attempt.
    """
    shares = [_beyond(other.latency_s, best.latency_s)]
    if select == "score":
        shares += [_beyond(other.cost_usd, best.cost_usd), _beyond(other_score, max(best_score, LEAST_SCORE))]
    return max(0.0, *shares) + 1 - other.availability


def _beyond(other: float | None, best: float | None) -> float:
    return 0.0 if other is None or not best else other / best - 1
