"""What the cache is asked and told, and the client functions that do so.

None of them raises for what may be wrong with the cache: a request goes on without it.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeAlias

import trio

from llm_actors.cache.entry import storable
from llm_actors.cache.key import CacheKey
from llm_actors.cache.statistics import CacheStatistics
from llm_actors.kernel import Call, Cast, KernelError, MailboxSpec, Overflow, Ref
from llm_protocol.response import LLMResponse

LOOKUP_SECONDS = 0.1
"""How long a request waits for the cache, whatever state that is in; then it is a miss."""

CACHE_MAILBOX = MailboxSpec(1_024, Overflow.DROP_NEWEST)
"""When the cache is this far behind, lookups are misses and answers are not stored."""

log = logging.getLogger(__name__)


class Lookup(Call[tuple[LLMResponse | None, ...]], frozen=True):
    """What there is for each of ``keys``. ``request_id`` is for the log."""

    keys: tuple[CacheKey, ...]
    request_id: str = ""


class Store(Cast, frozen=True):
    """Keep these answers."""

    answers: tuple[tuple[CacheKey, LLMResponse], ...]

    def fingerprint(self) -> Hashable:
        """What makes two of them the same payload: the keys. The answers are long, and nobody's to print."""
        return type(self), tuple(key for key, _ in self.answers)


class GetCacheStatistics(Call[CacheStatistics], frozen=True):
    """Say how things are."""


CacheMessage: TypeAlias = Lookup | Store | GetCacheStatistics
CacheRef: TypeAlias = Ref[CacheMessage]


async def lookup(cache: CacheRef, key: CacheKey, request_id: str = "") -> LLMResponse | None:
    """The answer kept under ``key``, without the ids of a request (see `replay`); ``None`` when there is none.

    Waits at most `LOOKUP_SECONDS`. Never raises but `trio.Cancelled`.
    """
    [found] = await lookup_all(cache, (key,), request_id)
    return found


def peek(cache: CacheRef, key: CacheKey, request_id: str = "") -> LLMResponse | None:
    """`lookup` in memory alone, without waiting, however much the cache has to do."""
    found = cache.read(Lookup((key,), request_id))
    return None if found is None else found[0]


async def lookup_all(cache: CacheRef, keys: Sequence[CacheKey], request_id: str = "") -> tuple[LLMResponse | None, ...]:
    """`lookup` for several keys in one call."""
    with trio.move_on_after(LOOKUP_SECONDS):
        try:
            return await cache.call(Lookup(tuple(keys), request_id))
        except KernelError as exc:
            log.debug("request %s goes on uncached: %s", request_id, exc)
    return (None,) * len(keys)


def store(cache: CacheRef, key: CacheKey, response: LLMResponse, *, fallback: bool = False) -> bool:
    """Have ``response`` kept under ``key``, without waiting. Return whether it is one that is kept (see `storable`).

    ``fallback``: another candidate was asked first and failed. Such an answer is not kept, or equal requests
    would be given the second best for as long as it lives, the first one long being back.
    """
    return store_all(cache, () if fallback else ((key, response),)) == 1


def store_all(cache: CacheRef, answers: Iterable[tuple[CacheKey, LLMResponse]]) -> int:
    """`store` several in one message. Return how many are kept."""
    kept = tuple((key, response) for key, response in answers if storable(response))
    if kept:
        cache.cast(Store(kept))
    return len(kept)


async def statistics(cache: CacheRef) -> CacheStatistics:
    """How the cache is doing, behind what it was told before. Raises `KernelError` when it does not run."""
    return await cache.call(GetCacheStatistics())


def snapshot(cache: CacheRef) -> CacheStatistics | None:
    """How the cache is doing now, without waiting; ``None`` when it does not run."""
    return cache.read(GetCacheStatistics())
