"""The way back: filters over the events of one answer that undo what was done to its request.

Tools come back under their own names and custom tools as custom calls; an answer is cut where a stop sequence begins
that the vendor was not told; JSON that the model was only told to write is freed of fences and checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, final

import msgspec

from llm_protocol.codec.code_fences import CodeFenceStripper
from llm_protocol.codec.json import WireError, decode_object
from llm_protocol.content import Opaque, Text, ToolCall
from llm_protocol.events import (
    TERMINAL,
    Event,
    Failed,
    Finished,
    ItemDone,
    ItemStarted,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.parameters.custom_tools import INPUT, read_call, write_call
from llm_protocol.response import FinishReason
from llm_protocol.text_buffer import TextBuffer


class EventFilter(Protocol):
    """Takes events in order and gives what is to be told instead; after a terminal event it is not fed again."""

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """The events to tell."""
        ...


@final
class ToolRestorer:
    """``names``: a tool's name at the vendor -> the client's. ``custom``: the client's names of tools that were made
    functions. ``wire``: in whose form custom calls are told; ``None``: they stay function calls.
    """

    def __init__(self, names: Mapping[str, str], custom: frozenset[str], wire: str | None) -> None:
        self._names = names
        self._custom = custom if wire is not None else frozenset()
        self._wire = wire or ""
        self._held: set[int] = set()

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """See `EventFilter`. A custom call is told when it is whole: its text stands inside the function's JSON."""
        return [seen for event in events for seen in self._one(event)]

    def _one(self, event: Event) -> tuple[Event, ...]:
        match event:
            case ItemStarted(kind="tool_call", name=str(name)):
                own = self._names.get(name, name)
                if own in self._custom:
                    self._held.add(event.index)
                    return ()
                return (event if own == name else msgspec.structs.replace(event, name=own),)
            case ToolCallDelta() if event.index in self._held:
                return ()
            case ItemDone(part=ToolCall() as call):
                return self._call(event, call)
            case ItemDone(part=Opaque() as part) if self._wire and part.dialect != self._wire:
                found = read_call(part)
                return (
                    (event,)
                    if found is None
                    else (msgspec.structs.replace(event, part=write_call(*found, self._wire)),)
                )
            case _:
                return (event,)

    def _call(self, event: ItemDone, call: ToolCall) -> tuple[Event, ...]:
        own = self._names.get(call.name, call.name)
        if own not in self._custom:
            return (event if own == call.name else msgspec.structs.replace(event, part=_named(call, own)),)
        self._held.discard(event.index)
        part = write_call(call.id, own, _input_of(call), self._wire)
        started = ItemStarted(index=event.index, kind="opaque", id=call.id, name=own)
        return (started, msgspec.structs.replace(event, part=part))


def _named(call: ToolCall, name: str) -> ToolCall:
    return msgspec.structs.replace(call, name=name)


def _input_of(call: ToolCall) -> str:
    """The custom tool's input; the arguments as they are where the model did not keep to the form."""
    try:
        value = call.parsed().get(INPUT)
    except ValueError:
        value = None
    return value if isinstance(value, str) else call.arguments


@final
class StopCutter:
    """Ends the answer where one of ``stops`` begins in its text, as a vendor does that is told them."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, stops))
        self._texts: dict[int, tuple[TextBuffer, str]] = {}
        """By item: what was told of it, and what is held back because it may begin a stop sequence."""

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """See `EventFilter`. After the cut only what the vendor counted is told, and the end."""
        out: list[Event] = []
        pending = iter(events)
        for event in pending:
            if self._take(event, out):
                out += [later for later in pending if isinstance(later, UsageReported)]
                out.append(Finished(reason=FinishReason.STOP, raw_reason="stop_sequence"))
                break
        return out

    def _take(self, event: Event, out: list[Event]) -> bool:
        """Whether the answer ends here."""
        match event:
            case TextDelta():
                return self._add(event.index, event.text, out)
            case ItemDone(part=Text(text=text)):
                if event.index not in self._texts and self._add(event.index, text, out):
                    return True
                _, held = self._texts.pop(event.index, (TextBuffer(), ""))
                if held:
                    out.append(TextDelta(event.index, held))
                out.append(event)
                return False
            case _:
                if isinstance(event, TERMINAL):
                    out += [TextDelta(index, held) for index, (_, held) in self._texts.items() if held]
                out.append(event)
                return False

    def _add(self, index: int, text: str, out: list[Event]) -> bool:
        seen, held = self._texts.get(index, (TextBuffer(), ""))
        text = held + text
        # The one that is complete first ends the answer, as it does where the vendor looks for them token by token.
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        found = min(ends)[1] if ends else -1
        keep = found if found >= 0 else len(text) - self._maybe(text)
        if keep:
            seen.append(text[:keep])
            out.append(TextDelta(index, text[:keep]))
        self._texts[index] = (seen, text[keep:])
        if found >= 0:
            out.append(ItemDone(index=index, part=Text(seen.text())))
        return found >= 0

    def _maybe(self, text: str) -> int:
        """How many characters at the end of ``text`` may begin a stop sequence."""
        return next(
            (
                size
                for size in range(min(len(text), self._longest - 1), 0, -1)
                if any(stop.startswith(text[-size:]) for stop in self._stops)
            ),
            0,
        )


@final
class JsonKeeper:
    """Takes the fence off an answer that is to be JSON, and fails the attempt if it is none."""

    def __init__(self) -> None:
        self._fences = CodeFenceStripper()
        self._text = TextBuffer()
        self._has_calls = False

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """See `EventFilter`."""
        out: list[Event] = []
        for event in self._fences.feed(events):
            match event:
                case ItemDone(part=Text(text=text)):
                    self._text.append(text)
                case ItemDone(part=ToolCall()):
                    self._has_calls = True
                case Finished(reason=FinishReason.STOP) if not self._has_calls:
                    out.append(self._checked(event))
                    continue
            out.append(event)
        return out

    def _checked(self, end: Finished) -> Finished | Failed:
        try:
            decode_object(self._text.text())
        except WireError as exc:
            message = f"the answer is not the JSON object that was asked for: {exc}"
            return Failed(failure=Failure(kind=FailureKind.PROTOCOL, message=message))
        return end
