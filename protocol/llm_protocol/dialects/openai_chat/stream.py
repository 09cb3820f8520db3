"""The decoder of a streamed answer, chat or legacy completion: SSE into chunks into events."""

from __future__ import annotations

from typing import final

from llm_protocol.dialects.openai_chat.answer import Answer
from llm_protocol.dialects.openai_chat.errors import error_in, failure_of
from llm_protocol.dialects.openai_chat.shapes import read_chunk
from llm_protocol.events import Event
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.sse import ServerSentEvent, SseDecoder, SseOverflowError
from llm_protocol.wire import WireError, decode_object


@final
class ChatStream:
    """A `StreamDecoder`. A server that answers with one JSON body all the same is understood at its end."""

    def __init__(self, request_id: str, dialect: str) -> None:
        self._sse = SseDecoder()
        self._answer = Answer(request_id, dialect)

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes."""
        out: list[Event] = []
        answer = self._answer
        if answer.over:
            return out
        try:
            self._take_all(self._sse.feed(data), out)
        except SseOverflowError as exc:
            answer.fail(Failure(kind=FailureKind.PROTOCOL, message=f"the stream is not understood: {exc}"), out)
        return out

    def _take_all(self, events: list[ServerSentEvent], out: list[Event]) -> None:
        try:
            for event in events:
                self._take(event.data, out)
                if self._answer.over:
                    break
        except WireError as exc:
            self._answer.fail(Failure(kind=FailureKind.PROTOCOL, message=f"a chunk is not understood: {exc}"), out)

    def _take(self, text: str, out: list[Event]) -> None:
        if text.startswith("[DONE]"):
            self._answer.finish(out)
            return
        chunk = read_chunk(text)
        if chunk.error or (chunk.choices is None and error_in(decode_object(text))):
            self._answer.fail(failure_of(decode_object(text)), out)
        else:
            self._answer.add(chunk, out)

    def end(self) -> list[Event]:
        """The body has ended."""
        out: list[Event] = []
        answer = self._answer
        if answer.over:
            return out
        self._take_all(self._sse.end(), out)
        if answer.over:
            return out
        stray = self._sse.stray.strip()
        if stray and not answer.finishing:
            answer.add_whole(stray, out)  # JSON where a stream was promised: an error, or an answer all the same
        else:
            answer.finish(out)
        return out
