"""Fold events into a response, and unfold a response into events.

`Fold` is the one place that turns a stream of events into an `LLMResponse`. If the stream breaks, it keeps unfinished
text. `unfold` replays a whole response as events: for a cache hit, a fake provider, or a member's response.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from llm_protocol.codec.items import DELTA_OF, OpenItem, kind_of, text_of
from llm_protocol.content import JsonObject, Part, Reasoning, Text, ToolCall
from llm_protocol.embedding import Embedding
from llm_protocol.events import (
    ChoiceFinished,
    Embedded,
    Event,
    Failed,
    FieldsAdded,
    Finished,
    ItemDone,
    ItemStarted,
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
    """Folds events into a response. Add the events in order; the parts and the response are available at any time."""

    def __init__(self) -> None:
        self._items: dict[int, Part | OpenItem] = {}
        self.started = Started()
        self.usage: Usage | None = None
        self.vectors: tuple[Embedding, ...] = ()
        self.extra: dict[str, dict[str, JsonObject]] = {}
        self.end: Finished | Failed | None = None
        self._further: dict[int, _Choice] = {}
        self._choice_of: dict[int, int] = {}
        """For each item, the choice that it belongs to, unless that is the first."""

    def add(self, event: Event) -> None:
        """Add the next event."""
        match event:
            case TextDelta() | ReasoningDelta() | ToolCallDelta() | RefusalDelta():
                item = self._items.get(event.index)
                if isinstance(item, OpenItem):
                    item.pieces.append(event.text)
            case ItemStarted():
                self._items[event.index] = OpenItem(event.index, event.kind)
                self._choose(event.index, event.choice)
            case ItemDone():
                self._items[event.index] = event.part
            case UsageReported():
                self.usage = event.usage
            case Started():
                self.started = event
            case Embedded():
                self.vectors = event.vectors
            case FieldsAdded():
                extra = self._of(event.choice).extra if event.choice else self.extra
                merge(extra.setdefault(event.dialect, {}), event.fields)
            case Restarted():
                self._items.clear()
                self._further.clear()
                self._choice_of.clear()
                self.extra = {}
                self.started, self.usage, self.vectors = Started(), None, ()
            case Finished() | Failed():
                self.end = event
            case ChoiceFinished():
                self._of(event.choice).end = event
            case _:
                pass  # members' text beside the response

    def _choose(self, item: int, choice: int) -> None:
        if choice:
            self._of(choice)
            self._choice_of[item] = choice

    def _of(self, choice: int) -> _Choice:
        return self._further.setdefault(choice, _Choice())

    def add_all(self, events: Iterable[Event]) -> Fold:
        """Add each event, and return self."""
        for event in events:
            self.add(event)
        return self

    def parts(self, choice: int = 0) -> tuple[Part, ...]:
        """The parts of a choice in order of appearance, including the text so far of unfinished ones."""
        found: list[Part] = []
        for index, item in sorted(self._items.items()):
            if self._choice_of.get(index, 0) == choice:
                part = item.readable_part() if isinstance(item, OpenItem) else item
                if part is not None:
                    found.append(part)
        return tuple(found)

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
        """The response as it is now. ``model`` is used if the vendor named none."""
        finished = self.end if isinstance(self.end, Finished) else None
        first = LLMResponse(
            request_id=request_id,
            response_id=response_id,
            provider=provider,
            model=self.started.model or model,
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
        if self._further:
            choices = tuple(self._choice(first, at) for at in sorted(self._further))
            first = msgspec.structs.replace(first, choices=choices)
        return _with_parts(first, self.parts())

    def _choice(self, first: LLMResponse, at: int) -> LLMResponse:
        """Return choice ``at`` of the response. Fields that all choices share are part of the first choice only."""
        further = self._further[at]
        response = LLMResponse(
            request_id=first.request_id,
            response_id=first.response_id,
            provider=first.provider,
            model=first.model,
            finish_reason=further.end.reason if further.end else None,
            raw_finish_reason=further.end.raw_reason if further.end else None,
            upstream_id=first.upstream_id,
            processing_time_ms=first.processing_time_ms,
            extra=further.extra,
        )
        return _with_parts(response, self.parts(at))


class _Choice:
    """The state of a choice after the first, in addition to its items."""

    def __init__(self) -> None:
        self.extra: dict[str, dict[str, JsonObject]] = {}
        self.end: ChoiceFinished | None = None


def _with_parts(response: LLMResponse, parts: tuple[Part, ...]) -> LLMResponse:
    content = "".join([part.text for part in parts if isinstance(part, Text)])
    return msgspec.structs.replace(response, content=content, output=parts)


def item_events(index: int, part: Part, *, piece: int | None = None) -> Iterator[Event]:
    """Return a complete part as events, with its text in deltas of at most ``piece`` characters (default: one
    delta).
    """
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
    """Return a complete response as the events that fold into it. ``piece``: the most characters of one delta;
    ``None``: each text is one delta.
    """
    yield Started(
        model=response.model,
        upstream_id=response.upstream_id,
        provider=response.provider,
        adjusted=response.adjusted,
    )
    index = 0
    for choice, said in enumerate((response, *response.choices)):
        for part in said.output:
            for event in item_events(index, part, piece=piece):
                told = isinstance(event, ItemStarted) and choice
                yield msgspec.structs.replace(event, choice=choice) if told else event
            index += 1
        for dialect, fields in said.extra.items():
            yield FieldsAdded(dialect, fields, choice)
    if response.embeddings:
        yield Embedded(response.embeddings)
    for choice, said in enumerate(response.choices, 1):
        why = said.finish_reason or FinishReason.STOP
        yield ChoiceFinished(choice=choice, reason=why, raw_reason=said.raw_finish_reason)
    if response.usage is not None:
        yield UsageReported(response.usage)
    reason = response.finish_reason or FinishReason.STOP
    yield Finished(reason=reason, raw_reason=response.raw_finish_reason, response=response)
