"""The request log's actor, with a writer in the place of the disk."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import trio
import trio.testing

from llm_actors.kernel import ChildSpec, Supervisor, running
from llm_actors.request_log import REQUEST_LOG_MAILBOX, RequestLog, RequestLogActor
from llm_actors.request_log.actor import FLUSH_SECONDS, WRITE_SECONDS
from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.requests import ChatRequest


class Disk:
    """Takes runs, and holds the thread until it is ``freed``. When ``wanted`` are written, that is ``done``."""

    def __init__(self, wanted: int) -> None:
        self.begun: list[Run] = []
        self.has_begun = threading.Event()
        self.written: list[Run] = []
        self.freed = threading.Event()
        self.done = trio.Event()
        self._wanted = wanted
        self._trio = trio.lowlevel.current_trio_token()

    def write(self, runs: Sequence[Run], /) -> None:
        self.begun += runs
        self.has_begun.set()
        self.freed.wait(20)
        self.written += runs
        if len(self.written) == self._wanted:
            self._trio.run_sync_soon(self.done.set)

    def close(self) -> None:
        self.freed.wait(20)


def run() -> Run:
    return Run(ChatRequest(model="m", messages=(Message.of("user", "hello"),)), stream=False)


@asynccontextmanager
async def logging_to(disk: Disk, waiting: RequestLog) -> AsyncIterator[None]:
    spec: ChildSpec[Any] = ChildSpec(
        "request-log", lambda _: RequestLogActor(waiting, disk), mailbox=REQUEST_LOG_MAILBOX
    )
    async with running(Supervisor([spec])):
        try:
            yield
        finally:
            disk.freed.set()


async def test_while_the_disk_blocks_what_comes_waits_where_it_is_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk, waiting = Disk(wanted=6), RequestLog()
    first, later = run(), [run() for _ in range(5)]
    async with logging_to(disk, waiting):
        waiting.add(first)
        await trio.sleep(WRITE_SECONDS + FLUSH_SECONDS + 1)
        for number, each in enumerate(later, 1):
            waiting.add(each)
            await trio.sleep(FLUSH_SECONDS + 1)
            assert len(waiting) == number
        await trio.to_thread.run_sync(disk.has_begun.wait, 20)  # the virtual clock does not wait for threads
        assert disk.begun == [first]
        disk.freed.set()
        await disk.done.wait()
    assert disk.written == [first, *later]


async def test_what_waits_at_the_end_is_written_if_the_disk_is_there_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk, waiting = Disk(wanted=2), RequestLog()
    first, second = run(), run()
    async with logging_to(disk, waiting):
        waiting.add(first)
        await trio.sleep(WRITE_SECONDS + FLUSH_SECONDS + 1)
        waiting.add(second)
        autojump_clock.autojump_threshold = inf
    assert disk.written == [first, second]
