"""A deployment, and how an attempt at one ended: what catalog, selector, provider and orchestrator share."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from llm_protocol.dialect import RateLimits
from llm_protocol.events import Failed, Finished


class Candidate(NamedTuple):
    """A deployment that could serve a request: a provider and the vendor's own name of the model to ask it for."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class AttemptResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ended. Times are in seconds from its start; ``None``: it did not come that far."""

    end: Finished | Failed
    first_token_s: float | None = None
    duration_s: float
    limits: RateLimits | None = None
    resent: bool = False
    """The request went out twice, because a kept connection had closed before it was answered."""
    unsent: bool = False
    """There was no connection to send it over: the vendor knows nothing of it."""
    wire: str = ""
    """The name of the wire that it took; empty where it took none."""
