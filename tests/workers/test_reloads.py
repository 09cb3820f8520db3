"""Reloads of several workers: all or nothing, one after the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

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

    async def reload(self, copy: str | None) -> Outcome:
        await trio.lowlevel.checkpoint()
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
        return Config()

    copies = Copies(str(file), str(folder), read)
    copies.accept(copies.take()[0])
    return copies, file


async def reloaded(copies: Copies, *workers: Worker) -> Outcome:
    """What the first is told that asked for it."""
    reloads = Reloads(copies, lambda: cast("list[WorkerProcess]", list(workers)), Notifier({}))
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
    reloads = Reloads(copies, lambda: cast("list[WorkerProcess]", [one, starting]), Notifier({}))
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
