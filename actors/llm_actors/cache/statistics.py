"""The statistics of the cache."""

from __future__ import annotations

import msgspec


class CacheCounters(msgspec.Struct):
    """Counts of events in one tier since the tier was created."""

    hits: int = 0
    misses: int = 0
    stored: int = 0
    evicted: int = 0
    expired: int = 0
    dropped: int = 0
    errors: int = 0


class TierStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One tier. Counters grow within one incarnation of the cache. ``entries`` and ``bytes`` are gauges. ``entries`` is
    ``None`` for the file, where counting is slow; the ``bytes`` of the file are its size at its last use.

    ``expired`` entries were found but too old (they count as misses, too). ``evicted`` entries were displaced.
    ``dropped`` entries were not stored: they were too large, or the tier could not write that many. ``errors``: for
    memory, responses without canonical bytes; for the file and Redis, damaged entries, failed reads and writes, and
    lookups that took too long.
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
    """The state of the cache. A lookup asks the file or Redis only for keys that memory lacks. ``file`` and ``redis``
    are set if the tier exists.
    """

    memory: TierStatistics
    file: TierStatistics | None = None
    redis: TierStatistics | None = None


def statistics_of(count: CacheCounters, *, entries: int | None, size: int) -> TierStatistics:
    """Return a snapshot of a tier."""
    return TierStatistics(entries=entries, bytes=size, **msgspec.structs.asdict(count))
