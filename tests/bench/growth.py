"""Many streams at once: the first tokens of requests that begin together, the gaps in open streams, and memory.

    bin/bench growth [FIRST [STREAMS [WEBSOCKETS]]]

The daemon has one core, the fake provider and the driver another, as in `bench.daemon`. Its limits allow as many
connections and runs as there are streams; its other settings are the defaults. First tokens and gaps are compared with
the h11 relay's in the same run. A gap is the time between two chunks of one stream as the client sees it.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median, quantiles
from typing import NamedTuple

import trio

from bench.daemon import CHAT, HERE, System, _config, _post, process, system_under_test

FIRST, STREAMS, WEBSOCKETS = 1_000, 5_000, 500

GAP_SECONDS = 2.0
"""Between two chunks of one stream."""

CHUNKS = 5
"""Of each stream."""

WAVE_SECONDS = 60.0
"""The most that all streams together may take."""

SETTLE_SECONDS = 3.0
"""For what is left of a wave to be given back."""

OPENING = 64
"""Connections that are opened at a time: the backlog of the listener is not measured."""

SETTINGS = "limits = {{max_concurrency = {many}}}\n[server]\nmax_connections = {many}\nmax_runs = {many}\n"


class Seen(NamedTuple):
    """What the driver saw of one wave of streams, in seconds; a stream that was refused has no first token."""

    first_s: list[float]
    gaps_s: list[float]


async def wave(port: int, count: int) -> Seen:
    """``count`` streams that begin together, on connections that are open already."""
    payload, seen, opening = _post(CHAT % b',"stream":true'), Seen([], []), trio.CapacityLimiter(OPENING)
    streams: list[trio.SocketStream] = []

    async def connect() -> None:
        async with opening:
            streams.append(await trio.open_tcp_stream("127.0.0.1", port))

    async def follow(stream: trio.SocketStream) -> None:
        async with stream:
            last, times = trio.current_time(), list[float]()
            await stream.send_all(payload)
            while len(times) < CHUNKS and (data := await stream.receive_some(65_536)):
                if b"data:" in data:
                    times.append(trio.current_time() - last)
                    last = trio.current_time()
                elif not times and b" 200 " not in data:
                    return
                if len(times) == 1:
                    seen.first_s.append(times[0])
            seen.gaps_s.extend(times[1:])

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(connect)
    with trio.move_on_after(WAVE_SECONDS):
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(follow, stream)
    return seen


@contextmanager
def pair(many: int) -> Iterator[tuple[System, System]]:
    """Daemon and relay before one provider."""
    with ExitStack() as stack:
        upstream = stack.enter_context(process(1, str(HERE / "_upstream.py"), str(CHUNKS), str(GAP_SECONDS)))
        daemon = stack.enter_context(system_under_test(_config(upstream.port) + SETTINGS.format(many=many)))
        yield daemon, stack.enter_context(process(0, str(HERE / "_relay.py"), "http", str(upstream.port)))


def p99(values: list[float]) -> float:
    """The 99th percentile; infinite without values."""
    return quantiles(values, n=100)[-1] if len(values) > 1 else float("inf")


def many_streams(count: int) -> None:
    """Print what became of one wave at the daemon and at the relay, and what the daemon's memory did."""
    with pair(2 * count) as (daemon, relay):
        for system in (daemon, relay):  # imports and caches
            trio.run(wave, system.port, 8)
        before = daemon.resident()
        found: list[Seen] = []
        peaks: list[int] = []

        async def watched(system: System) -> None:
            async def watch() -> None:
                while True:
                    peaks.append(system.resident())
                    await trio.sleep(0.2)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                found.append(await wave(system.port, count))
                nursery.cancel_scope.cancel()

        trio.run(watched, daemon)
        peak = max(peaks)
        trio.run(trio.sleep, SETTLE_SECONDS)
        after = daemon.resident()
        trio.run(watched, relay)
    for name, seen in zip(("daemon", "relay"), found, strict=True):
        print(
            f"{count} streams at once, {name}: {len(seen.first_s)} taken; first token median "
            f"{median(seen.first_s or [float('inf')]) * 1e3:.0f} ms, p99 {p99(seen.first_s) * 1e3:.0f} ms; "
            f"gap p99 {p99(seen.gaps_s) * 1e3:.0f} ms of {GAP_SECONDS * 1e3:.0f}",
            flush=True,
        )
    print(
        f"{count} streams at once, daemon: {(peak - before) / count / 1e3:.1f} KB each; "
        f"{before / 1e6:.0f} MB before, {peak / 1e6:.0f} at the peak, {after / 1e6:.0f} after",
        flush=True,
    )


def idle_websockets(count: int) -> None:
    """Print the memory of one idle WebSocket, of the second half of ``count``, and what is given back."""
    from trio_websocket import open_websocket_url

    async def open_and_close(daemon: System) -> list[int]:
        sizes: list[int] = []

        async def one(task_status: trio.TaskStatus[None]) -> None:
            async with open_websocket_url(f"ws://127.0.0.1:{daemon.port}/v1/responses"):
                task_status.started()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                for _ in range(count // 2):
                    await nursery.start(one)
                sizes.append(daemon.resident())
            nursery.cancel_scope.cancel()
        await trio.sleep(SETTLE_SECONDS)
        return [*sizes, daemon.resident()]

    with system_under_test(_config(1) + SETTINGS.format(many=2 * count)) as daemon:
        half, whole, after = trio.run(open_and_close, daemon)
    print(
        f"{count} idle WebSockets: {(whole - half) / (count // 2) / 1e3:.1f} KB each; {whole / 1e6:.0f} MB, then "
        f"{after / 1e6:.0f}",
        flush=True,
    )


def main() -> int:
    """Print what was found."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    first, streams, websockets = (*map(int, sys.argv[1:]), *(FIRST, STREAMS, WEBSOCKETS)[len(sys.argv) - 1 :])
    print(f"open files: {hard}; server settings: default, but connections and runs; log: info")
    for count in (first, streams):
        if count:
            many_streams(count)
    if websockets:
        idle_websockets(websockets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
