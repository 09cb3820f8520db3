"""How long a cached response may be reused: for the shortest lifetime that is configured for the providers of the
models that contributed to it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from llm_protocol.response import LLMResponse


class Lifetimes(NamedTuple):
    """Lifetimes in seconds: in ``ttls`` for some providers, and one for all others."""

    ttl_s: float
    ttls: Mapping[str, float] = {}

    def of(self, response: LLMResponse) -> float:
        """Return the shortest lifetime among the contributors: the model that made the response, and the members
        whose answers it combines.
        """
        if not self.ttls:
            return self.ttl_s
        return min(self.ttls.get(each.provider, self.ttl_s) for each in (response, *response.members))

    @property
    def longest(self) -> float:
        """The longest lifetime of any response."""
        return max((self.ttl_s, *self.ttls.values()))
