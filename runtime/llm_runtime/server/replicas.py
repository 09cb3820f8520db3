"""Write stored responses to Redis while they are produced, so that any replica can serve them.

A client receives the id of a stored response only when Redis has it, and its end only when Redis has all of it; see
`ResponsePersistence`. While Redis is unreachable, clients do not wait: this replica serves its own responses from
memory, and writes them when Redis is reachable again. Requests for all other ids are refused with 503, because this
replica cannot know whether they exist.

A response of another replica is followed through a mirror: a run whose log is filled from Redis.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from secrets import token_hex
from typing import final

import msgspec
import trio

from llm_actors.kernel.errors import exception_site, is_fatal
from llm_actors.run import Run
from llm_actors.shared_responses import (
    Ending,
    PutResult,
    RedisAwayError,
    ReplicaOrder,
    ResponseState,
    SharedResponses,
    batches,
)
from llm_protocol.failures import FailureKind
from llm_runtime.server.http_error import HttpError, store_unavailable
from llm_runtime.server.issued_ids import digest_of
from llm_runtime.server.limits import (
    ISSUED_AT_ONCE,
    ISSUED_IDS,
    REPLICA_FLUSH_SECONDS,
    REPLICA_IDLE_SECONDS,
    REPLICA_START_SECONDS,
    STORE_FLUSH_SECONDS,
    STORE_REST_SECONDS,
)
from llm_runtime.server.persistence import RESPONSE_ID, StoredProgress
from llm_runtime.server.replica_mirror import HeldRuns, ReplicaMirror, response_of, unpack_row
from llm_runtime.server.response_store import ResponseStore, StoredResponse
from llm_runtime.server.subscription import WakeupEvent
from llm_runtime.server.unwritten import Change, GivenUpRows, next_put, put_changes, to_give_up

_UNKNOWN = "Redis is unreachable, so this response cannot be looked up. Try again."

log = logging.getLogger("llm_runtime.server")


@final
class Replicas:
    """The stored responses of one server, shared with other replicas through Redis. ``restored`` is called with the
    run of each response that is read from Redis.
    """

    def __init__(self, shared: SharedResponses, response_store: ResponseStore, restored: Callable[[Run], None]) -> None:
        self._shared = shared
        self._response_store = response_store
        self._restored = restored
        self.live: dict[str, StoredProgress] = {}
        """The responses that Redis does not have completely, by id, the oldest first. An ended response stays
        until Redis has all of it.
        """
        self._generations: dict[str, str] = {}
        """The generation of the row of each response in `live`. It distinguishes the row from an earlier row of the
        same id.
        """
        self._wakeup = WakeupEvent()
        self._exchanging = trio.Lock()
        self._mirrors: dict[str, ReplicaMirror] = {}
        self._sessions = 0
        self._is_leaving = False
        self._new_ids: defaultdict[str, dict[bytes, None]] = defaultdict(dict)
        """For each caller, the vendor ids that Redis does not have yet, the oldest first."""
        self._given_up = GivenUpRows()
        self._held = HeldRuns()
        self._nursery: trio.Nursery | None = None

    # -- for the server ------------------------------------------------------------------------------------------------

    def keep(self, stored: StoredResponse) -> None:
        """Begin to write a response, if it is to be stored."""
        if stored.outlives_its_end:
            self.live[stored.id] = StoredProgress(stored, self)
            self._generations[stored.id] = token_hex(8)
            self.wake()

    def wake(self) -> None:
        """Wake the writer: there are events to write."""
        self._wakeup.wake()

    async def wait_begun(self, response_id: str) -> None:
        """Wait until the id of a response may be sent to clients; see `StoredProgress.wait_begun`."""
        if (progress := self.live.get(response_id)) is not None:
            await progress.wait_begun()

    async def forget(self, response_id: str, caller: str) -> None:
        """Delete a caller's response for all replicas. Raises `HttpError` while Redis is unreachable."""
        if not RESPONSE_ID.fullmatch(response_id):
            return
        progress = self.live.pop(response_id, None)
        try:
            await self._shared.delete(response_id, caller)
        except BaseException as exc:
            if progress is not None:
                self.live[response_id] = progress
                self.wake()
            if isinstance(exc, RedisAwayError):
                raise store_unavailable(_UNKNOWN) from None
            raise
        if progress is not None:
            self._generations.pop(response_id, None)
            progress.advance(ended=True)

    async def bring(self, response_id: str | None, caller: str) -> None:
        """Load the caller's response with this id into memory if any replica has it, or drop it if it was deleted.
        Raises `HttpError` while Redis is unreachable.
        """
        if response_id is None or not RESPONSE_ID.fullmatch(response_id):
            return
        known = self._response_store.find_any(response_id)
        progress = self.live.get(response_id)
        if known is not None and not known.is_shared and (progress is None or not progress.has_row):
            return  # the response is in this process only
        if known is None and progress is not None and progress.stored.caller == caller and not progress.has_row:
            raise store_unavailable(_UNKNOWN)  # the response waits to be written, and the response store has dropped it
        try:
            if known is not None:
                await self._check(known)
            if not self._response_store.knows(response_id):
                await self._load(response_id, caller)
        except RedisAwayError:
            if known is None or known.is_foreign or known.is_gone:
                raise store_unavailable(_UNKNOWN) from None

    async def is_deleted(self, response_id: str) -> bool:
        """Whether Redis knows that the response was deleted. ``False`` while Redis is unreachable."""
        if not RESPONSE_ID.fullmatch(response_id):
            return False
        try:
            return await self._shared.state(response_id) is ResponseState.DELETED
        except RedisAwayError:
            return False

    def issue(self, caller: str, digests: Sequence[bytes]) -> None:
        """Record for all replicas that a caller has received these ids of a vendor. They are written to Redis before
        the end of the stored response that contains them.
        """
        new = self._new_ids[caller]
        new.update(dict.fromkeys(digests))
        while len(new) > ISSUED_IDS:
            del new[next(iter(new))]
        self.wake()

    async def issued(self, caller: str, ids: Sequence[str]) -> list[str]:
        """Return the vendor ids among ``ids`` that the caller has received from any replica. Raises `HttpError` while
        Redis is unreachable.
        """
        try:
            are_known = await self._shared.issued(caller, [digest_of(each) for each in ids])
        except RedisAwayError:
            message = "Redis is unreachable, so the vendor's ids in this request cannot be checked. Try again."
            raise store_unavailable(message) from None
        return [each for each, is_known in zip(ids, are_known, strict=True) if is_known]

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Write responses, and carry out the orders of other replicas, until cancelled. The start waits for the first
        attempt to connect to Redis, for at most `REPLICA_START_SECONDS`.
        """
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._shared.link.run)
            with trio.move_on_after(REPLICA_START_SECONDS):
                await self._shared.link.tried.wait()
            task_status.started()
            while True:
                try:
                    await self._exchange()
                except Exception as exc:
                    if is_fatal(exc):
                        raise
                    log.error("internal error while writing responses to Redis; trying again: %s", exception_site(exc))  # noqa: TRY400
                    self._let_nobody_wait()
                    await trio.sleep(STORE_REST_SECONDS)
                with trio.move_on_after(STORE_FLUSH_SECONDS if self.live else REPLICA_IDLE_SECONDS):
                    await self._wakeup.wait()

    async def flush(self) -> None:
        """Write the ended responses to Redis before the server ends, for at most `REPLICA_FLUSH_SECONDS`. Then end this
        replica's heartbeat, so that its other responses become interrupted at once.
        """
        with trio.move_on_after(REPLICA_FLUSH_SECONDS):
            await self._exchange()
            while any(each.stored.run.log.end is not None for each in self.live.values()):
                await trio.sleep(STORE_FLUSH_SECONDS)
                await self._exchange()
        self._is_leaving = True
        try:
            async with self._exchanging:
                await self._shared.leave()
        except RedisAwayError:
            log.warning("Redis is unreachable: other replicas cannot read responses that were not written to it yet")

    # -- writing -------------------------------------------------------------------------------------------------------

    async def _exchange(self) -> None:
        self._give_up()
        try:
            async with self._exchanging:
                if self._is_leaving:
                    return
                news = await self._shared.sync()
                for order, response_id in news.orders:
                    self._obey(order, response_id)
                self._held.release(trio.current_time())
                for caller, new in tuple(self._new_ids.items()):
                    await self._issue(caller, new)
                sessions = self._shared.link.sessions
                await self._write(all_rows=sessions != self._sessions or not news.is_known)
                self._sessions = sessions
        except RedisAwayError:
            self._let_nobody_wait()

    def _give_up(self) -> None:
        """Drop responses that have waited too long, or need too much memory, while Redis is unreachable."""
        before = trio.current_time() - self._shared.ttl_s
        for progress in to_give_up(tuple(self.live.values()), before=before):
            self._given_up.add(progress, self._generations[progress.stored.id])
            self._done(progress)

    async def _issue(self, caller: str, new: dict[bytes, None]) -> None:
        while digests := tuple(islice(new, ISSUED_AT_ONCE)):
            await self._shared.issue(caller, digests, most=ISSUED_IDS)
            for each in digests:
                new.pop(each, None)
        self._new_ids.pop(caller, None)

    def _let_nobody_wait(self) -> None:
        """Redis is unreachable: let clients have the responses that are not in Redis."""
        for progress in tuple(self.live.values()):
            has_ended = progress.stored.run.log.end is not None
            if not progress.begun or has_ended > progress.ended:
                progress.advance(ended=has_ended)

    def _obey(self, order: ReplicaOrder, response_id: str) -> None:
        """Carry out an order of another replica."""
        stored = self._response_store.find_any(response_id)
        if stored is None or stored.is_foreign:
            return
        match order:
            case ReplicaOrder.DELETE:
                self._drop(stored, "the client deleted the response")
            case ReplicaOrder.CANCEL:
                stored.run.cancel("the client cancelled the response")
            case ReplicaOrder.HOLD:
                self._held.hold(stored.run)

    def _drop(self, stored: StoredResponse, reason: str, kind: FailureKind = FailureKind.CANCELLED) -> None:
        """Cancel and remove a response that has been deleted on another replica, or that the other replicas count as
        interrupted.
        """
        stored.run.cancel(reason, kind)
        self._response_store.drop(stored)
        self._generations.pop(stored.id, None)
        if (progress := self.live.pop(stored.id, None)) is not None:
            progress.advance(ended=True)

    async def _write(self, *, all_rows: bool) -> None:
        """Write all changes. With ``all_rows`` also write rows without changes, because Redis may have lost them."""
        # Failed changes go last, so that the others need not wait for them.
        live = sorted(self.live.values(), key=lambda each: each.failures)
        changes = [change for each in live if (change := await self._change(each, is_due=all_rows))]
        for batch in batches(changes, lambda each: each.put.size):
            # A response that was deleted while its change waited must not be written again.
            batch = [each for each in batch if self.live.get(each.put.id) is each.progress]
            if batch:
                results = await put_changes(self._shared, batch)
                for change, result in zip(batch, results, strict=True):
                    self._note(change, result)
        for puts in batches(self._given_up.puts, lambda each: each.size):
            await self._shared.put(puts)
            self._given_up.ended(puts)

    async def _change(self, progress: StoredProgress, *, is_due: bool) -> Change | None:
        stored = progress.stored
        if self.live.get(stored.id) is not progress:  # deleted while an earlier response was packed
            return None
        run_log = stored.run.log
        if progress.has_row and len(run_log) == progress.position and run_log.end is None and not is_due:
            return None
        put = await next_put(progress, self._generations[stored.id])
        if self.live.get(stored.id) is not progress:  # deleted while this response was packed
            return None
        return Change(progress, put.within_bounds())

    def _note(self, change: Change, result: PutResult) -> None:
        """Record the result of writing a change."""
        progress, put = change
        stored = progress.stored
        if self.live.get(stored.id) is not progress:
            return
        if result.is_done:
            progress.has_row, progress.position, progress.failures = True, put.end, 0
            if put.ending is Ending.OPEN:
                progress.advance(ended=False)
            else:
                stored.is_shared = put.ending is Ending.ENDED
                self._done(progress)
        elif result.is_gone:
            progress.has_row, progress.position = False, 0
            self._generations[stored.id] = token_hex(8)
            self.wake()
        elif result.is_deleted:
            self._drop(stored, "the client deleted the response")
        elif result.is_lost:
            log.warning("response %s counts as interrupted: Redis was unreachable for too long", stored.id)
            self._drop(stored, "this replica was cut off from the others for too long", FailureKind.INTERRUPTED)
        else:  # an earlier write reached Redis although it seemed to fail
            progress.has_row, progress.position = True, result.there
            self.wake()

    def _done(self, progress: StoredProgress) -> None:
        self.live.pop(progress.stored.id, None)
        self._generations.pop(progress.stored.id, None)
        progress.advance(ended=True)

    # -- reading -------------------------------------------------------------------------------------------------------

    async def _check(self, known: StoredResponse) -> None:
        """Drop a response that was deleted on another replica or has expired. If it is a mirror, read its new events.
        Raises `RedisAwayError`.
        """
        if (mirror := self._mirrors.get(known.id)) is not None:
            await mirror.refresh()
            return
        state = await self._shared.state(known.id)
        is_pending = known.id in self.live  # if Redis has lost it, this replica writes it again
        if state is ResponseState.DELETED or (state is ResponseState.MISSING and not is_pending):
            self._drop(known, "the client deleted the response")
        elif state is ResponseState.INTERRUPTED and is_pending:
            self._drop(known, "this replica was cut off from the others for too long", FailureKind.INTERRUPTED)

    async def _load(self, response_id: str, caller: str) -> None:
        row = await self._shared.load(response_id, caller)
        if row is None:
            return
        if row.state is ResponseState.UNSHARED:
            message = "The response is at another replica and cannot be read from this replica."
            raise HttpError(409, "response_elsewhere", message, param="response_id")
        try:
            head, events = await unpack_row(row)
        except msgspec.MsgspecError as exc:
            log.error("response %s in Redis cannot be decoded: %s", response_id, type(exc).__name__)  # noqa: TRY400
            return
        if (mirror := self._mirrors.get(response_id)) is not None:
            await mirror.refresh()  # another request has made it meanwhile, perhaps from an older state of the row
            return
        if self._response_store.knows(response_id) or self._nursery is None:
            return
        if (stored := response_of(row, head, events, response_id)) is None:
            return
        self._restored(stored.run)
        if row.state is ResponseState.RUNNING:
            self._response_store.mirror(stored)
            self._mirrors[response_id] = mirror = ReplicaMirror(self._shared, self._response_store, stored, row)
            self._nursery.start_soon(self._follow, mirror)
        else:
            self._response_store.adopt(stored, trio.current_time())

    async def _follow(self, mirror: ReplicaMirror) -> None:
        try:
            await mirror.follow()
        finally:
            if self._mirrors.get(mirror.id) is mirror:
                del self._mirrors[mirror.id]
