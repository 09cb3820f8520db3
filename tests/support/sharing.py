"""Limiters of several processes, as far as they can tell: each has its own books, all have one Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from llm_actors.kernel import Backoff, Intensity, Supervisor, running
from llm_actors.limiter import LimiterRef, limiter_child, reserve, statistics
from llm_actors.redis import RedisServer
from llm_actors.testing import Fault, with_faults
from llm_protocol.policy import Limits
from support.limits import patient
from support.redis import Redis

PATIENT = 2.0
"""A command's bound in tests that are not about it: this machine may be busy."""


@asynccontextmanager
async def replica(
    server: RedisServer | None,
    providers: Mapping[str, Limits],
    callers: Mapping[str, Limits] | None = None,
    *,
    faults: Mapping[int, Fault] | None = None,
) -> AsyncIterator[LimiterRef]:
    """One process's limiter."""
    spec = with_faults(limiter_child(patient(providers), patient(callers or {}), server=server), faults or {})
    root = Supervisor([spec], backoff=Backoff.none(), intensity=Intensity(100, 1.0))
    async with running(root):
        yield root.ref(spec)


@asynccontextmanager
async def replicas(
    count: int, server: RedisServer, providers: Mapping[str, Limits], callers: Mapping[str, Limits] | None = None
) -> AsyncIterator[list[LimiterRef]]:
    """Several."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(replica(server, providers, callers)) for _ in range(count)]


async def until_shared(ref: LimiterRef, shared: bool = True, *, within: float = 5.0) -> float:
    """Wait until its limits are shared, or are not. Return how long it took."""
    begun = trio.current_time()
    with trio.fail_after(within):
        while (await statistics(ref)).shared is not shared:  # noqa: ASYNC110  (a real server tells nobody)
            await trio.sleep(0.005)
    return trio.current_time() - begun


async def claim(ref: LimiterRef, *names: str, tokens: int = 1) -> float:
    """Reserve and give back at once. Return how long the reservation took."""
    begun = trio.current_time()
    with await reserve(ref, names or ("a",), tokens=tokens):
        return trio.current_time() - begun


async def spend(ref: LimiterRef, name: str = "a") -> None:
    """Reserve a request, and use it."""
    (await reserve(ref, (name,), tokens=1)).settle(None)


def kept(redis: Redis, name: str, sort: str = "provider") -> dict[str, str]:
    """What the server holds of one account."""
    words = redis.command("HGETALL", f"{{llm-runtime}}:limits:{sort}:{name}").split(b"\r\n")
    texts = [word.decode() for word in words[2::2]]
    return dict(zip(texts[::2], texts[1::2], strict=True))
