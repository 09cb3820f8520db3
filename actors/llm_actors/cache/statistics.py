"""The statistics of the cache."""

from __future__ import annotations

import msgspec


class CacheCounters(msgspec.Struct):
    """Events in one tier since it was made."""

    hits: int = 0
    misses: int = 0
    stored: int = 0
    evicted: int = 0
    expired: int = 0
    dropped: int = 0
    errors: int = 0


class TierStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One tier. Counters grow within one incarnation of the cache; ``entries`` and ``bytes`` are gauges (``entries`` is
    ``None`` for the file, where counting is slow; its ``bytes`` are those when it was last used).

    ``expired`` entries were found too old (they are misses too), ``evicted`` ones were displaced, ``dropped`` ones were
    not stored: too large, or more than the tier could write. ``errors``: for memory, responses without canonical bytes;
    for the file and Redis, damaged entries, failed reads and writes, and lookups that were not answered in time.
    """

    entries: int | None
    bytes: int
    hits: int
    misses: int
    stored: int
    evicted: int
    expired: int
    dropped: int
    errors: int


class CacheStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The cache at one time. A lookup asks the file or Redis only for what memory does not have. ``file``, ``redis``:
    if there is one.
    """

    memory: TierStatistics
    file: TierStatistics | None = None
    redis: TierStatistics | None = None


def statistics_of(count: CacheCounters, *, entries: int | None, size: int) -> TierStatistics:
    """A snapshot of a tier."""
    return TierStatistics(entries=entries, bytes=size, **msgspec.structs.asdict(count))
