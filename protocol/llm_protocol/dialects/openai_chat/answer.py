"""From chunks to events: the state of one answer, streamed or whole.

An answer is good only with a ``finish_reason``; ``[DONE]`` without one is a cut. The end is told when the body ends or
``[DONE]`` comes, because usage comes after the finish reason, in a chunk of its own or not at all.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from llm_protocol.content import Part, Reasoning, Refusal, Text
from llm_protocol.dialects.openai_chat.calls import Calls
from llm_protocol.dialects.openai_chat.errors import error_in, failure_of
from llm_protocol.dialects.openai_chat.shapes import (
    BROKEN_REASONS,
    FINISH_REASONS,
    Call,
    Choice,
    Chunk,
    Delta,
    ImagePart,
    WireUsage,
    read_chunk,
    read_usage,
)
from llm_protocol.events import (
    Event,
    Failed,
    Finished,
    ItemDone,
    ItemKind,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.pictures import image_from_url
from llm_protocol.response import FinishReason
from llm_protocol.wire import WireError, decode_object

_TextDelta: TypeAlias = type[TextDelta] | type[ReasoningDelta] | type[RefusalDelta]
_KIND: dict[_TextDelta, ItemKind] = {TextDelta: "text", ReasoningDelta: "reasoning", RefusalDelta: "refusal"}


class _Speech:
    """A text of some kind that is being said."""

    __slots__ = ("delta", "index", "pieces")

    def __init__(self, index: int, delta: _TextDelta) -> None:
        self.index = index
        self.delta = delta
        self.pieces: list[str] = []

    def part(self, dialect: str) -> Part:
        text = "".join(self.pieces)
        if self.delta is TextDelta:
            return Text(text)
        if self.delta is ReasoningDelta:
            return Reasoning(text=text, dialect=dialect)
        return Refusal(text)


class Answer:
    """Takes chunks in, puts events out. ``over`` is true after ``Finished`` or ``Failed``."""

    def __init__(self, request_id: str, dialect: str) -> None:
        self._dialect = dialect
        self._started = False
        self._open: _Speech | None = None
        self._calls = Calls(f"call_{request_id.removeprefix('req_')[:24]}")
        self._count = 0
        self._refused = False
        self._reason: str | None = None
        self._usage: WireUsage | None = None
        self.over = False

    @property
    def finishing(self) -> bool:
        """Whether the finish reason is known."""
        return self._reason is not None

    def add(self, chunk: Chunk, out: list[Event]) -> None:
        """Take a chunk, or a whole answer, into account."""
        if chunk.usage is not None:
            self._usage = chunk.usage
        if not chunk.choices:
            return
        if not self._started:
            self._started = True
            out.append(Started(model=chunk.model or "", upstream_id=chunk.id))
        for choice in chunk.choices:
            if not choice.index and self._reason is None:
                self._choice(choice, out)

    def _choice(self, choice: Choice, out: list[Event]) -> None:
        delta = choice.delta or choice.message
        if delta is not None:
            if delta.content and not (delta.reasoning or delta.reasoning_content):  # the common case first
                self._text(TextDelta, delta.content, out)
            else:
                self._speech(delta, out)
            if delta.tool_calls:
                for call in delta.tool_calls:
                    self._call(call, out)
            if delta.images:
                self._images(delta.images, out)
        elif choice.text:
            self._text(TextDelta, choice.text, out)
        if delta is not None and delta.refusal:
            self._refused = True
            self._text(RefusalDelta, delta.refusal, out)
        if choice.finish_reason:
            self._reason = choice.finish_reason
            self._close_all(out)

    def _speech(self, delta: Delta, out: list[Event]) -> None:
        thought = delta.reasoning or delta.reasoning_content
        if thought:
            self._text(ReasoningDelta, thought, out)
        if delta.content:
            self._text(TextDelta, delta.content, out)

    def _text(self, delta: _TextDelta, text: str, out: list[Event]) -> None:
        speech = self._open
        if speech is None or speech.delta is not delta:
            self._close_open(out)
            speech = self._open = _Speech(self._next(), delta)
            out.append(ItemStarted(index=speech.index, kind=_KIND[delta]))
        speech.pieces.append(text)
        out.append(delta(speech.index, text))

    def _call(self, call: Call, out: list[Event]) -> None:
        made = self._calls.known(call)
        if made is None:
            self._close_open(out)
            made = self._calls.begin(call, self._next())
            kind: ItemKind = "opaque" if made.custom else "tool_call"
            out.append(ItemStarted(index=made.index, kind=kind, id=made.id, name=call.name or None))
        text = made.add(call)
        if text and not made.custom:
            out.append(ToolCallDelta(made.index, text))

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    def _images(self, images: list[ImagePart], out: list[Event]) -> None:
        for image in images:
            self._close_open(out)
            part = image_from_url(image.image_url.url)
            index = self._next()
            out += (ItemStarted(index=index, kind="image"), ItemDone(index=index, part=part))

    def _close_open(self, out: list[Event]) -> None:
        if self._open is not None:
            out.append(ItemDone(index=self._open.index, part=self._open.part(self._dialect)))
            self._open = None

    def _close_all(self, out: list[Event]) -> None:
        self._close_open(out)
        willing = FINISH_REASONS.get(self._reason or "") in (FinishReason.STOP, FinishReason.TOOL_CALLS)
        # Half a call is never handed over as one.
        calls = (call for call in self._calls.made if call.name and (willing or call.whole()))
        out.extend(ItemDone(index=call.index, part=call.part(self._dialect)) for call in calls)

    def finish(self, out: list[Event]) -> None:
        """No more chunks will come: the finish reason decides what that means."""
        raw = self._reason
        if raw is None:
            message = "the stream ended without a finish_reason"
            self.fail(Failure(kind=FailureKind.TRUNCATED, message=message), out)
        elif raw in BROKEN_REASONS:
            message = f"the vendor broke the answer off (finish_reason {raw})"
            self.fail(Failure(kind=FailureKind.SERVER_ERROR, message=message), out)
        elif not all(call.name for call in self._calls.made):
            self.fail(Failure(kind=FailureKind.PROTOCOL, message="a tool call came without a name"), out)
        else:
            self._tell_usage(out)
            out.append(Finished(reason=self._canonical(raw), raw_reason=raw))
            self.over = True

    def _canonical(self, raw: str) -> FinishReason:
        reason = FINISH_REASONS.get(raw, FinishReason.STOP)
        if reason is FinishReason.STOP:  # said also of refusals, and of calls that the client forced
            if self._refused:
                return FinishReason.CONTENT_FILTER
            if self._calls.made:
                return FinishReason.TOOL_CALLS
        return reason

    def fail(self, failure: Failure, out: list[Event]) -> None:
        """End the answer with a failure; it is partial if anything of it was told."""
        self._tell_usage(out)
        out.append(Failed(failure=msgspec.structs.replace(failure, partial=self._count > 0)))
        self.over = True

    def _tell_usage(self, out: list[Event]) -> None:
        if self._usage is not None:
            out.append(UsageReported(read_usage(self._usage)))

    def add_whole(self, body: bytes, out: list[Event]) -> None:
        """A whole answer, as one JSON body. A missing finish reason is no cut here: the body is complete."""
        try:
            chunk = read_chunk(body)
            if chunk.error or not chunk.choices:
                self._odd(decode_object(body), out)
                return
            self.add(chunk, out)
            if self._reason is None:
                self._reason = "stop"
                self._close_all(out)
            self.finish(out)
        except WireError as exc:
            self.fail(Failure(kind=FailureKind.PROTOCOL, message=f"the vendor's answer is not understood: {exc}"), out)

    def _odd(self, body: object, out: list[Event]) -> None:
        if error_in(body):
            self.fail(failure_of(body), out)
        else:
            self.fail(Failure(kind=FailureKind.PROTOCOL, message="the vendor's answer has no choices"), out)
