"""The memory tier: limited in bytes; entries expire; the least recently used is evicted first. Pure.

Every operation and each eviction takes constant time; a store evicts as many entries as it needs. Expired
entries are dropped when they are looked up, or when they are the next to be evicted. Until then they count towards
the limit.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple, final

from llm_actors.cache.entry import LARGEST_SHARE
from llm_actors.cache.key import CacheKey
from llm_actors.cache.statistics import CacheCounters, TierStatistics, statistics_of

OVERHEAD_BYTES = 400
"""The approximate bytes of memory of an entry besides its value: key, tuple, float, object headers, its slot in the
ordered dict.
"""


class _Kept(NamedTuple):
    value: bytes
    expires: float


@final
class Memory:
    """Responses by key, encoded as bytes (`entry.pack`). ``now`` is the time in seconds on a monotonic clock."""

    def __init__(self, max_bytes: int) -> None:
        self.count = CacheCounters()
        self._max_bytes = max_bytes
        self._kept: OrderedDict[CacheKey, _Kept] = OrderedDict()
        self._bytes = 0

    def has(self, key: CacheKey, now: float) -> bool:
        """Return whether `get` would find the entry. Changes neither the counters nor the order of eviction."""
        kept = self._kept.get(key)
        return kept is not None and kept.expires > now

    def get(self, key: CacheKey, now: float) -> bytes | None:
        """Return the value and mark it as the most recently used; ``None`` if it is missing or expired."""
        kept = self._kept.get(key)
        if kept is not None and kept.expires <= now:
            self.remove(key)
            self.count.expired += 1
            kept = None
        if kept is None:
            self.count.misses += 1
            return None
        self._kept.move_to_end(key)
        self.count.hits += 1
        return kept.value

    def put(self, key: CacheKey, value: bytes, *, expires: float) -> None:
        """Keep ``value`` until ``expires``, replacing the entry under this key."""
        self.remove(key)
        cost = len(value) + OVERHEAD_BYTES
        if cost * LARGEST_SHARE > self._max_bytes:
            self.count.dropped += 1
            return
        self._kept[key] = _Kept(value, expires)
        self._bytes += cost
        self.count.stored += 1
        self._make_room()

    def remove(self, key: CacheKey) -> None:
        """Remove the entry, if there is one."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= len(kept.value) + OVERHEAD_BYTES

    def recount(self, now: float) -> None:
        """Repair the total size after a crash: drop expired entries, and add up the sizes of the others."""
        self._kept = OrderedDict((key, kept) for key, kept in self._kept.items() if kept.expires > now)
        self._bytes = sum(len(kept.value) + OVERHEAD_BYTES for kept in self._kept.values())
        self._make_room()

    def _make_room(self) -> None:
        while self._bytes > self._max_bytes:
            _, evicted = self._kept.popitem(last=False)
            self._bytes -= len(evicted.value) + OVERHEAD_BYTES
            self.count.evicted += 1

    def statistics(self) -> TierStatistics:
        """Return counters and gauges."""
        return statistics_of(self.count, entries=len(self._kept), size=self._bytes)
