"""CPU of a plain request of an embedding program: through the whole runtime, by an h11 client, and by httpx2.

    PYTHONPATH=tests python -m bench._embedded CONFIG PORT ROUNDS REQUESTS AT_ONCE

One process runs the three in turn against the fake provider at PORT, and prints the medians in microseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from statistics import median
from time import process_time

import httpx2
import msgspec
import trio

from bench._relay import Upstream
from llm_runtime import open_runtime

MESSAGES = [{"role": "user", "content": "Say hello."}]


async def cpu(requests: int, at_once: int, ask: Callable[[], Awaitable[object]]) -> float:
    """Microseconds per request."""

    async def worker() -> None:
        for _ in range(requests // at_once):
            await ask()

    before = process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(worker)
    return (process_time() - before) / requests * 1e6


async def main(config: str, *numbers: int) -> None:
    port, rounds, requests, at_once = numbers
    base = f"http://127.0.0.1:{port}/v1"
    limits = httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with open_runtime(config) as runtime, httpx2.AsyncClient(limits=limits) as client:

        async def ours() -> None:
            answer = await runtime.chat("Say hello.", model="fake/m")
            assert answer.content

        async def plain() -> None:
            answer = await client.post(f"{base}/chat/completions", json={"model": "m", "messages": MESSAGES})
            assert answer.json()["choices"]

        upstream = Upstream(port)
        body = msgspec.json.encode({"model": "m", "messages": MESSAGES})

        async def bare() -> None:
            pieces = [piece async for piece in upstream.ask(body) if isinstance(piece, bytes)]
            assert msgspec.json.decode(b"".join(pieces))["choices"]

        ways = (ours, bare, plain)
        for ask in ways:
            await cpu(at_once * 4, at_once, ask)
        spent = [[await cpu(requests, at_once, ask) for ask in ways] for _ in range(rounds)]
    print(*(median(one) for one in zip(*spent, strict=True)))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], *map(int, sys.argv[2:]))
