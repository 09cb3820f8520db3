"""Until when a vendor wants nothing for one of its models, while its others may be asked."""

from __future__ import annotations

from math import inf
from typing import NamedTuple, final

MAX_HOLDS = 1_024
"""Deployments that are held at once. Callers can invent names of models; the hold that ends first makes room."""

LONGEST_HOLD_SECONDS = 300.0
"""No Retry-After holds a deployment for longer; then it is asked again, and its vendor may repeat itself."""


class Deployment(NamedTuple):
    """A provider and the vendor's own name of one of its models."""

    provider: str
    model: str


@final
class DeploymentHolds:
    """All there are. Times are in seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[Deployment, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def hold(self, of: Deployment, seconds: float, now: float) -> None:
        """Let nothing go to ``of`` for ``seconds``; never shortens a hold."""
        self._until[of] = max(self.until(of), now + min(seconds, LONGEST_HOLD_SECONDS))
        if len(self._until) > MAX_HOLDS:
            self._until = {each: until for each, until in self._until.items() if until > now}
        if len(self._until) > MAX_HOLDS:
            del self._until[min(self._until, key=self._until.__getitem__)]

    def until(self, of: Deployment) -> float:
        """When the hold ends, or ended; minus infinity if none is known."""
        return self._until.get(of, -inf)
