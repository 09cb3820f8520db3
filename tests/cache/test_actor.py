"""The cache actor as its callers see it: its answers, and what a bad day of it costs them."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from llm_actors.cache import (
    CacheActor,
    CacheRef,
    Lifetimes,
    cache_child,
    lookup,
    lookup_all,
    statistics,
    store,
    store_all,
)
from llm_actors.cache.disk import QUEUE_BYTES, READ_SECONDS, READERS, Disk
from llm_actors.cache.entry import Entry, Found, pack, unpack
from llm_actors.cache.key import CacheKey
from llm_actors.cache.memory import Memory
from llm_actors.cache.messages import CACHE_MAILBOX, LOOKUP_SECONDS, CacheMessage
from llm_actors.cache.statistics import CacheCounters, TierStatistics, statistics_of
from llm_actors.kernel import ChildSpec, Inbox, MailboxSpec, Overflow, Supervisor, running
from llm_actors.testing import Crash, Drop, alone, cancel_at_every_checkpoint, with_faults
from llm_protocol.content import Opaque
from llm_protocol.policy import CachePolicy
from llm_protocol.response import FinishReason, LLMResponse
from support.caching import answer, key

TTL = 100.0


class SlowTier:
    """A file tier whose disk takes as long as the test says, or for ever."""

    def __init__(self) -> None:
        self.count = CacheCounters()
        self.kept: dict[CacheKey, bytes] = {}
        self.reads = self.closed = 0
        self.disk = threading.Event()
        self.disk.set()

    def ready(self) -> bool:
        return True

    def read(self, keys: Collection[CacheKey]) -> dict[CacheKey, Found]:
        self.reads += 1
        assert self.disk.wait(30)
        return {each: Found(self.kept[each], 60.0) for each in keys if each in self.kept}

    def write(self, entries: list[Entry]) -> None:
        assert self.disk.wait(30)
        self.kept |= dict(entries)

    def open(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1

    def statistics(self) -> TierStatistics:
        return statistics_of(self.count, entries=None, size=0)


@asynccontextmanager
async def cache_on(tier: SlowTier) -> AsyncIterator[CacheRef]:
    actor = CacheActor(Memory(1_000_000), lifetimes=Lifetimes(TTL), second=Disk(tier))
    async with alone(actor, name="cache", mailbox=CACHE_MAILBOX) as lone:
        yield lone.ref


@asynccontextmanager
async def cache(policy: CachePolicy | None = None) -> AsyncIterator[CacheRef]:
    child = cache_child(policy or CachePolicy(enabled=True, ttl_s=TTL))
    root = Supervisor([child])
    async with running(root):
        yield root.ref(child)


async def test_response_cache_get_and_set(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """`ResponseCache`: what was set is got, and a hit is logged with its request's id and nothing of its contents."""
    caplog.set_level(logging.INFO)
    async with cache() as ref:
        assert await lookup(ref, key(1), "req_1") is None
        assert caplog.records == []
        assert store(ref, key(1), answer("the secret of it"))
        found = await lookup(ref, key(1), "req_2")
        assert found == msgspec.structs.replace(
            answer("the secret of it"), request_id="", response_id="", timestamp=found.timestamp if found else 0
        )
        assert await lookup(ref, key(2)) is None
    assert [record.getMessage() for record in caplog.records] == ["request req_2: 1 of 1 responses are from the cache"]


async def test_response_cache_forgets_after_the_time_to_live(autojump_clock: trio.testing.MockClock) -> None:
    async with cache() as ref:
        store(ref, key(1), answer())
        await trio.sleep(TTL - 0.01)
        assert await lookup(ref, key(1)) is not None
        await trio.sleep(0.01)
        assert await lookup(ref, key(1)) is None
        said = (await statistics(ref)).memory
        assert (said.hits, said.misses, said.stored, said.expired, said.entries, said.bytes) == (1, 1, 1, 1, 0, 0)


async def test_response_cache_gives_each_asker_a_copy(autojump_clock: trio.testing.MockClock) -> None:
    """What one caller does to its answer, the next does not see."""
    said = msgspec.structs.replace(answer(), output=(Opaque(dialect="x", value={"list": [1]}),))
    async with cache() as ref:
        store(ref, key(1), said)
        for _ in range(2):
            found = await lookup(ref, key(1))
            assert found is not None
            [part] = found.output
            assert isinstance(part, Opaque)
            assert part.value == {"list": [1]}
            part.value["list"].append(2)


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.ERROR, FinishReason.CONTENT_FILTER, None])
async def test_what_is_not_complete_is_not_stored(
    autojump_clock: trio.testing.MockClock, reason: FinishReason | None
) -> None:
    async with cache() as ref:
        assert not store(ref, key(1), answer(reason=reason))
        assert await lookup(ref, key(1)) is None


async def test_a_fallback_answer_is_not_stored(autojump_clock: trio.testing.MockClock) -> None:
    """An outage of minutes does not make the second best the answer of the hour."""
    async with cache() as ref:
        assert not store(ref, key(1), answer(), fallback=True)
        assert await lookup(ref, key(1)) is None


async def test_several_keys_are_one_call(autojump_clock: trio.testing.MockClock) -> None:
    """An embedding request of a hundred inputs costs one hop."""
    async with cache() as ref:
        assert store_all(ref, [(key(n), answer(str(n))) for n in range(0, 100, 2)]) == 50
        before = ref.statistics().accepted
        found = await lookup_all(ref, [key(n) for n in range(100)])
        assert ref.statistics().accepted == before + 1
        assert [each.content if each else "" for each in found] == [str(n) if n % 2 == 0 else "" for n in range(100)]


async def test_an_answer_without_canonical_bytes_is_counted_and_not_stored(
    autojump_clock: trio.testing.MockClock,
) -> None:
    odd = msgspec.structs.replace(answer(), output=(Opaque(dialect="x", value={"n": 2**70}),))
    async with cache() as ref:
        store(ref, key(1), odd)
        assert await lookup(ref, key(1)) is None
        assert (await statistics(ref)).memory.errors == 1


# ---------------------------------------------------------------- with a file


async def test_response_cache_outlives_its_process(mock_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Stopping writes what is queued; the next start finds it, and keeps it in memory from then on."""
    policy = CachePolicy(enabled=True, path=str(tmp_path / "cache.db"), ttl_s=TTL)
    async with cache(policy) as ref:
        for number in range(50):
            store(ref, key(number), answer(str(number)))
        assert await lookup(ref, key(0)) is not None
    async with cache(policy) as ref:
        for _ in range(2):
            found = await lookup(ref, key(7))
            assert found is not None
            assert found.content == "7"
        said = await statistics(ref)
        assert said.file is not None
        assert (said.file.hits, said.memory.hits) == (1, 1)


async def test_a_memory_hit_asks_no_thread(mock_clock: trio.testing.MockClock) -> None:
    tier = SlowTier()
    async with cache_on(tier) as ref:
        store(ref, key(1), answer())
        assert await lookup(ref, key(1)) is not None
    assert tier.reads == 0
    assert tier.closed == 1


async def test_what_the_file_has_keeps_its_age(mock_clock: trio.testing.MockClock) -> None:
    """Coming from the file does not make an entry young: it was 60 s old, and lives 40 s more."""
    tier = SlowTier()
    tier.kept[key(1)] = pack(answer()) or b""
    async with cache_on(tier) as ref:
        assert await lookup(ref, key(1)) is not None
        tier.kept.clear()
        mock_clock.jump(39)
        assert await lookup(ref, key(1)) is not None
        mock_clock.jump(1)
        assert await lookup(ref, key(1)) is None


async def test_a_slow_disk_delays_a_request_by_its_bound_and_only_one(mock_clock: trio.testing.MockClock) -> None:
    """The first lookup gives up after `READ_SECONDS`; while the disk hangs, the others do not wait at all, memory
    answers as ever, and stores pile up to their bound. When the disk is back, so is its tier."""
    tier = SlowTier()
    tier.kept[key(1)] = pack(answer()) or b""
    async with cache_on(tier) as ref, trio.open_nursery() as nursery:
        await trio.testing.wait_all_tasks_blocked()
        tier.disk.clear()
        started = trio.current_time()
        nursery.start_soon(expect_a_miss, ref)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(READ_SECONDS)
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks
        mock_clock.autojump_threshold = 0.2  # real seconds: whoever waits for the disk is seen, a busy machine is not
        assert await lookup(ref, key(1)) is None
        store(ref, key(2), answer())
        assert await lookup(ref, key(2)) is not None
        assert trio.current_time() - started == pytest.approx(READ_SECONDS)
        assert tier.count.errors == 1
        mock_clock.autojump_threshold = inf
        tier.disk.set()
        for _ in range(1_000):
            if await lookup(ref, key(1)) is not None:
                break
            await trio.to_thread.run_sync(int)  # until the thread that hung has come back
        else:
            pytest.fail("the disk is back, its tier is not")
    assert key(2) in tier.kept, "what was stored meanwhile is written"


async def expect_a_miss(ref: CacheRef) -> None:
    assert await lookup(ref, key(1)) is None


async def test_lookups_and_writes_that_wait_for_the_disk_are_bounded(mock_clock: trio.testing.MockClock) -> None:
    tier = SlowTier()
    tier.disk.clear()
    disk = Disk(tier)
    async with trio.open_nursery() as nursery:
        for _ in range(READERS):
            nursery.start_soon(disk.read, [key(1)])
        await trio.testing.wait_all_tasks_blocked()
        assert await disk.read([key(1)]) == {}, "one more does not wait"
        for number in range(40):
            disk.write(Entry(key(number), bytes(QUEUE_BYTES // 20)))
        assert tier.count.dropped == 20
        tier.disk.set()
    disk.finish()
    await disk.run()
    assert len(tier.kept) == 20
    await disk.close()


async def test_a_disk_that_never_answers_does_not_hold_up_the_stop(mock_clock: trio.testing.MockClock) -> None:
    tier = SlowTier()
    async with cache_on(tier) as ref:
        await trio.testing.wait_all_tasks_blocked()
        tier.disk.clear()
        store(ref, key(1), answer())
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.autojump_threshold = 0.01
        started = trio.current_time()
    assert trio.current_time() - started < 5
    tier.disk.set()


# ---------------------------------------------------------------- a bad day


async def test_a_cache_that_crashes_is_a_miss_and_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    """The request in hand goes on uncached; the next finds what was kept before the crash."""
    child = with_faults(cache_child(CachePolicy(enabled=True)), {2: Crash()})
    root = Supervisor([child])
    async with running(root):
        ref = root.ref(child)
        store(ref, key(1), answer())
        assert await lookup(ref, key(1)) is None
        await trio.sleep(1)
        assert await lookup(ref, key(1)) is not None
        told = (await statistics(ref)).memory
        assert (told.stored, told.entries, told.hits) == (1, 1, 1)


async def test_an_entry_that_cannot_be_read_for_whatever_reason_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It outlives a crash, in memory and in the file, and would crash each incarnation that is asked for it."""

    def crash_at_one(value: bytes) -> LLMResponse | None:
        if b"unlucky" in value:
            raise ZeroDivisionError("secret")
        return unpack(value)

    monkeypatch.setattr("llm_actors.cache.actor.unpack", crash_at_one)
    monkeypatch.setattr("llm_actors.cache.messages.LOOKUP_SECONDS", 10.0)  # a busy machine may be slow to read the file
    child = cache_child(CachePolicy(enabled=True, path=str(tmp_path / "cache.db")))
    root = Supervisor([child])
    async with running(root):
        ref = root.ref(child)
        store(ref, key(1), answer("unlucky"))
        store(ref, key(2), answer("second"))
        for _ in range(20):
            found = await lookup_all(ref, [key(1), key(2)])
            assert [each and each.content for each in found] == [None, "second"]
        assert root.tree().children[0].restarts == 0
        assert (await statistics(ref)).memory.errors >= 1
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_cache_that_does_not_answer_is_a_miss_within_the_bound(autojump_clock: trio.testing.MockClock) -> None:
    child = with_faults(cache_child(CachePolicy(enabled=True)), {1: Drop()})
    root = Supervisor([child])
    async with running(root):
        started = trio.current_time()
        assert await lookup(root.ref(child), key(1)) is None
        assert trio.current_time() - started == pytest.approx(LOOKUP_SECONDS)


async def test_a_cache_that_has_stopped_or_is_behind_is_a_miss(autojump_clock: trio.testing.MockClock) -> None:
    async with cache() as ref:
        pass
    assert await lookup(ref, key(1)) is None
    store(ref, key(1), answer())

    class Idle:
        async def run(self, inbox: Inbox[CacheMessage], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await trio.sleep(1)

    assert CACHE_MAILBOX.overflow is Overflow.DROP_NEWEST
    behind: ChildSpec[CacheMessage] = ChildSpec("cache", lambda _: Idle(), mailbox=MailboxSpec(1, Overflow.DROP_NEWEST))
    root = Supervisor([behind])
    async with running(root):
        full = root.ref(behind)
        for number in range(3):
            store(full, key(number), answer())
        started = trio.current_time()
        assert await lookup(full, key(1)) is None
        assert trio.current_time() == started, "a full mailbox is not waited for"


async def test_the_caller_s_own_deadline_is_its_own(autojump_clock: trio.testing.MockClock) -> None:
    """The cache's bound makes a miss; the caller's deadline ends the caller."""
    child = with_faults(cache_child(CachePolicy(enabled=True)), {1: Drop()})
    root = Supervisor([child])
    async with running(root):
        with trio.move_on_after(LOOKUP_SECONDS / 2) as scope:
            await lookup(root.ref(child), key(1))
        assert scope.cancelled_caught


def test_cancelled_anywhere_it_leaves_nothing() -> None:
    """The caller is, and the cache goes on to serve the next one."""

    async def scenario(scope: trio.CancelScope) -> None:
        async with cache() as ref:
            with scope:
                await lookup(ref, key(1))
                store(ref, key(1), answer())
                await lookup(ref, key(1))
            store(ref, key(2), answer())
            assert await lookup(ref, key(2)) is not None

    assert cancel_at_every_checkpoint(scenario) > 5


# ---------------------------------------------------------------- providers with a time of their own


async def test_a_providers_own_time_to_live_comes_before_the_general_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    child = cache_child(CachePolicy(enabled=True, ttl_s=TTL), ttls={"quick": 10.0, "slow": 1_000.0})
    root = Supervisor([child])
    async with running(root):
        ref = root.ref(child)
        for name in ("quick", "usual", "slow"):
            store(ref, key(name), msgspec.structs.replace(answer(), provider=name))

        async def kept() -> list[str]:
            return [name for name in ("quick", "usual", "slow") if await lookup(ref, key(name)) is not None]

        await trio.sleep(9)
        assert await kept() == ["quick", "usual", "slow"]
        await trio.sleep(1)
        assert await kept() == ["usual", "slow"]
        await trio.sleep(TTL)
        assert await kept() == ["slow"]
        await trio.sleep(1_000)
        assert await kept() == []


async def test_an_answer_of_several_lives_as_long_as_the_shortest_lived_of_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    child = cache_child(CachePolicy(enabled=True, ttl_s=TTL), ttls={"quick": 10.0})
    member = msgspec.structs.replace(answer(), provider="quick")
    root = Supervisor([child])
    async with running(root):
        ref = root.ref(child)
        store(ref, key(1), msgspec.structs.replace(answer(), members=(answer(), member)))
        await trio.sleep(9)
        assert await lookup(ref, key(1)) is not None
        await trio.sleep(1)
        assert await lookup(ref, key(1)) is None


async def test_what_the_file_keeps_too_long_for_its_provider_is_a_miss(mock_clock: trio.testing.MockClock) -> None:
    """The file keeps all as long as the longest-lived; here what it has is 60 s old."""
    tier = SlowTier()
    for name in ("quick", "slow"):
        tier.kept[key(name)] = pack(msgspec.structs.replace(answer(), provider=name)) or b""
    lifetimes = Lifetimes(TTL, {"quick": 60.0, "slow": 61.0})
    actor = CacheActor(Memory(1_000_000), lifetimes=lifetimes, second=Disk(tier))
    async with alone(actor, name="cache", mailbox=CACHE_MAILBOX) as lone:
        assert await lookup(lone.ref, key("quick")) is None
        assert await lookup(lone.ref, key("slow")) is not None
        assert (await statistics(lone.ref)).memory.expired == 1
        mock_clock.jump(1)
        tier.kept.clear()
        assert await lookup(lone.ref, key("slow")) is None
    assert lifetimes.longest == TTL


async def test_the_file_keeps_an_answer_as_long_as_its_provider_says(
    mock_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Though all others are long gone: a millionth of a second has passed between the two processes."""
    policy = CachePolicy(enabled=True, path=str(tmp_path / "cache.db"), ttl_s=1e-6)
    found: list[str] = []
    for _ in range(2):
        child = cache_child(policy, ttls={"slow": 1_000.0})
        root = Supervisor([child])
        async with running(root):
            ref = root.ref(child)
            found = [name for name in ("usual", "slow") if await lookup(ref, key(name)) is not None]
            for name in ("usual", "slow"):
                store(ref, key(name), msgspec.structs.replace(answer(), provider=name))
            await statistics(ref)  # what is in the mailbox when it is told to stop is not looked at any more
    assert found == ["slow"]
