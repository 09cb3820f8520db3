"""What log, ledger, request log and traces cost; then, what it costs when none of them can be written.

    bin/bench records [ROUNDS]

The same load goes to daemons that differ only in these settings, in turn, on the same core, in another order in each
round. All daemons are started again every few rounds. The CPU time of the thread that serves requests is measured, by
the scheduler's clock, and compared with that of another of the daemons in the same round. The output has the median of
the rounds and, in brackets, the middle half of them. The other threads (of SQLite, of the request log, of
OpenTelemetry's SDK) are shown beside it. Then the same requests go to a
daemon that cannot write anything: its ledger and request log are on a full disk, its log is a full pipe, and its
collector is down.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import NamedTuple

import trio

from bench.daemon import CHUNKS, CONFIG, HERE, STREAMS, System, plain, process, sse

ROUNDS = 24
GROUP = 4
"""Rounds between two starts of all daemons. The addresses that a process gets change its speed by some percent."""

SETTLE_SECONDS = 0.3
"""Seconds after each round, in which the daemon writes what is left. It does not disturb the next round."""

AT_ONCE = 32
REQUESTS = 1_504  # a multiple of `AT_ONCE`: each of its workers makes the same number

LEDGER = '[store]\npath = "{folder}/store.sqlite3"\n'
REQUEST_LOG = '[request_log]\npath = "{folder}/requests"\n'
OTEL = '[otel]\nendpoint = "http://127.0.0.1:{collector}"\n'

COLLECTOR = """
import http.server
class Take(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Take)
print("listening on", server.server_port, sep=":", flush=True)
server.serve_forever()
"""


class Way(NamedTuple):
    """One way of writing things down: what is added to the configuration, the log's level, and the index of the way
    that it is compared with. ``budget``: at most so many percent more than that one.
    """

    name: str
    more: str
    level: str
    base: int | None = None
    budget: float | None = None


WAYS = (
    Way("nothing", "", "warning"),
    Way("log and ledger", LEDGER, "info", 0, 3.0),
    Way("log, ledger and traces", LEDGER + OTEL, "info", 1, 8.0),
    Way("log, ledger and request log", LEDGER + REQUEST_LOG, "info", 1),
)


@contextmanager
def daemon(config: str, level: str, log: int | Path, *, full: bool = False) -> Iterator[System]:
    """A daemon that logs into ``log``, a file or a pipe. ``full``: no file of it can grow."""

    def begin() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        if full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "bench.toml"
        file.write_text(config.replace("{folder}", folder))
        stderr = stack.enter_context(log.open("wb")) if isinstance(log, Path) else log
        arguments = ("--config", str(file), "--port", "0", "--log-level", level, "--log-format", "json")
        running = subprocess.Popen(
            [sys.executable, "-m", "llm_runtime.cli", "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            preexec_fn=begin,
            text=True,
        )
        try:
            assert running.stdout is not None
            yield System(int(running.stdout.readline().rpartition(":")[2]), running.pid)
        finally:
            running.terminate()
            running.wait(20)


def spent(system: System, load: str) -> tuple[float, float]:
    """Seconds of CPU that a round of ``load`` takes: of the thread that serves, and of the others."""
    serving = Path(f"/proc/{system.pid}/task/{system.pid}/schedstat")
    mine, others = _seconds(serving), _threads(system.pid)
    if load == "plain":
        trio.run(_plain, system.port)
    else:
        trio.run(sse, system.port)
    sleep(SETTLE_SECONDS)
    return _seconds(serving) - mine, _threads(system.pid) - others


async def _plain(port: int) -> None:
    await plain(port, REQUESTS, at_once=AT_ONCE)


def _seconds(file: Path) -> float:
    return int(file.read_text().split()[0]) / 1e9


def _threads(pid: int) -> float:
    """Seconds that all threads but the first have used so far."""
    tasks = [each for each in Path(f"/proc/{pid}/task").iterdir() if int(each.name) != pid]
    return sum(_seconds(each / "schedstat") for each in tasks)


def costs(rounds: int) -> bool:
    """Print what each way costs; whether all are within their budgets."""
    fine = True
    for load, units in (("plain", REQUESTS), ("sse", STREAMS * CHUNKS)):
        found: list[list[tuple[float, float]]] = [[] for _ in WAYS]
        while len(found[0]) < rounds:
            for each, took in zip(found, _with_new_daemons(load, min(GROUP, rounds - len(found[0]))), strict=True):
                each += took
        unit = "plain request" if load == "plain" else "streamed chunk"
        for way, each in zip(WAYS, found, strict=True):
            mine = median(one for one, _ in each) / units * 1e6
            others = median(one for _, one in each) / units * 1e6
            line = f"{unit:15} {way.name:28} {mine:7.1f} us, other threads {others:6.1f} us"
            if way.base is not None:
                compared = found[way.base]
                ratios = sorted(one / base for (one, _), (base, _) in zip(each, compared, strict=True))
                low, more, high = ((ratios[len(ratios) * part // 4] - 1) * 100 for part in (1, 2, 3))
                line += f"   {more:+6.1f} % ({low:+.0f} … {high:+.0f}) of {WAYS[way.base].name}"
                if way.budget is not None:
                    over = more > way.budget
                    fine = fine and not over
                    line += f", at most {way.budget:.0f} %{'  over' if over else ''}"
            print(line, flush=True)
    return fine


def _with_new_daemons(load: str, rounds: int) -> list[list[tuple[float, float]]]:
    """Return what each way takes in each round, with daemons that were started for these rounds."""
    with ExitStack() as stack:
        upstream = stack.enter_context(process(1, str(HERE / "_upstream.py"), str(CHUNKS), "0.001"))
        collector = stack.enter_context(process(1, "-c", COLLECTOR))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        systems = list[System]()
        for way in WAYS:
            config = CONFIG.format(port=upstream.port) + way.more.replace("{collector}", str(collector.port))
            systems.append(stack.enter_context(daemon(config, way.level, folder / f"{len(systems)}.log")))
        for system in systems:
            spent(system, load)  # warms up
        found: list[list[tuple[float, float]]] = [[] for _ in WAYS]
        for number in range(rounds):
            for nth in range(len(WAYS)):
                place = (nth + number) % len(WAYS)
                found[place].append(spent(systems[place], load))
        return found


def trouble() -> bool:
    """Print how a daemon fares that can write nothing down; whether it answers everything, as fast as one that can."""
    took: dict[str, float] = {}
    with ExitStack() as stack:
        upstream = stack.enter_context(process(1, str(HERE / "_upstream.py"), str(CHUNKS), "0.001"))
        unread, log = os.pipe()
        stack.callback(os.close, unread)
        stack.callback(os.close, log)
        broken = LEDGER + REQUEST_LOG + OTEL.replace("{collector}", "9")
        config = CONFIG.format(port=upstream.port)
        fine = stack.enter_context(daemon(config, "info", Path("/dev/null")))
        systems = {"can": fine, "cannot": stack.enter_context(daemon(config + broken, "info", log, full=True))}
        for name, system in systems.items():
            trio.run(_plain, system.port)
            began = perf_counter()
            trio.run(_plain, system.port)
            took[name] = perf_counter() - began
    ratio = took["cannot"] / took["can"]
    print(
        f"full disk, blocked pipe, dead collector: {2 * REQUESTS} of {2 * REQUESTS} requests answered, "
        f"in {ratio:.2f} of the time"
    )
    return ratio < TROUBLE_RATIO


TROUBLE_RATIO = 2.0


def main() -> int:
    """Print the tables; 1 if a budget is missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    fine = costs(rounds)
    return 0 if trouble() and fine else 1


if __name__ == "__main__":
    sys.exit(main())
