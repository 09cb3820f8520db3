"""A streamed response, for a program that embeds the runtime."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

from llm_actors.run import Follower, Run
from llm_protocol.errors import error_for
from llm_protocol.events import Event, Failed, TextDelta, merged
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.response import LLMResponse

if TYPE_CHECKING:
    from llm_runtime.typed import ResponseType


def wanted(response_type: ResponseType[Any] | None) -> ResponseType[Any]:
    """Return the requested type. Raises `TypeError` if none was requested."""
    if response_type is None:
        raise TypeError("a typed stream needs a type: rt.stream(…, response_type=T)")
    return response_type


def outcome(run: Run) -> LLMResponse:
    """Return the response of a run that has ended. Raises its `LLMClientError`, with the partial response."""
    end = run.log.end
    assert end is not None, "the run has not ended"
    if isinstance(end, Failed):
        raise error_for(end.failure, end.response)
    assert end.response is not None, "the end of a run must have a response"
    return end.response


def part_of(response: LLMResponse, *, is_left: bool) -> LLMResponse:
    """Return the received part of a response. Raises `RequestCancelledError` if nothing was received and the block
    was left.
    """
    if is_left and not response.output:
        message = "the stream was left before anything of the response arrived: iterate it inside the block"
        raise error_for(Failure(kind=FailureKind.CANCELLED, message=message), response)
    return response


@final
class ResponseStream:
    """One streamed response: enter it to send the request, iterate for events, leave it to end the request.

        async with rt.stream("Tell me a story") as stream:
            async for text in stream.text():
                print(text, end="")
        print(stream.response.usage)

    Entering waits until the request is accepted, and raises `LLMClientError` if it is not. Iterating waits for the next
    event, within the request's deadline, and raises `LLMClientError` with the partial response if the response fails:
    the iteration ends normally only for a complete response. Leaving early cancels the request, including the vendor's
    connection.
    """

    def __init__(self, submit: Callable[[], Awaitable[Run]]) -> None:
        self._submit = submit
        self._run: Run | None = None
        self._follower: Follower | None = None
        self._waiting: deque[Event] = deque()
        self._is_left = False
        self.response_type: ResponseType[Any] | None = None
        """The type of the response's value, if one was requested."""

    async def __aenter__(self) -> ResponseStream:
        self._run = await self._submit()
        self._follower = self._run.follow()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._follower is not None:
            self._follower.close()
        self._is_left = True

    @property
    def request_id(self) -> str:
        """The request's id."""
        return self._entered().request.request_id

    @property
    def response(self) -> LLMResponse:
        """The complete response once the iteration is over; before that, the part received until now. Raises
        `LLMClientError` if the response failed, and if the block was left before any of it arrived.
        """
        run = self._entered()
        if run.log.end is not None:
            return outcome(run)
        return part_of(run.folded(), is_left=self._is_left)

    def cancel(self) -> None:
        """End the response now; the iteration then raises `RequestCancelledError` with the partial response."""
        self._entered().cancel("cancelled by the caller")

    # Hand-written iterators instead of async generators: leaving a loop with `break` leaves nothing to be finalized.

    def __aiter__(self) -> ResponseStream:
        return self

    async def __anext__(self) -> Event:
        if not self._waiting:
            self._entered()
            assert self._follower is not None
            self._waiting.extend(event for event, _ in merged(await self._follower.next()))
        if not self._waiting:
            outcome(self._entered())
            raise StopAsyncIteration
        event = self._waiting.popleft()
        if isinstance(event, Failed):
            raise error_for(event.failure, event.response)
        return event

    def text(self) -> AsyncIterator[str]:
        """Iterate over the text alone, piece by piece as it arrives."""
        return TextPieces(self)

    def partials(self) -> AsyncIterator[Any]:
        """Iterate over the value while it arrives, as dicts, lists and strings: once for each change. Needs
        ``response_type``.
        """
        return Partials(self.text(), wanted(self.response_type).partial)

    @property
    def parsed(self) -> Any:
        """The value of the complete response, of type ``response_type``. Raises `ResponseTypeError`."""
        return wanted(self.response_type).parse(self.response).parsed

    def _entered(self) -> Run:
        if self._run is None:
            raise RuntimeError("this stream has not begun; use `async with rt.stream(...) as stream:`")
        return self._run


@final
class TextPieces:
    """Iterates over the text in a stream of events."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events

    def __aiter__(self) -> TextPieces:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await self._events.__anext__()
            if isinstance(event, TextDelta):
                return event.text


@final
class Partials:
    """Iterates over the value of a typed response while it arrives. Yields the part received until now, each time that
    part has changed.
    """

    def __init__(self, pieces: AsyncIterator[str], partial: Callable[[str], Any]) -> None:
        self._pieces = pieces
        self._partial = partial
        self._text = ""
        self._last: Any = None

    def __aiter__(self) -> Partials:
        return self

    async def __anext__(self) -> Any:
        while True:
            self._text += await self._pieces.__anext__()
            value = self._partial(self._text)
            if value != self._last:
                self._last = value
                return value
