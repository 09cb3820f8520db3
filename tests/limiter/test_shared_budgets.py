"""Budgets that several processes share through a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from llm_actors.kernel import Backoff, ChildSpec, Intensity, Supervisor, running
from llm_actors.limiter import LimiterActor, LimiterMessage, LimiterRef, reserve, statistics
from llm_actors.limiter.budgets import SpendAsk
from llm_actors.limiter.messages import LIMITER_MAILBOX
from llm_actors.redis import RedisServer
from llm_actors.store import StoreThread, store_child
from llm_actors.store.ledger import Ledger, LedgerEntry
from llm_actors.store.tier import StoreTier
from llm_protocol.budgets import Budget, Payer
from llm_protocol.errors import BudgetError
from support.redis import Redis
from support.redis import redis as running_redis
from support.sharing import PATIENT

BUDGETS = {"b": Budget(usd=1.0, per="day")}
PRICE = 0.03
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0


@pytest.fixture
def redis() -> Iterator[Redis]:
    with running_redis() as server:
        yield server


class Wall:
    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> float:
        return self.at


@asynccontextmanager
async def replica(server: RedisServer, wall: Wall) -> AsyncIterator[LimiterRef]:
    """One process's limiter."""
    spec: ChildSpec[LimiterMessage] = ChildSpec(
        "limiter",
        lambda previous: LimiterActor({}, server=server, budgets=BUDGETS, wall=wall, previous=previous),
        mailbox=LIMITER_MAILBOX,
    )
    root = Supervisor([spec], backoff=Backoff.none(), intensity=Intensity(100, 1.0))
    async with running(root):
        yield root.ref(spec)


@asynccontextmanager
async def with_store(server: RedisServer, path: Path) -> AsyncIterator[LimiterRef]:
    """One process's limiter, with a ledger in a file."""
    ledger = Ledger()
    store = store_child(StoreThread(StoreTier(str(path), max_bytes=10_000_000, ttl_s=1e6, owner=ledger.owner)), ledger)
    kept = Supervisor([store])
    spec: ChildSpec[LimiterMessage] = ChildSpec(
        "limiter",
        lambda previous: LimiterActor(
            {}, server=server, budgets=BUDGETS, store=kept.ref(store), ledger=ledger, wall=Wall(), previous=previous
        ),
        mailbox=LIMITER_MAILBOX,
    )
    root = Supervisor([spec])
    async with running(kept), running(root):
        yield root.ref(spec)


@asynccontextmanager
async def replicas(count: int, server: RedisServer, wall: Wall) -> AsyncIterator[list[LimiterRef]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(replica(server, wall)) for _ in range(count)]


class Till:
    """What was spent, as the vendor bills it."""

    def __init__(self) -> None:
        self.billed = 0.0

    async def call(self, ref: LimiterRef, *, real: float = PRICE) -> bool:
        """One call, if the budget pays it."""
        ask = SpendAsk(Payer("run"), {"p": PRICE}, {"p": "m"}, 1, 2)
        try:
            with await reserve(ref, ("p",), tokens=2, spend=ask) as room:
                room.sent()
                await trio.lowlevel.checkpoint()
                self.billed += real
                entry = LedgerEntry(run="run", opened_at=NOON, input_tokens=1, output_tokens=1, cost=real)
                room.settle(None, entry=entry)
        except BudgetError:
            return False
        return True

    async def until_refused(self, refs: list[LimiterRef]) -> None:
        """Each calls as long as it is paid."""

        async def work(ref: LimiterRef) -> None:
            while await self.call(ref):
                pass

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for ref in refs:
                    nursery.start_soon(work, ref)


async def until_refused_soon(till: Till, refs: list[LimiterRef]) -> None:
    """The same, and once more when all have heard what was given back."""
    await till.until_refused(refs)
    await trio.sleep(2.5)  # what is set aside is given back in the second after it is told to
    await till.until_refused(refs)


async def test_all_together_spend_no_more_than_there_is(redis: Redis) -> None:
    till = Till()
    async with replicas(4, redis.server(timeout_s=PATIENT), Wall()) as refs:
        await until_refused_soon(till, refs)
        assert 1.0 - PRICE < till.billed <= 1.0 + 1e-6
        told = (await statistics(refs[0])).budgets["b"]
        assert told.usd == pytest.approx(till.billed, abs=0.001)


async def test_a_new_day_is_a_new_budget_and_the_old_one_is_not_forgotten(redis: Redis) -> None:
    till, wall = Till(), Wall()
    async with replicas(3, redis.server(timeout_s=PATIENT), wall) as refs:
        await until_refused_soon(till, refs)
        wall.at += DAY
        await until_refused_soon(till, refs)
        assert 2.0 - 2 * PRICE < till.billed <= 2.0 + 1e-6
        wall.at -= DAY
        before = till.billed
        await till.until_refused(refs)
        assert till.billed == before


async def test_without_redis_each_keeps_to_its_share_and_what_it_forgets_it_hears_again(redis: Redis) -> None:
    """The server is killed with all it knew, in the middle, and comes back empty."""
    till = Till()
    async with replicas(4, redis.server(timeout_s=PATIENT), Wall()) as refs:
        for ref in refs:
            for _ in range(4):
                assert await till.call(ref)
        redis.kill()
        await till.until_refused(refs)
        assert 16 * PRICE < till.billed <= 1.0 + 1e-6, "in the middle of it, and still each has a share"
        redis.start()
        await trio.sleep(8)
        await until_refused_soon(till, refs)
        assert 1.0 - PRICE < till.billed <= 1.0 + 1e-6


async def test_who_never_reached_redis_knows_of_nothing_that_is_left(redis: Redis) -> None:
    server = redis.server()
    redis.kill()
    till = Till()
    async with replica(server, Wall()) as ref:
        assert not await till.call(ref)
        redis.start()
        with trio.fail_after(10):
            while not await till.call(ref):  # noqa: ASYNC110  (a real server tells nobody)
                await trio.sleep(0.1)


async def test_what_was_spent_before_a_restart_counts_once(redis: Redis, tmp_path: Path) -> None:
    """Redis knows of it, and the ledger does."""
    till = Till()
    for calls in (10, 1_000):
        async with with_store(redis.server(timeout_s=PATIENT), tmp_path / "s") as ref:
            for _ in range(calls):
                if not await till.call(ref):
                    break
    assert 1.0 - PRICE < till.billed <= 1.0 + 1e-6


async def test_what_one_that_has_gone_had_reserved_stays_spent(redis: Redis) -> None:
    till = Till()
    async with replica(redis.server(timeout_s=PATIENT), Wall()) as ref:
        async with replica(redis.server(timeout_s=PATIENT), Wall()) as other:
            room = await reserve(other, ("p",), tokens=2, spend=SpendAsk(Payer("run"), {"p": 0.9}, {"p": "m"}, 1, 2))
            room.sent()
        await until_refused_soon(till, [ref])
        assert till.billed <= 0.1 + 1e-6
