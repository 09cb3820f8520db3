"""Cohere's streamed chat answers as events.

``message-end`` is the end of an answer, also of a failed one: then its reason is ``ERROR`` or ``TIMEOUT``. Content
blocks, tool calls and citations are each counted from 0. A plan has no end of its own: it ends where anything else
begins. A tool call in which the answer hit its token limit looks whole, so the last call is held back until the reason
is known; so is a text, because its citations come after its end.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.content import JsonObject, Part, Reasoning, Text, ToolCall
from llm_protocol.dialects.cohere.answer import REASONS, decode_usage
from llm_protocol.dialects.cohere.errors import in_stream_failure
from llm_protocol.dialects.cohere.parts import NAME, TOOL_PLAN, cite, normal_arguments
from llm_protocol.events import (
    Event,
    Failed,
    Finished,
    ItemDone,
    ItemKind,
    ItemStarted,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.response import FinishReason
from llm_protocol.sse import ServerSentEvent, SseDecoder, SseOverflowError
from llm_protocol.wire import JsonDecoder, WireError


class _Content(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: _Content | list[Any] | None = None
    tool_calls: _Call | list[Any] | None = None
    tool_plan: str | None = None
    citations: Any = None


class _Delta(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    usage: JsonObject | None = None
    error: str | None = None
    error_type: str | None = None


class _Event(msgspec.Struct):
    """Any event of a stream, wide instead of tagged: an unknown type must not be an error."""

    type: str
    id: str | None = None
    index: int = 0
    delta: _Delta | None = None


_NULL_LIMIT = 16
"""Characters of arguments that may turn out to be ``null``, white space included, before they are told all the same."""

_EVENTS = JsonDecoder(_Event)
_KNOWN = frozenset(
    f"{thing}-{step}" for thing in ("message", "content", "tool-call", "citation") for step in ("start", "delta", "end")
) | {"tool-plan-delta", ""}


class _Item:
    """An item that has started."""

    __slots__ = ("citations", "id", "index", "kind", "name", "pieces", "told")

    def __init__(self, index: int, kind: ItemKind, item_id: str | None = None, name: str | None = None) -> None:
        self.index = index
        self.kind = kind
        self.id = item_id
        self.name = name
        self.pieces: list[str] = []
        self.told = False
        self.citations: list[Any] = []

    def part(self) -> Part:
        text = "".join(self.pieces)
        match self.kind:
            case "reasoning":
                return Reasoning(text=text, id=self.id, dialect=NAME)
            case "tool_call":
                return ToolCall(id=self.id or "", name=self.name or "", arguments=normal_arguments(text))
            case _:
                return cite(Text(text), self.citations)


class ChatStream:
    """Decodes one streamed answer."""

    def __init__(self) -> None:
        self._sse = SseDecoder()
        self._plan: _Item | None = None
        self._contents: dict[int, _Item] = {}  # open ones, by their number on the wire
        self._calls: dict[int, _Item] = {}
        self._texts: dict[int, _Item] = {}  # ended, waiting for citations
        self._held: ItemDone | None = None
        self._items = 0
        self._started = False
        self._ended = False
        self._out: list[Event] = []

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes."""
        if self._ended:
            return []
        try:
            frames = self._sse.feed(data)
        except SseOverflowError as exc:
            self._fail(FailureKind.PROTOCOL, str(exc))
            return self._taken()
        return self._take_all(frames)

    def end(self) -> list[Event]:
        """The body has ended."""
        if self._ended:
            return []
        found = self._take_all(self._sse.end())
        if self._ended:
            return found
        if self._sse.stray.strip():
            self._fail(FailureKind.PROTOCOL, "the answer is not an event stream")
        else:
            self._fail(FailureKind.TRUNCATED, "the stream ended without message-end")
        return found + self._taken()

    def _take_all(self, frames: list[ServerSentEvent]) -> list[Event]:
        for frame in frames:
            if self._ended:
                break
            try:
                self._take(frame)
            except WireError as exc:
                self._fail(FailureKind.PROTOCOL, f"a stream event could not be understood: {exc}")
        return self._taken()

    def _taken(self) -> list[Event]:
        out, self._out = self._out, []
        return out

    def _take(self, frame: ServerSentEvent) -> None:
        if frame.event not in _KNOWN or frame.data == "[DONE]":
            return
        event = _EVENTS.decode(frame.data)
        if event.type == "message-start":
            self._start(event)
        elif not self._started and event.type in _KNOWN:
            raise WireError(f"{event.type} before message-start")
        match event.type:
            case "content-delta":
                self._take_content(event)
            case "tool-call-delta":
                self._take_arguments(event)
            case "tool-plan-delta":
                self._take_plan(event)
            case "content-start":
                self._start_content(event)
            case "content-end":
                self._end_content(event.index)
            case "tool-call-start":
                self._start_call(event)
            case "tool-call-end":
                self._end_call(event.index)
            case "citation-start":
                self._take_citation(_message(event).citations)
            case "message-end":
                self._finish(event.delta or _Delta())

    def _start(self, event: _Event) -> None:
        if self._started:
            raise WireError("a second message-start")
        self._started = True
        self._out.append(Started(upstream_id=event.id))

    def _begin(self, kind: ItemKind, item_id: str | None = None, name: str | None = None) -> _Item:
        item = _Item(self._items, kind, item_id, name)
        self._items += 1
        self._out.append(ItemStarted(index=item.index, kind=kind, id=item_id, name=name))
        return item

    # -------------------------------------------------------- plan and content

    def _take_plan(self, event: _Event) -> None:
        piece = _message(event).tool_plan
        if piece:
            if self._plan is None:
                self._plan = self._begin("reasoning", TOOL_PLAN)
            self._add(self._plan, piece)

    def _start_content(self, event: _Event) -> None:
        content = _message(event).content
        if not isinstance(content, _Content) or event.index in self._contents:
            raise WireError("content-start without content, or twice")
        self._settle()
        item = self._contents[event.index] = self._begin("reasoning" if content.type == "thinking" else "text")
        self._add(item, _piece(item, content) or "")

    def _take_content(self, event: _Event) -> None:
        content = _message(event).content
        item = self._contents.get(event.index)
        if item is None or not isinstance(content, _Content):
            raise WireError("content-delta without content, or for a block that is not open")
        piece = _piece(item, content)
        if piece is None:
            raise WireError("content-delta without its text")
        self._add(item, piece)

    def _add(self, item: _Item, piece: str) -> None:
        if piece:
            item.pieces.append(piece)
            delta = TextDelta if item.kind == "text" else ReasoningDelta
            self._out.append(delta(item.index, piece))

    def _end_content(self, index: int) -> None:
        item = self._contents.pop(index, None)
        if item is None:
            raise WireError("content-end for a block that is not open")
        if item.kind == "text":
            self._texts[index] = item
        else:
            self._done(item)

    def _take_citation(self, citation: Any) -> None:
        texts = {**self._texts, **{at: item for at, item in self._contents.items() if item.kind == "text"}}
        about = citation.get("content_index") if isinstance(citation, dict) else None
        item = texts.get(about) if isinstance(about, int) else None
        if item is None and texts:
            item = next(iter(texts.values()))
        if item is not None:
            item.citations.append(citation)

    # -------------------------------------------------------- tool calls

    def _start_call(self, event: _Event) -> None:
        call = _message(event).tool_calls
        if not isinstance(call, _Call) or call.function is None or event.index in self._calls:
            raise WireError("tool-call-start without a function, or twice")
        self._settle()
        item = self._calls[event.index] = self._begin("tool_call", call.id or "", call.function.name or "")
        self._add_arguments(item, call.function.arguments or "")

    def _take_arguments(self, event: _Event) -> None:
        call, item = _message(event).tool_calls, self._calls.get(event.index)
        if item is None or not isinstance(call, _Call) or call.function is None:
            raise WireError("tool-call-delta without a function, or for a call that is not open")
        self._add_arguments(item, call.function.arguments or "")

    def _add_arguments(self, item: _Item, piece: str) -> None:
        """``null`` is told as ``{}`` at the end, so its letters are kept back."""
        if not piece:
            return
        item.pieces.append(piece)
        if item.told:
            self._out.append(ToolCallDelta(item.index, piece))
            return
        text = "".join(item.pieces)
        if len(text) > _NULL_LIMIT or not "null".startswith(text.strip()):
            item.told = True
            self._out.append(ToolCallDelta(item.index, text))

    def _end_call(self, index: int) -> None:
        item = self._calls.pop(index, None)
        if item is None:
            raise WireError("tool-call-end for a call that is not open")
        part = item.part()
        if not item.told and isinstance(part, ToolCall):
            self._out.append(ToolCallDelta(item.index, part.arguments))
        self._release()
        self._held = ItemDone(index=item.index, part=part)

    # -------------------------------------------------------- ends

    def _done(self, item: _Item) -> None:
        self._out.append(ItemDone(index=item.index, part=item.part()))

    def _settle(self) -> None:
        """Something new begins: what was waiting is whole."""
        if self._plan is not None:
            self._done(self._plan)
            self._plan = None
        for text in self._texts.values():
            self._done(text)
        self._texts.clear()
        self._release()

    def _release(self) -> None:
        if self._held is not None:
            self._out.append(self._held)
            self._held = None

    def _finish(self, delta: _Delta) -> None:
        reason = REASONS.get(delta.finish_reason or "", FinishReason.STOP)
        usage = decode_usage(delta.usage)
        if usage is not None:
            self._out.append(UsageReported(usage))
        if reason == FinishReason.ERROR or delta.error is not None:
            return self._end_with(in_stream_failure(delta.error, delta.error_type, delta.finish_reason or "an error"))
        if self._calls and reason != FinishReason.LENGTH:
            raise WireError("message-end in the middle of a tool call")
        if reason == FinishReason.LENGTH:
            self._held = None
        self._texts |= self._contents
        self._settle()
        self._ended = True
        self._out.append(Finished(reason=reason, raw_reason=delta.finish_reason))
        return None

    def _fail(self, kind: FailureKind, message: str) -> None:
        self._end_with(Failure(kind=kind, message=message))

    def _end_with(self, failure: Failure) -> None:
        self._ended = True
        self._out.append(Failed(failure=msgspec.structs.replace(failure, partial=self._items > 0)))


def _message(event: _Event) -> _Message:
    if event.delta is None or event.delta.message is None:
        raise WireError(f"{event.type} without a message")
    return event.delta.message


def _piece(item: _Item, content: _Content) -> str | None:
    return content.text if item.kind == "text" else content.thinking
