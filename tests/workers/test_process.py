"""A worker as its parent sees it: what they say to each other."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from llm_runtime.reloading import ReloadResult
from llm_runtime.workers.link import Outcome
from llm_runtime.workers.place import WorkerPlace
from llm_runtime.workers.process import WorkerProcess

BEGIN = """
import json, os, socket
end = socket.socket(fileno=json.loads(os.environ["LLM_RUNTIME_WORKER"])["link"])
def say(**message):
    end.sendall(json.dumps(message).encode() + b"\\n")
said = map(json.loads, end.makefile("r"))
say(type="ready")
"""
NOTHING = ReloadResult(added=(), changed=(), removed=(), after_restart=())


@asynccontextmanager
async def process(monkeypatch: pytest.MonkeyPatch, script: str) -> AsyncIterator[tuple[WorkerProcess, trio.Event]]:
    """A worker that is ready and runs ``script``, and what is set when it has ended."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", BEGIN + script])
    ready, ended = trio.Event(), trio.Event()
    worker = WorkerProcess(1, "old", ready=lambda _: ready.set(), asked=lambda _: None)
    place = WorkerPlace(number=1, count=2, folder="", link=-1, listeners=(), copy="old")

    async def run() -> None:
        await worker.run(place, [], os.environ)
        ended.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await ready.wait()
            yield worker, ended
            nursery.cancel_scope.cancel()


async def test_a_late_outcome_is_not_that_of_the_next_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
first, second = next(said), next(said)
say(type="outcome", number=first["number"], problem="too late")
result = {"added": [], "changed": [], "removed": [], "after_restart": []}
say(type="outcome", number=second["number"], result=result)
next(said)
"""
    async with process(monkeypatch, script) as (worker, _):
        with trio.move_on_after(0):
            await worker.reload("new")
        assert (await worker.reload("newer")).result == NOTHING
        assert worker.copy == "newer"


async def test_the_end_of_a_worker_is_the_outcome_of_its_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    async with process(monkeypatch, "next(said)") as (worker, ended):
        assert await worker.reload("new") == Outcome(problem="worker 1 ended meanwhile")
        await ended.wait()
        assert await worker.reload("new") == Outcome(problem="worker 1 ended meanwhile")
        assert worker.copy == "old"


async def test_the_same_order_to_stop_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that did not reload finishes its responses, also when the daemon is stopped meanwhile."""
    script = """
orders = []
while True not in orders:
    orders.append(next(said)["at_once"])
raise SystemExit(orders != [False, True])
"""
    async with process(monkeypatch, script) as (worker, ended):
        worker.stop()
        worker.stop()
        worker.stop(at_once=True)
        await ended.wait()
        assert worker.code == 0


async def test_a_worker_that_is_ended_by_a_signal_without_a_name_ends_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with process(monkeypatch, "os.kill(os.getpid(), 40)") as (worker, ended):
        await ended.wait()
        assert worker.fate == "was ended by signal 40"
