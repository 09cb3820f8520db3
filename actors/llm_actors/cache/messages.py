"""The messages of the cache, and the client functions that send them.

No problem of the cache makes these functions raise, except `statistics`: a request continues without the cache.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import trio

from llm_actors.cache.entry import storable
from llm_actors.cache.key import CacheKey
from llm_actors.cache.statistics import CacheStatistics
from llm_actors.kernel import Call, Cast, KernelError, MailboxSpec, Overflow, Ref
from llm_protocol.response import LLMResponse

LOOKUP_SECONDS = 0.1
"""Seconds that a request waits for the cache, whatever the state of the cache. After that the lookup is a miss."""

WAIT_STEP_SECONDS = 0.1
"""Seconds between two checks whether another process has produced the response."""

CACHE_MAILBOX = MailboxSpec(1_024, Overflow.DROP_NEWEST)
"""The mailbox of the cache. When it is full, lookups are misses and responses are not stored."""

log = logging.getLogger(__name__)


class Lookup(Call[tuple[LLMResponse | None, ...]], frozen=True):
    """Look up ``keys``. ``request_id`` is for the log."""

    keys: tuple[CacheKey, ...]
    request_id: str = ""


class Store(Cast, frozen=True):
    """Store these responses."""

    answers: tuple[tuple[CacheKey, LLMResponse], ...]

    def fingerprint(self) -> Hashable:
        """The keys identify the payload. The responses are long, and must not be logged."""
        return type(self), tuple(key for key, _ in self.answers)


class ToMake(NamedTuple):
    """The cached ``response``, or ``None``. ``is_ours``: the sender may produce it. If neither is set, another
    process is producing it, or the cache is not running.
    """

    response: LLMResponse | None
    is_ours: bool


class LookUpToMake(Call[ToMake], frozen=True):
    """Look up ``key``. If it is missing and no other process produces it, the sender gets the right to produce it."""

    key: CacheKey
    request_id: str = ""


class Release(Cast, frozen=True):
    """Give up the right to produce ``key``."""

    key: CacheKey


class GetCacheStatistics(Call[CacheStatistics], frozen=True):
    """Get the statistics of the cache."""


CacheMessage: TypeAlias = Lookup | LookUpToMake | Release | Store | GetCacheStatistics
CacheRef: TypeAlias = Ref[CacheMessage]


async def lookup(cache: CacheRef, key: CacheKey, request_id: str = "") -> LLMResponse | None:
    """Return the response under ``key``, without the ids of a request (see `replay`); ``None`` if there is none.

    Waits at most `LOOKUP_SECONDS`. Raises only `trio.Cancelled`.
    """
    [found] = await lookup_all(cache, (key,), request_id)
    return found


def peek(cache: CacheRef, key: CacheKey, request_id: str = "") -> LLMResponse | None:
    """Return the response under ``key`` from memory, without waiting, however busy the cache is; ``None`` if memory
    does not have it or the cache is not running.
    """
    found = cache.read(Lookup((key,), request_id))
    return None if found is None else found[0]


async def lookup_all(cache: CacheRef, keys: Sequence[CacheKey], request_id: str = "") -> tuple[LLMResponse | None, ...]:
    """Look up several keys in one call; see `lookup`."""
    try:
        return await cache.call(Lookup(tuple(keys), request_id), deadline=trio.current_time() + LOOKUP_SECONDS)
    except KernelError as exc:
        log.debug("request %s continues without the cache: %s", request_id, exc)
        return (None,) * len(keys)


async def lookup_or_wait(cache: CacheRef, key: CacheKey, request_id: str = "", *, wait_s: float) -> ToMake:
    """Look up ``key`` for a request that would produce a missing response. If another process is producing it, wait
    for its result, at most ``wait_s`` seconds. If the result ``is_ours``, call `release` after `store`. A cancellation
    gives up the right to produce the response.
    """
    until = trio.current_time() + wait_s
    while True:
        try:
            claimed = await cache.call(LookUpToMake(key, request_id), deadline=trio.current_time() + LOOKUP_SECONDS)
        except KernelError as exc:
            log.debug("request %s continues without the cache: %s", request_id, exc)
            return ToMake(None, is_ours=False)
        if claimed.response is not None or claimed.is_ours or trio.current_time() >= until:
            return claimed
        await trio.sleep(min(WAIT_STEP_SECONDS, until - trio.current_time()))


def release(cache: CacheRef, key: CacheKey) -> None:
    """Give up the right to produce ``key``, so that other processes stop waiting for the response. Does not wait."""
    cache.cast(Release(key))


def store(cache: CacheRef, key: CacheKey, response: LLMResponse, *, fallback: bool = False) -> bool:
    """Store ``response`` under ``key``, without waiting. Returns whether it can be cached (see `storable`).

    ``fallback``: another candidate was tried first and failed. Such a response is not cached, or equal requests would
    get the second-best model for its lifetime, although the first one has recovered.
    """
    return store_all(cache, () if fallback else ((key, response),)) == 1


def store_all(cache: CacheRef, answers: Iterable[tuple[CacheKey, LLMResponse]]) -> int:
    """Store several responses in one message; see `store`. Returns how many can be cached."""
    kept = tuple((key, response) for key, response in answers if storable(response))
    if kept:
        cache.cast(Store(kept))
    return len(kept)


async def statistics(cache: CacheRef) -> CacheStatistics:
    """Return the statistics, after all earlier messages were handled. Raises `KernelError` if the cache is not
    running.
    """
    return await cache.call(GetCacheStatistics())


def snapshot(cache: CacheRef) -> CacheStatistics | None:
    """Return the current statistics without waiting; ``None`` if the cache is not running."""
    return cache.read(GetCacheStatistics())
