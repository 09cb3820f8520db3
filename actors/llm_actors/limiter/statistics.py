"""The statistics of the limiter."""

from __future__ import annotations

import msgspec

from llm_actors.limiter.budgets import BudgetStatistics


class LimitStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one provider or one caller at one time.

    ``waiting``: requests that wait for these limits. One that waits for its caller's limits does not wait for a
    provider as well. ``..._left`` is ``None`` without a limit, 0 if there is a debt. ``held_s``: how many seconds more
    the vendor's Retry-After applies; always 0 for callers.
    """

    in_flight: int
    waiting: int
    requests_left: int | None
    tokens_left: int | None
    held_s: float


class LimiterStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The limiter at one time. ``callers``: those with limits of their own, at most `MAX_CALLERS`. ``shared``: the
    limits are shared with other processes, and Redis responds.

    The last three only grow within one incarnation; the others are gauges.
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
    """Each in its window of now."""
