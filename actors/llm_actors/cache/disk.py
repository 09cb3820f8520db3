"""The file tier as the actor sees it: bounded waits and bounded queues.

All work on the file is done in one thread at a time. A lookup that takes too long is a miss, although its thread
continues; until that thread ends, other lookups are misses, too. Writes are queued and made in batches, after the
responses were delivered. Entries that exceed the queue's limits are dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol, TypeVar, TypeVarTuple, Unpack, final

import trio

from llm_actors.cache.entry import Claimed, Entry, Found
from llm_actors.cache.key import CacheKey
from llm_actors.cache.statistics import CacheCounters, TierStatistics

READ_SECONDS = 0.05
"""Seconds that a lookup waits for the file. After that it is a miss."""

READERS = 64
"""The most lookups that wait for the file at the same time; one more is a miss."""

QUEUE_BYTES = 16_000_000
"""The most bytes that wait to be written."""

QUEUE_ENTRIES = 4_096
"""The most responses that wait to be written."""

BATCH_BYTES = 1_000_000
"""The most bytes written in one transaction, so that lookups get their turn. A larger response is written alone."""

CLOSE_SECONDS = 0.5
"""Seconds for closing the file. Less than `KILL_SECONDS`, the time that a cancelled actor has to end."""

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class DiskTier(Protocol):
    """The file's interface, called in a thread. `FileTier` is the one implementation. Its methods do not raise for a
    bad file.
    """

    count: CacheCounters

    def ready(self) -> bool: ...
    def read(self, keys: Collection[CacheKey], /) -> dict[CacheKey, Found]: ...
    def write(self, entries: list[Entry], /) -> None: ...
    def open(self) -> None: ...
    def close(self) -> None: ...
    def statistics(self) -> TierStatistics: ...


@final
class Disk:
    """Calls a `DiskTier` in a thread. Lookups have a time limit, and writes are queued."""

    def __init__(self, tier: DiskTier) -> None:
        self._tier = tier
        self._thread = trio.CapacityLimiter(1)
        self._readers = 0
        self._late = False
        self._queue: deque[Entry] = deque()
        self._queued_bytes = 0
        self._wake = trio.Event()
        self._finishing = False

    async def read(self, keys: Collection[CacheKey]) -> dict[CacheKey, Found]:
        """Return the entries for ``keys``; none if reading takes more than `READ_SECONDS`."""
        if not self._may_read():
            return {}
        self._readers += 1
        try:
            with trio.move_on_after(READ_SECONDS):
                return await self._in_thread(self._tier.read, keys)
        finally:
            self._readers -= 1
        self._late = True
        self._tier.count.errors += 1
        return {}

    async def claim(self, key: CacheKey) -> Claimed:
        """Return the entry for ``key``. If there is none, ``is_ours`` is set: other processes are not asked whether
        they produce the response.
        """
        found = (await self.read((key,))).get(key)
        return Claimed(found, is_ours=found is None)

    def release(self, key: CacheKey) -> None:
        """Do nothing: no other process waits for a response of this process."""

    def _may_read(self) -> bool:
        self._late = self._late and self._thread.borrowed_tokens > 0
        return not self._late and self._readers < READERS and self._tier.ready()

    def write(self, entry: Entry) -> None:
        """Queue ``entry`` to be written; drop it if the queue is full."""
        if len(self._queue) >= QUEUE_ENTRIES or self._queued_bytes + len(entry.value) > QUEUE_BYTES:
            self._tier.count.dropped += 1
            return
        self._queue.append(entry)
        self._queued_bytes += len(entry.value)
        self._wake.set()

    async def run(self) -> None:
        """Open the file, then write queued entries until `finish` is called and the queue is empty."""
        await self._in_thread(self._tier.open)
        while self._queue or not self._finishing:
            await self._wake.wait()
            while self._queue:
                await self._in_thread(self._tier.write, self._batch())
            if not self._finishing:
                self._wake = trio.Event()

    def _batch(self) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        while self._queue and (not batch or size + len(self._queue[0].value) <= BATCH_BYTES):
            entry = self._queue.popleft()
            size += len(entry.value)
            batch.append(entry)
        self._queued_bytes -= size
        return batch

    def finish(self) -> None:
        """Let `run` return once everything is written."""
        self._finishing = True
        self._wake.set()

    async def close(self) -> None:
        """Close the file, within `CLOSE_SECONDS` even when cancelled. A thread that is stuck keeps the file open."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._in_thread(self._tier.close)

    async def _in_thread(self, work: Callable[[Unpack[Ts]], R], *args: *Ts) -> R:
        return await trio.to_thread.run_sync(work, *args, abandon_on_cancel=True, limiter=self._thread)

    def statistics(self) -> TierStatistics:
        """Return counters and gauges."""
        return self._tier.statistics()
