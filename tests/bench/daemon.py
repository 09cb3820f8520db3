"""CPU of the daemon per request and per chunk, compared with bare relays; then first tokens, start-up time and memory.

The daemon has one core; the fake provider and the driver have another. The CPU time of the daemon's process is
measured. Rounds are interleaved and their medians compared, so that other load on the machine hardly changes the
ratios. The daemon has its default settings, with the info log in a file. `docs/performance.md` explains the method and
the table.

    bin/bench daemon [--json FILE] [WORD…]

With words, only rows of requests and chunks are shown whose name contains one of them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import trio

ROUNDS = 5
PLAIN_REQUESTS = 1500
PLAIN_AT_ONCE = 32
ALONE_REQUESTS = 400
STREAMS = 50
CHUNKS = 100
FIRST_TOKENS = 30
"""How many first tokens one round waits for, at least."""

TOKEN_ROUNDS = 3

APART_SECONDS = CHUNKS * 0.01 / STREAMS
"""Between two beginnings, so that `STREAMS` of them are open at a time."""

OPEN_STREAMS = 120
"""Twice as many are opened, and the memory of the second half counted; fewer than one provider may have at once."""

GAPS = {"gapless": 0.0, "burst": 0.001, "steady": 0.01}
"""Seconds between two chunks of one stream: one behind the other, as fast as 50 streams go, and 100 chunks/s each."""

HERE = Path(__file__).parent
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CONFIG = """
[providers.fake]
kind = "openai_compatible"
base_url = "http://127.0.0.1:{port}/v1"
models = ["m"]
"""
CHAT = b'{"model":"fake/m","messages":[{"role":"user","content":"Say hello."}]%s}'
FULL_CHAT = b'{"model":"many","messages":[{"role":"user","content":"Say hello."}],"seed":%d}'
RESPONSE = '{"type":"response.create","model":"fake/m","input":"Say hello.","store":false%s}'


class System(NamedTuple):
    """A process under test: its port and how much CPU it has used."""

    port: int
    pid: int

    def cpu(self) -> float:
        """Seconds on a core, by the scheduler's own clock: ticks of 10 ms are too coarse for a round."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def resident(self) -> int:
        """Bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_BYTES


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


async def plain(
    port: int, requests: int, *, at_once: int = PLAIN_AT_ONCE, body: Callable[[], bytes] = lambda: CHAT % b""
) -> None:
    """``requests`` whole answers, ``at_once`` at a time on kept connections."""

    async def worker(count: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        for _ in range(count):
            await stream.send_all(_post(body()))
            await _read_answer(stream)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(worker, requests // at_once)


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


SELECTED = 5
LIMITED = """
[cache]
enabled = true

[routes.many]
candidates = [{candidates}]
select = "score"
"""
"""With the limiter, the cache and a selection among `SELECTED` providers."""


class Row(NamedTuple):
    """One measurement: the same load on the daemon and on its relays."""

    what: str
    units: int
    budget: float
    gap: str
    relay: str
    on_daemon: Callable[[int], Awaitable[None]]
    on_relay: Callable[[int], Awaitable[None]]
    full: bool = False
    """Whether limiter, cache and selection are on."""


async def _plain(port: int) -> None:
    await plain(port, PLAIN_REQUESTS)


async def _alone(port: int) -> None:
    await plain(port, ALONE_REQUESTS, at_once=1)


_numbers = count()


async def _misses(port: int) -> None:
    await plain(port, PLAIN_REQUESTS, body=lambda: FULL_CHAT % next(_numbers))


async def _daemon_websocket(port: int) -> None:
    await websocket(port, RESPONSE % "", '"response.completed"')


async def _relay_websocket(port: int) -> None:
    await websocket(port, (CHAT % b',"stream":true').decode(), "[DONE]")


TOKENS = STREAMS * CHUNKS
ROWS = (
    Row("plain request, 32 at once", PLAIN_REQUESTS, 3.0, "burst", "http", _plain, _plain),
    Row("plain request, 1 at a time", ALONE_REQUESTS, 3.5, "burst", "http", _alone, _alone),
    Row("with limits, cache miss, one of 5", PLAIN_REQUESTS, 6.0, "burst", "http", _misses, _plain, full=True),
    Row("streamed chunk, SSE, 50 streams, no gap", TOKENS, 1.5, "gapless", "http", sse, sse),
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


def _config(port: int) -> str:
    return CONFIG.format(port=port)


def _full_config(port: int) -> str:
    """`SELECTED` providers that are one, each with limits that nothing reaches."""
    names = [f"p{number}" for number in range(SELECTED)]
    limits = "limits = {requests_per_minute = 10_000_000, tokens_per_minute = 1_000_000_000}\n"
    providers = "".join(_config(port).replace("providers.fake", f"providers.{name}") + limits for name in names)
    return providers + LIMITED.format(candidates=", ".join(f'"{name}/m"' for name in names))


@contextmanager
def system_under_test(config: str) -> Iterator[System]:
    """The daemon with ``config``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.toml"
        file.write_text(config)
        options = ("--config", str(file), "--port", "0", "--log-level", "info")
        with process(0, "-m", "llm_runtime.cli", "serve", *options) as daemon:
            yield daemon


@contextmanager
def systems(gap: float, relay: str = "http", *, full: bool = False) -> Iterator[tuple[System, System, System, Path]]:
    """Daemon, relay, the fake provider behind both, and a configuration that names it."""
    with ExitStack() as stack:
        upstream = stack.enter_context(process(1, str(HERE / "_upstream.py"), str(CHUNKS), str(gap)))
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bench.toml"
        file.write_text(_config(upstream.port))
        config = _full_config(upstream.port) if full else _config(upstream.port)
        daemon = stack.enter_context(system_under_test(config))
        yield (
            daemon,
            stack.enter_context(process(0, str(HERE / "_relay.py"), relay, str(upstream.port))),
            upstream,
            file,
        )


def measure(row: Row) -> tuple[float, float, float | None]:
    """Median CPU microseconds per unit: the daemon's, the relay's, and the limit's where there is one."""
    with systems(GAPS[row.gap], row.relay, full=row.full) as (daemon, relay, upstream, _), ExitStack() as stack:
        pairs = [(daemon, row.on_daemon), (relay, row.on_relay)]
        if row.relay == "http":
            command = (str(HERE / "_relay.py"), "limit", str(upstream.port))
            pairs.append((stack.enter_context(process(0, *command)), row.on_relay))
        for system, load in pairs:  # warm up: imports, connections, caches
            trio.run(load, system.port)
        spent = [[_spent(system, load) for system, load in pairs] for _ in range(ROUNDS)]
    ours, theirs, *least = (median(one) / row.units * 1e6 for one in zip(*spent, strict=True))
    return ours, theirs, least[0] if least else None


# -- what is no CPU time per unit --------------------------------------------------------------------------------------


async def first_token(port: int, at_once: int) -> float:
    """Median seconds from a request to the first token, of streams that begin alone or while `STREAMS` are open."""
    payload, took = _post(CHAT % b',"stream":true'), list[float]()

    async def one(task_status: trio.TaskStatus[None]) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            began = trio.current_time()
            await stream.send_all(payload)
            seen = b""
            while b"data:" not in seen:
                seen += await _some(stream)
            took.append(trio.current_time() - began)
            task_status.started()
            while at_once > 1 and not seen.endswith(b"0\r\n\r\n"):
                seen = seen[-8:] + await _some(stream)

    async with trio.open_nursery() as nursery:
        for _ in range(max(2 * at_once, FIRST_TOKENS)):
            await nursery.start(one)
            await trio.sleep(APART_SECONDS)
    return median(took)


def added_ms(at_once: int) -> float:
    """Milliseconds that the first token takes longer through the daemon than through the relay."""
    with systems(GAPS["steady"]) as (daemon, relay, _, _):
        took = [[trio.run(first_token, each.port, at_once) for each in (daemon, relay)] for _ in range(TOKEN_ROUNDS)]
    ours, theirs = (median(one) for one in zip(*took, strict=True))
    return float(ours - theirs) * 1e3


def embedded() -> tuple[float, float]:
    """An embedded plain request's CPU, as a share of an h11 client's and of an httpx2 call's."""
    with systems(0.001) as (_, _, upstream, file):
        numbers = (upstream.port, ROUNDS, PLAIN_REQUESTS // 2, PLAIN_AT_ONCE)
        command = [sys.executable, "-m", "bench._embedded", str(file), *map(str, numbers)]
        env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        ours, bare, general = map(float, subprocess.check_output(command, text=True, env=env).split())
    return ours / bare, ours / general


def start() -> tuple[float, float]:
    """Seconds from spawn to ready, and the megabytes that are resident then."""
    took, size = [], []
    for _ in range(ROUNDS):
        began = perf_counter()
        with system_under_test(_config(1)) as daemon:
            took.append(perf_counter() - began)
            size.append(daemon.resident() / 1e6)
    return median(took), median(size)


def per_open_stream() -> float:
    """Resident kilobytes of one more stream, among many."""

    async def grown(daemon: System) -> float:
        payload = _post(CHAT % b',"stream":true')

        async def one(task_status: trio.TaskStatus[None]) -> None:
            stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
            await stream.send_all(payload)
            await _some(stream)
            task_status.started()
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            sizes: list[int] = []
            for _ in range(2):
                for _ in range(OPEN_STREAMS):
                    await nursery.start(one)
                sizes.append(daemon.resident())
            nursery.cancel_scope.cancel()
        return (sizes[1] - sizes[0]) / OPEN_STREAMS / 1e3

    with systems(60.0) as (daemon, _, _, _):
        return trio.run(grown, daemon)


def imported() -> float:
    """CPU of ``import llm_runtime`` and a look at its ``open_runtime``, as a share of ``import trio``."""

    def cpu(statement: str) -> float:
        code = f"from time import process_time as t; a = t(); {statement}; print(t() - a)"
        return float(subprocess.check_output([sys.executable, "-c", code], text=True))

    statements = ("import llm_runtime; llm_runtime.open_runtime", "import trio")
    spent = [[cpu(statement) for statement in statements] for _ in range(2 * ROUNDS)]
    ours, theirs = (median(one) for one in zip(*spent, strict=True))
    return float(ours / theirs)


def figures() -> Iterator[tuple[str, float, str, float]]:
    """What, how much, in which unit, and the budget."""
    yield "first token added, 1 stream", added_ms(1), "ms", 2.0
    yield "first token added, 50 streams", added_ms(STREAMS), "ms", 5.0
    to_h11, to_httpx2 = embedded()
    yield "embedded plain request / h11 client's", to_h11, "x", 4.5
    yield "embedded plain request / httpx2's", to_httpx2, "x", 1.5
    seconds, megabytes = start()
    yield "spawn to ready", seconds, "s", 0.8
    yield "resident when ready", megabytes, "MB", 60.0
    yield f"resident per open stream, {OPEN_STREAMS}", per_open_stream(), "KB", 32.0
    yield "import, open_runtime touched / import trio", imported(), "x", 1.5


def main() -> int:
    """Print the table; 1 if a budget is missed."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    print(f"open files: {resource.getrlimit(resource.RLIMIT_NOFILE)}; server settings: default; log: info")
    print(f"{'CPU per':40} {'daemon':>10} {'relay':>10} {'limit':>10} {'ratio':>7} {'budget':>7}")
    missed, found_all = False, dict[str, dict[str, float | None]]()
    words, file = sys.argv[1:], None
    if words[:1] == ["--json"]:
        file, words = words[1], words[2:]
    for row in ROWS:
        if words and not any(word in row.what for word in words):
            continue
        ours, theirs, least = measure(row)
        ratio = ours / theirs
        missed |= ratio > row.budget
        found_all[row.what] = {"daemon_us": ours, "relay_us": theirs, "limit_us": least, "ratio": ratio}
        bound = "" if least is None else f"{least:7.0f} us"
        print(
            f"{row.what:40} {ours:7.0f} us {theirs:7.0f} us {bound:>10} {ratio:6.2f}x {row.budget:6.1f}x"
            f"{_mark(ratio, row.budget)}"
        )
    for what, found, unit, budget in () if words else figures():
        missed |= found > budget
        found_all[what] = {unit: found}
        print(f"{what:73} {found:5.2f} {unit:2} {budget:4g} {unit:2}{_mark(found, budget)}")
    if file is not None:
        Path(file).write_text(json.dumps(found_all, indent=1))
    return 1 if missed else 0


def _mark(found: float, budget: float) -> str:
    sys.stdout.flush()
    return "" if found <= budget else "  over"


if __name__ == "__main__":
    sys.exit(main())
