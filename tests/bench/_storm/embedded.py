"""The storm in a program that embeds the runtime.

    python -m bench._storm.embedded CONFIG SEED SECONDS FAST

Prints a line when it begins, then one JSON object: the score, and what existed before and after.
"""

from __future__ import annotations

import json
import logging
import sys
from functools import partial

import trio

from bench._storm.plan import FLOOD_PATIENCE_SECONDS, FLOOD_SECONDS, FLOODERS, Slot, slots
from bench._storm.sabotage import break_decoder, tasks
from bench._storm.score import Ended, Score, call_once, watch_lag
from llm_protocol.errors import LLMClientError
from llm_runtime import Runtime, open_runtime

SETTLE_SECONDS = 10.0

GOES = ("disconnect", "reset")
"""Left by cancelling the task; ``client`` leaves the block."""


class Clients:
    """All tasks of the program."""

    def __init__(self, runtime: Runtime, seed: int, score: Score) -> None:
        self._runtime = runtime
        self._seed = seed
        self._score = score

    async def run(self, slots: list[Slot], seconds: float) -> None:
        """Call for so long, and wait until the last call has ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_lag, self._score)
            async with trio.open_nursery() as calling:
                end = trio.current_time() + seconds
                for slot in slots:
                    calling.start_soon(self._slot, slot, end)
                for _ in range(FLOODERS):
                    calling.start_soon(self._flood, end)
            nursery.cancel_scope.cancel()

    async def _slot(self, slot: Slot, end: float) -> None:
        for wait, call in slot.calls(self._seed):
            await trio.sleep(wait)
            if trio.current_time() >= end:
                break
            await call_once(self._score, call, self._call, goes=call.leaves in GOES)

    async def _call(self, ended: Ended) -> None:
        call = ended.call
        stream = self._runtime.stream
        asked = (
            stream(call.prompt, model=call.model, deadline_s=call.leaves_after)
            if call.leaves == "deadline"
            else (stream(call.prompt, model=call.model))
        )
        leaves_at = trio.current_time() + call.leaves_after
        try:
            async with asked as answer:
                async for text in answer.text():
                    now = trio.current_time()
                    ended.add(text, now)
                    if call.leaves == "client" and now >= leaves_at:
                        ended.outcome = "left"
                        break
                else:
                    ended.outcome = "whole"
        except LLMClientError as error:
            ended.outcome = f"failed {error.failure.kind.value}"

    async def _flood(self, end: float) -> None:
        while trio.current_time() < end:
            outcome = "left"
            with trio.move_on_after(FLOOD_PATIENCE_SECONDS):
                try:
                    await self._runtime.chat("flood", model="flooded/m")
                    outcome = "answered"
                except LLMClientError as error:
                    outcome = error.failure.kind.value
            self._score.flood[outcome] += 1
            await trio.sleep(FLOOD_SECONDS - trio.current_time() % FLOOD_SECONDS)


async def main(config: str, seed: int, seconds: float, fast: int) -> dict[str, object]:
    async with open_runtime(config) as runtime:
        await Clients(runtime, seed + 1, Score()).run(slots(0, 10), 1.0)  # what is made once is made
        await trio.sleep(1)
        before = tasks()
        score = Score()
        print("begun", flush=True)
        await Clients(runtime, seed, score).run(slots(fast), seconds)
        with trio.move_on_after(SETTLE_SECONDS):
            while tasks() > before:  # noqa: ASYNC110 - nothing tells when a task ends
                await trio.sleep(0.5)
        metrics = (await runtime.metrics()).decode()
        print("ended", flush=True)
        sys.stdin.readline()  # files are counted now
        return {"score": score.to_json(), "tasks": [before, tasks()], "metrics": metrics}


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    break_decoder()
    file, *numbers = sys.argv[1:]
    print(json.dumps(trio.run(partial(main, file, int(numbers[0]), float(numbers[1]), int(numbers[2])))), flush=True)
