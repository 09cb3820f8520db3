"""Encode a response as a stream of the API's events, the same for SSE and WebSocket.

The sequence number of an event depends on the log alone: every canonical event maps to a fixed number of events, and a
frame that joins several deltas has the number of the last one. A client that reconnects sends the last number it saw,
and the log is encoded again from its start, with ``starting_after``.

The text of a strategy's members is sent beside the response to clients that request it, because some clients fail on
events that they do not know. The types of these events have a prefix of their own, as Open Responses requires of
extensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, final

import msgspec

from llm_protocol.codec.items import OpenItem, TextBuffer
from llm_protocol.codec.json import encode_json
from llm_protocol.codec.response_encoding import StreamEncoder
from llm_protocol.content import JsonObject, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from llm_protocol.dialect import ClientRequest, Frame
from llm_protocol.events import (
    ANY_DELTAS,
    Delta,
    Event,
    Failed,
    Finished,
    ItemDone,
    ItemKind,
    ItemStarted,
    MemberDelta,
    MemberDone,
    MemberEvent,
    MemberFailed,
    MemberStarted,
    count_pieces,
    cut,
)
from llm_protocol.wires.responses.content import content, item_id, output_item, summary
from llm_protocol.wires.responses.errors import ending_of
from llm_protocol.wires.responses.shapes import ResourceEncoder, ResponseOptions

PREFIX = "llm-runtime:member"


class MemberEventFrame(NamedTuple):
    """The ``type`` of an event and its fields."""

    type: str
    fields: JsonObject


@final
class MemberEventEncoder:
    """Converts members' events to events of the wire. It keeps each member's text, because the last event of a member
    repeats all of it.
    """

    def __init__(self) -> None:
        self._texts: dict[str, TextBuffer] = {}

    def frame(self, event: MemberEvent) -> MemberEventFrame:
        """The wire's event for a member's event."""
        match event:
            case MemberDelta(member=member, text=text):
                self._texts.setdefault(member, TextBuffer()).append(text)
                return MemberEventFrame(f"{PREFIX}.delta", {"member": member, "delta": text})
            case MemberStarted(member=member):
                self._texts[member] = TextBuffer()
                rest = {"request_id": event.request_id, "round": event.round}
                return MemberEventFrame(f"{PREFIX}.started", {"member": member, **rest})
            case MemberDone(member=member):
                text = self._texts.pop(member, TextBuffer()).text()
                rest = {"finish_reason": event.finish_reason, "usage": msgspec.to_builtins(event.usage)}
                return MemberEventFrame(f"{PREFIX}.done", {"member": member, "text": text, **rest, "cost": event.cost})
            case MemberFailed(member=member, failure=failure):
                self._texts.pop(member, None)
                error = {"code": failure.rule.code, "message": failure.message}
                return MemberEventFrame(f"{PREFIX}.failed", {"member": member, "error": error})


class _Shape(NamedTuple):
    """How a kind of item is streamed: its delta event, the name of the index within the item, and constant fields."""

    event: str
    inner: str | None = None
    rest: str = ""


_SHAPES: dict[ItemKind, _Shape] = {
    "text": _Shape("response.output_text.delta", "content_index", ',"logprobs":[]'),
    "refusal": _Shape("response.refusal.delta", "content_index"),
    "reasoning": _Shape("response.reasoning_summary_text.delta", "summary_index"),
    "tool_call": _Shape("response.function_call_arguments.delta"),
}


class _Item(OpenItem):
    """An item of the output, as far as it has been received."""

    __slots__ = ("call_id", "done", "event", "head", "opened", "output_index", "wire_id")

    def __init__(self, start: ItemStarted, response_id: str, output_index: int) -> None:
        own_id = start.id if start.kind == "reasoning" and (start.id or "").startswith("rs_") else None
        super().__init__(start.index, start.kind, name=start.name)
        self.wire_id = own_id or item_id(start.kind, response_id, output_index)
        self.call_id = start.id or f"call_{self.wire_id.removeprefix('fc_')}"
        self.output_index = output_index
        self.event = ""
        self.head = b""  # the JSON of a delta event, up to its text
        self.opened = False
        self.done: Part | None = None

    def prepare(self, stream_id: str | None) -> None:
        """Encode the constant beginning of this item's deltas once."""
        if (shape := _SHAPES.get(self.kind)) is None:
            return
        place = f',"{shape.inner}":0' if shape.inner else ""
        lane = "" if stream_id is None else f',"stream_id":{encode_json(stream_id).decode()}'
        ident = encode_json(self.wire_id).decode()
        self.event = shape.event
        self.head = (
            f'{{"type":"{shape.event}","item_id":{ident},"output_index":{self.output_index}'
            f'{place}{shape.rest}{lane},"delta":'
        ).encode()

    def place(self) -> JsonObject:
        """Return the fields that identify the item in an event."""
        place: JsonObject = {"item_id": self.wire_id, "output_index": self.output_index}
        shape = _SHAPES.get(self.kind)
        return place | {shape.inner: 0} if shape and shape.inner else place


@final
class OpenAIResponsesEncoder(StreamEncoder):
    """Encodes one streamed response.

    ``stream_id`` names the WebSocket lane. With ``starting_after``, the frames up to that number are omitted.
    """

    def __init__(
        self,
        inbound: ClientRequest,
        response_id: str,
        options: ResponseOptions,
        *,
        stream_id: str | None = None,
        starting_after: int = -1,
    ) -> None:
        super().__init__(inbound, response_id)
        self._resource = ResourceEncoder(inbound, response_id, options)
        self._stream_id = stream_id
        self._after = starting_after
        if starting_after >= 0:
            self._unmerged = self._up_to_the_reader
        self._number = -1
        self._items: dict[int, _Item] = {}  # by the log's index, in order of appearance
        self._held: _Item | None = None
        """A complete item. Its end is sent only when the next event shows whether the response was truncated inside
        it."""
        self._restarts = 0
        self._members = MemberEventEncoder()
        self._texts_sent: dict[str, list[str]] = {}
        """The members' text since the last frame. The deltas that it came in are counted in ``_sent_count``."""
        self._sent_count = 0
        """The number of events that the text in ``_texts_sent`` came in."""
        self.resource: JsonObject = {}
        """The response at its end; empty until then."""

    @property
    def number(self) -> int:
        """The sequence number of the last event."""
        return self._number

    def start(self) -> list[Frame]:
        """``response.created`` and ``response.in_progress``."""
        snapshot = self._resource.body("in_progress")
        self._emit("response.created", response=snapshot)
        self._emit("response.in_progress", response=snapshot)
        frames, self._frames = self._frames, []
        return frames

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """The frames for the next events."""
        frames = super().encode(events)
        if self._sent_count:
            self._tell_members()
            frames += self._frames
            self._frames = []
        return frames

    def _up_to_the_reader(self, events: Iterable[Event]) -> Iterator[tuple[Event, int]]:
        """Return the events, each with the number of deltas that it stands for. Nothing is joined across the number
        that the client has seen, and an event that the log has joined is split there. So the client has seen each
        frame either completely or not at all.
        """
        for event in events:
            rest, count = event, count_pieces(event)
            first = True
            while isinstance(rest, ANY_DELTAS) and count > 1 and self._number < self._after:
                # The first delta may open its part, which has its own sequence number.
                take = 1 if first else min(self._after - self._number, count - 1)
                begin, rest = cut(rest, take)
                yield begin, take  # self._number has increased when this returns
                count, first = count - take, False
            yield rest, count
        if self._number >= self._after:
            self._unmerged = None

    def _emit(self, kind: str, count: int = 1, *, again: bool = False, **fields: Any) -> None:
        """Send an event. ``again``: send it even to a client that has seen it."""
        self._tell_members()
        self._number += count
        if self._number <= self._after and not again:
            return
        event = {"type": kind, "sequence_number": self._number, **fields}
        if self._stream_id is not None:
            event["stream_id"] = self._stream_id
        self._frames.append(Frame(kind, encode_json(event)))

    def _delta(self, event: Delta, count: int) -> None:
        item = self._items.get(event.index)
        if item is None or not item.head:
            return
        if self._sent_count:
            self._tell_members()
        if self._held is not None:
            self._release()
        if not item.opened:
            self._open(item)
        item.pieces.append(event.text)
        self._number += count
        if self._number > self._after:
            data = b'%b%b,"sequence_number":%d}' % (item.head, encode_json(event.text), self._number)
            self._frames.append(Frame(item.event, data))

    def _item_started(self, event: ItemStarted) -> None:
        if event.kind != "opaque":  # it is sent once it is complete
            self._add(event)

    def _failed(self, event: Failed) -> None:
        self._finish(event)

    def _finished(self, event: Finished) -> None:
        self._finish(event)

    def _member(self, event: MemberEvent, count: int) -> None:
        kind, fields = self._members.frame(event)
        if isinstance(event, MemberDelta) and self._number >= self._after:
            self._texts_sent.setdefault(event.member, []).append(event.text)
            self._sent_count += count
        else:
            self._emit(kind, count, **fields)

    def _tell_members(self) -> None:
        """Send the members' text since the last frame in one frame, so that a client has seen all of it or none."""
        if not self._sent_count:
            return
        sent, count = self._texts_sent, self._sent_count
        self._texts_sent, self._sent_count = {}, 0
        deltas = [{"member": member, "delta": "".join(texts)} for member, texts in sent.items()]
        if len(deltas) == 1:
            [(member, delta)] = ((each["member"], each["delta"]) for each in deltas)
            self._emit(f"{PREFIX}.delta", count, member=member, delta=delta)
        else:
            self._emit(f"{PREFIX}.deltas", count, deltas=deltas)

    def _restarted(self) -> None:
        """Discard everything that was sent. The items that follow are new and have new ids."""
        self._restarts += 1
        self._items.clear()
        self._held = None
        self._emit("llm-runtime:restarted", response_id=self._id)

    def _add(self, start: ItemStarted, item: JsonObject | None = None) -> _Item:
        self._release()
        owner = f"{self._id}{self._restarts or ''}"
        added = self._items[start.index] = _Item(start, owner, len(self._items))
        added.prepare(self._stream_id)
        snapshot = item or _blank(added)
        self._emit("response.output_item.added", output_index=added.output_index, item=snapshot)
        if start.kind in ("text", "refusal"):
            self._open(added)
        return added

    def _open(self, item: _Item) -> None:
        item.opened = True
        if item.kind == "reasoning":
            self._emit("response.reasoning_summary_part.added", **item.place(), part=summary(""))
        elif item.kind != "tool_call":
            empty = Refusal("") if item.kind == "refusal" else Text("")
            self._emit("response.content_part.added", **item.place(), part=content(empty))

    def _item_done(self, event: ItemDone) -> None:
        part = event.part
        item = self._items.get(event.index)
        if isinstance(part, Opaque):
            if (value := output_item(part, "")) is None:
                return
            item = self._add(ItemStarted(index=event.index, kind="opaque"), value)
        if item is None:
            return
        self._release()
        item.done = part
        self._close(item, part)
        item.pieces.clear()
        self._held = item

    def _release(self, status: str = "completed") -> None:
        """Send the end of the item that is held back."""
        item, self._held = self._held, None
        if item is not None and item.done is not None:
            done = output_item(item.done, item.wire_id, status)
            self._emit("response.output_item.done", output_index=item.output_index, item=done)

    def _close(self, item: _Item, part: Part) -> None:
        """Send the ``done`` events of the item's content."""
        place = item.place()
        match part:
            case Text():
                self._emit("response.output_text.done", **place, text=part.text, logprobs=[])
                self._emit("response.content_part.done", **place, part=content(part))
            case Refusal():
                self._emit("response.refusal.done", **place, refusal=part.text)
                self._emit("response.content_part.done", **place, part=content(part))
            case Reasoning() if item.opened:
                self._emit("response.reasoning_summary_text.done", **place, text=part.text)
                self._emit("response.reasoning_summary_part.done", **place, part=summary(part.text))
            case ToolCall():
                self._emit(
                    "response.function_call_arguments.done",
                    **place,
                    name=part.name,
                    arguments=part.arguments,
                )
            case _:
                pass

    def _finish(self, event: Finished | Failed) -> None:
        failure = event.failure if isinstance(event, Failed) else None
        reason = event.reason if isinstance(event, Finished) else None
        refused = any(isinstance(item.done, Refusal) for item in self._items.values())
        raw = event.raw_reason if isinstance(event, Finished) else None
        ending = ending_of(reason, failure, refused=refused, raw=raw)
        last = next(reversed(self._items.values()), None)
        is_cut = ending.status == "incomplete" and last is not None and isinstance(last.done, _CUT_IN_THE_MIDDLE)
        self._release("incomplete" if is_cut else "completed")
        output = [_as_it_is(item, is_cut=is_cut and item is last) for item in self._items.values()]
        counted = event.response and event.response.usage
        self.resource = self._resource.body(
            ending.status, output, ending=ending, response=event.response, usage=counted or self._usage
        )
        # A client that resumes after the end receives the end again, so that every stream ends with an event.
        self._emit(ending.event, again=True, response=self.resource)


_CUT_IN_THE_MIDDLE = (Text, Refusal, Reasoning)
"""The kinds of items that a length limit may truncate. A tool call is either complete or has no end event."""


def _as_it_is(item: _Item, *, is_cut: bool) -> JsonObject:
    """Return an item at the end of the response. An item without an end is included as far as it was received."""
    if item.done is not None:
        found = output_item(item.done, item.wire_id, "incomplete" if is_cut else "completed")
        assert found is not None, "an announced item must have an encoding"
        return found
    part = item.readable_part()
    if item.kind == "tool_call":
        part = ToolCall(id=item.call_id, name=item.name or "", arguments=item.pieces.text())
    if part is not None and (found := output_item(part, item.wire_id, "incomplete")) is not None:
        return found
    return _blank(item) | {"status": "failed" if item.kind == "image" else "incomplete"}


def _blank(item: _Item) -> JsonObject:
    """The item as it is in ``response.output_item.added``."""
    blank: JsonObject = {"id": item.wire_id, "status": "in_progress"}
    match item.kind:
        case "reasoning":
            return blank | {"type": "reasoning", "summary": []}
        case "tool_call":
            return blank | {"type": "function_call", "call_id": item.call_id, "name": item.name or "", "arguments": ""}
        case "image":
            return blank | {"type": "image_generation_call", "result": None}
        case _:
            return blank | {"type": "message", "role": "assistant", "content": []}
