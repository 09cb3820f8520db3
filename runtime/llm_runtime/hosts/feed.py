"""One streamed response on its way to another thread, in a bounded number of batches.

`Feed` is the end in the Trio thread, `Received` the end in the host's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias, final

import trio

from llm_protocol.errors import ShuttingDownError, error_for
from llm_protocol.events import Event, Failed, Finished
from llm_protocol.fold import Fold
from llm_protocol.requests import AnyRequest
from llm_protocol.response import LLMResponse
from llm_runtime.stream import ResponseStream
from llm_runtime.trio_requests import TrioRequests

BATCHES_AHEAD: Final = 8
"""The most batches that the host has not taken yet. Further events wait in the run's log, where deltas are joined."""

BATCHES_TOLD: Final = BATCHES_AHEAD // 2
"""The host reports to the feed each time it has taken this many batches."""

Deliver: TypeAlias = Callable[[Sequence[Event]], object]


@final
class Feed:
    """The Trio side of a stream. ``accepted`` and ``deliver`` are called in the Trio thread."""

    __slots__ = ("_accepted", "_ahead", "_deliver", "_request", "_room", "_stream")

    def __init__(self, request: AnyRequest, accepted: Callable[[], object], deliver: Deliver) -> None:
        self._request = request
        self._accepted = accepted
        self._deliver = deliver
        self._ahead = 0
        self._room = trio.Event()
        self._stream: ResponseStream | None = None

    async def run(self, runtime: TrioRequests) -> None:
        """Deliver events until the last one. Raises `LLMClientError` if the request is not accepted."""
        async with runtime.stream_request(self._request) as stream:
            self._stream = stream
            self._accepted()
            try:
                while batch := await stream.next_batch():
                    self._ahead += 1
                    self._deliver(batch)
                    while self._ahead >= BATCHES_AHEAD:
                        self._room = trio.Event()
                        await self._room.wait()
            except trio.Cancelled:
                # The runtime has stopped. What ended in its drain can still be read.
                if rest := stream.take_rest():
                    self._deliver(rest)
                raise

    def take(self, count: int) -> None:
        """Record that the host has taken this many batches."""
        self._ahead -= count
        self._room.set()

    def cancel(self) -> None:
        """Cancel the response; the stream then fails as cancelled, with the part received so far."""
        if self._stream is not None:
            self._stream.cancel()


@final
class Received:
    """The events that have arrived, and the response so far."""

    __slots__ = ("_batches", "_end", "_fold", "_request", "_take", "_taken", "_waiting")

    def __init__(self, request: AnyRequest, take: Callable[[int], None]) -> None:
        """``take`` reports to the feed how many batches were taken since the last report."""
        self._request = request
        self._take = take
        self._taken = 0
        self._batches: deque[Sequence[Event]] = deque()
        self._waiting: deque[Event] = deque()
        self._fold = Fold()
        self._end: Finished | Failed | None = None

    def add(self, batch: Sequence[Event]) -> None:
        """Add a batch."""
        self._batches.append(batch)

    def next(self) -> Event | None:
        """Return the next event, if it has arrived; else ``None``. Raises the `LLMClientError` of a failed response."""
        if not self._waiting and self._batches:
            self._waiting.extend(self._batches.popleft())
            self._taken += 1
            if self._taken == BATCHES_TOLD:
                self._taken = 0
                with suppress(ShuttingDownError):  # no more events follow, but those received are still available
                    self._take(BATCHES_TOLD)
        if not self._waiting:
            return None
        event = self._waiting.popleft()
        self._fold.add(event)
        if isinstance(event, Finished | Failed):
            self._end = event
        if isinstance(event, Failed):
            raise error_for(event.failure, event.response)
        return event

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
        started = self._fold.started
        return self._fold.response(
            request_id=self._request.request_id, response_id="", provider=started.provider, model=self._request.model
        )
