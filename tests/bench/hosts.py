"""bin/bench hosts: the CPU time that asyncio and threads cost in addition to Trio, with 50 simultaneous streams.

The fake provider runs in a process of its own and sends a chunk every 20 ms, so that each chunk arrives alone.
Responses have two lengths, which separates the cost of a chunk from that of a request. The aim for asyncio is at most
100 µs more per request and 15 µs more per chunk.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

import llm_runtime
from llm_runtime import Config, Provider, aio

STREAMS = 50
ROUNDS = 3
SHORT, LONG = 5, 60
"""Words of an answer; each is a chunk."""
REQUEST_US, CHUNK_US = 100.0, 15.0


def script() -> str:
    return "\n".join(
        f'[[rule]]\nmodel = "words{words}"\ndelay_event_s = 0.02\ntext = "{" ".join(["word"] * words)}"'
        for words in (SHORT, LONG)
    )


async def one(rt: Any, words: int, counts: list[int]) -> None:
    async with rt.stream("Go.", model=f"fake/words{words}") as stream:
        async for _ in stream:
            counts[0] += 1


async def on_trio(rt: Any, words: int, counts: list[int]) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS):
            nursery.start_soon(one, rt, words, counts)


async def on_asyncio(rt: Any, words: int, counts: list[int]) -> None:
    await asyncio.gather(*(one(rt, words, counts) for _ in range(STREAMS)))


async def measured(rt: Any, run: Callable[[Any, int, list[int]], Awaitable[None]]) -> tuple[float, float]:
    """Seconds of processor time for each request, and for each chunk."""
    spent: dict[int, float] = {}
    await run(rt, SHORT, [0])
    for words in (SHORT, LONG):
        best = float("inf")
        for _ in range(ROUNDS):
            began = time.process_time()
            await run(rt, words, [0])
            best = min(best, (time.process_time() - began) / STREAMS)
        spent[words] = best
    chunk = (spent[LONG] - spent[SHORT]) / (LONG - SHORT)
    return spent[SHORT] - SHORT * chunk, chunk


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "script.toml"
        rules.write_text(script())
        command = [sys.executable, "-m", "llm_runtime.cli", "fake-provider", "--port", "0", "--script", str(rules)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as fake:
            assert fake.stdout is not None
            try:
                url = fake.stdout.readline().split()[-1]
                models = (f"words{SHORT}", f"words{LONG}")
                provider = Provider(kind="openai_compatible", base_url=f"{url}/openai_compatible/v1", models=models)
                return compared(Config(providers={"fake": provider}))
            finally:
                fake.terminate()


def compared(config: Config) -> int:
    async def trio_main() -> tuple[float, float]:
        async with llm_runtime.open_runtime(config) as rt:
            return await measured(rt, on_trio)

    async def asyncio_main() -> tuple[float, float]:
        async with aio.open_runtime(config) as rt:
            return await measured(rt, on_asyncio)

    own, other = trio.run(trio_main), asyncio.run(asyncio_main())
    print(f"{STREAMS} streams     per request   per chunk   (processor time)")
    for name, (request, chunk) in (("Trio", own), ("asyncio", other)):
        print(f"{name:<12} {request * 1e6:8.0f} µs {chunk * 1e6:8.1f} µs")
    more_request, more_chunk = ((b - a) * 1e6 for a, b in zip(own, other, strict=True))
    is_within = more_request <= REQUEST_US and more_chunk <= CHUNK_US
    verdict = "within" if is_within else "MORE THAN"
    allowed = f"{REQUEST_US:g} µs and {CHUNK_US:g} µs"
    print(f"asyncio pays {more_request:.0f} µs and {more_chunk:.1f} µs more: {verdict} {allowed}")
    return 0 if is_within else 1
