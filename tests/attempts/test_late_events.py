"""Callers that leave while the vendor writes: nothing crashes and nobody else notices.

Time passes at each look at the clock here, or cancellation and data would never meet in one pass of the scheduler.
"""

from __future__ import annotations

import random

import pytest
import trio

from llm_actors.testing import MovingClock, nothing_left, run_virtual
from llm_protocol.events import TextDelta
from llm_protocol.policy import Limits, Timeouts
from support.attempts import World, begun, world
from support.harm import assert_unharmed
from support.peer import Call, Step, sse

CALLS = 100
CHUNK_SECONDS = 0.001
STEP_SECONDS = 5e-6
WORDS = [f"{number} " for number in range(60)]


def chattering() -> Step:
    """A word per millisecond."""

    async def step(call: Call) -> None:
        await sse(*begun("m-a", WORDS), gap=CHUNK_SECONDS, end=False)(call)
        await trio.sleep_forever()

    return step


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", ["leave", "deadline", "cancel"])
def test_streams_that_are_left_at_random_harm_nobody(how: str, seed: int) -> None:
    """100 streams of a word per millisecond, each left at another moment, beside one that stays."""
    chance = random.Random(seed)

    async def leave(w: World) -> None:
        seconds = 0.02 + chance.randrange(7) * 0.003 + chance.random() * CHUNK_SECONDS
        run = await w.submit(deadline_s=seconds if how == "deadline" else 60)
        with trio.move_on_after(seconds if how != "deadline" else 60), run.follow() as follower:
            while await follower.next():
                pass
        if how == "cancel":
            run.cancel("a test says so")

    async def scenario() -> None:
        timeouts = Timeouts(connect=2, first_token=5, idle=0.5, total=30)
        async with (
            nothing_left(),
            world(limits=Limits(max_concurrency=CALLS), timeouts=timeouts, a=[chattering()]) as w,
        ):
            stayed = await w.submit()
            with stayed.follow() as follower:
                async with trio.open_nursery() as nursery:
                    for _ in range(CALLS):
                        nursery.start_soon(leave, w)
                assert stayed.log.end is None
                while await follower.next():
                    pass
            text = [event.text for event in stayed.log.events if isinstance(event, TextDelta)]
            assert text == ["", *WORDS] or text == WORDS
            assert_unharmed(w.tree)
            await w.settled()

    run_virtual(scenario, seed=seed, clock=MovingClock(step=STEP_SECONDS))
