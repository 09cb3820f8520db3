"""One streamed response on its way to another thread, in a bounded number of batches.

`Feed` is the end in the Trio thread, `Received` the end in the host's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, final

from llm_actors.run import Follower, Run
from llm_protocol.errors import ShuttingDownError, error_for
from llm_protocol.events import TERMINAL, Event, Failed, Finished, merged
from llm_protocol.fold import Fold
from llm_protocol.requests import AnyRequest
from llm_protocol.response import LLMResponse
from llm_runtime.hosts.actions import Action, TurnEnd
from llm_runtime.trio_requests import TrioRequests

BATCHES_AHEAD: Final = 8
"""The most batches that the host has not taken yet. Further events wait in the run's log, where deltas are joined. The
last batch is sent regardless.
"""

BATCHES_LEFT: Final = BATCHES_AHEAD // 2
"""A feed that waits for the host goes on when this many batches are left."""


@final
class Feed:
    """The Trio side of a stream. It takes the new events from the run's log at the end of a turn of the scheduler: all
    events of the turn are one batch, and no task has to run for them.
    """

    __slots__ = ("_follower", "_is_due", "_post", "_received", "_request", "_run", "_turn_end", "_wake")

    def __init__(
        self,
        request: AnyRequest,
        received: Received,
        turn_end: TurnEnd,
        post: Callable[[Action], object],
        wake: Action,
    ) -> None:
        """``post(wake)`` is called in the Trio thread when the request is accepted, and for each batch except the last:
        then the call of `run` ends, which wakes the host.
        """
        self._request = request
        self._received = received
        self._turn_end = turn_end
        self._post = post
        self._wake = wake
        self._is_due = False
        self._run: Run | None = None
        self._follower: Follower | None = None

    async def run(self, runtime: TrioRequests) -> None:
        """Feed until the last event. Raises `LLMClientError` if the request is not accepted."""
        self._run = run = await runtime.submit_stream(self._request)
        with run.follow(wake=self._grew) as self._follower:
            self._received.is_accepted = True
            self._post(self._wake)
            if len(run.log):
                self._grew()
            try:
                await run.log.wait_ended()
            finally:  # also if the runtime has stopped: what ended in its drain can still be read
                self._add_new(self._follower)

    def _grew(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._turn_end.call(self.go_on)

    def go_on(self) -> None:
        """Send the new events, if there is room. Called in the Trio thread."""
        self._is_due = False
        # `run` sends the last events: the host is woken once for them and for the end of the call.
        if self._run is not None and self._run.log.end is None and self._received.has_room():
            assert self._follower is not None
            if self._add_new(self._follower):
                self._post(self._wake)

    def _add_new(self, follower: Follower) -> bool:
        """Add the new events to those received; return whether there are any."""
        if batch := [event for event, _ in merged(follower.take())]:
            self._received.add(batch)
        return bool(batch)

    def cancel(self) -> None:
        """Cancel the response; the stream then fails as cancelled, with the part received so far."""
        if self._run is not None:
            self._run.cancel("cancelled by the caller")


@final
class Received:
    """The events that have arrived, and the response that they form. The Trio thread calls `add` and `has_room`."""

    __slots__ = ("_batch", "_batches", "_end", "_fold", "_is_full", "_request", "_unfolded", "is_accepted")

    def __init__(self, request: AnyRequest) -> None:
        self._request = request
        self.is_accepted = False
        """Whether the request was accepted. The feed sets this."""
        self._is_full = False
        self._batches: deque[Sequence[Event]] = deque()
        self._batch: Iterator[Event] = iter(())
        self._unfolded: list[Event] = []
        self._fold: Fold | None = None
        self._end: Finished | Failed | None = None

    def add(self, batch: Sequence[Event]) -> None:
        """Add a batch of at least one event."""
        self._batches.append(batch)

    def has_room(self) -> bool:
        """Whether there is room for another batch. If there is not, `next` calls its ``resume`` later."""
        if len(self._batches) < BATCHES_AHEAD:
            return True
        self._is_full = True  # set before the second look: the host may take batches at this moment
        if len(self._batches) > BATCHES_LEFT:
            return False
        self._is_full = False
        return True

    def next(self, resume: Callable[[], object]) -> Event | None:
        """Return the next event, if it has arrived; else ``None``. Raises the `LLMClientError` of a failed response.

        ``resume`` makes the feed go on. It is called if the feed has found no room, and there is room now.
        """
        event = next(self._batch, None)
        if event is None:
            if not self._batches:
                return None
            event = self._first_of_next(resume)
        if isinstance(event, TERMINAL):
            self._end = event
            self._unfolded.clear()
            if isinstance(event, Failed):
                raise error_for(event.failure, event.response)
        else:
            self._unfolded.append(event)
        return event

    def _first_of_next(self, resume: Callable[[], object]) -> Event:
        self._batch = iter(self._batches.popleft())
        if self._is_full and len(self._batches) <= BATCHES_LEFT:
            self._is_full = False
            with suppress(ShuttingDownError):  # no more events follow, but those received are still available
                resume()
        return next(self._batch)

    @property
    def has_ended(self) -> bool:
        """Whether the last event was taken."""
        return self._end is not None

    @property
    def response(self) -> LLMResponse:
        """The complete response after its last event; before that, the part received so far. Raises as `next` does."""
        end = self._end
        if isinstance(end, Failed):
            raise error_for(end.failure, end.response)
        if end is not None and end.response is not None:
            return end.response
        fold = self._fold = (self._fold or Fold()).add_all(self._unfolded)
        self._unfolded.clear()
        started = fold.started
        return fold.response(
            request_id=self._request.request_id, response_id="", provider=started.provider, model=self._request.model
        )
