"""bin/bench agent: the agent of docs/examples for minutes on one host, with models that fail all the time.

    bin/bench agent [--minutes 10] [--host trio|asyncio|sync|remote] [--agents 4]

Each request goes to a route in which one model works. The others reset the connection, stall, truncate their responses,
return 429 or 500, or send garbage, and one of them is usually tried first. Checked: whether every report is right,
whether the runtime or the provider has anything in progress afterwards, and whether memory grows in the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import linear_regression
from typing import Any, Final

import trio
from prometheus_client.parser import text_string_to_metric_families

import llm_runtime
from hosts.adapters import Awaited, called, finish
from hosts.test_examples import loaded
from llm_runtime import LLMClientError, aio, sync, tool

FAULTS: Final = ("fault-reset", "fault-stall", "fault-truncate", "fault-429", "fault-500", "fault-garbage")
KEY: Final = "sk-agent-0123456789abcdef"
GROWTH_KB_PER_MINUTE: Final = 1024.0
"""How much resident memory may grow by in a minute of the second half."""

SCRIPT: Final = """
[[rule]]
model = "m"
contains = "Plan the work"
text = '{"topics": ["tides", "the moon"]}'
[[rule]]
model = "m"
contains = "Study:"
after_tool = false
tool_calls = [{ name = "look_up", arguments = { topic = "tides" } }]
"""
CONFIG: Final = """
[server]
port = 0
[keys.agent]
secret = "env:AGENT_KEY"
admin = true
[timeouts]
first_token = 1
idle = 1
total = 2
[attempts]
max = 1
wait_min_s = 0.05
wait_max_s = 0.1
[providers.well]
kind = "openai_compatible"
base_url = "{url}/openai_compatible/v1"
models = ["m"]
[providers.well.limits]
requests_per_minute = 1_000_000
[providers.ill]
kind = "openai_compatible"
base_url = "{url}/openai_compatible/v1"
models = {models}
[providers.ill.limits]
requests_per_minute = 1_000_000
[routes.work]
candidates = {candidates}
strategy = "fallback"
select = "weighted"
on_broken_stream = "buffer"
"""

Work = Callable[[Any], Coroutine[Any, Any, None]]


@contextmanager
def server(*arguments: str) -> Iterator[tuple[str, int]]:
    """One of our commands that serves: its address and process id."""
    command = [sys.executable, "-P", "-m", "llm_runtime.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1], process.pid
        finally:
            process.terminate()


@tool
def look_up(topic: str) -> str:
    """Look a topic up in the encyclopedia."""
    return f"{topic}: caused by gravity."


class Load:
    """Agents that work until the time is over, and how it went."""

    def __init__(self, host: str, minutes: float, agents: int) -> None:
        self.example = loaded("agent")
        if host == "sync":
            self.example.look_up = look_up  # an async tool cannot be awaited there
        self.agents = agents
        self.seconds = minutes * 60
        self.ended: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.left: list[str] = []

    async def work(self, rt: Any) -> None:
        """One agent after another."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            said: list[str] = []
            members = ["well/m", "ill/fault-500", "ill/fault-reset"]
            agent = self.example.Agent(rt, self.example.Spending(1e9), said.append, model="work", members=members)
            try:
                report = await agent.work("How do tides work?")
            except LLMClientError as error:
                self.failed[str(error)[:100]] += 1
                continue
            is_right = report.startswith("You said: Report on: How do tides work?") and "- the moon: " in report
            is_right = is_right and [note.topic for note in agent.notes] == ["tides", "the moon"]
            self.ended["right" if is_right else "wrong"] += 1
            if not is_right:
                self.failed[str(said)[:200]] += 1

    async def look(self, rt: Any) -> None:
        """What is left in the runtime's books."""
        text = (await called(rt.metrics())).decode()
        for family in text_string_to_metric_families(text):
            if family.name in ("llm_runtime_requests_running", "llm_runtime_limited_in_flight"):
                self.left += [f"{sample.name} {sample.value:g}" for sample in family.samples if sample.value]


def on_trio(load: Load, opened: Callable[[], Any]) -> None:
    async def main() -> None:
        async with opened() as rt:
            async with trio.open_nursery() as nursery:
                for _ in range(load.agents):
                    nursery.start_soon(load.work, rt)
            await trio.sleep(1)
            await load.look(rt)

    trio.run(main)


def on_asyncio(load: Load, file: str) -> None:
    async def main() -> None:
        async with aio.open_runtime(file) as rt:
            await asyncio.gather(*(load.work(rt) for _ in range(load.agents)))
            await asyncio.sleep(1)
            await load.look(rt)

    asyncio.run(main())


def in_threads(load: Load, file: str) -> None:
    with sync.open_runtime(file) as rt:
        with ThreadPoolExecutor(load.agents) as threads:
            working = [threads.submit(finish, load.work(Awaited(rt))) for _ in range(load.agents)]
        for each in working:
            each.result()  # raises what the thread has raised
        time.sleep(1)
        finish(load.look(Awaited(rt)))


class Memory(threading.Thread):
    """Resident memory of processes, looked at once a second."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, float]] = []
        self.is_over = threading.Event()
        self._pids = pids

    def run(self) -> None:
        began = time.monotonic()
        while not self.is_over.wait(1):
            pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids)
            self.samples.append((time.monotonic() - began, pages * os.sysconf("SC_PAGE_SIZE") / 1024))

    def slope(self) -> float:
        """Kilobytes a minute, in the second half."""
        half = self.samples[len(self.samples) // 2 :]
        return linear_regression(*zip(*half, strict=True)).slope * 60


def main() -> int:
    """Exit code 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(prog="bench agent")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--host", choices=["trio", "asyncio", "sync", "remote"], default="asyncio")
    parser.add_argument("--agents", type=int, default=4)
    given = parser.parse_args()
    os.environ["AGENT_KEY"] = KEY
    logging.disable(logging.ERROR)  # that models fail is what this is about
    load = Load(given.host, given.minutes, given.agents)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        script, config = Path(folder) / "script.toml", Path(folder) / "config.toml"
        script.write_text(SCRIPT)
        url, _ = stack.enter_context(server("fake-provider", "--port", "0", "--script", str(script)))
        candidates = ["well/m", *(f"ill/{fault}" for fault in FAULTS)]
        config.write_text(CONFIG.format(url=url, models=json.dumps(FAULTS), candidates=json.dumps(candidates)))
        pids = [os.getpid()]
        if given.host == "remote":
            address, pid = stack.enter_context(server("serve", "--config", str(config)))
            pids.append(pid)
        memory = Memory(pids)
        memory.start()
        match given.host:
            case "trio":
                on_trio(load, lambda: llm_runtime.open_runtime(config))
            case "remote":
                on_trio(load, lambda: llm_runtime.connect(address, key=KEY))
            case "asyncio":
                on_asyncio(load, str(config))
            case _:
                in_threads(load, str(config))
        memory.is_over.set()
        with urllib.request.urlopen(f"{url}/_fake/journal", timeout=5) as reply:
            journal = json.load(reply)
    return told(given.host, load, memory, journal)


def told(host: str, load: Load, memory: Memory, journal: dict[str, Any]) -> int:
    """Print how it went; the exit code."""
    slope, (first, last) = memory.slope(), (memory.samples[0][1] / 1024, memory.samples[-1][1] / 1024)
    print(f"{host}: {load.ended['right']} reports right, {load.ended['wrong']} wrong, {load.failed.total()} failed")
    print(f"provider: {journal['asked']} calls, {journal['left']} left early, {journal['open']} still open")
    print(f"memory: {first:.1f} MB at first, {last:.1f} MB at last; {slope:+.0f} KB a minute in the second half")
    for words, count in load.failed.most_common(5):
        print(f"failed {count} times: {words}")
    wrong = {
        "no report was made": not load.ended["right"],
        "reports are wrong or failed": bool(load.ended["wrong"] or load.failed),
        f"the books are not at zero: {load.left}": bool(load.left),
        "calls are left at the provider": journal["open"] > 0,
        "memory grows": slope > GROWTH_KB_PER_MINUTE,
    }
    found = [what for what, is_so in wrong.items() if is_so]
    print("\n".join(f"agent: {each}" for each in found) or "agent: all as it should be")
    return bool(found)
