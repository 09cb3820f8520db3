"""One turn on a lane of a WebSocket: a request and its response."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import final

from llm_protocol.dialect import Frame, ResponseEncoder
from llm_protocol.events import Failed
from llm_protocol.failures import FailureKind
from llm_protocol.native import NativeRequest
from llm_protocol.requests import new_response_id
from llm_protocol.wires.responses import Create
from llm_runtime.server.client_events import ClientEventHead, Resume
from llm_runtime.server.response_store import StoredResponse
from llm_runtime.server.state import ServerState
from llm_runtime.server.stored import RESPONSES


@final
class LaneTurn:
    """A request on a lane, from its admission to its end. ``size`` is the size of its frame in bytes, ``since`` the
    time of its admission (Trio's clock). ``response_id`` is fixed from the start; if the client gave none, ``new_id``
    makes one.
    """

    def __init__(
        self,
        head: ClientEventHead,
        work: Create | NativeRequest | Resume,
        size: int,
        since: float,
        new_id: Callable[[], str] = new_response_id,
    ) -> None:
        self.response_id = new_id() if isinstance(work, Create) else work.response_id
        self.head = head
        self.work = work
        self.size = size
        self.since = since
        self._stored: StoredResponse | None = None
        self._cancelled = False

    def begun(self, stored: StoredResponse) -> None:
        """Record that the response of the request is running."""
        self._stored = stored
        if self._cancelled:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the response as soon as it has begun."""
        self._cancelled = True
        if self._stored is not None:
            self._stored.run.cancel("the client cancelled the response")


@final
class QueueDeadlines:
    """The deadlines of the requests that wait on lanes."""

    def __init__(self) -> None:
        self._deadlines: dict[LaneTurn, float] = {}
        self._next = inf

    def add(self, turn: LaneTurn, deadline: float) -> None:
        """Add a request that waits on its lane until ``deadline`` (Trio's clock) at most."""
        self._deadlines[turn] = deadline
        self._next = min(self._next, deadline)

    def discard(self, turn: LaneTurn) -> None:
        """Remove a request, if it waits."""
        if self._deadlines.pop(turn, None) == self._next:
            self._next = min(self._deadlines.values(), default=inf)

    def next(self) -> float:
        """The earliest deadline; infinity if nothing waits."""
        return self._next

    def take_due(self, now: float) -> list[LaneTurn]:
        """Remove and return the requests whose deadline has passed."""
        due = [turn for turn, deadline in self._deadlines.items() if deadline <= now] if self._next <= now else []
        for turn in due:
            self.discard(turn)
        return due


@final
class Streaming:
    """A response in progress. ``note_ready`` is called when there are new frames, once until the next `next_frames`."""

    def __init__(
        self,
        turn: LaneTurn,
        stored: StoredResponse,
        encoder: ResponseEncoder,
        server_state: ServerState,
        note_ready: Callable[[Streaming], None],
    ) -> None:
        self.turn = turn
        self.stored = stored
        self.subscription = server_state.subscribe(stored.run, self.wake)
        self._encoder = encoder
        self._note_ready = note_ready
        self._noted = False
        self._begun = False

    def wake(self) -> None:
        """Record that there are new events."""
        if not self._noted:
            self._noted = True
            self._note_ready(self)

    def next_frames(self) -> list[Frame]:
        """The frames to send now."""
        self._noted = False
        frames: list[Frame] = []
        if self.subscription.is_held:
            return frames
        if not self._begun:
            self._begun = True
            frames = self._encoder.start()
        if events := self.subscription.take():
            error = self._final_error()
            frames += self._encoder.encode(events) if error is None else [error]
        return frames

    def _final_error(self) -> Frame | None:
        """Return an ``error`` frame in place of ``response.failed``, if nothing was sent before and a retry cannot
        help. Codex treats any ``response.failed`` as a broken connection, and retries five times.
        """
        end, head = self.subscription.end, self.turn.head
        if not isinstance(end, Failed) or self.subscription.begun or not isinstance(self.turn.work, Create):
            return None
        failure, options = end.failure, self.stored.options
        if failure.client_retry or failure.partial or options.background or failure.kind is FailureKind.CANCELLED:
            return None
        return Frame(None, RESPONSES.error_event(failure, stream_id=head.stream_id, event_id=head.event_id))
