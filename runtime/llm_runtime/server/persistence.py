"""Write stored responses to the store's file while they are produced, and read them when a client asks for them
later.

A client receives the id of a stored response only when the file has a row for it, and its end only when the file has
all of it. Between these the file is up to `STORE_FLUSH_SECONDS` behind. If a write to the file fails, clients no
longer wait: the response is in memory only, until a later write succeeds.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple, Protocol, final

import msgspec
import trio

from llm_actors.run import Run
from llm_actors.store import (
    AppendEvents,
    BeginResponse,
    DeleteResponse,
    EndResponse,
    StoreAwayError,
    StoredResponseRow,
    StoreRef,
    Write,
    load,
    persist,
)
from llm_actors.threads import run_large
from llm_runtime.server.http_error import HttpError, store_unavailable
from llm_runtime.server.limits import (
    GIVEN_UP_ROWS,
    REMNANTS_AT_ONCE,
    RETRY_BYTES,
    STORE_FLUSH_SECONDS,
    STORE_REST_SECONDS,
    STORE_WAIT_SECONDS,
)
from llm_runtime.server.packing import pack_events, pack_head, unpack_events, unpack_head
from llm_runtime.server.response_store import ResponseStore, StoredResponse, end_interrupted
from llm_runtime.server.subscription import WakeupEvent

RESPONSE_ID = re.compile(r"resp_[0-9a-f]{32}")
"""The form of this server's response ids. No store contains other ids."""

log = logging.getLogger("llm_runtime.server")


def restored(response_id: str, row: StoredResponseRow, now: float) -> StoredResponse:
    """Return the response in ``row``. If its process ended before it was complete, its last event is the failure
    `interrupted`. May be called in any thread; ``now`` is the time on Trio's clock.
    """
    packed = unpack_head(row.head)
    run = Run(packed.inbound.request, stream=True, background=True, response_id=response_id, started_at=now)
    for piece in row.events:
        run.log.restore(unpack_events(piece))
    if run.log.end is None:
        message = "the runtime ended while it produced this response; the response is incomplete"
        end_interrupted(run, message, row.ended_at or 0.0)
    return packed.response(run)


class ResponseWriter(Protocol):
    """Writes responses to a file or to Redis."""

    def wake(self) -> None:
        """Wake the writer: there are events to write."""
        ...


@final
class StoredProgress:
    """How much of a response is in the file or in Redis, and so may be sent to clients."""

    __slots__ = ("_watchers", "_writer", "begun", "ended", "failures", "has_row", "position", "stored")

    def __init__(self, stored: StoredResponse, writer: ResponseWriter) -> None:
        self.stored = stored
        self.begun = False
        """Whether the client may be told the response's id."""
        self.ended = False
        """Whether the client may be told the response's end."""
        self.has_row = False
        self.position = 0
        """How many events of the response are in the file."""
        self.failures = 0
        """How many times in succession Redis did not take a large change of the response."""
        self._writer = writer
        self._watchers: list[Callable[[], None]] = []

    def watch(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` whenever more of the response may be sent."""
        self._watchers.append(wake)

    def unwatch(self, wake: Callable[[], None]) -> None:
        """Remove a callback of `watch`."""
        if wake in self._watchers:
            self._watchers.remove(wake)

    def hurry(self) -> None:
        """Wake the task that writes, because a client waits for the end of the response."""
        self._writer.wake()

    async def wait_begun(self) -> None:
        """Wait until the id may be sent to clients, for at most `STORE_WAIT_SECONDS`."""
        if self.begun:
            return
        begun = trio.Event()
        self.watch(begun.set)
        with trio.move_on_after(STORE_WAIT_SECONDS):
            await begun.wait()
        self.unwatch(begun.set)

    def advance(self, *, ended: bool) -> None:
        """Allow sending the id and, with ``ended``, the end. Calls all callbacks of `watch`."""
        self.begun, self.ended = True, self.ended or ended
        for wake in tuple(self._watchers):
            wake()


@final
class _Deletion:
    """A deletion that a client waits for. ``settled`` is set when it was made or has failed."""

    def __init__(self, response_id: str) -> None:
        self.id = response_id
        self.is_made = False
        self.settled = trio.Event()

    def settle(self, *, is_made: bool) -> None:
        self.is_made = is_made
        self.settled.set()


class _Batch(NamedTuple):
    writes: list[Write]
    reached: list[tuple[StoredProgress, int, bool]]
    """For each response in the batch: the number of its events that are in the file after the batch, and whether
    these are all.
    """
    deleted: list[_Deletion]
    remnants: list[str]


@final
class ResponsePersistence:
    """Writes the stored responses of one server to ``store``. If ``store`` is ``None``, nothing is written, and no
    client waits. ``restored`` is called for each response that is read from the file.

    One task writes one batch after another (`run`).
    """

    def __init__(
        self, store: Callable[[], StoreRef | None], response_store: ResponseStore, restored: Callable[[Run], None]
    ) -> None:
        self._store = store
        self._restored = restored
        self._response_store = response_store
        self.live: dict[str, StoredProgress] = {}
        """The responses that are being written, by id."""
        self._late: dict[str, StoredProgress] = {}
        """Responses that have ended, and that the file did not take. They are written when it can be written again."""
        self._deletions: list[_Deletion] = []
        self._remnants: dict[str, None] = {}
        """The ids of rows in the file that do not have the end of their response, the oldest first. They are deleted
        when the file can be written again.
        """
        self._wakeup = WakeupEvent()
        self._rests_until = 0.0

    def keep(self, stored: StoredResponse) -> None:
        """Begin to write a response, if it is to be stored."""
        if stored.outlives_its_end and self._store() is not None:
            self.live[stored.id] = StoredProgress(stored, self)
            self._wakeup.wake()

    def wake(self) -> None:
        """Wake the writer: there are events to write."""
        self._wakeup.wake()

    async def wait_begun(self, response_id: str) -> None:
        """Wait until the id of a response may be sent to clients; see `StoredProgress.wait_begun`."""
        if (progress := self.live.get(response_id)) is not None:
            await progress.wait_begun()

    async def forget(self, stored: StoredResponse) -> bool:
        """Delete a response from the file. Waits until it is deleted, for at most `STORE_WAIT_SECONDS`. Returns
        `False` if the file still has it; then nothing has changed.
        """
        if self._store() is None or not RESPONSE_ID.fullmatch(stored.id):
            return True
        progress = self.live.pop(stored.id, None) or self._late.pop(stored.id, None)
        deletion = _Deletion(stored.id)
        self._deletions.append(deletion)
        self._wakeup.wake()
        try:
            with trio.move_on_after(STORE_WAIT_SECONDS):
                await deletion.settled.wait()
        finally:
            if deletion in self._deletions:
                self._deletions.remove(deletion)
            is_there = stored.is_in_file and not deletion.is_made
            if not (is_there or deletion.is_made):
                self._note_remnant(stored.id)  # a write that was given up may still have succeeded
            if progress is not None and is_there:
                self.live[stored.id] = progress
                self._wakeup.wake()
            elif progress is not None:
                progress.advance(ended=True)
        return not is_there

    async def bring(self, response_id: str | None, caller: str) -> None:
        """Load the caller's response with this id into memory, if it is in the file only. Raises `HttpError` if
        another process is still producing it, and while the file cannot be read.
        """
        store = self._store()
        if store is None or response_id is None or not RESPONSE_ID.fullmatch(response_id):
            return
        if self._response_store.knows(response_id) or response_id in self._remnants or response_id in self._late:
            return
        try:
            row = await load(store, response_id, caller)
        except StoreAwayError:
            raise store_unavailable("The store cannot be read now, and may contain the response. Try again.") from None
        if row is None or self._response_store.knows(response_id):
            return
        if row.ended_at is None:
            message = "The response is being produced by another process; it can be read after its end."
            raise HttpError(409, "response_elsewhere", message, param="response_id")
        try:
            size = len(row.head) + sum(map(len, row.events))
            stored = await run_large(size, restored, response_id, row, trio.current_time())
        except (msgspec.MsgspecError, AssertionError) as exc:
            log.error("response %s in the store cannot be decoded: %s", response_id, type(exc).__name__)  # noqa: TRY400
            return
        if not self._response_store.knows(response_id):
            stored.is_in_file = True
            self._response_store.adopt(stored, trio.current_time())
            self._restored(stored.run)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled."""
        task_status.started()
        while True:
            is_busy = self.live or self._late
            again = STORE_FLUSH_SECONDS if is_busy else STORE_REST_SECONDS if self._remnants else float("inf")
            with trio.move_on_after(again):
                await self._wakeup.wait()
            if (store := self._store()) is not None:
                await self._write(store)

    async def flush(self) -> None:
        """Write everything that is pending, before the server ends: for at most `STORE_WAIT_SECONDS`."""
        if (store := self._store()) is None:
            return
        self._rests_until = 0.0
        with trio.move_on_after(STORE_WAIT_SECONDS):
            await self._write(store)
            while self._late and not self._is_resting():
                await self._write(store)

    def _is_resting(self) -> bool:
        return trio.current_time() < self._rests_until

    async def _write(self, store: StoreRef) -> None:
        if self._is_resting():
            self._give_up()
            return
        await self._put(store, await self._batch())
        if not self._is_resting():
            await self._put(store, await self._late_batch())

    async def _put(self, store: StoreRef, batch: _Batch) -> None:
        if not batch.writes:
            return
        is_made = await persist(store, tuple(batch.writes))
        if is_made:
            for progress, position, is_all in batch.reached:
                progress.has_row, progress.position = True, position
                progress.stored.is_in_file = True
                self._advance(progress, ended=is_all)
            for response_id in batch.remnants:
                self._remnants.pop(response_id, None)
        else:
            self._rests_until = trio.current_time() + STORE_REST_SECONDS
            for progress, _, _ in batch.reached:  # if the cause is one of these, the others are tried first
                if self._late.pop(progress.stored.id, None) is not None:
                    self._late[progress.stored.id] = progress
            self._give_up()
        for deletion in batch.deleted:
            deletion.settle(is_made=is_made)

    def _give_up(self) -> None:
        """A write to the file failed: let no client wait any longer. The responses are written at a later try."""
        for progress in tuple(self.live.values()):
            has_ended = progress.stored.run.log.end is not None
            self._advance(progress, ended=has_ended)
            if has_ended:
                self._late[progress.stored.id] = progress
        for deletion in self._deletions:
            deletion.settle(is_made=False)
        self._deletions = []

    def _note_remnant(self, response_id: str) -> None:
        self._remnants[response_id] = None
        while len(self._remnants) > GIVEN_UP_ROWS:
            del self._remnants[next(iter(self._remnants))]

    def _advance(self, progress: StoredProgress, *, ended: bool) -> None:
        for waiting in (self.live, self._late) if ended else ():
            if waiting.get(progress.stored.id) is progress:
                del waiting[progress.stored.id]
        progress.advance(ended=ended)

    async def _batch(self) -> _Batch:
        batch = _Batch([], [], self._deletions, list(islice(self._remnants, REMNANTS_AT_ONCE)))
        self._deletions = []
        for progress in tuple(self.live.values()):
            await self._try_to_add(progress, batch)
        batch.writes.extend(DeleteResponse(each.id) for each in batch.deleted)
        batch.writes.extend(DeleteResponse(each) for each in batch.remnants)
        return batch

    async def _late_batch(self) -> _Batch:
        """Return a batch of responses that the file did not take before. Those that are no longer in memory are
        lost.
        """
        for response_id in [each for each in self._late if not self._response_store.knows(each)]:
            del self._late[response_id]
            self._note_remnant(response_id)  # a write that was given up may have been made
        batch, size = _Batch([], [], [], []), 0
        for progress in tuple(self._late.values()):
            size += progress.stored.weight
            if batch.writes and size > RETRY_BYTES:
                break
            await self._try_to_add(progress, batch)
        return batch

    async def _try_to_add(self, progress: StoredProgress, batch: _Batch) -> None:
        try:
            await self._add(progress, batch)
        except (TypeError, ValueError, OverflowError, RecursionError):
            # It contains a value that msgspec cannot encode: a lone surrogate, or a number beyond 64 bits.
            log.warning("response %s cannot be encoded for the store, so it is only in memory", progress.stored.id)
            self._advance(progress, ended=True)
            if progress.has_row:
                self._note_remnant(progress.stored.id)

    async def _add(self, progress: StoredProgress, batch: _Batch) -> None:
        stored, added = progress.stored, list[Write]()
        if not progress.has_row:
            head = await run_large(stored.asked_bytes, pack_head, stored.inbound, stored.options, stored.asked_bytes)
            added.append(BeginResponse(stored.id, stored.caller, stored.inbound.request.timestamp, head))
        run_log = stored.run.log
        position, is_all = len(run_log), run_log.end is not None
        if position > progress.position:
            added.append(AppendEvents(stored.id, progress.position, pack_events(run_log.read(progress.position))))
        if is_all:
            added.append(EndResponse(stored.id, time.time()))
        if added:
            batch.writes.extend(added)
            batch.reached.append((progress, position, is_all))
