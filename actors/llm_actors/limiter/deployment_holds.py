"""Deployments that a vendor wants no requests for until some time, although its other models may be used."""

from __future__ import annotations

from math import inf
from typing import NamedTuple, final

MAX_HOLDS = 1_024
"""The most deployments held at once. Callers can invent names of models; the hold that ends first is dropped."""

LONGEST_HOLD_SECONDS = 300.0
"""The longest hold; after it the deployment is tried again, and its vendor may repeat its Retry-After."""


class Deployment(NamedTuple):
    """A provider and the vendor's own name of one of its models."""

    provider: str
    model: str


@final
class DeploymentHolds:
    """All holds. Times are in seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[Deployment, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def hold(self, of: Deployment, seconds: float, now: float) -> None:
        """Let no request go to ``of`` for ``seconds``; never shortens a hold."""
        self._until[of] = max(self.until(of), now + min(seconds, LONGEST_HOLD_SECONDS))
        if len(self._until) > MAX_HOLDS:
            self._until = {each: until for each, until in self._until.items() if until > now}
        if len(self._until) > MAX_HOLDS:
            del self._until[min(self._until, key=self._until.__getitem__)]

    def until(self, of: Deployment) -> float:
        """When the hold ends, or ended; minus infinity if there was none."""
        return self._until.get(of, -inf)
