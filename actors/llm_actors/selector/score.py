"""The weighted score: one number from latency, price and unavailability; lower is better.

Each term is the measurement divided by the worst among the candidates, so all are in 0..1, and a difference of one per
cent in a measurement stays one of one per cent. Unknown values are neutral: a candidate that was never measured gets
the mean latency of those that were, and an unknown price counts as the highest known one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

LEAST_UNAVAILABILITY = 0.2
"""Unavailability is compared to this if all candidates are better: small differences are noise."""

LEAST_LATENCY_SECONDS = 0.05
"""The same for latency."""


LEAST_SCORE = 0.05
"""A better score counts as this when scores are divided by each other."""


class Weights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much each term matters. Only the proportions do."""

    performance: float = 0.5
    cost: float = 0.3
    availability: float = 0.2

    def __post_init__(self) -> None:
        given = (self.performance, self.cost, self.availability)
        if min(given) < 0 or not 0 < sum(given) < float("inf"):
            raise ValueError(f"weights must not be negative, and one must be more than 0: {given}")


class Figures(NamedTuple):
    """The measurements of a candidate; ``None`` is unknown. ``availability`` is in 0..1."""

    latency_s: float | None
    cost_usd: float | None
    availability: float


class Terms(NamedTuple):
    """The measurements, normalised to the candidates at hand: 0 is best, 1 is worst."""

    latency: float
    price: float
    unavailability: float

    def at_best(self) -> Terms:
        """With the best possible latency and availability."""
        return Terms(0.0, self.price, 0.0)

    def score(self, weights: Weights) -> float:
        """The weighted sum. Lower is better."""
        return (
            weights.performance * self.latency + weights.cost * self.price + weights.availability * self.unavailability
        )


NOT_JUDGED = Figures(None, None, 1.0)
AT_BEST = Terms(0.0, 0.0, 0.0)


def normalised(candidates: Sequence[Figures]) -> list[Terms]:
    """The terms of all candidates, in their order."""
    latencies = [each.latency_s for each in candidates]
    prices = [each.cost_usd for each in candidates]
    worst_latency = max(_known(latencies), default=0.0)
    mean_latency = sum(_known(latencies)) / max(1, len(_known(latencies)))
    worst_price = max(_known(prices), default=0.0)
    worst_unavailability = max((1 - each.availability for each in candidates), default=0.0)
    return [
        Terms(
            _share(mean_latency if each.latency_s is None else each.latency_s, worst_latency, LEAST_LATENCY_SECONDS),
            _share(worst_price if each.cost_usd is None else each.cost_usd, worst_price, 0.0),
            _share(1 - each.availability, worst_unavailability, LEAST_UNAVAILABILITY),
        )
        for each in candidates
    ]


def excess(other: Figures, best: Figures, other_score: float, best_score: float, select: str) -> float:
    """What an attempt at ``other`` costs beyond one at ``best``, as a share of that.

    In time or, if the score decides, in money or score, whichever is most. Unknown values cost nothing. The risk that
    it fails costs the time of an attempt.
    """
    shares = [_beyond(other.latency_s, best.latency_s)]
    if select == "score":
        shares += [_beyond(other.cost_usd, best.cost_usd), _beyond(other_score, max(best_score, LEAST_SCORE))]
    return max(0.0, *shares) + 1 - other.availability


def _beyond(other: float | None, best: float | None) -> float:
    return 0.0 if other is None or not best else other / best - 1


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _share(value: float, worst: float, least: float) -> float:
    scale = max(worst, least)
    return min(1.0, value / scale) if scale > 0 else 0.0
