"""The cache actor with a tier that several processes share, whose claims the test answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from llm_actors.cache import CacheActor, CacheRef, Lifetimes, lookup, lookup_or_wait
from llm_actors.cache.entry import Claimed, Entry, Found, pack
from llm_actors.cache.key import CacheKey
from llm_actors.cache.memory import Memory
from llm_actors.cache.messages import CACHE_MAILBOX
from llm_actors.cache.statistics import CacheCounters, TierStatistics, statistics_of
from llm_actors.testing import alone
from support.caching import answer, key

TTL = 100.0


class SharedTier:
    """What is stored has an age. A lookup hangs if it is told to, and counts that it was cancelled."""

    def __init__(self) -> None:
        self.stored: dict[CacheKey, Found] = {}
        self.hangs = False
        self.hanging = self.cancelled = 0

    async def read(self, keys: Collection[CacheKey]) -> dict[CacheKey, Found]:
        await self._hang()
        return {each: self.stored[each] for each in keys if each in self.stored}

    async def claim(self, key: CacheKey) -> Claimed:
        await self._hang()
        found = self.stored.get(key)
        return Claimed(found, is_ours=found is None)

    async def _hang(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.hangs:
            self.hanging += 1
            try:
                await trio.sleep_forever()
            finally:
                self.hanging -= 1
                self.cancelled += 1

    def release(self, key: CacheKey) -> None:
        pass

    def write(self, entry: Entry) -> None:
        pass

    async def run(self) -> None:
        await trio.sleep_forever()

    def finish(self) -> None:
        pass

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()

    def statistics(self) -> TierStatistics:
        return statistics_of(CacheCounters(), entries=None, size=0)


@asynccontextmanager
async def cache_on(tier: SharedTier) -> AsyncIterator[CacheRef]:
    actor = CacheActor(Memory(1_000_000), lifetimes=Lifetimes(TTL), second=tier)
    async with alone(actor, name="cache", mailbox=CACHE_MAILBOX) as lone:
        yield lone.ref


@pytest.mark.parametrize("is_readable", [True, False], ids=["expired", "unreadable"])
async def test_a_request_does_not_wait_for_an_entry_that_is_of_no_use(
    is_readable: bool, autojump_clock: MockClock
) -> None:
    """The tier keeps entries for the longest lifetime, and so nobody else makes what has expired before."""
    tier = SharedTier()
    value = pack(answer()) if is_readable else b"junk"
    assert value is not None
    tier.stored[key(1)] = Found(value, TTL + 1)
    async with cache_on(tier) as cache:
        began = trio.current_time()
        assert await lookup_or_wait(cache, key(1), wait_s=30.0) == (None, True)
        assert trio.current_time() == began


@pytest.mark.parametrize("is_claim", [True, False], ids=["claim", "lookup"])
async def test_a_lookup_ends_when_its_caller_has_left(is_claim: bool, autojump_clock: MockClock) -> None:
    tier = SharedTier()
    tier.hangs = True
    async with cache_on(tier) as cache:
        with trio.move_on_after(0.01):
            await (lookup_or_wait(cache, key(1), wait_s=30.0) if is_claim else lookup(cache, key(1)))
        await trio.testing.wait_all_tasks_blocked()
        assert (tier.hanging, tier.cancelled) == (0, 1)


async def test_a_lookup_ends_when_it_is_late(autojump_clock: MockClock) -> None:
    tier = SharedTier()
    tier.hangs = True
    async with cache_on(tier) as cache:
        assert await lookup(cache, key(1)) is None
        await trio.testing.wait_all_tasks_blocked()
        assert (tier.hanging, tier.cancelled) == (0, 1)
