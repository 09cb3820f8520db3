"""The Redis tier: cached responses that several processes share, and the coordination of which process produces a
missing one.

A problem with Redis causes misses, not errors. A process that may produce a missing response holds a *flight* for its
key in Redis. Other processes wait for the response for a while (`lookup_or_wait`). A flight is renewed while it is
held, so the flight of a process that has ended expires soon. The flight belongs to the process: other requests of the
same process do not wait for it.

Responses are stored in Redis without encryption.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Sequence
from secrets import token_hex
from typing import final

import trio

from llm_actors.cache.entry import Claimed, Entry, Found
from llm_actors.cache.key import CacheKey
from llm_actors.cache.statistics import CacheCounters, TierStatistics, statistics_of
from llm_actors.redis import RedisAwayError, RedisServer, script_of
from llm_actors.redis_link import RedisLink

VALUE_BYTES = 4_000_000
"""The largest response in bytes that is written."""

QUEUE_BYTES = 16_000_000
"""The most bytes that wait to be written."""

QUEUE_ENTRIES = 4_096
"""The most responses and ends of flights that wait to be written."""

BATCH_BYTES = 1_000_000
"""The most bytes written by one command. A larger response is written alone."""

PIECE_BYTES = 1_000_000
"""A command reads no further entry after this many bytes."""

PIECE_KEYS = 256
"""The most entries that one command reads."""

READ_SECONDS = 0.08
"""The most seconds of a lookup. The entries that were found by then are returned."""

FLIGHT_SECONDS = 10.0
"""Seconds after which a flight that is not renewed expires."""

RENEW_SECONDS = 3.0
"""Seconds between two renewals of the flights."""

FLIGHT_MAX_SECONDS = 600.0
"""The most seconds for which a flight is renewed, in case the message that ends it was lost."""

log = logging.getLogger(__name__)


@final
class RedisTier:
    """The cached responses under the key prefix of ``server``. ``ttl_s``: seconds for which they are kept.
    ``read_s``: the most seconds of a lookup.
    """

    def __init__(self, server: RedisServer, *, ttl_s: float, read_s: float = READ_SECONDS) -> None:
        self._count = CacheCounters()
        self._prefix = server.prefix
        self._ttl_ms = int(ttl_s * 1000)
        self._read_s = read_s
        self._process = token_hex(8)
        self._link = RedisLink(
            server,
            script_of("llm_actors.cache", "cache.lua"),
            what="cached responses are",
            without="until it is reachable again, this process uses only its own cache",
            first=((self._key("cache", "open"),), ("open",)),
        )
        self._queue: deque[Entry | CacheKey] = deque()
        """Responses to be written, and keys of flights that have ended."""
        self._queued_bytes = 0
        self._flights: dict[CacheKey, float] = {}
        """The flights of this process. Each is renewed until the given time on Trio's clock."""
        self._wake = trio.Event()
        self._finishing = False

    def _key(self, sort: str, name: str) -> str:
        """Return a key. The braces put all keys into one slot of a Redis cluster."""
        return f"{{{self._prefix}}}:{sort}:{name}"

    # -- looking up ----------------------------------------------------------------------------------------------------

    async def read(self, keys: Collection[CacheKey]) -> dict[CacheKey, Found]:
        """Return the entries for ``keys`` that were found in time; none while Redis is unreachable."""
        found: dict[CacheKey, Found] = {}
        try:
            with trio.fail_after(self._read_s):
                await self._read_into(found, list(keys))
        except (RedisAwayError, ValueError, trio.TooSlowError):
            self._count.errors += 1
        else:
            self._count.misses += len(keys) - len(found)
        self._count.hits += len(found)
        return found

    async def _read_into(self, found: dict[CacheKey, Found], keys: Sequence[CacheKey]) -> None:
        """Add the entries for ``keys`` to ``found``. Raises `RedisAwayError`, and `ValueError` for an invalid reply."""
        while keys:
            piece = keys[:PIECE_KEYS]
            answer = await self._link.call([self._key("cache", key.hex()) for key in piece], "get", PIECE_BYTES)
            entries = [_entry(age, value) for age, value in zip(answer[::2], answer[1::2], strict=True)]
            if not 0 < len(entries) <= len(piece):
                raise ValueError("Redis's reply to cache.lua has a wrong number of entries")
            found.update((key, entry) for key, entry in zip(piece, entries, strict=False) if entry is not None)
            keys = keys[len(entries) :]

    async def claim(self, key: CacheKey) -> Claimed:
        """Return the entry for ``key``. If there is none, ``is_ours`` is set unless another process produces it. It
        is also set while Redis is unreachable, and if this process already holds the flight.
        """
        keys = (self._key("cache", key.hex()), self._key("flight", key.hex()))
        try:
            age, value, state = await self._link.call(keys, "claim", self._process, int(FLIGHT_SECONDS * 1000))
            found = _entry(age, value)
        except (RedisAwayError, ValueError):
            self._count.errors += 1
            return Claimed(None, is_ours=True)
        except trio.Cancelled:
            self._end(key)  # it may have been claimed
            raise
        self._count.hits += found is not None
        self._count.misses += found is None
        if state == b"ours":
            self._flights[key] = trio.current_time() + FLIGHT_MAX_SECONDS
        return Claimed(found, is_ours=state == b"ours")

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, entry: Entry) -> None:
        """Queue ``entry`` to be written. Drop it if it is too large, the queue is full, or Redis is unreachable."""
        size = len(entry.value)
        too_many = len(self._queue) >= QUEUE_ENTRIES or self._queued_bytes + size > QUEUE_BYTES
        if size > VALUE_BYTES or too_many or not self._link.is_open:
            self._count.dropped += 1
            return
        self._queue.append(entry)
        self._queued_bytes += size
        self._wake.set()

    def release(self, key: CacheKey) -> None:
        """Give up this process's right to produce ``key``. Redis is told after the entries that are queued already are
        written. Does nothing if this process does not have the right.
        """
        if self._flights.pop(key, None) is not None:
            self._end(key)

    def _end(self, key: CacheKey) -> None:
        if len(self._queue) < QUEUE_ENTRIES:  # otherwise it expires
            self._queue.append(key)
            self._wake.set()

    async def run(self) -> None:
        """Write queued entries until `finish` is called and the queue is empty."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._link.run)
            nursery.start_soon(self._renew)
            while self._queue or not self._finishing:
                await self._wake.wait()
                while self._queue:
                    await self._write_some()
                if not self._finishing:
                    self._wake = trio.Event()
            nursery.cancel_scope.cancel("everything is written")

    async def _write_some(self) -> None:
        batch: list[Entry] = []
        size = 0
        while self._queue and isinstance(first := self._queue[0], Entry):
            if batch and size + len(first.value) > BATCH_BYTES:
                break
            size += len(first.value)
            batch.append(first)
            self._queue.popleft()
        self._queued_bytes -= size
        ended: list[CacheKey] = []
        while not batch and self._queue and not isinstance(key := self._queue[0], Entry):
            self._queue.popleft()
            if key not in self._flights:  # it has not been claimed again
                ended.append(key)
        stored = 0
        try:
            if batch:
                keys = [self._key("cache", each.key.hex()) for each in batch]
                answer = await self._link.call(keys, "put", self._ttl_ms, *(each.value for each in batch))
                stored = answer.count(b"1")
            elif ended:
                await self._link.call([self._key("flight", each.hex()) for each in ended], "release", self._process)
        except RedisAwayError:
            self._count.errors += 1
        self._count.stored += stored
        self._count.dropped += len(batch) - stored

    async def _renew(self) -> None:
        while True:
            await trio.sleep(RENEW_SECONDS)
            now = trio.current_time()
            self._flights = {key: until for key, until in self._flights.items() if until > now}
            if self._flights:
                keys = [self._key("flight", each.hex()) for each in self._flights]
                try:
                    await self._link.call(keys, "renew", self._process, int(FLIGHT_SECONDS * 1000))
                except RedisAwayError:
                    self._count.errors += 1

    def finish(self) -> None:
        """Let `run` return once everything is written."""
        self._finishing = True
        self._wake.set()

    async def close(self) -> None:
        """Do nothing: `run` closes the connection."""

    def statistics(self) -> TierStatistics:
        """Return counters. The size is unknown."""
        return statistics_of(self._count, entries=None, size=0)


def _entry(age: bytes, value: bytes) -> Found | None:
    """Return the entry for a reply of Redis; ``None`` if it is missing. Raises `ValueError`."""
    return Found(value, float(age)) if value else None
