"""The storm: streams that are cancelled at random times, beside streams that must not be disturbed, at full speed.

    bin/bench storm [--seconds 600] [--seed N] [--fast 4] [--only daemon|embedded]

200 streams of 20 tokens/s beside ``--fast`` ones of 500 to 1,000 chunks/s. A third of all calls is cancelled by client,
deadline, disconnect or RST at a random moment, and a twentieth meets a fault of the provider. Another provider
crashes its decoder (`bench._storm.sabotage`), one caller floods, and Redis is killed and restarted in the middle.
Half of the daemon's streams use HTTP, half WebSocket; then the same load runs in a program that embeds the runtime.
Checked: streams that were not cancelled are complete, and afterwards nothing is left over. A storm of five minutes or
more ends with ``bin/bench resume``: clients that are cut off at random bytes and resume.

The program under test has one core; provider, clients and Redis share the other. The table shows how late provider and
clients were. That is subtracted from the gaps, unless the clients are tasks of the program under test.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple

import trio
from prometheus_client.parser import text_string_to_metric_families

from bench._storm.clients import Clients
from bench._storm.plan import slots
from bench._storm.score import LATE, Score, percentile
from bench.resume import CUTS, resume
from support.redis import Redis, redis

SECONDS = 600.0
FAST = 4
GAP_P99_MS = 250
BUSY_SHARE = 0.1
"""A program that waited so long for its core shared it with others: its gaps and lateness are told but not judged."""

REDIS_AWAY_SECONDS = 3.0
SAMPLE_SECONDS = 1.0
SETTLE_SECONDS = 15.0
START_SECONDS = 30.0

LONG_SECONDS = 300.0
"""From this length on the slope of the memory means something to a MiB a minute."""
SLOPE_MIB_PER_MINUTE = 1.0
SHORT_SLOPE_MIB_PER_MINUTE = 20.0
"""What a shorter storm allows: it ends while buffers and pools still fill up."""

SPARE_FILES = 2
"""Files that may be open besides those of before: a connection to Redis is made anew."""

TROUBLE = re.compile(r"crash|restart|up again|parked|poison|banned|gave up|left behind|traceback|full mailbox", re.I)
EXPECTED = re.compile(r"\bproviders?/?broken\b|\bbroken\b")
"""The provider that crashes on purpose."""

ROOT = Path(__file__).parents[1]
KEYS = {"main": "sk-main-0123456789abcdef", "flood": "sk-flood-0123456789abcdef"}
CONFIG = """
[server]
port = 0
[keys.main]
secret = "env:STORM_KEY_MAIN"
admin = true
[keys.flood]
secret = "env:STORM_KEY_FLOOD"
[keys.flood.limits]
requests_per_minute = 600
max_concurrency = 4
[timeouts]
first_token = 10
idle = 3
[attempts]
max = 2
wait_min_s = 0.1
wait_max_s = 0.3
[redis]
url = "redis://127.0.0.1:{redis}/0"
"""
PROVIDER = """
[providers.{name}]
kind = "openai_compatible"
base_url = "http://127.0.0.1:{port}/v1"
models = ["m"]
[providers.{name}.limits]
requests_per_minute = {per_minute}
max_concurrency = {at_once}
"""
PROVIDERS = {"main": (1_000_000, 1_000), "broken": (1_000_000, 100), "flooded": (600, 4)}
"""Requests a minute, and at once. Of the flood: what a caller's limits are to the daemon, these are to a program."""


class Child:
    """A process of the storm's on a core of its own, with its stderr in a file."""

    def __init__(self, core: int, log: Path, *arguments: str) -> None:
        cores = sorted(os.sched_getaffinity(0))
        keys = {f"STORM_KEY_{name.upper()}": key for name, key in KEYS.items()}
        self.log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **keys, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                preexec_fn=lambda: os.sched_setaffinity(0, {cores[core % len(cores)]}),
                text=True,
            )
        self.pid = self._process.pid

    def line(self) -> str:
        """The next line of its stdout; waits for it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"storm: a process ended: {self.log.read_text()[-2000:]}")
        return line

    def ask(self) -> str:
        """Write a line to it, and read one."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.line()

    def stop(self) -> int:
        """Its exit code after a SIGTERM."""
        self._process.terminate()
        try:
            return self._process.wait(20)
        finally:
            self._process.kill()
            self._process.communicate()

    def resident(self) -> float:
        """MiB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu(self) -> float:
        """Seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def waited(self) -> float:
        """Seconds that it was ready to run and had no core."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9

    def files(self, port: int) -> int:
        """Open files, without the connections to ``port``, the provider's, which are kept for a while."""
        kept = set()
        for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[2].rpartition(":")[2], 16) == port:
                kept.add(f"socket:[{fields[9]}]")
        folder = Path(f"/proc/{self.pid}/fd")
        return sum(os.readlink(file) not in kept for file in folder.iterdir())


class Books(NamedTuple):
    """What there is of the program under test besides the calls."""

    tasks: int
    files: int


class Outcome(NamedTuple):
    """What one storm left."""

    score: Score
    before: Books
    after: Books
    metrics: str
    provider: dict[str, dict[str, int]]
    memory: list[tuple[float, float]]
    cpu_seconds: float
    waited_seconds: float
    log: str


@contextmanager
def children(stack: ExitStack) -> Iterator[tuple[Path, Redis, Child, int]]:
    """A folder, a Redis, the provider, and its port."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    provider = Child(1, folder / "provider.log", "-m", "bench._storm.provider")
    try:
        with redis() as server:
            yield folder, server, provider, int(provider.line())
    finally:
        provider.stop()


def write_config(folder: Path, server: Redis, port: int) -> str:
    """The configuration's file."""
    file = folder / "storm.toml"
    providers = [
        PROVIDER.format(name=name, port=port, per_minute=per_minute, at_once=at_once)
        for name, (per_minute, at_once) in PROVIDERS.items()
    ]
    file.write_text(CONFIG.format(redis=server.port) + "".join(providers))
    return str(file)


async def get(port: int, path: str, key: str = "") -> str:
    """A body."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
        await stream.send_all(head.encode())
        received = b""
        async for piece in stream:
            received += piece
            found = re.search(rb"content-length: (\d+)\r\n", received)
            if found and len(received.partition(b"\r\n\r\n")[2]) >= int(found[1]):
                break
        return received.partition(b"\r\n\r\n")[2].decode()


async def sample(child: Child, memory: list[tuple[float, float]]) -> None:
    """Write down the memory of the program under test."""
    began = trio.current_time()
    while True:
        memory.append((trio.current_time() - began, child.resident()))
        await trio.sleep(SAMPLE_SECONDS)


async def restart_redis(server: Redis, seconds: float) -> None:
    """Kill it in the middle, and start it again."""
    await trio.sleep(seconds / 2)
    server.kill()
    await trio.sleep(REDIS_AWAY_SECONDS)
    await trio.to_thread.run_sync(server.start)


async def settled(port: int) -> dict[str, dict[str, int]]:
    """What the provider has seen, once no call is open there any more, or after `SETTLE_SECONDS`."""
    end = trio.current_time() + SETTLE_SECONDS
    while True:
        seen: dict[str, dict[str, int]] = json.loads(await get(port, "/stats"))
        if not seen["seen"].get("open") or trio.current_time() > end:
            return seen
        await trio.sleep(0.5)


def on_daemon(seed: int, seconds: float, fast: int) -> Outcome:
    """The storm against the daemon."""
    with ExitStack() as stack, children(stack) as (folder, server, _, upstream):
        options = ("--config", write_config(folder, server, upstream), "--port", "0", "--log-level", "warning")
        daemon = Child(0, folder / "daemon.log", "-m", "bench._storm.sabotage", "serve", *options)
        stack.callback(daemon.stop)
        port = int(daemon.line().rpartition(":")[2])

        async def storm() -> Outcome:
            await Clients(port, seed + 1, KEYS, Score()).run(slots(0, 10), 1.0)  # what is made once is made
            await trio.sleep(2)
            before = Books(int(daemon.ask()), daemon.files(upstream))
            score, memory, cpu, waited = Score(), list[tuple[float, float]](), daemon.cpu(), daemon.waited()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sample, daemon, memory)
                nursery.start_soon(restart_redis, server, seconds)
                await Clients(port, seed, KEYS, score).run(slots(fast), seconds)
                nursery.cancel_scope.cancel()
            cpu, waited = daemon.cpu() - cpu, daemon.waited() - waited
            seen = await settled(upstream)
            await trio.sleep(3)
            metrics = await get(port, "/metrics", KEYS["main"])
            after = Books(int(daemon.ask()), daemon.files(upstream))
            return Outcome(score, before, after, metrics, seen, memory, cpu, waited, daemon.log.read_text())

        return trio.run(storm)


def on_embedded(seed: int, seconds: float, fast: int) -> Outcome:
    """The storm in a program that embeds the runtime."""
    with ExitStack() as stack, children(stack) as (folder, server, _, upstream):
        config = write_config(folder, server, upstream)
        numbers = (str(seed), str(seconds), str(fast))
        program = Child(0, folder / "program.log", "-m", "bench._storm.embedded", config, *numbers)
        stack.callback(program.stop)
        program.line()
        memory, cpu, waited = list[tuple[float, float]](), program.cpu(), program.waited()
        files = program.files(upstream)

        async def storm() -> dict[str, dict[str, int]]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sample, program, memory)
                nursery.start_soon(restart_redis, server, seconds)
                await trio.to_thread.run_sync(program.line)
                nursery.cancel_scope.cancel()
            return await settled(upstream)

        seen = trio.run(storm)
        cpu, waited, files_after = program.cpu() - cpu, program.waited() - waited, program.files(upstream)
        told = json.loads(program.ask())
        before, after = (Books(*pair) for pair in zip(told["tasks"], (files, files_after), strict=True))
        score = Score.from_json(told["score"])
        return Outcome(score, before, after, told["metrics"], seen, memory, cpu, waited, program.log.read_text())


def actors_restarted(metrics: str) -> list[str]:
    """Those that were, but for the provider that crashes on purpose."""
    return [
        f"{sample.labels['actor']} ({sample.value:.0f})"
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "llm_runtime_actor_restarts_total"
        and sample.value
        and not EXPECTED.search(str(sample.labels))
    ]


def total(metrics: str, name: str) -> float:
    """Of one metric, over its labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == f"llm_runtime_{name}"
    )


def verdict(where: str, outcome: Outcome, seconds: float) -> list[str]:
    """Print the table, and return what is not as it should be."""
    score, metrics = outcome.score, outcome.metrics
    half = [each for each in outcome.memory if each[0] > seconds / 2]
    slope = linear_regression(*zip(*half, strict=True)).slope * 60
    busy = outcome.waited_seconds / seconds
    late = Counter({int(value): count for value, count in outcome.provider["late"].items()})
    lines = Counter(
        re.sub(r"\d+", "N", line)[:150]
        for line in outcome.log.splitlines()
        if TROUBLE.search(line) and not EXPECTED.search(line)
    )
    print(f"\n{where}: {seconds:.0f} s, {score.tokens} pieces of text, {score.tokens / seconds:.0f}/s", end="; ")
    print(f"CPU {outcome.cpu_seconds / seconds:.0%} of a core, waited {busy:.0%} of the time for it")
    for kind, ended in sorted(score.outcomes.items()):
        print(f"  {kind:12} {ended.total():6}  {', '.join(f'{n} {what}' for what, n in ended.most_common())}")
    print(f"  {'flood':12} {score.flood.total():6}  {', '.join(f'{n} {x}' for x, n in score.flood.most_common())}")
    for kind, gaps in sorted(score.gaps.items()):
        print(f"gaps, {kind:9} p50 {percentile(gaps, 0.5)} ms, p99 {percentile(gaps, 0.99)} ms, max {max(gaps)} ms")
    if busy >= BUSY_SHARE:
        print("                gaps and lateness are not judged: this machine has other work")
    print(f"late itself     provider p99 {percentile(late, 0.99)} ms, max {max(late)} ms", end="; ")
    print(f"clients p99 {percentile(score.lag, 0.99)} ms, max {max(score.lag)} ms")
    print(f"memory          {outcome.memory[0][1]:.0f} MiB at first, {outcome.memory[-1][1]:.0f} MiB at last", end="; ")
    print(f"{slope:+.2f} MiB a minute in the second half")
    print(f"tasks, files    {outcome.before.tasks}, {outcome.before.files} before", end="; ")
    print(f"{outcome.after.tasks}, {outcome.after.files} after")
    left = {
        name: total(metrics, name)
        for name in ("requests_running", "limited_in_flight", "limited_waiting", "mailbox_depth")
    }
    print(f"left over       {', '.join(f'{name} {value:.0f}' for name, value in left.items())}", end="; ")
    print(f"{outcome.provider['seen'].get('open', 0)} calls open at the provider")
    for line, count in lines.most_common(10):
        print(f"  log x{count}: {line}")
    worst = max((percentile(gaps, 0.99) for gaps in score.gaps.values()), default=0)
    worst -= percentile(late, 0.99) + (percentile(score.lag, 0.99) if where == "daemon" else 0)
    steepest = SLOPE_MIB_PER_MINUTE if seconds >= LONG_SECONDS else SHORT_SLOPE_MIB_PER_MINUTE
    wrong = {
        f"gaps of untouched streams: p99 {worst} ms without our own, at most {GAP_P99_MS}": (
            worst >= GAP_P99_MS and busy < BUSY_SHARE
        ),
        f"{lines.total()} lines of trouble in the log": bool(lines),
        f"memory grows by {slope:.2f} MiB a minute, at most {steepest:g}": slope >= steepest,
        f"{outcome.after.tasks - outcome.before.tasks} tasks are left": outcome.after.tasks > outcome.before.tasks,
        f"{outcome.after.files - outcome.before.files} files are left": (
            outcome.after.files > outcome.before.files + SPARE_FILES
        ),
        "calls are open at the provider": bool(outcome.provider["seen"].get("open")),
        "no call was made to the provider that crashes": not score.outcomes["broken"],
        "no untouched stream was whole": not (score.outcomes["slow"]["whole"] and score.outcomes["fast"]["whole"]),
        **{f"{name} is {value:.0f}, not 0": bool(value) for name, value in left.items()},
    }
    judged = {what: count for what, count in score.wrong.most_common() if what != LATE or busy < BUSY_SHARE}
    found = [f"{count} x {what}" for what, count in judged.items()]
    found += [f"restarted: {actor}" for actor in actors_restarted(metrics)]
    found += [what for what, is_so in wrong.items() if is_so]
    return [f"{where}: {each}" for each in found]


STORMS = {"daemon": on_daemon, "embedded": on_embedded}


def main() -> int:
    """Exit code 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(prog="bin/bench storm")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for how long calls are made, for each (600)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="which storm (a random one)")
    parser.add_argument("--fast", type=int, default=FAST, help=f"streams of 500 to 1,000 chunks/s ({FAST})")
    parser.add_argument("--only", choices=tuple(STORMS))
    options = parser.parse_args()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    print(f"storm: seed {options.seed}", flush=True)
    wrong: list[str] = []
    for where, storm in STORMS.items():
        if options.only in (None, where):
            wrong += verdict(where, storm(options.seed, options.seconds, options.fast), options.seconds)
            sys.stdout.flush()
    if options.seconds >= LONG_SECONDS and not resume(CUTS, options.seed):
        wrong.append("readers that were cut off and came back did not have their streams")
    print("\n".join(f"storm: {each}" for each in wrong) or "storm: all as it should be")
    print(f"storm: again with --seed {options.seed}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
