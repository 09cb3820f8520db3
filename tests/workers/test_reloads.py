"""Reloads of several workers: all or nothing, one after the other."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
import trio
import trio.testing

from llm_runtime.config import Config, ConfigError
from llm_runtime.reloading import ReloadResult
from llm_runtime.systemd import Notifier
from llm_runtime.workers.link import Outcome
from llm_runtime.workers.process import WorkerProcess
from llm_runtime.workers.reloads import Copies, Reloads

DONE = Outcome(result=ReloadResult(added=("p",), changed=(), removed=(), after_restart=()))
FAILED = Outcome(problem="a provider did not start")


class Worker:
    """What a parent sees of a worker, which answers as the test says."""

    code: int | None = None
    is_ready = True

    def __init__(self, number: int, answer: Outcome = DONE) -> None:
        self.number = number
        self.answer = answer
        self.copy: str | None = None
        self.stopped = False
        self.told = trio.Event()
        self.outcomes: list[object] = []
        self.was_asked = trio.Event()
        self.may_answer = trio.Event()
        self.may_answer.set()

    async def reload(self, copy: str | None) -> Outcome:
        self.was_asked.set()
        await self.may_answer.wait()
        if self.answer.result is not None:
            self.copy = copy
        return self.answer

    def stop(self) -> None:
        self.stopped = True

    def tell(self, message: object) -> None:
        self.outcomes.append(message)
        self.told.set()


def content(copies: Copies) -> str:
    """Of the copy that holds."""
    assert copies.current is not None
    return Path(copies.current).read_text()


def copies_of(folder: Path, text: str = "first") -> tuple[Copies, Path]:
    file = folder / "c.toml"
    file.write_text(text)

    def read(copy: str | None) -> Config:
        if copy is not None and Path(copy).read_text() == "bad":
            raise ConfigError("it is bad", file=str(file), line=1)
        if copy is not None and Path(copy).read_text() == "crashes":
            raise RuntimeError("can't start new thread")
        return Config()

    copies = Copies(str(file), str(folder), read)
    copies.accept(copies.take()[0])
    return copies, file


def reloads_of(copies: Copies, *workers: Worker) -> Reloads:
    """Of workers that have all started."""
    reloads = Reloads(copies, lambda: cast("list[WorkerProcess]", list(workers)), Notifier({}))
    reloads.begin()
    return reloads


@asynccontextmanager
async def notified() -> AsyncIterator[tuple[Notifier, Callable[[], list[bytes]]]]:
    """A service manager, and what it has been told."""
    with TemporaryDirectory(prefix="llm-") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(f"{folder}/notify")
        end.setblocking(False)

        def told() -> list[bytes]:
            found = []
            with suppress(BlockingIOError):
                while True:
                    found.append(end.recv(100).partition(b"\n")[0])
            return found

        yield Notifier({"NOTIFY_SOCKET": f"{folder}/notify"}), told


async def reloaded(copies: Copies, *workers: Worker) -> Outcome:
    """What the first is told that asked for it."""
    reloads = reloads_of(copies, *workers)
    workers[0].told = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloads.run)
        reloads.order(cast("WorkerProcess", workers[0]))
        with trio.fail_after(5):
            await workers[0].told.wait()
        nursery.cancel_scope.cancel()
    return cast("Outcome", workers[0].outcomes[-1])


async def test_all_take_over_the_same_copy(tmp_path: Path) -> None:
    copies, file = copies_of(tmp_path)
    one, other = Worker(1), Worker(2)
    for text in ("second", "third"):
        file.write_text(text)
        assert await reloaded(copies, one, other) == DONE
        assert one.copy == other.copy == copies.current
        assert content(copies) == text
    assert len([each for each in os.listdir(tmp_path) if each.startswith("config-")]) == 2, "older ones are removed"


async def test_what_the_parent_cannot_read_no_worker_hears_of(tmp_path: Path) -> None:
    copies, file = copies_of(tmp_path)
    before, one = copies.current, Worker(1)
    file.write_text("bad")
    assert (await reloaded(copies, one)).mistakes == (f"{file}:1: it is bad",)
    assert (copies.current, one.copy) == (before, None)
    file.unlink()
    assert "cannot read the configuration: No such file" in (await reloaded(copies, one)).mistakes[0]
    assert [each for each in os.listdir(tmp_path) if each.startswith("config-")] == [os.path.basename(before or "")]


async def test_a_crash_while_the_parent_reads_ends_only_this_reload(tmp_path: Path) -> None:
    copies, file = copies_of(tmp_path)
    before, one = copies.current, Worker(1)
    file.write_text("crashes")
    problem = (await reloaded(copies, one)).problem
    assert problem == "internal error: the configuration was not reloaded; see the daemon's log"
    assert (copies.current, one.copy) == (before, None)
    file.write_text("third")
    assert await reloaded(copies, one) == DONE


async def test_what_the_first_does_not_take_over_the_others_are_not_asked(tmp_path: Path) -> None:
    copies, file = copies_of(tmp_path)
    before, one, other = copies.current, Worker(1, FAILED), Worker(2)
    file.write_text("second")
    assert await reloaded(copies, one, other) == FAILED
    assert (copies.current, other.copy, one.stopped, other.stopped) == (before, None, False, False)


async def test_a_later_one_that_does_not_is_started_again(tmp_path: Path) -> None:
    copies, file = copies_of(tmp_path)
    one, other = Worker(1), Worker(2, FAILED)
    file.write_text("second")
    assert await reloaded(copies, one, other) == DONE
    assert (copies.current, one.stopped, other.stopped) == (one.copy, False, True)


async def test_one_that_was_starting_meanwhile_is_brought_along(tmp_path: Path) -> None:
    copies, file = copies_of(tmp_path)
    one, starting = Worker(1), Worker(2)
    starting.copy, starting.is_ready = copies.current, False
    file.write_text("second")
    reloads = reloads_of(copies, one, starting)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloads.run)
        reloads.order(cast("WorkerProcess", one))
        with trio.fail_after(5):
            await one.told.wait()
        assert starting.copy != copies.current
        starting.is_ready = True
        reloads.note_ready(cast("WorkerProcess", starting))
        await trio.testing.wait_all_tasks_blocked()
        assert starting.copy == one.copy == copies.current
        nursery.cancel_scope.cancel()


async def test_one_that_becomes_ready_while_the_first_takes_over_is_brought_along(tmp_path: Path) -> None:
    copies, file = copies_of(tmp_path)
    one, starting = Worker(1), Worker(2)
    starting.copy, starting.is_ready = copies.current, False
    one.may_answer = trio.Event()
    file.write_text("second")
    reloads = reloads_of(copies, one, starting)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloads.run)
        reloads.order(cast("WorkerProcess", one))
        with trio.fail_after(5):
            await one.was_asked.wait()
        starting.is_ready = True
        reloads.note_ready(cast("WorkerProcess", starting))
        one.may_answer.set()
        with trio.fail_after(5):
            await starting.was_asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert starting.copy == one.copy == copies.current
        nursery.cancel_scope.cancel()


async def test_nothing_is_reloaded_before_all_have_started(tmp_path: Path) -> None:
    copies, file = copies_of(tmp_path)
    one = Worker(1)
    file.write_text("second")
    async with notified() as (notifier, told), trio.open_nursery() as nursery:
        reloads = Reloads(copies, lambda: cast("list[WorkerProcess]", [one]), notifier)
        nursery.start_soon(reloads.run)
        reloads.order(cast("WorkerProcess", one))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (one.outcomes, told()) == ([], [])
        reloads.begin()
        with trio.fail_after(5):
            await one.told.wait()
        assert (one.outcomes, content(copies), told()) == ([DONE], "second", [b"RELOADING=1", b"READY=1"])
        nursery.cancel_scope.cancel()


async def test_nothing_is_reloaded_once_all_are_to_stop(tmp_path: Path) -> None:
    copies, file = copies_of(tmp_path)
    one, later = Worker(1), Worker(2)
    one.may_answer = trio.Event()
    file.write_text("second")
    async with notified() as (notifier, told), trio.open_nursery() as nursery:
        reloads = Reloads(copies, lambda: cast("list[WorkerProcess]", [one]), notifier)
        reloads.begin()
        nursery.start_soon(reloads.run)
        reloads.order(cast("WorkerProcess", one))
        with trio.fail_after(5):
            await one.was_asked.wait()
        reloads.order(cast("WorkerProcess", later))
        reloads.end()
        one.may_answer.set()
        with trio.fail_after(5):
            await later.told.wait()
        assert (one.outcomes, later.outcomes) == ([DONE], [Outcome(problem="the daemon is stopping")])
        assert told() == [b"RELOADING=1"], "not that it is ready"
        nursery.cancel_scope.cancel()


async def test_a_first_one_that_does_not_answer_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    copies, file = copies_of(tmp_path)
    before, one, other = copies.current, Worker(1), Worker(2)
    one.may_answer = trio.Event()
    file.write_text("second")
    monkeypatch.setattr("llm_runtime.workers.reloads.ONE_SECONDS", 0.05)
    outcome = await reloaded(copies, one, other)
    assert outcome.problem == "worker 1 did not reload within 0.05 s; it is restarted"
    assert [each.message for each in caplog.records] == [outcome.problem], "SIGHUP has nobody else to tell"
    assert (copies.current, one.stopped, other.stopped) == (before, True, False)
