"""Calls and streams for a thread that waits for a runtime in another thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, TypeAlias, final

from llm_protocol.events import Event, TextDelta
from llm_protocol.requests import AnyRequest
from llm_runtime.hosts.portal import Portal
from llm_runtime.hosts.stream import HostStream
from llm_runtime.stream import wanted

CANCEL_SECONDS: Final = 1.0
"""The most seconds that an interrupted call waits for its end in the other thread."""


class Ended:
    """The result or the error of a call, as passed to the thread that waits for it."""

    def __init__(self, result: Any, error: BaseException | None) -> None:
        self.result = result
        self.error = error


Box: TypeAlias = "SimpleQueue[Ended | Callable[[], object]]"
"""The queue of a thread that waits for a call. It receives functions that the thread runs meanwhile, then the end of
the call.
"""


@final
class ThreadCall:
    """One call into the runtime's thread. The calling thread waits for its end."""

    def __init__(self, portal: Portal[Any], box: Box, fn: Callable[[Any], Awaitable[Any]]) -> None:
        self._portal = portal
        self._box = box
        self._scope = portal.submit(fn, lambda result, error: box.put(Ended(result, error)))
        self.end: Ended | None = None

    def wait(self) -> None:
        """Run one waiting function, or take the end of the call. An interruption (Ctrl-C) cancels the call."""
        try:
            self._take(self._box.get())
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Cancel the call. Returns when it has ended, at the latest after `CANCEL_SECONDS`."""
        if self.end is None:
            self._portal.cancel(self._scope)
        with suppress(Empty):
            while self.end is None:
                self._take(self._box.get(timeout=CANCEL_SECONDS))

    def _take(self, thing: Ended | Callable[[], object]) -> None:
        if isinstance(thing, Ended):
            self.end = thing
        else:
            thing()

    def result(self) -> Any:
        """Wait for the end, and return the result or raise the exception."""
        while self.end is None:
            self.wait()
        if self.end.error is not None:
            raise self.end.error
        return self.end.result


@final
class SyncStream(HostStream):
    """One streamed response: `llm_runtime.ResponseStream` for threads.

    with rt.stream("Tell me a story") as stream:
        for text in stream.text():
            print(text, end="")
    print(stream.response.usage)
    """

    def __init__(self, portal: Portal[Any], request: AnyRequest) -> None:
        box: Box = SimpleQueue()
        super().__init__(portal, request, box.put, lambda: None)  # the reader of the box needs no wake-up
        self._box = box
        self._call: ThreadCall | None = None

    def __enter__(self) -> SyncStream:
        self._call = call = ThreadCall(self._portal, self._box, self._feed.run)
        while not self._received.is_accepted and call.end is None:
            call.wait()
        if not self._received.is_accepted:
            call.result()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._is_left = True
        self._entered().cancel()

    def __iter__(self) -> SyncStream:
        return self

    def __next__(self) -> Event:
        call = self._entered()
        while True:
            if (event := self._received.next(self._resume)) is not None:
                return event
            if self._received.has_ended:
                raise StopIteration
            if call.end is not None and call.end.error is not None:
                raise call.end.error
            call.wait()

    def text(self) -> Iterator[str]:
        """Iterate over the text alone, piece by piece as it arrives."""
        return (event.text for event in self if isinstance(event, TextDelta))

    def partials(self) -> Iterator[Any]:
        """See `llm_runtime.ResponseStream.partials`."""
        partial, text, last = wanted(self.response_type).partial, "", None
        for piece in self.text():
            text += piece
            value = partial(text)
            if value != last:
                last = value
                yield value

    def _entered(self) -> ThreadCall:
        if self._call is None:
            raise RuntimeError("this stream has not begun; use `with rt.stream(...) as stream:`")
        return self._call
