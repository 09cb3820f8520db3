"""Budgets whose earlier spending cannot be read at the start."""

from __future__ import annotations

import logging
import time
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from llm_actors.kernel import Supervisor, running
from llm_actors.limiter import LimiterRef, limiter_child, statistics
from llm_actors.limiter.actor import LOAD_AGAIN_SECONDS
from llm_actors.store.ledger import Ledger, SpentBy
from llm_protocol.budgets import Budget


async def spent(limiter: LimiterRef) -> float:
    return (await statistics(limiter)).budgets["b"].usd


async def test_earlier_spending_counts_when_the_store_can_be_read_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What this process has spent since its start is in the store as well, and counts once."""
    caplog.set_level(logging.INFO)
    ledger, times = Ledger(), list[float]()

    async def get_spent(_: object, since: float) -> tuple[SpentBy, ...] | None:
        times.append(trio.current_time())
        if len(times) < 3:
            return None
        row = SpentBy("earlier", "me", "", "", time.time(), 0.25, 10, gone=True)
        return (row, SpentBy(ledger.owner, "me", "", "", time.time(), 0.5, 10, gone=False))

    monkeypatch.setattr("llm_actors.limiter.actor.get_spent", get_spent)
    child = limiter_child({}, budgets={"b": Budget(usd=1.0)}, store=cast("Any", object()), ledger=ledger)
    root = Supervisor([child])
    async with running(root):
        limiter = root.ref(child)
        assert await spent(limiter) == 0.0
        await trio.sleep(1.5 * LOAD_AGAIN_SECONDS)
        assert await spent(limiter) == 0.0
        await trio.sleep(LOAD_AGAIN_SECONDS)
        assert await spent(limiter) == 0.25
        await trio.sleep(10 * LOAD_AGAIN_SECONDS)
    assert times == [0.0, LOAD_AGAIN_SECONDS, 2 * LOAD_AGAIN_SECONDS]
    told = [each.getMessage() for each in caplog.records]
    assert told == [
        "the store cannot be read: until it can be read, budgets do not count earlier spending",
        "the store can be read: budgets count the earlier spending",
    ]
