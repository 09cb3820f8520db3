"""The daemon's table: CPU per request and per streamed token, beside a bare relay, in the same run.

Three processes on two cores: the system under test on one, the fake provider and the driver on the other. What is
counted is the CPU time of the system's process. Rounds are interleaved and the medians compared, because the
machine is shared: trust the ratios. The budgets are design.md's, section 9.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import trio

ROUNDS = 5
PLAIN_REQUESTS = 1500
PLAIN_AT_ONCE = 32
STREAMS = 50
CHUNKS = 100
GAPS = {"burst": 0.001, "steady": 0.01}
"""Seconds between two chunks of one stream: as fast as 50 streams go, and 100 chunks/s each."""

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
CONFIG = """
[providers.fake]
kind = "openai_compatible"
base_url = "http://127.0.0.1:{port}/v1"
models = ["m"]
"""
CHAT = b'{"model":"fake/m","messages":[{"role":"user","content":"Say hello."}]%s}'
RESPONSE = '{"type":"response.create","model":"fake/m","input":"Say hello.","store":false%s}'


class System(NamedTuple):
    """A process under test: its port and how much CPU it has used."""

    port: int
    pid: int

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def process(core: int, *arguments: str) -> Iterator[System]:
    """Start it on ``core`` and wait for the line on stdout that names its port."""
    cores = os.sched_getaffinity(0)
    running = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {sorted(cores)[core % len(cores)]}),
        text=True,
    )
    try:
        assert running.stdout is not None
        port = int(running.stdout.readline().rpartition(":")[2])
        yield System(port, running.pid)
    finally:
        running.terminate()
        running.wait(10)


# -- the driver ------------------------------------------------------------------------------------------------------


def _post(body: bytes) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )


async def _read_answer(stream: trio.SocketStream) -> int:
    """Read one whole answer; give back how many bytes its body had."""
    buffer = b""
    while b"\r\n\r\n" not in buffer:
        buffer += await _some(stream)
    head, _, rest = buffer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), buffer[:500]
    if b"chunked" in head.lower():
        while not rest.endswith(b"0\r\n\r\n"):
            rest = rest[-8:] + await _some(stream)
        return len(rest)
    length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))[15:])
    while len(rest) < length:
        rest += await _some(stream)
    return length


async def _some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(65536)
    assert data, "the system under test closed the connection"
    return data


async def plain(port: int, requests: int) -> None:
    """``requests`` whole answers, `PLAIN_AT_ONCE` at a time on kept connections."""
    payload = _post(CHAT % b"")

    async def worker(count: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        for _ in range(count):
            await stream.send_all(payload)
            await _read_answer(stream)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(PLAIN_AT_ONCE):
            nursery.start_soon(worker, requests // PLAIN_AT_ONCE)


async def sse(port: int) -> None:
    """`STREAMS` streamed answers at once over HTTP."""
    payload = _post(CHAT % b',"stream":true')

    async def one() -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(payload)
        await _read_answer(stream)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS):
            nursery.start_soon(one)


async def websocket(port: int, message: str, last: str) -> None:
    """`STREAMS` streamed answers at once, a WebSocket each."""
    from trio_websocket import open_websocket_url

    async def one() -> None:
        async with open_websocket_url(f"ws://127.0.0.1:{port}/v1/responses") as connection:
            await connection.send_message(message)
            while last not in await connection.get_message():
                continue

    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS):
            nursery.start_soon(one)


# -- the table -------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One measurement: the same load on the daemon and on its relay."""

    what: str
    units: int
    budget: float
    gap: str
    relay: str
    on_daemon: Callable[[int], Awaitable[None]]
    on_relay: Callable[[int], Awaitable[None]]


async def _plain(port: int) -> None:
    await plain(port, PLAIN_REQUESTS)


async def _daemon_websocket(port: int) -> None:
    await websocket(port, RESPONSE % "", '"response.completed"')


async def _relay_websocket(port: int) -> None:
    await websocket(port, (CHAT % b',"stream":true').decode(), "[DONE]")


TOKENS = STREAMS * CHUNKS
ROWS = (
    Row("plain request, 32 at once", PLAIN_REQUESTS, 3.0, "burst", "http", _plain, _plain),
    Row("streamed chunk, SSE, 50 streams", TOKENS, 1.5, "burst", "http", sse, sse),
    Row(
        "streamed chunk, WebSocket, 50 streams", TOKENS, 1.5, "burst", "websocket", _daemon_websocket, _relay_websocket
    ),
    Row("chunk at 100/s, SSE, 50 streams", TOKENS, 1.3, "steady", "http", sse, sse),
    Row(
        "chunk at 100/s, WebSocket, 50 streams", TOKENS, 1.3, "steady", "websocket", _daemon_websocket, _relay_websocket
    ),
)


def _spent(system: System, load: Callable[[int], Awaitable[None]]) -> float:
    before = system.cpu()
    trio.run(load, system.port)
    return system.cpu() - before


def measure(row: Row) -> tuple[float, float]:
    """Median CPU microseconds per unit: the daemon's, the relay's."""
    with ExitStack() as stack:
        upstream = stack.enter_context(process(1, str(HERE / "_upstream.py"), str(CHUNKS), str(GAPS[row.gap])))
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bench.toml"
        file.write_text(CONFIG.format(port=upstream.port))
        daemon = stack.enter_context(
            process(0, "-m", "llm_runtime.cli", "serve", "--config", str(file), "--port", "0", "--log-level", "warning")
        )
        relay = stack.enter_context(process(0, str(HERE / "_relay.py"), row.relay, str(upstream.port)))
        pairs = ((daemon, row.on_daemon), (relay, row.on_relay))
        for system, load in pairs:  # warm up: imports, connections, caches
            trio.run(load, system.port)
        spent = [[_spent(system, load) for system, load in pairs] for _ in range(ROUNDS)]
    return tuple(median(one) / row.units * 1e6 for one in zip(*spent, strict=True))  # type: ignore[return-value]


def main() -> int:
    """Print the table; 1 if a budget is missed."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    print(f"{'CPU per':40} {'daemon':>10} {'relay':>10} {'ratio':>7} {'budget':>7}")
    missed = False
    for row in ROWS:
        ours, theirs = measure(row)
        ratio = ours / theirs
        missed |= ratio > row.budget
        mark = "" if ratio <= row.budget else "  over"
        print(f"{row.what:40} {ours:7.0f} us {theirs:7.0f} us {ratio:6.2f}x {row.budget:6.1f}x{mark}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
