"""The client of the script `responses.lua`: one method for each of its commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import TypeVar, final

import trio

from llm_actors.redis import RedisAwayError, RedisProblem, RedisServer, script_of
from llm_actors.redis_link import QUEUE_SECONDS, Argument, RedisLink
from llm_actors.shared_responses.rows import (
    Put,
    PutResult,
    ReplicaNews,
    ReplicaOrder,
    ResponseState,
    SharedRow,
    SharedTail,
)

_NO_TURN = (
    "this process was reading {} responses of other replicas already, and none of these reads ended within {:g} s; "
    "try again"
)

HEARTBEAT_SECONDS = 15.0
"""Seconds after which a heartbeat expires. Then the responses in progress of its replica are interrupted."""

RETURN_SECONDS = 5.0
"""Seconds that a replica has to renew an expired heartbeat before its responses are interrupted. Replicas have the same
time to write again the responses that Redis has lost.
"""

BATCH_BYTES = 1_000_000
"""The most bytes of one command. A larger change is sent alone."""

BATCH_CHANGES = 256
"""The most changes in one command."""

FOLLOWED_AT_ONCE = 32
"""The most responses of other replicas that are read at the same time. Other reads wait for their turn."""

T = TypeVar("T")


@final
class SharedResponses:
    """The stored responses under the key prefix of ``server``, as one replica sees them. ``ttl_s``: how many seconds
    they are kept after the last change.
    """

    def __init__(self, server: RedisServer, *, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self._ttl_ms = int(ttl_s * 1000)
        self.replica = token_hex(8)
        """The name of this replica. It is random, so a restarted replica has another name."""
        self._base = f"{{{server.prefix}}}:"
        own = tuple(self._key(sort, self.replica) for sort in ("replica", "orders", "missing"))
        self._own = (*own, f"{self._base}since")
        self._obeyed: list[bytes] = []
        """The orders that the last `sync` returned. They stay in Redis until the next `sync` confirms them."""
        self._grace = (self._base, RETURN_SECONDS)
        self._heartbeat_ms = int(HEARTBEAT_SECONDS * 1000)
        self._sync: tuple[Argument, ...] = ("sync", self._heartbeat_ms)
        self._following = trio.CapacityLimiter(FOLLOWED_AT_ONCE)
        self.link = RedisLink(
            server,
            script_of("llm_actors.shared_responses", "responses.lua"),
            what="stored responses are",
            without="until it is reachable again, replicas cannot read each other's responses",
            first=(self._own, ("here", self._heartbeat_ms)),
        )
        """The link to Redis. A task must call its `run`."""

    def _key(self, sort: str, name: str) -> str:
        """Return a key. The braces in the prefix put all keys into one slot of a Redis cluster."""
        return f"{self._base}{sort}:{name}"

    def _row(self, response_id: str) -> tuple[str, str]:
        return self._key("response", response_id), self._key("response-log", response_id)

    # -- the replica itself --------------------------------------------------------------------------------------------

    async def sync(self) -> ReplicaNews:
        """Renew the heartbeat. Returns the orders of other replicas. If the reply was lost, the next call returns
        them again.
        """
        answer = await self.link.call(self._own, *self._sync, *self._obeyed, is_urgent=True)
        try:
            is_known, *orders = answer
            self._obeyed = orders
            found = [(ReplicaOrder(each[:1].decode()), each[1:].decode()) for each in orders]
            return ReplicaNews(found, is_known == b"1")
        except ValueError:
            raise _unreadable() from None

    async def leave(self) -> None:
        """End the heartbeat: responses that this replica has not completed become interrupted at once."""
        await self.link.call(self._own, "leave")

    async def put(self, puts: Sequence[Put]) -> list[PutResult]:
        """Apply the changes of one batch (see `batches`) in one step. Returns a result for each."""
        keys: list[str] = []
        arguments: list[Argument] = ["put", self.replica, self._ttl_ms, self._heartbeat_ms]
        for put in puts:
            keys += self._row(put.id)
            begins = "1" if put.begins else ""
            arguments += [begins, put.generation, put.caller, put.head, put.start, put.end, put.piece, put.ending.value]
        answer = await self.link.call([*keys, self._own[0]], *arguments, is_urgent=True)
        if len(answer) != len(puts):
            raise _unreadable()
        return [_result(each) for each in answer]

    # -- the responses of others ---------------------------------------------------------------------------------------

    async def load(self, response_id: str, caller: str) -> SharedRow | None:
        """Return a caller's response, complete or up to its latest event; ``None`` if there is none."""
        answer = await self.link.call(self._row(response_id), "load", caller, *self._grace)
        if len(answer) == 1:
            _state(answer[0])
            return None
        try:
            state, generation, ended_at, count, head, *pieces = answer
            return SharedRow(
                ResponseState(state.decode()), generation.decode(), float(ended_at), int(count), head, pieces
            )
        except ValueError:
            raise _unreadable() from None

    async def tail(self, response_id: str, generation: str, first: int) -> SharedTail:
        """Return the state of a response, and its pieces from number ``first`` on. The state is `MISSING` if
        ``generation`` is not the generation of the row. Waits for its turn for at most `QUEUE_SECONDS`.
        """
        try:
            with trio.fail_after(QUEUE_SECONDS):
                await self._following.acquire()
        except trio.TooSlowError:
            raise RedisAwayError(RedisProblem("queue", _NO_TURN.format(FOLLOWED_AT_ONCE, QUEUE_SECONDS))) from None
        try:
            answer = await self.link.call(self._row(response_id), "tail", generation, first, *self._grace)
        finally:
            self._following.release()
        if len(answer) == 1:
            return SharedTail(_state(answer[0]), 0.0, 0, [])
        try:
            return SharedTail(_state(answer[0]), float(answer[1]), int(answer[2]), answer[3:])
        except (ValueError, IndexError):
            raise _unreadable() from None

    async def state(self, response_id: str) -> ResponseState:
        """Return the state of a response."""
        [state] = await self.link.call(self._row(response_id)[:1], "state", *self._grace)
        return _state(state)

    async def cancel(self, response_id: str, caller: str) -> bool:
        """Order the replica that produces a caller's response to cancel it. Returns whether the response exists."""
        return await self._order(response_id, caller, ReplicaOrder.CANCEL)

    async def hold(self, response_id: str, caller: str) -> bool:
        """Order the replica that produces a caller's response to continue it for some more seconds even without a
        follower there, because the response has a follower at this replica. Returns whether the response exists.
        """
        return await self._order(response_id, caller, ReplicaOrder.HOLD)

    async def delete(self, response_id: str, caller: str) -> bool:
        """Delete a caller's response, and order the replica that produces it to cancel it. Returns whether the
        response existed.
        """
        return await self._order(response_id, caller, ReplicaOrder.DELETE)

    # -- the vendor's ids ----------------------------------------------------------------------------------------------

    async def issue(self, caller: str, digests: Sequence[bytes], *, most: int) -> None:
        """Record the digests of vendor ids that a caller has received. Redis keeps at most ``most`` per caller; the
        oldest are removed.
        """
        keys = self._key("issued", caller), self._own[0]
        await self.link.call(keys, "issue", self._ttl_ms, most, self._heartbeat_ms, *digests, is_urgent=True)

    async def issued(self, caller: str, digests: Sequence[bytes]) -> list[bool]:
        """Return for each digest whether the caller has received the vendor id with this digest, from any replica."""
        answer = await self.link.call((self._key("issued", caller),), "issued", *digests)
        if len(answer) != len(digests):
            raise _unreadable()
        return [each == b"1" for each in answer]

    async def _order(self, response_id: str, caller: str, order: ReplicaOrder) -> bool:
        orders = self._key("orders", "")
        return await self.link.call(self._row(response_id), "order", caller, order.value, response_id, orders) == [
            b"ok"
        ]


def batches(changes: Sequence[T], size_of: Callable[[T], int]) -> list[list[T]]:
    """Split the changes into batches, each for one call of `SharedResponses.put`."""
    found: list[list[T]] = []
    size = 0
    for each in changes:
        if not found or size + size_of(each) > BATCH_BYTES or len(found[-1]) >= BATCH_CHANGES:
            found.append([])
            size = 0
        found[-1].append(each)
        size += size_of(each)
    return found


def _result(answer: bytes) -> PutResult:
    return PutResult("at", int(answer)) if answer.isdigit() else PutResult(answer.decode("ascii", "replace"))


def _state(answer: bytes) -> ResponseState:
    if answer == b"?":
        raise RedisAwayError(RedisProblem("lost", "Redis has just lost responses; replicas may still write them again"))
    try:
        return ResponseState(answer.decode())
    except ValueError:
        raise _unreadable() from None


def _unreadable() -> RedisAwayError:
    return RedisAwayError(RedisProblem("answer", "Redis's reply to responses.lua is invalid"))
