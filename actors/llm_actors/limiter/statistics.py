"""What the limiter tells about itself."""

from __future__ import annotations

import msgspec


class ProviderLimitStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One provider at a moment. ``..._left`` is ``None`` where there is no limit, 0 where there is a debt.

    ``held_s``: for how many seconds more its vendor's word keeps everyone waiting.
    """

    in_flight: int
    waiting: int
    requests_left: int | None
    tokens_left: int | None
    held_s: float


class LimiterStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The limiter at a moment. ``shared``: together with other processes, while Redis answers.

    The last three only grow within one incarnation; the others are gauges.
    """

    providers: dict[str, ProviderLimitStatistics]
    waiting: int
    leases: int
    callers: int
    shared: bool
    granted: int
    refused: int
    expired: int
