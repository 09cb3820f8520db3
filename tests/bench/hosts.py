"""bin/bench hosts [ROUNDS]: the CPU time that asyncio costs in addition to Trio, with 50 simultaneous streams.

The fake provider runs in a process of its own and sends a chunk every 20 ms, so that each chunk arrives alone.
Responses have two lengths, which separates the cost of a chunk from that of a request. The two hosts take turns: each
is first in every other round. The median of the differences of all rounds counts, and the middle half of the rounds
shows how certain it is. The aim for asyncio is at most 100 µs more per request and 15 µs more per chunk.

The time of the thread in which asyncio runs is printed by itself, and the time that asyncio needs when 50 tasks of its
own take the same number of items from queues.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import trio

import llm_runtime
from llm_runtime import Config, Provider, aio

STREAMS = 50
ROUNDS = 9
SHORT, LONG = 5, 60
"""Chunks of an answer. The fake provider sends four characters in each."""
SHORT_RUNS = 8
"""Runs with short answers per round, so that one slow turn of the machine changes their mean less."""
REQUEST_US, CHUNK_US = 100.0, 15.0


class Cost(NamedTuple):
    """Microseconds of processor time. The last two are of this thread alone."""

    request: float
    chunk: float
    here_request: float
    here_chunk: float


def script() -> str:
    return "\n".join(
        f'[[rule]]\nmodel = "chunks{chunks}"\ndelay_event_s = 0.02\ntext = "{"word" * chunks}"'
        for chunks in (SHORT, LONG)
    )


async def one(rt: Any, chunks: int) -> None:
    async with rt.stream("Go.", model=f"fake/chunks{chunks}") as stream:
        async for _ in stream:
            pass


async def on_trio(rt: Any, chunks: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS):
            nursery.start_soon(one, rt, chunks)


async def on_asyncio(rt: Any, chunks: int) -> None:
    await asyncio.gather(*(one(rt, chunks) for _ in range(STREAMS)))


async def queues(_: Any, chunks: int) -> None:
    """What asyncio alone needs: a task per stream, and a turn of the loop for each chunk of eight streams."""

    async def take(queue: asyncio.Queue[int]) -> None:
        while await queue.get():
            pass

    each: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(STREAMS)]
    tasks = [asyncio.ensure_future(take(queue)) for queue in each]
    for left in reversed(range(chunks)):
        for place, queue in enumerate(each):
            queue.put_nowait(left)
            if place % 8 == 7:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)


async def measured(rt: Any, run: Callable[[Any, int], Awaitable[None]]) -> Cost:
    spent: dict[int, tuple[float, float]] = {}
    await run(rt, SHORT)
    for chunks, runs in ((SHORT, SHORT_RUNS), (LONG, 1)):
        began, began_here = time.process_time(), time.thread_time()
        for _ in range(runs):
            await run(rt, chunks)
        spent[chunks] = ((time.process_time() - began) / runs, (time.thread_time() - began_here) / runs)
    costs: list[float] = []
    for short, long in zip(spent[SHORT], spent[LONG], strict=True):
        chunk = (long - short) / (LONG - SHORT)
        costs += [each / STREAMS * 1e6 for each in (short - SHORT * chunk, chunk)]
    return Cost(*costs)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "script.toml"
        rules.write_text(script())
        command = [sys.executable, "-m", "llm_runtime.cli", "fake-provider", "--port", "0", "--script", str(rules)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as fake:
            assert fake.stdout is not None
            try:
                url = fake.stdout.readline().split()[-1]
                models = (f"chunks{SHORT}", f"chunks{LONG}")
                provider = Provider(kind="openai_compatible", base_url=f"{url}/openai_compatible/v1", models=models)
                return compared(Config(providers={"fake": provider}), rounds)
            finally:
                fake.terminate()


def compared(config: Config, rounds: int) -> int:
    async def trio_main() -> Cost:
        async with llm_runtime.open_runtime(config) as rt:
            return await measured(rt, on_trio)

    async def asyncio_main() -> Cost:
        async with aio.open_runtime(config) as rt:
            return await measured(rt, on_asyncio)

    found: list[tuple[Cost, Cost, Cost]] = []
    for place in range(rounds):
        if place % 2:
            on_other, on_own = asyncio.run(asyncio_main()), trio.run(trio_main)
        else:
            on_own, on_other = trio.run(trio_main), asyncio.run(asyncio_main())
        found.append((on_own, on_other, asyncio.run(measured(None, queues))))
    own, other, alone = (Cost(*map(median, zip(*each, strict=True))) for each in zip(*found, strict=True))
    print(f"{STREAMS} streams, {rounds} rounds        per request   per chunk   (processor time)")
    for name, request, chunk in (
        ("Trio", own.request, own.chunk),
        ("asyncio", other.request, other.chunk),
        ("  its thread", other.here_request, other.here_chunk),
        ("  queues of asyncio", alone.request, alone.chunk),
    ):
        print(f"{name:<26} {request:8.0f} µs {chunk:8.1f} µs")
    more = [[b[i] - a[i] for a, b, _ in found] for i in (0, 1)]
    more_request, more_chunk = map(median, more)
    is_within = more_request <= REQUEST_US and more_chunk <= CHUNK_US
    verdict = "within" if is_within else "MORE THAN"
    allowed = f"{REQUEST_US:g} µs and {CHUNK_US:g} µs"
    print(f"asyncio pays {more_request:.0f} µs and {more_chunk:.1f} µs more: {verdict} {allowed}")
    if rounds > 1:
        (low, _, high), (low_chunk, _, high_chunk) = (quantiles(each, n=4, method="inclusive") for each in more)
        print(f"the middle half of the rounds: {low:.0f} to {high:.0f} µs and {low_chunk:.1f} to {high_chunk:.1f} µs")
    return 0 if is_within else 1
