"""From the vendor's events, or its whole response, to canonical events.

Success is only what ``response.completed`` or ``response.incomplete`` says. ``response.output_item.done`` is the word
on an item; where a server leaves it out, the final snapshot is.
"""

from __future__ import annotations

import msgspec

from llm_protocol.content import JsonObject, Part, Reasoning, Refusal, Text, ToolCall
from llm_protocol.dialects.openai_responses.items import decode_item
from llm_protocol.dialects.openai_responses.reasoning import JOINT
from llm_protocol.dialects.openai_responses.shapes import (
    Response,
    StreamEvent,
    read_event,
    read_failure_in,
    read_response,
    read_usage,
)
from llm_protocol.errors import BadRequestError
from llm_protocol.events import (
    Event,
    Failed,
    Finished,
    ItemDone,
    ItemKind,
    ItemStarted,
    Started,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import DELTA_OF, item_events
from llm_protocol.response import FinishReason
from llm_protocol.sse import ServerSentEvent, SseDecoder, SseOverflowError
from llm_protocol.wire import WireError, decode_object, json_text

_DELTA_KINDS: dict[str, ItemKind] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.function_call_arguments.delta": "tool_call",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning.delta": "reasoning",
}
_PART_KINDS: dict[str, ItemKind] = {"output_text": "text", "refusal": "refusal"}
_TERMINAL = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
_INCOMPLETE = {
    "max_output_tokens": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class _Item:
    """One item of ours: a content part of a message, or another item of the vendor's."""

    __slots__ = ("index", "kind", "pieces", "section", "start")

    def __init__(self, start: ItemStarted) -> None:
        self.start = start
        self.index = start.index
        self.kind: ItemKind = start.kind
        self.pieces: list[str] = []
        self.section = 0  # of a summary, or of reasoning text

    def part(self) -> Part:
        """What was streamed, as a part."""
        text = "".join(self.pieces)
        match self.kind:
            case "text":
                return Text(text)
            case "refusal":
                return Refusal(text)
            case "reasoning":
                return Reasoning(text=text)
            case "tool_call":
                return ToolCall(id=self.start.id or "", name=self.start.name or "", arguments=text)
            case _:
                raise AssertionError(self.kind)  # no other kind is ever opened


class Answer:
    """Takes the vendor's events in, puts ours out. ``over`` is true after ``Finished`` or ``Failed``."""

    def __init__(self) -> None:
        self._started = False
        self._open: dict[tuple[int, int], _Item] = {}  # by the vendor's output and content index
        self._done: set[int] = set()  # the vendor's output indices
        self._count = 0
        self._calls = False
        self._refused = False
        self.over = False

    def add(self, event: StreamEvent, out: list[Event]) -> None:
        """Take one event into account; types that are not known are passed over."""
        kind = _DELTA_KINDS.get(event.type)
        if kind is not None:
            self._delta(kind, event, out)
        elif event.type == "response.output_item.added" and event.item:
            self._item_added(event.output_index, event.item, out)
        elif event.type == "response.content_part.added" and event.part:
            if (part_kind := _PART_KINDS.get(str(event.part.get("type")))) is not None:
                self._item((event.output_index, event.content_index), part_kind, out)
        elif event.type == "response.output_item.done" and event.item:
            self._item_done(event.output_index, event.item, out)
        elif event.response is not None:
            self._snapshot(event.type, event.response, out)

    def _snapshot(self, kind: str, response: Response, out: list[Event]) -> None:
        if kind not in _TERMINAL:
            self._start(response, out)
            return
        response.status = response.status or kind.removeprefix("response.")
        self.finish(response, out)

    def _start(self, response: Response, out: list[Event]) -> None:
        if not self._started:
            self._started = True
            out.append(Started(model=response.model or "", upstream_id=response.id))

    def _delta(self, kind: ItemKind, event: StreamEvent, out: list[Event]) -> None:
        is_reasoning = kind == "reasoning"
        inner = 0 if is_reasoning else event.content_index
        item = self._open.get((event.output_index, inner))
        if item is None:
            if kind == "tool_call" or event.output_index in self._done:
                return  # nobody said whose arguments these are, but the whole item will; or it already has
            item = self._item((event.output_index, inner), kind, out)
        if not event.delta:
            return
        if is_reasoning and (section := event.summary_index or event.content_index) != item.section:
            item.section = section
            self._append(item, JOINT, out)
        self._append(item, event.delta, out)

    def _append(self, item: _Item, text: str, out: list[Event]) -> None:
        item.pieces.append(text)
        out.append(DELTA_OF[item.kind](item.index, text))

    def _item_added(self, place: int, item: JsonObject, out: list[Event]) -> None:
        call_id, name = item.get("call_id"), item.get("name")
        if item.get("type") == "function_call" and isinstance(call_id, str) and isinstance(name, str):
            self._item((place, 0), "tool_call", out, id_=call_id, name=name)
        elif item.get("type") == "reasoning":
            ident = item.get("id")
            self._item((place, 0), "reasoning", out, id_=ident if isinstance(ident, str) else None)

    def _item(
        self, key: tuple[int, int], kind: ItemKind, out: list[Event], *, id_: str | None = None, name: str | None = None
    ) -> _Item:
        if (known := self._open.get(key)) is not None:
            return known
        self._start(Response(), out)
        item = self._open[key] = _Item(ItemStarted(index=self._count, kind=kind, id=id_, name=name))
        self._count += 1
        out.append(item.start)
        return item

    def _item_done(self, place: int, item: JsonObject, out: list[Event]) -> None:
        if item.get("type") == "function_call" and item.get("status") == "incomplete":
            return  # half a call is never handed over as one
        try:
            _, parts = decode_item(_straightened(item), f"output[{place}]")
        except BadRequestError as exc:
            raise WireError(str(exc)) from None
        self._done.add(place)
        for at, part in enumerate(parts):
            self._close((place, at), part, out)

    def _close(self, key: tuple[int, int], part: Part, out: list[Event]) -> None:
        self._calls |= isinstance(part, ToolCall)
        self._refused |= isinstance(part, Refusal)
        self._start(Response(), out)
        item = self._open.pop(key, None)
        if item is None or not item.pieces:  # tell the text of what was not streamed
            index = self._count if item is None else item.index
            self._count += item is None
            events = item_events(index, part)
            out.extend(events if item is None else list(events)[1:])
        else:
            out.append(ItemDone(index=item.index, part=part))

    def finish(self, response: Response, out: list[Event]) -> None:
        """The vendor's last word."""
        self._start(response, out)
        match response.status:
            case "completed" | "incomplete":
                self._close_all(response, out)
                self._tell_usage(response, out)
                out.append(self._finished(response))
                self.over = True
            case "failed" | "cancelled":
                self._tell_usage(response, out)
                self.fail(_why(response), out)
            case status:
                message = f"the vendor sent a response that is not at its end (status {status or 'missing'})"
                self.fail(Failure(kind=FailureKind.PROTOCOL, message=message), out)

    def _close_all(self, response: Response, out: list[Event]) -> None:
        for place, item in enumerate(response.output or ()):
            if place not in self._done:
                self._item_done(place, item, out)
        for key, open_item in list(self._open.items()):
            part = open_item.part()
            if key[0] in self._done:
                continue
            if isinstance(part, ToolCall) and response.status != "completed":
                continue  # cut, perhaps in the middle of its arguments
            self._close(key, part, out)

    def _finished(self, response: Response) -> Finished:
        if response.status == "incomplete":
            raw = (response.incomplete_details and response.incomplete_details.reason) or "incomplete"
            return Finished(reason=_INCOMPLETE.get(raw, FinishReason.ERROR), raw_reason=raw)
        reason = FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP
        return Finished(reason=FinishReason.CONTENT_FILTER if self._refused else reason, raw_reason="completed")

    def _tell_usage(self, response: Response, out: list[Event]) -> None:
        if response.usage is not None and (usage := read_usage(response.usage)) is not None:
            out.append(UsageReported(usage))

    def fail(self, failure: Failure, out: list[Event]) -> None:
        """End the answer with a failure; it is partial if anything of it was told."""
        out.append(Failed(failure=msgspec.structs.replace(failure, partial=self._count > 0)))
        self.over = True


def _straightened(item: JsonObject) -> JsonObject:
    """The item with what some servers leave out or write otherwise."""
    match item.get("type"):
        case "message":
            return item | {"role": item.get("role") or "assistant", "content": item.get("content") or []}
        case "function_call":
            written = item.get("arguments")
            arguments = json_text(written) if isinstance(written, dict) else written or ""
            return item | {"call_id": item.get("call_id") or item.get("id"), "arguments": arguments}
        case _:
            return item


def _why(response: Response) -> Failure:
    if response.status == "cancelled":
        return Failure(kind=FailureKind.CANCELLED, message="the response was cancelled at the vendor")
    return read_failure_in({"error": response.error or {"message": "the vendor failed without saying why"}})


def read_whole(body: bytes) -> list[Event]:
    """The events of a whole answer, or of an error in its place."""
    out: list[Event] = []
    answer = Answer()
    try:
        response = read_response(body)
        if response.error and response.status is None:
            answer.fail(read_failure_in(decode_object(body)), out)
        else:
            answer.finish(response, out)
    except WireError as exc:
        answer.fail(Failure(kind=FailureKind.PROTOCOL, message=f"the answer is not understood: {exc}"), out)
    return out


class ResponsesStream:
    """The decoder of a streamed response."""

    def __init__(self) -> None:
        self._sse = SseDecoder()
        self._answer = Answer()
        self._seen = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes."""
        out: list[Event] = []
        answer = self._answer
        if answer.over:
            return out
        try:
            for event in self._sse.feed(data):
                self._take(event, out)
                if answer.over:
                    break
        except (SseOverflowError, WireError) as exc:
            answer.fail(Failure(kind=FailureKind.PROTOCOL, message=f"an event is not understood: {exc}"), out)
        return out

    def _take(self, sent: ServerSentEvent, out: list[Event]) -> None:
        self._seen = True
        text = sent.data
        if text.startswith("[DONE]"):
            return  # says nothing about how it ended
        event = read_event(text)
        event.type = event.type or sent.event
        if event.type == "error" or (not event.type and '"error"' in text):
            self._answer.fail(read_failure_in(decode_object(text)), out)
        else:
            self._answer.add(event, out)

    def end(self) -> list[Event]:
        """The body has ended; without a terminal event it was cut."""
        answer = self._answer
        if answer.over:
            return []
        out: list[Event] = []
        try:
            for event in self._sse.end():
                if not answer.over:
                    self._take(event, out)
        except WireError as exc:
            answer.fail(Failure(kind=FailureKind.PROTOCOL, message=f"the last event is not understood: {exc}"), out)
        if answer.over:
            return out
        stray = self._sse.stray.strip()
        if stray.startswith(b"{") and not self._seen:
            answer.over = True
            return read_whole(stray)  # JSON where a stream was promised
        message = "the stream ended without response.completed, .incomplete or .failed"
        answer.fail(Failure(kind=FailureKind.TRUNCATED, message=message), out)
        return out
