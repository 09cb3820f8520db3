"""What a second worker gains: requests and streamed chunks, by the CPU time of the busier worker.

If each worker has a core, a load takes as long as the worker with the largest part of it. So the capacity of N workers
is the load divided by the CPU time of the busiest one. It is N times that of one worker if the load is shared evenly
and no work is done twice. Wall time is not compared, because the development machine has two cores, and the driver and
the fake provider need one of them.

``SO_REUSEPORT`` is measured too: two daemons with one process each, and a listening socket for each.

    bin/bench workers [kept] [new] [streams]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import SO_REUSEPORT, SOL_SOCKET, socket
from statistics import median
from typing import NamedTuple

import trio

from bench.daemon import CHUNKS, CONFIG, STREAMS, System, plain, process, sse

ROUNDS = 3
REQUESTS = 480
AT_ONCE = 32
TARGET = 1.8
HERE = Path(__file__).parent
SERVE = ("-P", "-m", "llm_runtime.cli", "serve", "--config")
OWN_SOCKET = """
import os, socket, sys
one = socket.socket()
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
one.bind(("127.0.0.1", int(sys.argv[1])))
one.listen(1024)
os.dup2(one.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


async def new_connections(port: int) -> None:
    """A request per connection."""
    for _ in range(REQUESTS // AT_ONCE):
        await plain(port, AT_ONCE, at_once=AT_ONCE)


async def kept_connections(port: int) -> None:
    await plain(port, REQUESTS, at_once=AT_ONCE)


class Load(NamedTuple):
    """``units`` is how many there are of what is counted."""

    name: str
    what: str
    units: int
    promised: bool
    """Whether two workers are to carry `TARGET` times as much."""
    run: Callable[[int], Awaitable[None]]


LOADS = (
    Load("kept", "plain request, 32 kept connections for each", REQUESTS, True, kept_connections),
    Load("new", "plain request, a connection each", REQUESTS, False, new_connections),
    Load("streams", "streamed chunk, 50 streams for each, 20 chunks a second", STREAMS * CHUNKS, True, sse),
)
"""One for each process: what is taken up at once costs less for each, so that a process is compared with its like."""


class Carried(NamedTuple):
    """Units per second on a core of the busiest process, and its share of all the CPU time."""

    rate: float
    share: float


@contextmanager
def daemon(folder: Path, upstream: int, workers: int) -> Iterator[list[System]]:
    """The workers of a daemon."""
    file, log = folder / f"{workers}.toml", folder / f"{workers}.log"
    file.write_text(f"[server]\nport = 0\nworkers = {workers}\ndrain_s = 1\n{CONFIG.format(port=upstream)}")
    with log.open("wb") as stderr:
        running = subprocess.Popen(
            [sys.executable, *SERVE, str(file)], stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        try:
            assert running.stdout is not None
            port = int(running.stdout.readline().rpartition(":")[2])
            pids = [int(each) for each in re.findall(r"worker \d+ is process (\d+)", log.read_text())]
            yield [System(port, pid) for pid in pids or [running.pid]]
        finally:
            running.terminate()
            running.wait(30)


@contextmanager
def own_sockets(folder: Path, upstream: int) -> Iterator[list[System]]:
    """Two daemons on one port by ``SO_REUSEPORT``."""
    file = folder / "own.toml"
    file.write_text(f"[server]\nport = 0\ndrain_s = 1\n{CONFIG.format(port=upstream)}")
    with socket() as probe, ExitStack() as stack:
        probe.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        systems = []
        for _ in range(2):
            running = subprocess.Popen(
                [sys.executable, "-c", OWN_SOCKET, str(port), *SERVE, str(file)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(running.wait, 30)
            stack.callback(running.terminate)
            assert running.stdout is not None
            running.stdout.readline()
            systems.append(System(port, running.pid))
        yield systems


def measure(systems: list[System], load: Load) -> Carried:
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            for _ in systems:
                nursery.start_soon(load.run, systems[0].port)

    before = [each.cpu() for each in systems]
    trio.run(run)
    spent = [each.cpu() - was for each, was in zip(systems, before, strict=True)]
    return Carried(load.units * len(systems) / max(spent), max(spent) / sum(spent))


def main() -> int:
    """Print the table; the exit code says whether two workers carry `TARGET` times what one does."""
    missed = False
    with (
        tempfile.TemporaryDirectory() as name,
        process(0, str(HERE / "_upstream.py"), str(CHUNKS), "0.05") as upstream,
    ):
        folder = Path(name)
        with (
            daemon(folder, upstream.port, 1) as one,
            daemon(folder, upstream.port, 2) as two,
            own_sockets(folder, upstream.port) as own,
        ):
            kinds = {"one": one, "two": two, "own": own}
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {ROUNDS} rounds\n")
            print("| a second of a core carries | one worker | two | / one | busier | SO_REUSEPORT | / one | busier |")
            print("|---|---|---|---|---|---|---|---|")
            for load in [each for each in LOADS if each.name in sys.argv[1:] or not sys.argv[1:]]:
                for systems in kinds.values():
                    measure(systems, load)  # imports, connections to the provider
                found = {kind: list[Carried]() for kind in kinds}
                for _ in range(ROUNDS):
                    for kind, systems in kinds.items():
                        found[kind].append(measure(systems, load))
                rates = {kind: median(each.rate for each in carried) for kind, carried in found.items()}
                shares = {kind: median(each.share for each in carried) for kind, carried in found.items()}
                cells = [f"{rates['one']:,.0f}"]
                for kind in ("two", "own"):
                    cells += [f"{rates[kind]:,.0f}", f"{rates[kind] / rates['one']:.2f}", f"{shares[kind]:.0%}"]
                print(f"| {load.what} | {' | '.join(cells)} |", flush=True)
                missed = missed or (load.promised and rates["two"] < TARGET * rates["one"])
    print(f"\ntwo workers carry {'less than' if missed else 'at least'} {TARGET} times what one does")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
