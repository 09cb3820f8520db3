"""The requests of one WebSocket, from their admission to the end of their turn.

Each has a place on a lane, its bytes in the budgets, and an id. The client is told if a request is queued; until its
turn, it can be retrieved from the response store, and withdrawn from any connection of its caller.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import final

from llm_protocol.dialect import Inbound
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.native import NativeRequest, encode_refused
from llm_protocol.wires.responses import Create
from llm_runtime.server.bodies import HeldBodies
from llm_runtime.server.client_events import Cancel, Resume
from llm_runtime.server.engine import admitted
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.lanes import Lanes
from llm_runtime.server.native import OPTIONS
from llm_runtime.server.response_store import WaitingResponse
from llm_runtime.server.state import ServerState
from llm_runtime.server.stored import RESPONSES
from llm_runtime.server.turns import Asked, QueueDeadlines


def encode_failed(asked: Asked, failure: Failure) -> bytes:
    """The frame that says that a request was not answered."""
    head = asked.head
    if isinstance(asked.work, NativeRequest):
        return encode_refused(failure, head.event_id)
    return RESPONSES.error_event(failure, stream_id=head.stream_id, event_id=head.event_id)


@final
class TurnQueue:
    """The order of requests. ``say`` sends a frame to the client."""

    def __init__(self, service: ServerState, caller: str, say: Callable[[bytes], None]) -> None:
        self._service = service
        self._caller = caller
        self._say = say
        self._lanes: Lanes[Asked] = Lanes(service.config, lambda asked: asked.size)
        self._bodies = HeldBodies(service.bodies)
        self._deadlines = QueueDeadlines()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is active or waiting."""
        return self._lanes.idle

    def admit(self, asked: Asked) -> list[Asked]:
        """Admit a request. Returns the requests whose turn it is now; the client is told of those that wait. Raises
        `HttpError` if a limit is reached.
        """
        self._bodies.hold(asked.size)
        try:
            self._lanes.admit(asked.head.stream_id, asked)
        except HttpError:
            self._bodies.release(asked.size)
            raise
        started = self.start()
        if asked not in started:
            self._wait(asked)
        return started

    def start(self) -> list[Asked]:
        """The requests whose turn it is now. `begun` and `end` must follow for each."""
        started = self._lanes.start()
        for asked in started:
            self._deadlines.discard(asked)
        return started

    def begun(self, asked: Asked) -> None:
        """Its response is running, or was refused: from now on it is found among the running ones."""
        self._service.shelf.stop_waiting(asked.response_id)

    def end(self, asked: Asked) -> list[Asked]:
        """Its turn has ended. Returns the requests whose turn it is now."""
        self._bodies.release(asked.size)
        self._lanes.end(asked.head.stream_id)
        return self.start()

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self, asked: Asked) -> None:
        if isinstance(asked.work, NativeRequest):
            inbound = asked.work.inbound
            self._deadlines.add(asked, asked.since + self._service.engine.deadline_s(inbound.request))
            self._service.shelf.wait(
                WaitingResponse(asked.response_id, inbound, OPTIONS, lambda: self._withdraw(asked, inbound))
            )
            return
        if not isinstance(asked.work, Create):
            self._deadlines.add(asked, inf)
            return
        try:
            inbound = admitted(self._caller, asked.work.inbound)
        except LLMClientError:
            self._deadlines.add(asked, inf)  # it is refused when its turn comes
            return
        self._deadlines.add(asked, asked.since + self._service.engine.deadline_s(inbound.request))
        response_id, options = asked.response_id, asked.work.options
        waiting = WaitingResponse(response_id, inbound, options, lambda: self._withdraw(asked, inbound))
        self._service.shelf.wait(waiting)
        self._say(RESPONSES.queued_event(inbound, response_id, options, stream_id=asked.head.stream_id))

    def _withdraw(self, asked: Asked, inbound: Inbound) -> None:
        """Give up a request that waits. Its end is told on its lane. One whose turn has come is cancelled."""
        assert not isinstance(asked.work, Resume), "a resumed response does not wait for anything"
        lane = asked.head.stream_id
        if not self._lanes.is_queued(lane, asked):
            asked.cancel()
            return
        self._drop(asked)
        if isinstance(asked.work, NativeRequest):
            failure = Failure(kind=FailureKind.CANCELLED, message="the client cancelled the response")
            self._say(encode_refused(failure, asked.head.event_id))
            return
        self._say(RESPONSES.withdrawn_event(inbound, asked.response_id, asked.work.options, stream_id=lane))

    def _drop(self, asked: Asked) -> None:
        self._lanes.drop(asked.head.stream_id, asked)
        self._forget(asked)

    def _forget(self, asked: Asked) -> None:
        self._deadlines.discard(asked)
        self._service.shelf.stop_waiting(asked.response_id)
        self._bodies.release(asked.size)

    def next_deadline(self) -> float:
        """The deadline of the request that has waited longest, on Trio's clock."""
        return self._deadlines.next()

    def expire(self, now: float) -> None:
        """Refuse the requests whose deadline has passed."""
        for asked in self._deadlines.take_due(now):
            self._drop(asked)
            message = "the request's deadline passed while it waited for earlier requests on its lane"
            failure = Failure(kind=FailureKind.DEADLINE, message=message)
            self._say(encode_failed(asked, failure))

    def clear(self) -> list[Asked]:
        """Drop the waiting requests, and return them."""
        given_up = self._lanes.clear()
        for asked in given_up:
            self._forget(asked)
        return given_up

    def abandon(self) -> None:
        """The connection has ended."""
        self.clear()
        self._bodies.release_all()

    # -- cancelling --------------------------------------------------------------------------------------------------

    def find(self, cancel: Cancel) -> tuple[str, Callable[[], None]]:
        """The id of the response to cancel, and a function that cancels it: by its id, which may be of another
        connection of the caller, or else the active one of a lane, or the next one there. Raises `HttpError`.
        """
        shelf, response_id = self._service.shelf, cancel.response_id
        on_lane = self._lanes.first(cancel.stream_id) if response_id is None else None
        if on_lane is not None:
            response_id = on_lane.response_id
        if response_id is not None:
            if (waiting := shelf.find_waiting(response_id, self._caller)) is not None:
                return response_id, waiting.withdraw
            if on_lane is not None:
                return response_id, on_lane.cancel
            if (kept := shelf.find_live(response_id, self._caller)) is not None:
                return response_id, lambda: kept.run.cancel("the client cancelled the response")
        raise HttpError(404, "response_not_found", "No such response to cancel.", param="response_id")
