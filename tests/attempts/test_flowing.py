"""Long streams and the circuit breaker: one that delivers proves that its deployment answers, long before it ends."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from llm_protocol.policy import Attempts, Limits
from support.attempts import ANSWER, answer, answering, status, world

ONCE = Attempts(max=1)
SLOWLY = answering(gap=2.0)
"""Its first word comes after 2 to 4 s, its end after 12 to 16."""
ROOM = Limits(max_concurrency=64)
FLOWING = 8


async def test_a_few_failures_among_long_streams_close_the_deployment_to_nobody(autojump_clock: MockClock) -> None:
    async with world(attempts=ONCE, limits=ROOM, a=[*[SLOWLY] * FLOWING, *[status(500)] * 5, answer]) as w:
        texts = []

        async def stream() -> None:
            texts.append((await w.ask(model="a/m-a")).text)

        async with trio.open_nursery() as nursery:
            for _ in range(FLOWING):
                nursery.start_soon(stream)
            await trio.sleep(5)  # all have begun
            for _ in range(5):
                assert (await w.ask(model="a/m-a")).failure is not None
            asked = await w.ask(model="a/m-a")

    assert (asked.text, asked.took) == (ANSWER, 0)
    assert texts == [ANSWER] * FLOWING
    assert w.tree.selector.circuits.streaming("a", trio.current_time()) == 0


async def test_who_waits_for_a_probe_need_not_wait_for_its_end(autojump_clock: MockClock) -> None:
    async with world(attempts=ONCE, limits=ROOM, a=[*[status(500)] * 5, SLOWLY, answer]) as w:
        for _ in range(5):
            await w.ask(model="a/m-a")
        await trio.sleep(20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: w.ask(model="a/m-a"))
            await trio.sleep(5)  # the probe has delivered, and goes on
            asked = await w.ask(model="a/m-a")
            assert (asked.text, asked.took) == (ANSWER, 0)
