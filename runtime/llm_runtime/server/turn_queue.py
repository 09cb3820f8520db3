"""The requests of one WebSocket, from their admission to the end of their turn.

Each request has a place on a lane, its bytes in the budgets, and an id. Requests are sequential on one lane, and
concurrent across lanes. The client is told if a request is queued. Until its turn, the request can be retrieved from
the response store, and any connection of its caller can withdraw it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Generic, TypeVar, final

from llm_protocol.dialect import ClientRequest
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.native import NativeRequest, encode_refused
from llm_protocol.wires.responses import Create
from llm_runtime.config import ServerLimits
from llm_runtime.server.bodies import HeldBodies, admitted
from llm_runtime.server.client_events import Cancel, Resume
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.native import OPTIONS
from llm_runtime.server.response_store import WaitingResponse
from llm_runtime.server.state import ServerState
from llm_runtime.server.stored import RESPONSES
from llm_runtime.server.turns import LaneTurn, QueueDeadlines

T = TypeVar("T")


@dataclass(slots=True)
class _Lane(Generic[T]):
    active: T | None = None
    queue: list[T] = field(default_factory=list)  # short, so that a deque would only use more memory


@final
class Lanes(Generic[T]):
    """Queues of ``T`` by lane name; ``None`` is the default lane. ``size_of`` returns the size of an item in bytes."""

    def __init__(self, limits: ServerLimits, size_of: Callable[[T], int] = lambda _: 0) -> None:
        self._limits = limits
        self._size_of = size_of
        self._lanes: dict[str | None, _Lane[T]] = {None: _Lane()}
        self._waiting: list[_Lane[T]] = []  # lanes with something to start, the longest waiting first
        self._active = 0
        self._queued = 0
        self._queued_bytes = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is active or queued."""
        return self._active == 0 and not self._waiting

    def admit(self, name: str | None, item: T) -> None:
        """Queue an item on a lane. Raises `HttpError` if a limit of the connection is reached."""
        lane = self._lanes.get(name)
        if lane is None:
            if len(self._lanes) > self._limits.websocket_lanes:
                most = self._limits.websocket_lanes
                message = f"A connection has at most {most} named lanes; use one of them, or another connection."
                raise HttpError(400, "websocket_stream_limit_reached", message, param="stream_id", is_limit=True)
            lane = self._lanes[name] = _Lane()
        if len(lane.queue) >= self._limits.websocket_queue:
            message = f"{self._limits.websocket_queue} requests are already waiting on this lane."
            headers = (("retry-after", "1"),)
            raise HttpError(429, "queue_full", message, kind="rate_limit_error", headers=headers, is_limit=True)
        if self._queued and self._queued_bytes + self._size_of(item) > self._limits.websocket_queue_bytes:
            message = f"The requests waiting on this connection exceed {self._limits.websocket_queue_mb:g} MB."
            headers = (("retry-after", "1"),)
            raise HttpError(429, "queue_full", message, kind="rate_limit_error", headers=headers, is_limit=True)
        self._queue(item, 1)
        lane.queue.append(item)
        if lane.active is None and len(lane.queue) == 1:
            self._waiting.append(lane)

    def start(self) -> list[T]:
        """Activate the items that may run now, and return them."""
        started: list[T] = []
        while self._waiting and self._active < self._limits.websocket_responses:
            lane = self._waiting.pop(0)
            lane.active = lane.queue.pop(0)
            self._queue(lane.active, -1)
            self._active += 1
            started.append(lane.active)
        return started

    def end(self, name: str | None) -> None:
        """Mark the active item of a lane as done."""
        lane = self._lanes[name]
        assert lane.active is not None, "nothing was active on the lane"
        lane.active = None
        self._active -= 1
        if lane.queue:
            self._waiting.append(lane)

    def drop(self, name: str | None, item: T) -> None:
        """Drop an item that is queued on a lane."""
        lane = self._lanes[name]
        lane.queue.remove(item)
        self._queue(item, -1)
        if lane.active is None and not lane.queue:
            self._waiting.remove(lane)

    def active(self, name: str | None) -> T | None:
        """The active item of a lane; ``None`` if there is none."""
        lane = self._lanes.get(name)
        return lane.active if lane else None

    def first(self, name: str | None) -> T | None:
        """The active item of a lane, else the next one queued; ``None`` if there is neither."""
        lane = self._lanes.get(name)
        if lane is None:
            return None
        return lane.active or (lane.queue[0] if lane.queue else None)

    def is_queued(self, name: str | None, item: T) -> bool:
        """Whether an item is still queued on a lane."""
        lane = self._lanes.get(name)
        return lane is not None and item in lane.queue

    def clear(self) -> list[T]:
        """Drop everything that is queued, and return it."""
        given_up = [item for lane in self._lanes.values() for item in lane.queue]
        for lane in self._lanes.values():
            lane.queue.clear()
        self._waiting.clear()
        self._queued = self._queued_bytes = 0
        return given_up

    def _queue(self, item: T, count: int) -> None:
        self._queued += count
        self._queued_bytes += count * self._size_of(item)


def encode_failed(turn: LaneTurn, failure: Failure) -> bytes:
    """Return the frame for a request that was refused or withdrawn."""
    head = turn.head
    if isinstance(turn.work, NativeRequest):
        return encode_refused(failure, head.event_id)
    return RESPONSES.error_event(failure, stream_id=head.stream_id, event_id=head.event_id)


def _send_nothing(_: bytes) -> None:
    pass


@final
class TurnQueue:
    """The order of requests. ``send`` sends a frame to the client."""

    def __init__(self, server_state: ServerState, caller: str, send: Callable[[bytes], None]) -> None:
        self._server_state = server_state
        self._caller = caller
        self._send = send
        self._lanes: Lanes[LaneTurn] = Lanes(server_state.config, lambda turn: turn.size)
        self._bodies = HeldBodies(server_state.bodies)
        self._deadlines = QueueDeadlines()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is active or waiting."""
        return self._lanes.idle

    def admit(self, turn: LaneTurn) -> list[LaneTurn]:
        """Admit a request, and return the requests whose turn it is now. The client is notified of those that wait.
        Raises `HttpError` if a limit is reached.
        """
        self._bodies.hold(turn.size)
        try:
            self._lanes.admit(turn.head.stream_id, turn)
        except HttpError:
            self._bodies.release(turn.size)
            raise
        started = self.start()
        if turn not in started:
            self._wait(turn)
        return started

    def start(self) -> list[LaneTurn]:
        """Return the requests whose turn it is now. Call `begun` and `end` for each of them."""
        started = self._lanes.start()
        for turn in started:
            self._deadlines.discard(turn)
        return started

    def begun(self, turn: LaneTurn) -> None:
        """Record that the response of the request is running, or that the request was refused. The request no longer
        counts as waiting.
        """
        self._stop_waiting(turn)

    def end(self, turn: LaneTurn) -> list[LaneTurn]:
        """Record that the turn of a request has ended, and return the requests whose turn it is now."""
        self._bodies.release(turn.size)
        self._lanes.end(turn.head.stream_id)
        return self.start()

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self, turn: LaneTurn) -> None:
        if isinstance(turn.work, NativeRequest):
            inbound = turn.work.inbound
            self._deadlines.add(turn, turn.since + self._server_state.engine.deadline_s(inbound.request))
            self._server_state.response_store.wait(
                WaitingResponse(turn.response_id, inbound, OPTIONS, lambda: self._withdraw(turn, inbound))
            )
            return
        if not isinstance(turn.work, Create):
            self._deadlines.add(turn, inf)
            return
        try:
            inbound = admitted(self._caller, turn.work.inbound)
        except LLMClientError:
            self._deadlines.add(turn, inf)  # the request is refused when its turn comes
            return
        self._deadlines.add(turn, turn.since + self._server_state.engine.deadline_s(inbound.request))
        response_id, options = turn.response_id, turn.work.options
        waiting = WaitingResponse(response_id, inbound, options, lambda: self._withdraw(turn, inbound))
        self._server_state.response_store.wait(waiting)
        self._send(RESPONSES.queued_event(inbound, response_id, options, stream_id=turn.head.stream_id))

    def _withdraw(self, turn: LaneTurn, inbound: ClientRequest) -> None:
        """Withdraw a waiting request, and send its end on its lane. If its turn has come, its run is cancelled
        instead.
        """
        assert not isinstance(turn.work, Resume), "a resumed response must not wait in the queue"
        lane = turn.head.stream_id
        if not self._lanes.is_queued(lane, turn):
            turn.cancel()
            return
        self._drop(turn)
        if isinstance(turn.work, NativeRequest):
            failure = Failure(kind=FailureKind.CANCELLED, message="the client cancelled the response")
            self._send(encode_refused(failure, turn.head.event_id))
            return
        self._send(RESPONSES.withdrawn_event(inbound, turn.response_id, turn.work.options, stream_id=lane))

    def _drop(self, turn: LaneTurn) -> None:
        self._lanes.drop(turn.head.stream_id, turn)
        self._forget(turn)

    def _forget(self, turn: LaneTurn) -> None:
        self._deadlines.discard(turn)
        self._stop_waiting(turn)
        self._bodies.release(turn.size)

    def _stop_waiting(self, turn: LaneTurn) -> None:
        if not isinstance(turn.work, Resume):  # the id belongs to another turn, which may be waiting
            self._server_state.response_store.stop_waiting(turn.response_id)

    def next_deadline(self) -> float:
        """The earliest deadline of a waiting request, on Trio's clock; infinity if none waits."""
        return self._deadlines.next()

    def expire(self, now: float) -> None:
        """Refuse the requests whose deadline has passed."""
        for turn in self._deadlines.take_due(now):
            self._drop(turn)
            message = "the request's deadline passed while it waited for earlier requests on its lane"
            failure = Failure(kind=FailureKind.DEADLINE, message=message)
            self._send(encode_failed(turn, failure))

    def clear(self) -> list[LaneTurn]:
        """Drop the waiting requests, and return them."""
        given_up = self._lanes.clear()
        for turn in given_up:
            self._forget(turn)
        return given_up

    def abandon(self) -> None:
        """Drop all requests, because the connection has ended. Nothing is sent any more."""
        self.clear()
        self._bodies.release_all()
        self._send = _send_nothing  # the function of the session forms a cycle with it

    # -- cancelling --------------------------------------------------------------------------------------------------

    def find(self, cancel: Cancel) -> tuple[str, Callable[[], None]]:
        """Return the id of the response to cancel, and a function that cancels it. ``cancel`` names a response of the
        caller by its id, or a lane: then it is the active response of the lane, else the next one queued. Raises
        `HttpError`.
        """
        response_store, response_id = self._server_state.response_store, cancel.response_id
        on_lane = self._lanes.first(cancel.stream_id) if response_id is None else None
        if on_lane is not None:
            response_id = on_lane.response_id
        if response_id is not None:
            if (waiting := response_store.find_waiting(response_id, self._caller)) is not None:
                return response_id, waiting.withdraw
            if on_lane is not None:
                return response_id, on_lane.cancel
            if (stored := response_store.find_live(response_id, self._caller)) is not None:
                return response_id, lambda: stored.run.cancel("the client cancelled the response")
        raise HttpError(
            404, "response_not_found", "No response in progress has this id or is on this lane.", param="response_id"
        )
