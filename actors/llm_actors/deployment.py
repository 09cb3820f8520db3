"""A deployment, and the result of an attempt at one. Catalog, selector, provider and orchestrator share these types."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from llm_protocol.dialect import RateLimits
from llm_protocol.events import Failed, Finished


class Candidate(NamedTuple):
    """A deployment that could serve a request: a provider and the vendor's own name of one of its models."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class AttemptResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one attempt. Times are in seconds from its start; ``first_token_s`` is ``None`` if no token
    arrived.
    """

    end: Finished | Failed
    first_token_s: float | None = None
    duration_s: float
    limits: RateLimits | None = None
    resent: bool = False
    """Whether the request was sent twice, because an idle connection was closed before the response."""
    unsent: bool = False
    """Whether there was no connection, so that the vendor received nothing of the request."""
    wire: str = ""
    """The name of the wire that the attempt used; empty if it used none."""
