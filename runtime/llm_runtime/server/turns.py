"""One turn on a lane of a WebSocket: what was asked, and the response on its way."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import final

from llm_protocol.dialect import Frame, ResponseEncoder
from llm_protocol.events import Failed
from llm_protocol.failures import FailureKind
from llm_protocol.response import new_response_id
from llm_protocol.wires.responses import Create
from llm_runtime.server.client_events import ClientEventHead, Resume
from llm_runtime.server.response_store import StoredResponse
from llm_runtime.server.state import ServerState
from llm_runtime.server.stored import RESPONSES


@final
class Asked:
    """A request on a lane, from its admission to its end. ``size`` is its frame's, ``since`` when it was admitted.
    ``response_id`` is that of the response, from the beginning on.
    """

    def __init__(self, head: ClientEventHead, work: Create | Resume, size: int, since: float) -> None:
        self.response_id = work.response_id if isinstance(work, Resume) else new_response_id()
        self.head = head
        self.work = work
        self.size = size
        self.since = since
        self._kept: StoredResponse | None = None
        self._cancelled = False

    def begun(self, kept: StoredResponse) -> None:
        """Its response is being made."""
        self._kept = kept
        if self._cancelled:
            self.cancel()

    def cancel(self) -> None:
        """Stop it, as soon as it has begun."""
        self._cancelled = True
        if self._kept is not None:
            self._kept.run.cancel("the client cancelled the response")


@final
class QueueDeadlines:
    """The deadlines of the requests that wait on lanes."""

    def __init__(self) -> None:
        self._deadlines: dict[Asked, float] = {}
        self._next = inf

    def add(self, asked: Asked, deadline: float) -> None:
        """It waits on its lane until ``deadline``, on Trio's clock, at most."""
        self._deadlines[asked] = deadline
        self._next = min(self._next, deadline)

    def discard(self, asked: Asked) -> None:
        """It waits no longer, if it did."""
        if self._deadlines.pop(asked, None) == self._next:
            self._next = min(self._deadlines.values(), default=inf)

    def next(self) -> float:
        """The first of the deadlines; infinity where nothing waits."""
        return self._next

    def take_due(self, now: float) -> list[Asked]:
        """Those whose time is up; they wait no longer."""
        due = [asked for asked, deadline in self._deadlines.items() if deadline <= now] if self._next <= now else []
        for asked in due:
            self.discard(asked)
        return due


@final
class Streaming:
    """A response on its way. ``note_ready`` is called, once until the next `next_frames`, when there is more."""

    def __init__(
        self,
        asked: Asked,
        kept: StoredResponse,
        encoder: ResponseEncoder,
        service: ServerState,
        note_ready: Callable[[Streaming], None],
    ) -> None:
        self.asked = asked
        self.kept = kept
        self.answer = service.answering(kept.run, self.wake)
        self._encoder = encoder
        self._note_ready = note_ready
        self._noted = False
        self._begun = False

    def wake(self) -> None:
        """There is more to say."""
        if not self._noted:
            self._noted = True
            self._note_ready(self)

    def next_frames(self) -> list[Frame]:
        """What there is to say now."""
        self._noted = False
        frames: list[Frame] = []
        if not self._begun:
            self._begun = True
            frames = self._encoder.start()
        if events := self.answer.take():
            error = self._final_error()
            frames += self._encoder.encode(events) if error is None else [error]
        return frames

    def _final_error(self) -> Frame | None:
        """An ``error`` instead of ``response.failed``, where nothing was answered and asking again cannot help: Codex
        takes the latter for a broken connection, whatever its code, and asks five times more.
        """
        end, head = self.answer.end, self.asked.head
        if not isinstance(end, Failed) or self.answer.begun or not isinstance(self.asked.work, Create):
            return None
        failure, options = end.failure, self.kept.options
        if failure.client_retry or failure.partial or options.background or failure.kind is FailureKind.CANCELLED:
            return None
        return Frame(None, RESPONSES.error_event(failure, stream_id=head.stream_id, event_id=head.event_id))
