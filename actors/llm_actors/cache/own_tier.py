"""The tier for a `CacheStore`: a store that the host program provides in place of the file. A problem with it causes
misses, not errors.

Each value begins with the time at which it was stored, by the wall clock, because several machines may share the
store.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Collection, Sequence
from functools import partial
from math import inf
from typing import Protocol, TypeVar, final

from llm_actors.cache.clock import MachineClock, machine_clock
from llm_actors.cache.entry import Entry, Found
from llm_actors.cache.key import CacheKey
from llm_actors.cache.statistics import CacheCounters, TierStatistics, statistics_of
from llm_actors.kernel.errors import exception_site

RETRY_SECONDS = 5.0
"""Seconds for which a store that failed is not used."""

_STORED_AT = struct.Struct(">d")

log = logging.getLogger(__name__)

T = TypeVar("T")


class CacheStore(Protocol):
    """A program's own storage for cached responses. The methods may block and may raise.

    They are called in a thread, one at a time. A `get` that takes longer than 0.05 s is a miss. Keys have 32 bytes
    that reveal nothing about the request. Values contain the responses: whoever can read the store can read the
    responses.
    """

    def get(self, key: bytes, /) -> bytes | None:
        """Return the value under ``key``, unchanged; ``None`` if there is none."""
        ...

    def put(self, key: bytes, value: bytes, ttl_s: float, /) -> None:
        """Keep ``value`` under ``key``. The store may delete it after ``ttl_s`` seconds."""
        ...


@final
class OwnTier:
    """Responses in a `CacheStore`, encoded as bytes (`entry.pack`)."""

    def __init__(self, store: CacheStore, *, ttl_s: float, clock: MachineClock | None = None) -> None:
        self.count = CacheCounters()
        self._store = store
        self._ttl_s = ttl_s
        self._clock = clock or machine_clock()
        self._rests_until = -inf
        self._is_failing = False

    def ready(self) -> bool:
        """Whether the store may be used. False for `RETRY_SECONDS` after a failure."""
        return self._clock.since_boot() >= self._rests_until

    def read(self, keys: Collection[CacheKey]) -> dict[CacheKey, Found]:
        """Return the entries for those of ``keys`` that the store has; none if the store fails."""
        found = {key: entry for key in keys if (entry := self._read(key)) is not None}
        self.count.hits += len(found)
        self.count.misses += len(keys) - len(found)
        return found

    def _read(self, key: CacheKey) -> Found | None:
        value = self._try(partial(self._store.get, key))
        if value is None:
            return None
        found: object = value  # the program's store may return anything
        if not isinstance(found, bytes) or len(found) < _STORED_AT.size:
            self.count.errors += 1
            return None
        [stored_at] = _STORED_AT.unpack_from(value)
        age_s = self._clock.wall() - stored_at  # below zero: the clock of another machine is ahead
        if not abs(age_s) < self._ttl_s:  # true also for NaN
            self.count.expired += 1
            return None
        return Found(value[_STORED_AT.size :], max(0.0, age_s))

    def write(self, entries: Sequence[Entry]) -> None:
        """Store ``entries``, or drop them if the store fails."""
        for entry in entries:
            value = _STORED_AT.pack(self._clock.wall()) + entry.value
            if self._try(partial(self._put, entry.key, value)):
                self.count.stored += 1
            else:
                self.count.dropped += 1

    def _put(self, key: CacheKey, value: bytes) -> bool:
        self._store.put(key, value, self._ttl_s)
        return True

    def open(self) -> None:
        """Do nothing: the program has opened the store."""

    def close(self) -> None:
        """Do nothing: the program closes the store."""

    def _try(self, work: Callable[[], T]) -> T | None:
        if not self.ready():
            return None
        try:
            done = work()
        except Exception as exc:  # raised by the program; its text may contain anything
            self.count.errors += 1
            self._rests_until = self._clock.since_boot() + RETRY_SECONDS
            if not self._is_failing:
                log.error("the program's cache store failed; requests continue without it: %s", exception_site(exc))  # noqa: TRY400
            self._is_failing = True
            return None
        if self._is_failing:
            log.info("the program's cache store works again")
            self._is_failing = False
        return done

    def statistics(self) -> TierStatistics:
        """Return counters. The size is unknown."""
        return statistics_of(self.count, entries=None, size=0)
