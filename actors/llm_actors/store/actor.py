"""The store's actor: it writes the changes of many senders in one transaction, and tells each sender when its own
changes are in the file.

All work on the file is done in one thread at a time, and every sender's wait is bounded. A write that does not finish
in time may still succeed; its senders get the reply False. No sender waits for rows of the ledger, so their write has
no time limit, except when the store stops.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import assert_never, final

import trio

from llm_actors.kernel import ChildSpec, Delivery, Inbox, serve
from llm_actors.store.ledger import Ledger
from llm_actors.store.messages import (
    LOAD_SECONDS,
    PERSIST_SECONDS,
    STORE_MAILBOX,
    GetSpend,
    GetSpent,
    Load,
    Look,
    Persist,
    StoreMessage,
)
from llm_actors.store.thread import StoreThread

QUEUE_BYTES = 64_000_000
"""The most bytes of changes that wait to be written. Further changes are not stored."""

BATCH_BYTES = 4_000_000
"""The most bytes written in one transaction, so that readers get their turn. A larger change is written alone."""

READERS = 64
"""The most lookups that wait for the file at the same time. One more lookup fails."""

LEDGER_SECONDS = 0.25
"""Seconds between two writes of the additions to the ledger."""

FLUSH_SECONDS = 2.0
"""Seconds in which queued changes may still be written after the store is asked to stop."""

log = logging.getLogger(__name__)


@final
class StoreActor:
    """Writes and reads the file of the store. The next incarnation inherits the open file, so the process keeps its
    lock. ``ledger``: rows that other actors have added, to be written in the background.
    """

    def __init__(self, thread: StoreThread, ledger: Ledger) -> None:
        self._thread = thread
        self._tier = thread.tier
        self._ledger = ledger
        self._queue: deque[tuple[Delivery[StoreMessage], Persist]] = deque()
        self._queued_bytes = 0
        self._wake = trio.Event()
        self._finishing = False
        self._readers = 0
        self._late = False

    async def run(self, inbox: Inbox[StoreMessage], *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until asked to stop; then write the queued changes, for at most `FLUSH_SECONDS`. The start does not
        wait until the file is open. A crash leaves the file open for the next incarnation.
        """
        crashed = False
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._write_all)
                self._nursery.start_soon(self._write_ledger)
                task_status.started()
                await serve(inbox, self._handle)
                self._finishing = True
                self._wake.set()
                self._nursery.cancel_scope.deadline = trio.current_time() + FLUSH_SECONDS
        except Exception:
            # Closing the file releases this process's lock, and another process would mark its responses interrupted.
            crashed = True
            raise
        finally:
            if not crashed:
                await self._thread.close()

    async def _handle(self, delivery: Delivery[StoreMessage]) -> None:
        match delivery.message:
            case Persist() as message:
                size = sum(each.size for each in message.writes)
                if self._is_late() or (self._queue and self._queued_bytes + size > QUEUE_BYTES):
                    delivery.reply(message, False)
                    return
                delivery.defer()
                self._queue.append((delivery, message))
                self._queued_bytes += size
                self._wake.set()
            case Load() | GetSpend() | GetSpent() as message:
                if self._is_late() or self._readers >= READERS:
                    _say_nothing(delivery, message)
                    return
                delivery.defer()
                self._readers += 1
                self._nursery.start_soon(self._look, delivery, message)
            case _ as never:
                assert_never(never)

    def _is_late(self) -> bool:
        """Whether the thread is stuck in work whose time limit has passed."""
        if self._late and not self._thread.is_busy:
            self._late = False
            log.info("the store responds again")
        return self._late

    def _note_late(self) -> None:
        if not self._late:
            self._late = True
            log.error("the store does not respond: nothing is stored until it does")

    async def _look(self, delivery: Delivery[StoreMessage], message: Look) -> None:
        try:
            with trio.move_on_after(LOAD_SECONDS) as scope:
                await self._answer(delivery, message)
                return
        finally:
            self._readers -= 1
        if scope.cancelled_caught:
            self._note_late()
        _say_nothing(delivery, message)

    async def _answer(self, delivery: Delivery[StoreMessage], message: Look) -> None:
        match message:
            case Load(response_id, caller):
                delivery.reply(message, await self._thread.call(self._tier.find, response_id, caller))
            case GetSpend(by=by, since=since, caller=of):
                delivery.reply(message, await self._thread.call(self._tier.spend, by, since, of))
            case GetSpent(since):
                delivery.reply(message, await self._thread.call(self._tier.spent, since))

    async def _write_ledger(self) -> None:
        """Write rows of the ledger until cancelled. `run` writes the remaining rows."""
        while True:
            news = trio.Event()
            self._ledger.on_first = news.set
            if not len(self._ledger):
                await news.wait()
            await trio.sleep(LEDGER_SECONDS)
            await self._write_what_the_ledger_has()

    async def _write_what_the_ledger_has(self) -> None:
        """Write the waiting rows of the ledger. Waits without a limit: a write that was given up might still succeed,
        and its rows would then be written twice.
        """
        writes = self._ledger.take()
        done = False

        def write() -> bool:
            nonlocal done
            done = True  # from here on, cancellation does not stop the write
            return self._tier.write(writes)

        try:
            if writes and not self._is_late():
                done = await self._thread.call(write)
        finally:
            if not done and writes:
                self._ledger.put_back(writes)

    async def _write_all(self) -> None:
        with trio.move_on_after(PERSIST_SECONDS):
            await self._thread.call(self._tier.open)
        while self._queue or not self._finishing:
            await self._wake.wait()
            while self._queue:
                await self._write_some()
            if not self._finishing:
                self._wake = trio.Event()
        await self._write_what_the_ledger_has()
        self._nursery.cancel_scope.cancel("everything is written")

    async def _write_some(self) -> None:
        batch = self._batch()
        done = False
        if not self._is_late():
            with trio.move_on_after(PERSIST_SECONDS) as scope:
                done = await self._thread.call(self._tier.write, [each for _, msg in batch for each in msg.writes])
            if scope.cancelled_caught:
                self._note_late()
        for delivery, message in batch:
            delivery.reply(message, done)

    def _batch(self) -> list[tuple[Delivery[StoreMessage], Persist]]:
        batch: list[tuple[Delivery[StoreMessage], Persist]] = []
        size = 0
        while self._queue:
            added = sum(each.size for each in self._queue[0][1].writes)
            if batch and size + added > BATCH_BYTES:
                break
            size += added
            batch.append(self._queue.popleft())
        self._queued_bytes -= size
        return batch


def _say_nothing(delivery: Delivery[StoreMessage], message: Look) -> None:
    match message:
        case Load():
            delivery.reply(message, None)
        case GetSpend():
            delivery.reply(message, None)
        case GetSpent():
            delivery.reply(message, None)


def store_child(thread: StoreThread, ledger: Ledger) -> ChildSpec[StoreMessage]:
    """Return the spec of a store, for a supervisor. ``ledger``: rows that other actors add. If the last incarnation has
    crashed, the file is still open: close ``thread`` after the supervisor has ended.
    """
    return ChildSpec("store", lambda _: StoreActor(thread, ledger), mailbox=STORE_MAILBOX)
