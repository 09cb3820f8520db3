"""The cost of a request at a candidate, for the selection.

Candidates are compared for the same usage: the estimate for the request, or one typical of its type. The prices are
list prices (`llm_protocol.prices`, through `CostOf`). Without a list price, the mean cost of earlier requests is used.
Without either, the cost is unknown: ``None``, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

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
