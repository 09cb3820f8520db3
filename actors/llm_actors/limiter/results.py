"""The results of the rate limiter: its decisions about requests, and its statistics."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import msgspec

from llm_actors.limiter.allowance import Deployment
from llm_actors.limiter.budgets import BudgetStatistics
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


class LimitStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one provider or one caller.

    ``waiting``: requests that wait for these limits. A request that waits for its caller's limits is not counted at its
    providers. ``requests_left`` and ``tokens_left`` are ``None`` without a limit, and 0 if there is a debt. ``held_s``:
    for how many more seconds the vendor's Retry-After applies; always 0 for callers.
    """

    in_flight: int
    waiting: int
    requests_left: int | None
    tokens_left: int | None
    held_s: float


class LimiterStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the limiter. ``callers``: the callers with limits, at most `MAX_CALLERS`. ``shared``: whether the
    limits are shared with other processes and Redis is reachable.

    ``granted``, ``refused`` and ``expired`` are counters since the start of the actor; the others are gauges.
    """

    providers: dict[str, LimitStatistics]
    waiting: int
    leases: int
    callers: dict[str, LimitStatistics]
    shared: bool
    granted: int
    refused: int
    expired: int
    budgets: dict[str, BudgetStatistics] = {}
    """Each budget in its current window."""
