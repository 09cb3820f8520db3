"""One worker, and what its parent tells it."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio
import trio.testing

from llm_runtime.workers.link import FromParent, FromWorker, StopOrder, WorkerLink
from llm_runtime.workers.place import WorkerPlace
from llm_runtime.workers.worker import Parent


class Told:
    """A worker's view of its parent: what the parent says, and how often the worker was stopped."""

    def __init__(self, link: WorkerLink[FromWorker]) -> None:
        self.link = link
        self.stops = 0
        self._stopped = trio.Event()

    def stop(self) -> None:
        self.stops += 1
        self._stopped.set()
        self._stopped = trio.Event()

    async def has_stopped(self, times: int) -> None:
        """It was stopped so often, and is not again when all is said."""
        with trio.fail_after(5):
            while self.stops < times:
                await self._stopped.wait()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert self.stops == times


@asynccontextmanager
async def worker() -> AsyncIterator[Told]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        told = Told(WorkerLink(theirs, msgspec.json.Decoder(FromWorker)))
        place = WorkerPlace(number=1, count=2, folder="", link=-1, listeners=(), copy=None)
        parent = Parent(WorkerLink(ours, msgspec.json.Decoder(FromParent)), place, [])
        async with trio.open_nursery() as nursery:
            await nursery.start(parent.stops, told.stop)
            nursery.start_soon(parent.listen)
            yield told
            nursery.cancel_scope.cancel()


async def test_a_signal_to_all_processes_is_one_order_to_stop() -> None:
    """A service manager sends SIGTERM to the worker and to its parent, which passes it on."""
    async with worker() as told:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
            await told.has_stopped(1)
            told.link.send(StopOrder())
            await told.has_stopped(1)
        told.link.send(StopOrder(at_once=True))
        await told.has_stopped(2)


async def test_a_parent_that_goes_while_the_worker_stops_cuts_nothing() -> None:
    async with worker() as told:
        told.link.send(StopOrder())
        await told.has_stopped(1)
        told.link.close()
        await told.has_stopped(1)


async def test_the_second_order_alone_ends_it_at_once() -> None:
    async with worker() as told:
        told.link.send(StopOrder(at_once=True))
        await told.has_stopped(2)
