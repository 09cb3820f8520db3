"""The decisions of the rate limiter about a request."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from llm_actors.limiter.deployment_holds import Deployment
from llm_protocol.failures import FailureKind, LimitOwner


class Granted(NamedTuple):
    """A decision: the request may be sent to ``provider``, after ``wait_s`` seconds if other processes share the
    limits.
    """

    number: int
    provider: str
    wait_s: float = 0.0
    warning: str = ""
    """Which budgets have exceeded their soft limit, and by how much."""


class LimitRefused(NamedTuple):
    """A decision: the request is refused. ``retry_after``: seconds until its turn would come. ``owner``: the limit
    owner.

    ``held``: the deployment that is held, if that is the reason. Another deployment may serve the request.
    """

    number: int
    kind: FailureKind
    why: str
    retry_after: float
    owner: LimitOwner
    held: Deployment | None = None


Decision: TypeAlias = Granted | LimitRefused
