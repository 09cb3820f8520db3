"""What limiter and cache add to a request: the CPU time of the daemon with and without them, in one run.

The same load goes to two daemons, in interleaved rounds. For misses, all requests differ, so each is looked up,
limited, sent and stored. For hits, all are the same. Shared limits are measured too, with a Redis that this benchmark
starts.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from itertools import count
from statistics import median

import trio

from bench.daemon import CHAT, CONFIG, PLAIN_AT_ONCE, System, _post, _read_answer, _spent, process, system_under_test
from bench.daemon import HERE as FOLDER
from support.redis import redis

ROUNDS = 5
REQUESTS = 960
LIMITED = """
[providers.fake.limits]
requests_per_minute = 10_000_000
tokens_per_minute = 1_000_000_000
"""
SHARED = """
[redis]
url = "redis://127.0.0.1:{port}/0"
"""
CACHED = """
[cache]
enabled = true
"""
_numbers = count()


async def _ask(port: int, payload: Callable[[], bytes]) -> None:
    async def worker() -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for _ in range(REQUESTS // PLAIN_AT_ONCE):
                await stream.send_all(payload())
                await _read_answer(stream)

    async with trio.open_nursery() as nursery:
        for _ in range(PLAIN_AT_ONCE):
            nursery.start_soon(worker)


async def misses(port: int) -> None:
    """Every request is another one."""
    await _ask(port, lambda: _post(CHAT % (b',"seed":%d' % next(_numbers))))


async def hits(port: int) -> None:
    """All are the same one."""
    await _ask(port, lambda: _post(CHAT % b""))


Load = Callable[[int], Awaitable[None]]
ROWS: tuple[tuple[str, str, Load], ...] = (
    ("limited", LIMITED, misses),
    ("cached, a miss", CACHED, misses),
    ("limited and cached, a miss", LIMITED + CACHED, misses),
    ("limited and cached, a hit", LIMITED + CACHED, hits),
    ("limited through redis", LIMITED + SHARED, misses),
)


def _measured(daemons: tuple[System, System], load: Load) -> tuple[float, float]:
    for daemon in daemons:
        trio.run(load, daemon.port)
    spent = [[_spent(daemon, load) for daemon in daemons] for _ in range(ROUNDS)]
    ours, bare = (median(one) / REQUESTS * 1e6 for one in zip(*spent, strict=True))
    return ours, bare


def main() -> int:
    """Print the table. It has no budget: the calls are counted by a test (at most four)."""
    print(f"{'CPU per plain request':32} {'with':>9} {'bare':>9} {'ratio':>7}")
    with redis() as server, process(1, str(FOLDER / "_upstream.py"), "1", "0.001") as upstream:
        bare = CONFIG.format(port=upstream.port)
        for what, section, load in ROWS:
            with_section = bare + section.replace("{port}", str(server.port))
            with system_under_test(with_section) as ours, system_under_test(bare) as plain:
                found, base = _measured((ours, plain), load)
            print(f"{what:32} {found:6.0f} us {base:6.0f} us {found / base:6.2f}x", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
