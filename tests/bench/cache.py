"""Cache hits under load: the same requests from few and from many workers, a quarter of them cancelled at once.

A hit must stay a hit, however many requests there are at once. The provider responds at once, so every miss is caused
by the cache. The hits of many workers are compared with those of few, in the same process. The time of
`Runtime.metrics` under this load is shown too, because it is needed most when a runtime is overloaded.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from time import perf_counter
from typing import NamedTuple

import trio

from bench.daemon import CONFIG, HERE, process
from llm_runtime import Runtime, open_runtime

WORKERS = (10, 60, 200)
REQUESTS = 4_000
"""For each number of workers."""

PROMPTS = 100
"""Different requests, each asked once before the rounds."""

CANCELLED_SHARE = 0.25
CANCELLED_AFTER_SECONDS = 0.01
"""A worker that gives up does so after up to this long."""

BUDGET = 0.9
"""The hits of the most workers, as a share of those of the fewest."""

METRICS_EVERY_SECONDS = 0.1
CACHED = """
[cache]
enabled = true
"""


class Round(NamedTuple):
    """What one number of workers saw."""

    hits: int
    """Of those that were not given up, as is ``answered``."""
    answered: int
    seconds: float
    metrics_s: float
    """The longest that `Runtime.metrics` took."""


async def _round(runtime: Runtime, workers: int) -> Round:
    hits = answered = 0
    slowest, began, left, draw = 0.0, perf_counter(), iter(range(REQUESTS)), Random(1)

    async def work() -> None:
        nonlocal hits, answered
        for _ in left:
            prompt = f"prompt {draw.randrange(PROMPTS)}"
            if draw.random() < CANCELLED_SHARE:
                with trio.move_on_after(draw.random() * CANCELLED_AFTER_SECONDS):
                    await runtime.chat(prompt, model="fake/m")
                continue
            response = await runtime.chat(prompt, model="fake/m")
            answered += 1
            hits += response.decision["cache"] == "hit"

    async def watch() -> None:
        nonlocal slowest
        while True:
            before = perf_counter()
            await runtime.metrics()
            slowest = max(slowest, perf_counter() - before)
            await trio.sleep(METRICS_EVERY_SECONDS)

    async with trio.open_nursery() as watching:
        watching.start_soon(watch)
        async with trio.open_nursery() as working:
            for _ in range(workers):
                working.start_soon(work)
        watching.cancel_scope.cancel()
    return Round(hits, answered, perf_counter() - began, slowest)


async def measure(config: Path) -> dict[int, Round]:
    """One round for each number of workers."""
    async with open_runtime(config) as runtime:
        for number in range(PROMPTS):
            await runtime.chat(f"prompt {number}", model="fake/m")
        await runtime.metrics()  # loads prometheus-client
        return {workers: await _round(runtime, workers) for workers in WORKERS}


def main() -> int:
    """Print the table; 1 when many workers have fewer hits than the budget allows."""
    with process(1, str(HERE / "_upstream.py"), "0", "0") as upstream, tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "llm-runtime.toml"
        config.write_text(CONFIG.format(port=upstream.port) + CACHED)
        rounds = trio.run(measure, config)
    print(f"{REQUESTS} requests, {CANCELLED_SHARE:.0%} given up\n")
    for workers, each in rounds.items():
        print(
            f"{workers:4} workers  {each.hits:5} hits of {each.answered:5} answered in {each.seconds:5.2f} s,"
            f" metrics within {each.metrics_s * 1e3:6.1f} ms"
        )
    few, most = rounds[WORKERS[0]], rounds[WORKERS[-1]]
    kept = most.hits >= BUDGET * few.hits
    print(f"budget {BUDGET:.0%} of the hits: {'kept' if kept else 'exceeded'}")
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
