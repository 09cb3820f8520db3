"""The statistics of the limiter."""

from __future__ import annotations

import msgspec

from llm_actors.limiter.budgets import BudgetStatistics


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
