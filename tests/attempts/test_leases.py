"""How long a call keeps its place within the limits."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from llm_protocol.policy import Limits, Timeouts
from support.attempts import answer, answering, stall, status, world

PATIENT = Timeouts(first_token=7_200, idle=7_200, total=7_200)


@pytest.mark.parametrize("way", ["first", "retry", "hedge"])
async def test_a_call_of_an_hour_keeps_its_place_within_the_limits(way: str, autojump_clock: MockClock) -> None:
    """However short the wait for the place was: a retry and a hedge wait for a moment only."""
    long = answering(late=3_000)
    scripts = {"first": ([long], [long]), "retry": ([status(500), long], [answer]), "hedge": ([stall()], [long])}
    a, b = scripts[way]
    async with world(a=a, b=b, limits=Limits(max_concurrency=1), timeouts=PATIENT, draw=0.0) as w:
        w.season("a", usual=2.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(w.ask, deadline_s=7_200, hedge=way == "hedge"))
            await trio.sleep(2_500)
            statistics = await w.statistics()
            busy = "b" if way == "hedge" else "a"
            assert statistics.providers[busy].in_flight == 1
            assert statistics.expired == 0
            nursery.cancel_scope.cancel()
        await w.settled()
