"""Fold events into a response, and unfold a response into events.

`Fold` is the one place that turns a stream of events into an `LLMResponse`. If the stream breaks, it keeps unfinished
text. `unfold` replays a whole response as events: for a cache hit, a fake provider, or a member's response.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llm_protocol.codec.items import DELTA_OF, OpenItem, kind_of, text_of
from llm_protocol.content import JsonObject, Part, Reasoning, Text, ToolCall
from llm_protocol.embedding import Embedding
from llm_protocol.events import (
    Embedded,
    Event,
    Failed,
    FieldsAdded,
    Finished,
    ItemDone,
    ItemStarted,
    MemberDelta,
    MemberDone,
    MemberFailed,
    MemberStarted,
    ReasoningDelta,
    RefusalDelta,
    Restarted,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.extra_fields import merge
from llm_protocol.response import FinishReason, LLMResponse, Usage


class Fold:
    """Add events in order. The parts and the response are available at any time."""

    def __init__(self) -> None:
        self._items: dict[int, Part | OpenItem] = {}
        self.started = Started()
        self.usage: Usage | None = None
        self.vectors: tuple[Embedding, ...] = ()
        self.extra: dict[str, dict[str, JsonObject]] = {}
        self.end: Finished | Failed | None = None

    def add(self, event: Event) -> None:
        """Take the next event into account."""
        match event:
            case TextDelta() | ReasoningDelta() | ToolCallDelta() | RefusalDelta():
                item = self._items.get(event.index)
                if isinstance(item, OpenItem):
                    item.pieces.append(event.text)
            case ItemStarted():
                self._items[event.index] = OpenItem(event.index, event.kind)
            case ItemDone():
                self._items[event.index] = event.part
            case UsageReported():
                self.usage = event.usage
            case Started():
                self.started = event
            case Embedded():
                self.vectors = event.vectors
            case FieldsAdded():
                merge(self.extra.setdefault(event.dialect, {}), event.fields)
            case Restarted():
                self._items.clear()
                self.extra = {}
                self.started, self.usage, self.vectors = Started(), None, ()
            case Finished() | Failed():
                self.end = event
            case MemberStarted() | MemberDelta() | MemberDone() | MemberFailed():
                pass  # members' text beside the response

    def add_all(self, events: Iterable[Event]) -> Fold:
        """`add` each, and return self."""
        for event in events:
            self.add(event)
        return self

    def parts(self) -> tuple[Part, ...]:
        """The parts in order of appearance, including the text so far of unfinished ones."""
        found = (
            item.readable_part() if isinstance(item, OpenItem) else item for _, item in sorted(self._items.items())
        )
        return tuple(part for part in found if part is not None)

    def response(
        self,
        *,
        request_id: str,
        response_id: str,
        provider: str,
        model: str,
        processing_time_ms: float = 0.0,
        cost: float | None = None,
        decision: JsonObject | None = None,
        members: tuple[LLMResponse, ...] = (),
    ) -> LLMResponse:
        """The response so far. ``model`` is used if the vendor named none."""
        parts = self.parts()
        finished = self.end if isinstance(self.end, Finished) else None
        return LLMResponse(
            request_id=request_id,
            response_id=response_id,
            provider=provider,
            model=self.started.model or model,
            content="".join(part.text for part in parts if isinstance(part, Text)),
            output=parts,
            embeddings=self.vectors,
            usage=self.usage,
            cost=cost,
            finish_reason=finished.reason if finished else None,
            raw_finish_reason=finished.raw_reason if finished else None,
            upstream_id=self.started.upstream_id,
            processing_time_ms=processing_time_ms,
            decision=decision or {},
            extra=self.extra,
            adjusted=self.started.adjusted,
            members=members,
        )


def item_events(index: int, part: Part, *, piece: int | None = None) -> Iterator[Event]:
    """One whole part as its events, its text in deltas of at most ``piece`` characters (default: one delta)."""
    kind, text = kind_of(part), text_of(part)
    call = part if isinstance(part, ToolCall) else None
    ident = part.id if isinstance(part, ToolCall | Reasoning) else None
    name, extra = (call.name, call.extra) if call else (None, None)
    yield ItemStarted(index=index, kind=kind, id=ident, name=name, extra=extra)
    delta = DELTA_OF.get(kind)
    if delta is not None and text:
        step = piece or len(text)
        for at in range(0, len(text), step):
            yield delta(index, text[at : at + step])
    yield ItemDone(index=index, part=part)


def unfold(response: LLMResponse, *, piece: int | None = None) -> Iterator[Event]:
    """A whole response as the events that fold into it."""
    yield Started(
        model=response.model,
        upstream_id=response.upstream_id,
        provider=response.provider,
        adjusted=response.adjusted,
    )
    for index, part in enumerate(response.output):
        yield from item_events(index, part, piece=piece)
    if response.embeddings:
        yield Embedded(response.embeddings)
    for dialect, fields in response.extra.items():
        yield FieldsAdded(dialect, fields)
    if response.usage is not None:
        yield UsageReported(response.usage)
    reason = response.finish_reason or FinishReason.STOP
    yield Finished(reason=reason, raw_reason=response.raw_finish_reason, response=response)
