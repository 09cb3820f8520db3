"""How long an answer may be given again: as those say who had a part in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from llm_protocol.response import LLMResponse


class Lifetimes(NamedTuple):
    """Seconds for each provider that has its own in ``ttls``, and for all others."""

    ttl_s: float
    ttls: Mapping[str, float] = {}

    def of(self, response: LLMResponse) -> float:
        """The shortest of those who contributed: who made the answer, and the members it was made of."""
        if not self.ttls:
            return self.ttl_s
        return min(self.ttls.get(each.provider, self.ttl_s) for each in (response, *response.members))

    @property
    def longest(self) -> float:
        """No answer is kept for longer, whoever gave it."""
        return max((self.ttl_s, *self.ttls.values()))
