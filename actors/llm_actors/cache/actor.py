"""The cache actor: memory first, then the file, with neither ever in a request's way.

What is in memory is answered at once. For what is not, the file is asked beside, so that its slowness delays nobody
else. A cache that was restarted has an empty memory and whatever is in the file.
"""

from __future__ import annotations

import logging
from typing import assert_never, final

import trio

from llm_actors.cache.disk import Disk
from llm_actors.cache.entry import Entry, Found, pack, unpack
from llm_actors.cache.key import CacheKey
from llm_actors.cache.memory import Memory
from llm_actors.cache.messages import CACHE_MAILBOX, CacheMessage, Lookup, Measure, Store
from llm_actors.cache.statistics import CacheStatistics
from llm_actors.kernel import ChildSpec, Delivery, Inbox, serve
from llm_protocol.policy import CachePolicy
from llm_protocol.response import LLMResponse

FLUSH_SECONDS = 2.0
"""How long what is queued may still be written after the cache is asked to stop."""

MEGABYTE = 1_000_000

log = logging.getLogger(__name__)


@final
class CacheActor:
    """The `ResponseCache`. ``disk``: the file tier, if there is one."""

    def __init__(self, memory: Memory, *, ttl_s: float, disk: Disk | None = None) -> None:
        self._memory = memory
        self._ttl_s = ttl_s
        self._disk = disk

    async def run(self, inbox: Inbox[CacheMessage], *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until asked to stop; then write what is queued, within `FLUSH_SECONDS`. Starts without the file."""
        try:
            async with trio.open_nursery() as self._nursery:
                if self._disk is not None:
                    self._nursery.start_soon(self._disk.run)
                task_status.started()
                await serve(inbox, self._handle)
                if self._disk is not None:
                    self._disk.finish()
                self._nursery.cancel_scope.deadline = trio.current_time() + FLUSH_SECONDS
        finally:
            if self._disk is not None:
                await self._disk.close()

    async def _handle(self, delivery: Delivery[CacheMessage]) -> None:
        match delivery.message:
            case Lookup() as message:
                self._look_up(delivery, message)
            case Store(answers):
                for key, response in answers:
                    self._store(key, response)
            case Measure() as message:
                delivery.reply(message, self._statistics())
            case _ as never:
                assert_never(never)

    def _look_up(self, delivery: Delivery[CacheMessage], message: Lookup) -> None:
        now = trio.current_time()
        found = {key: value for key in message.keys if (value := self._memory.get(key, now)) is not None}
        missing = [key for key in message.keys if key not in found]
        if missing and self._disk is not None:
            delivery.defer()
            self._nursery.start_soon(self._look_in_file, self._disk, delivery, message, found, missing)
        else:
            self._answer(delivery, message, found)

    async def _look_in_file(
        self,
        disk: Disk,
        delivery: Delivery[CacheMessage],
        message: Lookup,
        found: dict[CacheKey, bytes],
        missing: list[CacheKey],
    ) -> None:
        for key, filed in (await disk.read(missing)).items():
            self._remember(key, filed)
            found[key] = filed.value
        if not delivery.abandoned:
            self._answer(delivery, message, found)

    def _remember(self, key: CacheKey, filed: Found) -> None:
        self._memory.put(key, filed.value, expires=trio.current_time() + self._ttl_s - filed.age_s)

    def _answer(self, delivery: Delivery[CacheMessage], message: Lookup, found: dict[CacheKey, bytes]) -> None:
        answers = tuple(self._unpacked(key, found.get(key)) for key in message.keys)
        hits = len(answers) - answers.count(None)
        if hits:
            log.info("request %s: %d of %d answers from the cache", message.request_id, hits, len(answers))
        delivery.reply(message, answers)

    def _unpacked(self, key: CacheKey, value: bytes | None) -> LLMResponse | None:
        response = None if value is None else unpack(value)
        if value is not None and response is None:
            self._memory.remove(key)
            self._memory.count.errors += 1
        return response

    def _store(self, key: CacheKey, response: LLMResponse) -> None:
        value = pack(response)
        if value is None:
            self._memory.count.errors += 1
            return
        self._memory.put(key, value, expires=trio.current_time() + self._ttl_s)
        if self._disk is not None:
            self._disk.write(Entry(key, value))

    def _statistics(self) -> CacheStatistics:
        file = None if self._disk is None else self._disk.statistics()
        return CacheStatistics(memory=self._memory.statistics(), file=file)


def cache_child(policy: CachePolicy, *, name: str = "cache") -> ChildSpec[CacheMessage]:
    """The spec of a cache, for a supervisor. Whether it is ``enabled`` is for the caller to heed."""
    return ChildSpec(name, lambda _: _cache(policy), mailbox=CACHE_MAILBOX)


def _cache(policy: CachePolicy) -> CacheActor:
    memory = Memory(int(policy.memory_mb * MEGABYTE))
    return CacheActor(memory, ttl_s=policy.ttl_s, disk=_disk(policy))


def _disk(policy: CachePolicy) -> Disk | None:
    if policy.path is None:
        return None
    from llm_actors.cache.tier import FileTier  # only who has a file loads SQLite

    return Disk(FileTier(policy.path, max_bytes=int(policy.file_mb * MEGABYTE), ttl_s=policy.ttl_s))
