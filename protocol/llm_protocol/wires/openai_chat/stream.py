"""An answer, chat or legacy completion, streamed or whole: from chunks to events.

An answer is good only with a ``finish_reason``; ``[DONE]`` without one is a cut. The end is told when the body ends or
``[DONE]`` comes, because usage comes after the finish reason, in a chunk of its own or not at all.
"""

from __future__ import annotations

from typing import TypeAlias, final

from llm_protocol.codec.decoding import AnswerDecoder
from llm_protocol.codec.json import decode_object
from llm_protocol.codec.media import image_from_url
from llm_protocol.codec.sse import ServerSentEvent
from llm_protocol.content import JsonObject, Part, Reasoning, Refusal, Text
from llm_protocol.events import (
    Finished,
    ItemDone,
    ItemKind,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.response import FinishReason
from llm_protocol.text_buffer import TextBuffer
from llm_protocol.wires.openai_chat.calls import Calls
from llm_protocol.wires.openai_chat.errors import error_in, failure_of
from llm_protocol.wires.openai_chat.shapes import (
    BROKEN_REASONS,
    FINISH_REASONS,
    ChatCall,
    ChatChoice,
    ChatChunk,
    ChatDelta,
    ChatWireUsage,
    ImagePart,
    read_chunk,
    read_usage,
)

_TextDelta: TypeAlias = type[TextDelta] | type[ReasoningDelta] | type[RefusalDelta]
_KIND: dict[_TextDelta, ItemKind] = {TextDelta: "text", ReasoningDelta: "reasoning", RefusalDelta: "refusal"}


class _Speech:
    """A text of some kind that is being said."""

    __slots__ = ("delta", "index", "pieces")

    def __init__(self, index: int, delta: _TextDelta) -> None:
        self.index = index
        self.delta = delta
        self.pieces = TextBuffer()

    def part(self, dialect: str) -> Part:
        text = self.pieces.text()
        if self.delta is TextDelta:
            return Text(text)
        if self.delta is ReasoningDelta:
            return Reasoning(text=text, dialect=dialect)
        return Refusal(text)


@final
class OpenAIChatDecoder(AnswerDecoder):
    """One answer, chat or legacy completion, streamed or whole."""

    def __init__(self, request_id: str, dialect: str) -> None:
        super().__init__()
        self._dialect = dialect
        self._started = False
        self._open: _Speech | None = None
        self._calls = Calls(f"call_{request_id.removeprefix('req_')[:24]}")
        self._refused = False
        self._reason: str | None = None
        self._usage: ChatWireUsage | None = None

    def take(self, piece: ServerSentEvent) -> None:
        """Take the next event of the stream into account. Raises `WireError`."""
        text = piece.data
        if text.startswith("[DONE]"):
            self._finish()
            return
        chunk = read_chunk(text)
        if chunk.error or (chunk.choices is None and error_in(decode_object(text))):
            self.fail(failure_of(decode_object(text)))
        else:
            self._add(chunk)

    def end(self, stray: bytes) -> None:
        """The body has ended. One that was JSON where a stream was promised is an error, or an answer all the same."""
        if stray and self._reason is None:
            self.take_whole(stray)
        else:
            self._finish()

    def take_whole(self, body: bytes) -> None:
        """Take a whole answer, as one JSON body. A missing finish reason is no cut here. Raises `WireError`."""
        chunk = read_chunk(body)
        if chunk.error or not chunk.choices:
            self._take_odd(decode_object(body))
            return
        self._add(chunk)
        if self._reason is None:
            self._reason = "stop"
            self._close_all()
        self._finish()

    def _take_odd(self, body: JsonObject) -> None:
        if error_in(body):
            self.fail(failure_of(body))
        else:
            self.misread("it has no choices")

    def _add(self, chunk: ChatChunk) -> None:
        if chunk.usage is not None:
            self._usage = chunk.usage
        if not chunk.choices:
            return
        if not self._started:
            self._started = True
            self._out.append(Started(model=chunk.model or "", upstream_id=chunk.id))
        for choice in chunk.choices:
            if not choice.index and self._reason is None:
                self._choice(choice)

    def _choice(self, choice: ChatChoice) -> None:
        delta = choice.delta or choice.message
        if delta is not None:
            if delta.content and not (delta.reasoning or delta.reasoning_content):  # the common case first
                self._text(TextDelta, delta.content)
            else:
                self._speech(delta)
            if delta.tool_calls:
                for call in delta.tool_calls:
                    self._call(call)
            if delta.images:
                self._images(delta.images)
        elif choice.text:
            self._text(TextDelta, choice.text)
        if delta is not None and delta.refusal:
            self._refused = True
            self._text(RefusalDelta, delta.refusal)
        if choice.finish_reason:
            self._reason = choice.finish_reason
            self._close_all()

    def _speech(self, delta: ChatDelta) -> None:
        thought = delta.reasoning or delta.reasoning_content
        if thought:
            self._text(ReasoningDelta, thought)
        if delta.content:
            self._text(TextDelta, delta.content)

    def _text(self, delta: _TextDelta, text: str) -> None:
        speech = self._open
        if speech is None or speech.delta is not delta:
            self._close_open()
            speech = self._open = _Speech(self._begin(_KIND[delta]), delta)
        speech.pieces.append(text)
        self._out.append(delta(speech.index, text))

    def _call(self, call: ChatCall) -> None:
        made = self._calls.known(call)
        if made is None:
            self._close_open()
            made = self._calls.begin(call, self._items)
            self._begin("opaque" if made.custom else "tool_call", made.id, call.name or None)
        text = made.add(call)
        if text and not made.custom:
            self._out.append(ToolCallDelta(made.index, text))

    def _images(self, images: list[ImagePart]) -> None:
        for image in images:
            self._close_open()
            self._tell(image_from_url(image.image_url.url))

    def _close_open(self) -> None:
        if self._open is not None:
            self._out.append(ItemDone(index=self._open.index, part=self._open.part(self._dialect)))
            self._open = None

    def _close_all(self) -> None:
        self._close_open()
        willing = FINISH_REASONS.get(self._reason or "") in (FinishReason.STOP, FinishReason.TOOL_CALLS)
        # Half a call is never handed over as one.
        calls = (call for call in self._calls.made if call.name and (willing or call.whole()))
        self._out.extend(ItemDone(index=call.index, part=call.part(self._dialect)) for call in calls)

    def _finish(self) -> None:
        """No more chunks will come: the finish reason decides what that means."""
        raw = self._reason
        if raw is None:
            self.truncated("a finish_reason")
        elif raw in BROKEN_REASONS:
            message = f"the vendor broke the answer off (finish_reason {raw})"
            self.fail(Failure(kind=FailureKind.SERVER_ERROR, message=message))
        elif not all(call.name for call in self._calls.made):
            self.misread("a tool call came without a name")
        else:
            self._tell_usage()
            self._out.append(Finished(reason=self._canonical(raw), raw_reason=raw))
            self.over = True

    def _canonical(self, raw: str) -> FinishReason:
        reason = FINISH_REASONS.get(raw, FinishReason.STOP)
        if reason is FinishReason.STOP:  # said also of refusals, and of calls that the client forced
            if self._refused:
                return FinishReason.CONTENT_FILTER
            if self._calls.made:
                return FinishReason.TOOL_CALLS
        return reason

    def fail(self, failure: Failure) -> None:
        """End the answer with a failure, and with what it had cost by then."""
        self._tell_usage()
        super().fail(failure)

    def _tell_usage(self) -> None:
        if self._usage is not None:
            self._out.append(UsageReported(read_usage(self._usage)))
