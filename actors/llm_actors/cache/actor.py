"""The cache actor: memory first, then the file or Redis, without delaying requests.

Responses in memory are returned at once. Otherwise the file or Redis is read concurrently, so a slow file delays no
other request. The memory survives a crash: the next incarnation takes it over by reference, and computes the sizes of
its entries again. Each entry is checked when it is read, as entries of the file are.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Protocol, assert_never, final

import msgspec
import trio

from llm_actors.cache.disk import Disk
from llm_actors.cache.entry import Claimed, Entry, Found, Lifetimes, pack, unpack
from llm_actors.cache.key import CacheKey
from llm_actors.cache.memory import Memory
from llm_actors.cache.messages import (
    CACHE_MAILBOX,
    CacheMessage,
    GetCacheStatistics,
    Lookup,
    LookUpToMake,
    Release,
    Store,
    ToMake,
)
from llm_actors.cache.own_tier import CacheStore, OwnTier
from llm_actors.cache.statistics import CacheStatistics, TierStatistics
from llm_actors.kernel import ChildSpec, Delivery, Inbox, Previous, serve_at_once
from llm_actors.kernel.errors import exception_site
from llm_actors.redis import RedisServer
from llm_protocol.policy import CachePolicy
from llm_protocol.response import LLMResponse

FLUSH_SECONDS = 2.0
"""Seconds in which queued entries may still be written after the cache is asked to stop."""

MEGABYTE = 1024 * 1024

log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """The state that one incarnation hands over to the next."""

    memory: Memory


class SecondTier(Protocol):
    """The tier behind the memory: `Disk` or `RedisTier`. Its methods wait only briefly, can be cancelled, and do not
    raise. A cancelled claim is released.
    """

    async def read(self, keys: Collection[CacheKey]) -> dict[CacheKey, Found]: ...
    async def claim(self, key: CacheKey) -> Claimed: ...
    def release(self, key: CacheKey) -> None: ...
    def write(self, entry: Entry) -> None: ...
    async def run(self) -> None: ...
    def finish(self) -> None: ...
    async def close(self) -> None: ...
    def statistics(self) -> TierStatistics: ...


@final
class CacheActor:
    """The actor of the cache. ``second``: the tier behind the memory, if there is one."""

    def __init__(self, memory: Memory, *, lifetimes: Lifetimes, second: SecondTier | None = None) -> None:
        self._memory = memory
        self._lifetimes = lifetimes
        self._second = second

    async def run(self, inbox: Inbox[CacheMessage], *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until asked to stop; then write the queued entries, for at most `FLUSH_SECONDS`. The start does not
        wait for the file.
        """
        inbox.checkpoint(Kept(self._memory))
        try:
            async with trio.open_nursery() as self._nursery:
                if self._second is not None:
                    self._nursery.start_soon(self._second.run)
                inbox.answer_reads(Lookup, self._read)
                inbox.answer_reads(GetCacheStatistics, lambda _: self._statistics())
                task_status.started()
                await serve_at_once(inbox, self._handle)
                if self._second is not None:
                    self._second.finish()
                self._nursery.cancel_scope.deadline = trio.current_time() + FLUSH_SECONDS
        finally:
            if self._second is not None:
                await self._second.close()

    def _handle(self, delivery: Delivery[CacheMessage]) -> None:
        match delivery.message:
            case Lookup() as message:
                self._look_up(delivery, message)
            case LookUpToMake() as message:
                self._claim(delivery, message)
            case Release(key):
                if self._second is not None:
                    self._second.release(key)
            case Store(answers):
                for key, response in answers:
                    self._store(key, response)
            case GetCacheStatistics() as message:
                delivery.reply(message, self._statistics())
            case _ as never:
                assert_never(never)

    def _read(self, message: Lookup) -> tuple[LLMResponse | None, ...] | None:
        """Return the reply to a lookup if memory has all its keys; else ``None``, because the missing entries may be in
        the file, or queued for writing.
        """
        now = trio.current_time()
        if not all(self._memory.has(key, now) for key in message.keys):
            return None
        _, found = self._in_memory(message, now)
        return _answers(message, found)

    def _in_memory(self, message: Lookup, now: float) -> tuple[list[CacheKey], dict[CacheKey, LLMResponse]]:
        """Return the keys that memory lacks, and the responses for the others. A damaged entry counts as missing."""
        kept = {key: value for key in message.keys if (value := self._memory.get(key, now)) is not None}
        found = {key: response for key, value in kept.items() if (response := self._unpacked(key, value)) is not None}
        return [key for key in message.keys if key not in kept], found

    def _look_up(self, delivery: Delivery[CacheMessage], message: Lookup) -> None:
        missing, found = self._in_memory(message, trio.current_time())
        if missing and self._second is not None:
            delivery.defer()
            self._nursery.start_soon(self._look_in_second, self._second, delivery, message, found, missing)
        else:
            delivery.reply(message, _answers(message, found))

    async def _look_in_second(
        self,
        second: SecondTier,
        delivery: Delivery[CacheMessage],
        message: Lookup,
        found: dict[CacheKey, LLMResponse],
        missing: list[CacheKey],
    ) -> None:
        with delivery.scope():
            for key, filed in (await second.read(missing)).items():
                if (response := self._remembered(key, filed)) is not None:
                    found[key] = response
            delivery.reply(message, _answers(message, found))

    def _claim(self, delivery: Delivery[CacheMessage], message: LookUpToMake) -> None:
        missing, found = self._in_memory(Lookup((message.key,), message.request_id), trio.current_time())
        if missing and self._second is not None:
            delivery.defer()
            self._nursery.start_soon(self._claim_in, self._second, delivery, message)
        else:
            delivery.reply(message, _to_make(message, found.get(message.key), is_ours=bool(missing)))

    async def _claim_in(self, second: SecondTier, delivery: Delivery[CacheMessage], message: LookUpToMake) -> None:
        with delivery.scope():
            found, is_ours = await second.claim(message.key)
            response = None if found is None else self._remembered(message.key, found)
            # No other request makes an entry that has expired or cannot be read. So this request does, without a claim.
            is_ours = is_ours or (found is not None and response is None)
            if not delivery.reply(message, _to_make(message, response, is_ours=is_ours)) and is_ours:
                second.release(message.key)

    def _remembered(self, key: CacheKey, filed: Found) -> LLMResponse | None:
        """Unpack an entry from the file and copy it to memory; ``None`` if it has expired or is damaged. The file
        keeps every entry for the longest lifetime.
        """
        response = self._unpacked(key, filed.value)
        if response is None:
            return None
        left = self._lifetimes.of(response) - filed.age_s
        if left <= 0:
            self._memory.count.expired += 1
            return None
        self._memory.put(key, filed.value, expires=trio.current_time() + left)
        return response

    def _unpacked(self, key: CacheKey, value: bytes) -> LLMResponse | None:
        try:
            response = unpack(value)
        except Exception as exc:  # an entry outlives a crash, and would crash each incarnation that reads it
            log.error("a response in the cache cannot be read and is removed: %s", exception_site(exc))  # noqa: TRY400
            response = None
        if response is None:
            self._memory.remove(key)
            self._memory.count.errors += 1
        return response

    def _store(self, key: CacheKey, response: LLMResponse) -> None:
        value = pack(response)
        if value is None:
            self._memory.count.errors += 1
            return
        self._memory.put(key, value, expires=trio.current_time() + self._lifetimes.of(response))
        if self._second is not None:
            self._second.write(Entry(key, value))

    def _statistics(self) -> CacheStatistics:
        memory, second = self._memory.statistics(), self._second
        if second is None:
            return CacheStatistics(memory=memory)
        if isinstance(second, Disk):
            return CacheStatistics(memory=memory, file=second.statistics())
        return CacheStatistics(memory=memory, redis=second.statistics())


def _to_make(message: LookUpToMake, response: LLMResponse | None, *, is_ours: bool) -> ToMake:
    if response is not None:
        log.info("request %s: the response is from the cache", message.request_id)
    return ToMake(response, is_ours)


def _answers(message: Lookup, found: Mapping[CacheKey, LLMResponse]) -> tuple[LLMResponse | None, ...]:
    answers = tuple(found.get(key) for key in message.keys)
    hits = len(answers) - answers.count(None)
    if hits:
        log.info("request %s: %d of %d responses are from the cache", message.request_id, hits, len(answers))
    return answers


def cache_child(
    policy: CachePolicy,
    *,
    ttls: Mapping[str, float] | None = None,
    store: CacheStore | None = None,
    server: RedisServer | None = None,
    name: str = "cache",
) -> ChildSpec[CacheMessage]:
    """Return the spec of a cache, for a supervisor. ``ttls``: lifetimes in seconds for the responses of some
    providers, instead of the policy's. The tier behind the memory is ``store`` if given, else ``server`` if the
    policy says so, else the file. Call this only if the policy enables memory or another tier.
    """
    lifetimes = Lifetimes(policy.ttl_s, ttls or {})
    redis = server if policy.redis else None

    def make(previous: Previous) -> CacheActor:
        return _cache(policy, lifetimes, _second_tier(policy, lifetimes, store, redis), previous)

    return ChildSpec(name, make, mailbox=CACHE_MAILBOX)


def _cache(policy: CachePolicy, lifetimes: Lifetimes, second: SecondTier | None, previous: Previous) -> CacheActor:
    if isinstance(previous, Kept):
        memory = previous.memory
        memory.recount(trio.current_time())
    else:
        memory = Memory(int(policy.memory_mb * MEGABYTE))
    return CacheActor(memory, lifetimes=lifetimes, second=second)


def _second_tier(
    policy: CachePolicy, lifetimes: Lifetimes, store: CacheStore | None, redis: RedisServer | None
) -> SecondTier | None:
    if store is not None:
        return Disk(OwnTier(store, ttl_s=lifetimes.longest))
    if redis is not None:
        from llm_actors.cache.redis_tier import RedisTier

        return RedisTier(redis, ttl_s=lifetimes.longest)
    if policy.path is None:
        return None
    from llm_actors.cache.file_tier import FileTier  # SQLite is imported only if there is a file

    return Disk(FileTier(policy.path, max_bytes=int(policy.file_mb * MEGABYTE), ttl_s=lifetimes.longest))
