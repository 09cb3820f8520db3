"""The events that followers receive if an attempt may fail in the middle of a response.

All attempts of a request write through one `StreamRecovery`. As long as no content was delivered, a failed attempt
leaves no trace and another may begin. After that the policy decides: ``error`` gives up. ``buffer`` delivers nothing
before the response is complete, so another attempt is always possible. ``continue`` lets a model that supports it
continue where the text broke off. ``restart`` tells the followers to discard the content they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import msgspec

from llm_actors.provider import Sink
from llm_actors.run import LogLimitExceeded, RunLog, weigh
from llm_protocol.content import Message, Text
from llm_protocol.events import (
    CONTENT,
    Event,
    ItemDone,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    Restarted,
    TextDelta,
    ToolCallDelta,
)
from llm_protocol.policy import OnBrokenStream
from llm_protocol.requests import AnyRequest, ChatRequest, CompletionRequest

MOST_ANNOUNCED = 10_000
"""The most events without content that are held back for one attempt."""


@final
class StreamRecovery:
    """Writes the attempts of a request into its log. Each attempt's events go to `sink`. A success ends with
    `commit`; after a failure `resume` decides what follows.
    """

    __slots__ = ("_buffer", "_held", "_held_bytes", "_log", "_mode", "_speaking", "_splice", "delivered", "direct")

    def __init__(self, log: RunLog, mode: OnBrokenStream) -> None:
        self._log = log
        self._mode = mode
        self._held_bytes = 0
        self._held: list[Event] = []
        """Events of the current attempt that are held back until it delivers content. If it fails before, they are
        dropped.
        """
        self._buffer = self._new_buffer() if mode == "buffer" else None
        """The events of the current attempt, if nothing is delivered before the response is complete. A log keeps
        deltas joined.
        """
        self._splice: _Continuation | None = None
        self._speaking = False
        """Whether content of the current attempt was delivered."""
        self.delivered = False
        """Whether followers have seen content that is still valid."""
        self.direct: Sink | None = None
        """Takes the attempt's next event instead of `sink`, while `sink` would only append it to the log."""

    @property
    def continuing(self) -> bool:
        """Whether the next attempt continues where another broke off."""
        return self._splice is not None

    @property
    def needs_prefill(self) -> bool:
        """Whether the next attempt is sent the text so far, to continue it, which not every model supports."""
        return self._splice is not None and self._splice.is_sent

    def sink(self, event: Event) -> None:
        """Take the attempt's next event. Raises `LogLimitExceeded`."""
        if self._speaking:
            self._append(event)
        elif self._buffer is not None:
            self._buffer.append(event)
        elif isinstance(event, CONTENT):
            self.commit()
            self._speaking = self.delivered = True
            self._append(event)
            if self._splice is None:
                self.direct = self._log.append
        else:
            size = self._held_bytes + weigh(event)
            if len(self._held) >= MOST_ANNOUNCED or self._log.size + size > self._log.limit_bytes:
                raise LogLimitExceeded
            self._held.append(event)
            self._held_bytes = size

    def commit(self) -> None:
        """Deliver the events that were held back, because the attempt is complete."""
        if self._held or self._buffer is not None:
            for event in self._forget_held():
                self._append(event)

    def resume(self, request: AnyRequest) -> AnyRequest | None:
        """Return the request for another attempt after a failed one; ``None`` if the delivered content forbids
        another.
        """
        self._forget_held()
        self._speaking, self.direct = False, None
        if not self.delivered:
            return request
        if self._mode == "restart":
            self._log.append(Restarted())
            self.delivered = False
            return request
        if self._mode == "continue":
            return self._continuation(request)
        return None

    def _forget_held(self) -> list[Event]:
        held, self._held, self._held_bytes = self._held, [], 0
        if self._buffer is not None:
            held, self._buffer = self._buffer.events, self._new_buffer()
        return held

    def _new_buffer(self) -> RunLog:
        """Return a log that holds as much as is left in the run's log."""
        return RunLog(limit_bytes=self._log.limit_bytes - self._log.size)

    def _append(self, event: Event) -> None:
        found = event if self._splice is None else self._splice.translate(event)
        if found is not None:
            self._log.append(found)

    def _continuation(self, request: AnyRequest) -> AnyRequest | None:
        broken = _break(self._log.events)
        if broken is None:
            return None
        self._splice = _Continuation(broken)
        match request:
            case ChatRequest(n=1) if not self._splice.is_sent:
                return request
            case ChatRequest(n=1):
                # vendors refuse a prefill that ends in white space
                prefix = Message.of("assistant", broken.text.rstrip())
                return msgspec.structs.replace(request, messages=(*request.messages, prefix))
            case CompletionRequest(suffix=None):
                return msgspec.structs.replace(request, prompt=request.prompt + broken.text.rstrip())
            case _:
                return None


class _Break(NamedTuple):
    """Where a text broke off: the open item, its text so far, and the first free index."""

    item: int
    text: str
    free: int


def _break(events: Sequence[Event]) -> _Break | None:
    """Return the place to continue from; ``None`` unless the last item is an unfinished text and no tool was called."""
    kinds: dict[int, str] = {}
    done: set[int] = set()
    pieces: dict[int, list[str]] = {}
    for event in events:
        match event:
            case Restarted():
                kinds, done, pieces = {}, set(), {}
            case ItemStarted():
                kinds[event.index] = event.kind
            case ItemDone():
                done.add(event.index)
            case TextDelta():
                pieces.setdefault(event.index, []).append(event.text)
            case _:
                continue
    last = max(kinds, default=-1)
    if last < 0 or kinds[last] != "text" or last in done or "tool_call" in kinds.values():
        return None
    return _Break(last, "".join(pieces.get(last, ())), last + 1)


@final
class _Continuation:
    """Renumbers the events of an attempt that continues: its first text is the rest of the broken text."""

    def __init__(self, broken: _Break) -> None:
        self._broken = broken
        self._text: int | None = None
        self._skip_space = broken.text != broken.text.rstrip()
        self.is_sent = bool(broken.text.strip())
        """Whether the text is sent to the vendor. If there is nothing but space, the attempt begins anew."""

    def translate(self, event: Event) -> Event | None:
        """Return the event with the numbers of the log; ``None`` for an event that the followers have seen already."""
        match event:
            case ItemStarted() if event.kind == "text" and self._text is None:
                self._text = event.index
                return None
            case TextDelta() if event.index == self._text:
                return TextDelta(self._broken.item, self._fitting(event.text))
            case ItemDone() if event.index == self._text:
                text = event.part.text if isinstance(event.part, Text) else ""
                return ItemDone(index=self._broken.item, part=Text(self._broken.text + self._rest(text)))
            case ItemStarted() | ItemDone() | TextDelta() | ReasoningDelta() | ToolCallDelta() | RefusalDelta():
                return msgspec.structs.replace(event, index=self._broken.free + event.index)
            case _:
                return event

    def _fitting(self, text: str) -> str:
        """Return the delta without the leading space that was delivered before the break but not sent back to the
        vendor.
        """
        if not self._skip_space:
            return text
        text = text.lstrip()
        self._skip_space = not text
        return text

    def _rest(self, text: str) -> str:
        return text.lstrip() if self._broken.text != self._broken.text.rstrip() else text
