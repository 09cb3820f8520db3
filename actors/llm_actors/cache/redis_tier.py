"""The Redis tier: cached responses that several processes share, and which of them makes one that is missing.

A problem with Redis causes misses, not errors. Whoever looks up a response that is missing and may make it holds its
flight in Redis; other processes wait for it for a while (`lookup_or_wait`). A flight is renewed while it is held, so
that of a process that has ended expires soon. It is the process that holds it: its other requests do not wait.

Responses are in Redis in plain form.
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
"""The largest response that is written."""

QUEUE_BYTES = 16_000_000
"""The most bytes that wait to be written."""

QUEUE_ENTRIES = 4_096
"""The most responses and ends of flights that wait to be written."""

BATCH_BYTES = 1_000_000
"""The most bytes written by one command; a larger response is written by itself."""

PIECE_BYTES = 1_000_000
"""One command reads no further entry after this many bytes."""

PIECE_KEYS = 256
"""The most entries that one command reads."""

READ_SECONDS = 0.08
"""How long a lookup takes at most. What it has found by then is returned."""

FLIGHT_SECONDS = 10.0
"""How long a flight is held that is not renewed."""

RENEW_SECONDS = 3.0
"""How often the flights are renewed."""

FLIGHT_MAX_SECONDS = 600.0
"""How long a flight is renewed at most: its end may have been lost."""

log = logging.getLogger(__name__)


@final
class RedisTier:
    """The cached responses under the prefix of ``server``. ``ttl_s``: how long they are kept. ``read_s``: how long a
    lookup takes at most.
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
            without="until it is back, this process caches on its own",
            first=((self._key("cache", "open"),), ("open",)),
        )
        self._queue: deque[Entry | CacheKey] = deque()
        """Responses to be written, and keys of flights that have ended."""
        self._queued_bytes = 0
        self._flights: dict[CacheKey, float] = {}
        """The flights of this process, and until when on Trio's clock they are renewed."""
        self._wake = trio.Event()
        self._finishing = False

    def _key(self, sort: str, name: str) -> str:
        """The braces put all keys into one slot of a Redis cluster, as those of the limits."""
        return f"{{{self._prefix}}}:{sort}:{name}"

    # -- looking up ----------------------------------------------------------------------------------------------------

    async def read(self, keys: Collection[CacheKey]) -> dict[CacheKey, Found]:
        """The entries for ``keys`` that were found in time; none while Redis is away."""
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
        """Add what there is of ``keys``. Raises `RedisAwayError`, and `ValueError` for a wrong answer."""
        while keys:
            piece = keys[:PIECE_KEYS]
            answer = await self._link.call([self._key("cache", key.hex()) for key in piece], "get", PIECE_BYTES)
            entries = [_entry(age, value) for age, value in zip(answer[::2], answer[1::2], strict=True)]
            if not 0 < len(entries) <= len(piece):
                raise ValueError("another number of entries than asked for")
            found.update((key, entry) for key, entry in zip(piece, entries, strict=False) if entry is not None)
            keys = keys[len(entries) :]

    async def claim(self, key: CacheKey) -> Claimed:
        """The entry for ``key``, or whether this process is to make it: also while Redis is away, and if it makes it
        already.
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
        """Queue ``entry`` to be written."""
        size = len(entry.value)
        too_many = len(self._queue) >= QUEUE_ENTRIES or self._queued_bytes + size > QUEUE_BYTES
        if size > VALUE_BYTES or too_many or not self._link.is_open:
            self._count.dropped += 1
            return
        self._queue.append(entry)
        self._queued_bytes += size
        self._wake.set()

    def release(self, key: CacheKey) -> None:
        """End a flight of this process, after what was queued before."""
        if self._flights.pop(key, None) is not None:
            self._end(key)

    def _end(self, key: CacheKey) -> None:
        if len(self._queue) < QUEUE_ENTRIES:  # otherwise it expires
            self._queue.append(key)
            self._wake.set()

    async def run(self) -> None:
        """Write what is queued until `finish` is called and the queue is empty."""
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
        """Nothing: `run` closes the connection."""

    def statistics(self) -> TierStatistics:
        """Counters; the size is not known here."""
        return statistics_of(self._count, entries=None, size=0)


def _entry(age: bytes, value: bytes) -> Found | None:
    """What Redis has; ``None`` for a missing entry. Raises `ValueError`."""
    return Found(value, float(age)) if value else None
