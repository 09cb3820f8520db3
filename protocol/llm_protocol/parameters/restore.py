"""Filters over the events of one response that undo the changes to its request.

Tools get their client's names back, and calls of functions that stand for custom tools become custom calls. A response
ends where a stop sequence begins that was not sent to the vendor. JSON that the model was only instructed to write is
checked, and a fence around it is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, final

import msgspec

from llm_protocol.codec.code_fences import CodeFenceStripper
from llm_protocol.codec.items import TextBuffer
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


class EventFilter(Protocol):
    """Takes events in order, and returns the events to report instead. It gets none after a terminal event."""

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """The events to report."""
        ...


@final
class ToolRestorer:
    """Gives tools the names that the client used, and turns calls of functions into custom calls.

    ``names``: a tool's name at the vendor, and the client's name. ``custom``: the client's names of tools that became
    functions. ``wire``: the wire whose form custom calls get; ``None``: they stay function calls.
    """

    def __init__(self, names: Mapping[str, str], custom: frozenset[str], wire: str | None) -> None:
        self._names = names
        self._custom = custom if wire is not None else frozenset()
        self._wire = wire or ""
        self._held: set[int] = set()

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """See `EventFilter`. A custom call is reported when it is complete: its text is inside the function's JSON."""
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
    """The custom tool's input; the unchanged arguments if the model did not follow the form."""
    try:
        value = call.parsed().get(INPUT)
    except ValueError:
        value = None
    return value if isinstance(value, str) else call.arguments


@final
class StopCutter:
    """Ends the response where one of ``stops`` begins in its text, as a vendor does."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, stops))
        self._texts: dict[int, tuple[TextBuffer, str]] = {}
        """By item: the text that was reported, and the text held back because it may begin a stop sequence."""

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """See `EventFilter`. After a stop sequence only the vendor's usage and the end are reported."""
        out: list[Event] = []
        pending = iter(events)
        for event in pending:
            if self._take(event, out):
                out += [later for later in pending if isinstance(later, UsageReported)]
                out.append(Finished(reason=FinishReason.STOP, raw_reason="stop_sequence"))
                break
        return out

    def _take(self, event: Event, out: list[Event]) -> bool:
        """Whether the response ends here."""
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
        # The sequence that is complete first ends the response, as at a vendor that searches token by token.
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
        """The number of characters at the end of ``text`` that may begin a stop sequence."""
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
    """Removes the fence around a response that must be JSON, and fails the attempt if it is not JSON."""

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
            message = f"the response is not the requested JSON object: {exc}"
            return Failed(failure=Failure(kind=FailureKind.PROTOCOL, message=message))
        return end
