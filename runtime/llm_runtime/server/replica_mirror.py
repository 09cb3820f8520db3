"""A mirror: the local copy of a response that another replica produces. Its run is filled from Redis.

Clients follow it like a response of this replica. When it has had no follower for `MIRROR_UNFOLLOWED_SECONDS`, it is
dropped. When a client of this replica cancels it, the other replica is told to cancel the response.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import inf
from typing import Final, final

import msgspec
import trio

from llm_actors.kernel.errors import exception_site
from llm_actors.redis import RedisProblem
from llm_actors.run import Follower, Run, RunLog
from llm_actors.shared_responses import HEARTBEAT_SECONDS, RedisAwayError, ResponseState, SharedResponses, SharedRow
from llm_actors.threads import run_large
from llm_protocol.events import Event
from llm_protocol.failures import Failure, FailureKind
from llm_runtime.server.limits import (
    HOLD_SECONDS,
    MIRROR_UNFOLLOWED_SECONDS,
    ORDER_SECONDS,
    STORE_FLUSH_SECONDS,
)
from llm_runtime.server.packing import PackedRequest, unpack_head, unpack_log
from llm_runtime.server.response_store import ResponseStore, StoredResponse, end_interrupted

REPLICA_ENDED: Final = "the replica that produced this response has ended; the response is incomplete"

_READABLE: Final = (ResponseState.RUNNING, ResponseState.ENDED, ResponseState.INTERRUPTED)

log = logging.getLogger("llm_runtime.server")


@final
class HeldRuns:
    """Runs of this replica that continue because a client follows them at another replica."""

    def __init__(self) -> None:
        self._held: dict[Run, tuple[Follower, float]] = {}

    def hold(self, run: Run) -> None:
        """Keep a run alive for `HOLD_SECONDS` from now."""
        follower, _ = self._held.get(run) or (run.follow(), 0.0)
        self._held[run] = (follower, trio.current_time() + HOLD_SECONDS)

    def release(self, now: float) -> None:
        """Stop holding the runs that have ended, or whose time is over at ``now``."""
        for run in [run for run, (_, until) in self._held.items() if run.log.end is not None or until <= now]:
            follower, _ = self._held.pop(run)
            follower.close()


async def unpack_row(row: SharedRow) -> tuple[PackedRequest, list[Event]]:
    """Return the request and the events of a row of Redis. Raises `msgspec.MsgspecError`."""
    return await run_large(len(row.head) + sum(map(len, row.pieces)), _unpacked, row)


def _unpacked(row: SharedRow) -> tuple[PackedRequest, list[Event]]:
    return unpack_head(row.head), unpack_log(row.pieces)


def response_of(row: SharedRow, head: PackedRequest, events: list[Event], response_id: str) -> StoredResponse | None:
    """Return the response of a row whose request and events were unpacked; ``None`` if Redis has lost a part of it.
    Raises `RedisAwayError` if its replica will write that part again.
    """
    run = Run(head.inbound.request, stream=True, background=True, response_id=response_id)
    run.log.restore(events)
    is_whole = len(run.log) == row.events and (row.state is not ResponseState.ENDED or run.log.end is not None)
    if not is_whole and row.state is ResponseState.RUNNING:
        raise RedisAwayError(RedisProblem("row", "Redis has lost a part of a response"))
    if not is_whole:
        log.error("Redis has lost a part of response %s, so this replica cannot read it", response_id)
        return None
    stored = head.response(run)
    stored.is_shared = stored.is_foreign = True
    if row.state is ResponseState.INTERRUPTED:
        end_interrupted(run, REPLICA_ENDED, row.ended_at)
    return stored


@final
class ReplicaMirror:
    """Copies a response from Redis (``shared``) into the log of ``stored``. At the start ``stored`` contains the events
    of ``row``, and ``response_store`` has it as a mirror.
    """

    def __init__(
        self, shared: SharedResponses, response_store: ResponseStore, stored: StoredResponse, row: SharedRow
    ) -> None:
        self._shared = shared
        self._response_store = response_store
        self._stored = stored
        self._run = stored.run
        self._generation = row.generation
        self._pieces = len(row.pieces)
        self._cancel_at = -inf
        """When to repeat the order to cancel the response, on Trio's clock."""
        self._reading = trio.Lock()
        self._needed_at = trio.current_time()
        self._hold_at = -inf
        """When to tell the other replica again that the response has a follower on this replica, on Trio's clock."""

    @property
    def id(self) -> str:
        """The response's id."""
        return self._stored.id

    async def refresh(self) -> None:
        """Read the new events from Redis, because a client may follow the response now. Raises `RedisAwayError`."""
        self._needed_at = trio.current_time()
        await self._read_alone()

    async def follow(self) -> None:
        """Read events until the response ends, or until it has had no follower for `MIRROR_UNFOLLOWED_SECONDS`. Then
        remove the mirror.
        """
        stored, run = self._stored, self._run
        try:
            await self._follow()
        except Exception as exc:
            log.error("a response of another replica cannot be followed: %s", exception_site(exc))  # noqa: TRY400
        finally:
            has_ended = run.log.end is not None
            run.close()
            self._response_store.unmirror(stored)
            if has_ended and not stored.is_gone and not self._response_store.knows(stored.id):
                self._response_store.adopt(stored, trio.current_time())

    async def _follow(self) -> None:
        run, now = self._run, trio.current_time()
        heard_at = now
        while run.log.end is None and now - self._needed_at <= MIRROR_UNFOLLOWED_SECONDS:
            await trio.sleep(STORE_FLUSH_SECONDS)
            if run.log.end is not None:  # `refresh` has read the end
                return
            now = trio.current_time()
            if run.log.followers or run.is_cancelled_by_client:  # followed until the other replica has cancelled it
                self._needed_at = now
            try:
                await self._step()
                heard_at = now
            except RedisAwayError:
                if now - heard_at > HEARTBEAT_SECONDS:
                    self._response_store.unmirror(self._stored)
                    self._stored.is_gone = True
                    message = (
                        "Redis is unreachable or has lost this response: it may still be running on another replica"
                    )
                    run.fail(Failure(kind=FailureKind.INTERRUPTED, message=message, partial=run.has_content))

    async def _step(self) -> None:
        run, stored = self._run, self._stored
        now = trio.current_time()
        if run.is_cancelled_by_client and now >= self._cancel_at:
            await self._shared.cancel(stored.id, stored.caller)
            self._cancel_at = now + ORDER_SECONDS
        if run.log.followers and now >= self._hold_at:
            await self._shared.hold(stored.id, stored.caller)
            self._hold_at = now + ORDER_SECONDS
        await self._read_alone()

    async def _read_alone(self) -> None:
        async with self._reading:
            if self._run.log.end is None:
                await self._read()

    async def _read(self) -> None:
        run = self._run
        tail = await self._shared.tail(self._stored.id, self._generation, self._pieces)
        if tail.state is ResponseState.DELETED:
            self._response_store.drop(self._stored)
            run.cancel("the client deleted the response")
            run.close()
            return
        more = _log_of(tail.pieces)
        if tail.state in _READABLE and more is not None and len(run.log) + len(more) == tail.events:
            self._pieces += len(tail.pieces)
            self._take(more.events, tail.state, tail.ended_at)
        else:
            await self._read_again()

    async def _read_again(self) -> None:
        """Read the whole row again: its replica has written it anew, or Redis has lost a part of it. Raises
        `RedisAwayError` as long as Redis has fewer events than this mirror.
        """
        row = await self._shared.load(self._stored.id, self._stored.caller)
        whole = None if row is None or row.state not in _READABLE else _log_of(row.pieces)
        if row is None or whole is None or not len(self._run.log) <= len(whole) == row.events:
            raise RedisAwayError(RedisProblem("row", "Redis has lost a part of a response"))
        self._generation, self._pieces = row.generation, len(row.pieces)
        self._take(whole.read(len(self._run.log)), row.state, row.ended_at)

    def _take(self, events: Sequence[Event], state: ResponseState, ended_at: float) -> None:
        self._run.log.restore(events)
        if state is ResponseState.INTERRUPTED and self._run.log.end is None:
            end_interrupted(self._run, REPLICA_ENDED, ended_at)


def _log_of(pieces: Sequence[bytes]) -> RunLog | None:
    """Return a log with the events in ``pieces``; ``None`` if they cannot be read."""
    found = RunLog()
    try:
        found.restore(unpack_log(pieces))
    except msgspec.MsgspecError as exc:
        log.error("a response of another replica cannot be read: %s", type(exc).__name__)  # noqa: TRY400
        return None
    return found
