"""The holds of deployments: the vendor has asked to wait before more requests for this model, but accepts other
models.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple, final

MAX_HOLDS = 1_024
"""The most holds. With more, the one that ends first is dropped. The number is bounded because callers can invent
model names.
"""

LONGEST_HOLD_SECONDS = 300.0
"""The longest hold, in seconds. After it the deployment is tried again, and its vendor may ask to wait again."""


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
        """Send no request to ``of`` for ``seconds``. This never shortens a hold."""
        self._until[of] = max(self.until(of), now + min(seconds, LONGEST_HOLD_SECONDS))
        if len(self._until) > MAX_HOLDS:
            self._until = {each: until for each, until in self._until.items() if until > now}
        if len(self._until) > MAX_HOLDS:
            del self._until[min(self._until, key=self._until.__getitem__)]

    def until(self, of: Deployment) -> float:
        """Return when the hold ends or ended; minus infinity if there was none."""
        return self._until.get(of, -inf)
