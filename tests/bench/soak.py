"""The soak: minutes of mixed load with cancellations, faults and a Redis that is killed. Then: what is left over.

    bin/bench soak [MINUTES]

The load is `PER_SECOND` requests per second: complete responses, streams over SSE and streams over WebSocket. Every
third client leaves in the middle, and every twentieth request meets a fault of the provider. Checked: whether memory
still grows in the second half, whether the last responses take longer than the first, and whether anything is left
over.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections import Counter, defaultdict
from contextlib import ExitStack
from statistics import linear_regression, quantiles
from time import perf_counter

import msgspec
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio_websocket import open_websocket_url

from bench.daemon import System, _post, process, system_under_test
from support.redis import Redis, redis

MINUTES = 10.0
PER_SECOND = 50.0
LEFT = 0.3
FAULTY = 0.05
SAME = 0.2
"""What share of the requests leave in the middle, meet a fault, and were asked before."""
SAMPLE_SECONDS = 2.0
HUNG_SECONDS = 15.0
"""By then every request has its end: the deadline of an attempt is 5 s, and there are two."""
SETTLE_SECONDS = 3.0
KEPT_SECONDS = 51.0
"""After this, kept connections to the provider are closed when the next request comes."""
FAULTS = ("fault-500", "fault-429", "fault-close", "fault-reset", "fault-truncate", "fault-garbage", "fault-stall")

SLOPE_KB_PER_MINUTE = 1024.0
"""How much resident memory may grow by in a minute of the second half."""
SLOWER = 1.2
"""The last minute's p99 may be so many times the first's."""

CONFIG = """
[timeouts]
first_token = 2
idle = 2
total = 5
[attempts]
max = 2
wait_min_s = 0.1
wait_max_s = 0.2
[redis]
url = "redis://127.0.0.1:{redis}/0"
[cache]
enabled = true
memory_mb = 4
[providers.fake]
kind = "openai_compatible"
base_url = "http://127.0.0.1:{port}/openai_compatible/v1"
models = ["m"]
[providers.fake.limits]
requests_per_minute = 100_000
max_concurrency = 200
"""
CHAT = b'{"model":"fake/%s","messages":[{"role":"user","content":"%d, please."}]%s}'
RESPONSE = '{"type":"response.create","model":"fake/%s","input":"%d, please.","store":false}'


SCRIPT = """
[[rule]]
model = "m"
delay_first_s = 0.02
delay_event_s = 0.02
"""


class Load:
    """The clients of one run, and how it went."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.ended: Counter[str] = Counter()
        self.seconds: list[tuple[float, float]] = []
        self._draw = random.Random(seed)
        self._began = 0.0
        self._number = 0

    async def run(self, seconds: float) -> None:
        """`PER_SECOND` requests a second; returns when the last one has ended."""
        self._began = perf_counter()
        async with trio.open_nursery() as nursery:
            end = trio.current_time() + seconds
            while trio.current_time() < end:
                nursery.start_soon(self._one)
                await trio.sleep(self._draw.expovariate(PER_SECOND))

    async def _one(self) -> None:
        self._number += 1
        model = self._draw.choice(FAULTS) if self._draw.random() < FAULTY else "m"
        leaves = self._draw.uniform(0.001, 0.2) if self._draw.random() < LEFT else HUNG_SECONDS
        way = self._draw.choice((self._whole, self._sse, self._websocket))
        again = self._draw.random() < SAME
        number = self._draw.randrange(self._number) if again else self._number
        began = perf_counter()
        with trio.move_on_after(leaves) as scope:
            try:
                outcome = await way(model, number)
            except (OSError, trio.BrokenResourceError) as exc:
                outcome = type(exc).__name__
        if scope.cancelled_caught:
            outcome = "hung" if leaves == HUNG_SECONDS else "left"
        elif model == "m":
            self.seconds.append((began - self._began, perf_counter() - began))
        self.ended[outcome] += 1

    async def _whole(self, model: str, number: int) -> str:
        return await self._http(CHAT % (model.encode(), number, b""))

    async def _sse(self, model: str, number: int) -> str:
        return await self._http(CHAT % (model.encode(), number, b',"stream":true'))

    async def _http(self, body: bytes) -> str:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(_post(body).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
            seen = b"".join([bytes(piece) async for piece in stream])
        good = seen.startswith(b"HTTP/1.1 200") and b'"error"' not in seen
        return "answered" if good else "failed"

    async def _websocket(self, model: str, number: int) -> str:
        async with open_websocket_url(f"ws://127.0.0.1:{self.port}/v1/responses") as connection:
            await connection.send_message(RESPONSE % (model, number))
            while True:
                message = await connection.get_message()
                if '"type":"response.completed"' in message:
                    return "answered"
                if '"type":"response.failed"' in message or '"type":"error"' in message:
                    return "failed"


async def get(port: int, path: str) -> str:
    """A body."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        return b"".join([bytes(piece) async for piece in stream]).partition(b"\r\n\r\n")[2].decode()


async def metrics(port: int) -> dict[str, float]:
    """Sums of what the daemon tells about itself, by name."""
    text = await get(port, "/metrics")
    found: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name.removeprefix("llm_runtime_")] += sample.value
    return found


def files(system: System) -> int:
    """Open file descriptors."""
    return len(os.listdir(f"/proc/{system.pid}/fd"))


async def soak(system: System, upstream: System, server: Redis, minutes: float) -> list[str]:
    """Run it, tell how it goes, and return what was not as it should be."""
    load = Load(system.port, seed=1)
    samples: list[tuple[float, float]] = []
    await Load(system.port, seed=2).run(5)  # what is made once is made
    await trio.sleep(SETTLE_SECONDS)
    files_before, began = files(system), perf_counter()

    async def watch() -> None:
        while True:
            samples.append((perf_counter() - began, system.resident() / 1024))
            await trio.sleep(SAMPLE_SECONDS)

    async def kill_redis() -> None:
        await trio.sleep(minutes * 60 / 2)
        server.kill()
        await trio.sleep(5)
        await trio.to_thread.run_sync(server.start)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(kill_redis)
        await load.run(minutes * 60)
        await trio.sleep(SETTLE_SECONDS)
        nursery.cancel_scope.cancel("the load has ended")
    told = await metrics(system.port)
    journal = msgspec.json.decode(await get(upstream.port, "/_fake/journal"))
    await trio.sleep(KEPT_SECONDS)
    await Load(system.port, seed=3).run(0.5)
    await trio.sleep(SETTLE_SECONDS)

    half = [sample for sample in samples if sample[0] > minutes * 30]
    slope = linear_regression(*zip(*half, strict=True)).slope * 60
    window = min(60.0, minutes * 20)
    first = [took for at, took in load.seconds if at < window]
    last = [took for at, took in load.seconds if at > minutes * 60 - window]
    before, after = (quantiles(part, n=100)[-1] for part in (first, last))
    open_files = files(system)
    kinds = ", ".join(f"{count} {what}" for what, count in load.ended.most_common())
    print(f"requests       {load.ended.total()}: {kinds}")
    print(f"resident       {samples[0][1] / 1024:.1f} MB at first, {samples[-1][1] / 1024:.1f} MB at last", end="; ")
    print(f"{slope:+.0f} KB a minute in the second half")
    print(f"p99            {before * 1000:.0f} ms in the first {window:.0f} s, {after * 1000:.0f} ms in the last")
    print(f"open files     {files_before} before, {open_files} after")
    print(f"left over      {told['requests_running']:.0f} requests, {told['limited_in_flight']:.0f} slots", end=", ")
    print(f"{journal['open']} calls at the provider, of {journal['asked']}")
    print(f"restarts       {told['actor_restarts_total']:.0f}; limits shared again: {bool(told['limits_shared'])}")
    wrong = {
        "a request hung": load.ended["hung"] > 0,
        "memory grows": slope > SLOPE_KB_PER_MINUTE,
        "it gets slower": after > max(before * SLOWER, before + 0.02),
        "files stay open": open_files > files_before + 2,
        "requests or slots are left": bool(told["requests_running"] or told["limited_in_flight"]),
        "calls are left at the provider": journal["open"] > 0,
        "Redis was not found again": not told["limits_shared"],
        "actors crashed": bool(told["actor_restarts_total"]),
    }
    return [what for what, is_so in wrong.items() if is_so]


def main() -> int:
    """Exit code 1 when something is not as it should be."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES
    with redis() as server, tempfile.NamedTemporaryFile("w", suffix=".toml") as script, ExitStack() as stack:
        script.write(SCRIPT)
        script.flush()
        code = "-m", "llm_runtime.cli", "fake-provider", "--port", "0", "--script", script.name
        upstream = stack.enter_context(process(1, *code))
        config = CONFIG.format(port=upstream.port, redis=server.port)
        with system_under_test(config) as system:
            wrong = trio.run(soak, system, upstream, server, minutes)
    print("\n".join(f"soak: {each}" for each in wrong) or "soak: all as it should be")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
