"""The order of requests on a WebSocket: sequential on one lane, concurrent across lanes. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar, final

from llm_runtime.config import ServerLimits
from llm_runtime.server.http_error import HttpError

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
