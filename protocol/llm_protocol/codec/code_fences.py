"""Remove the Markdown fence around streamed code.

If a text begins with a fence line (three or more backticks or tildes, and a language), that line and the closing
fence are removed. Other fences stay, and so does any text that does not begin with a fence. Text that might be a
fence is held back, at most `HOLD_LIMIT` characters, until that is clear. The result does not depend on how the text
was split into deltas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import final

import msgspec

from llm_protocol.codec.items import TextBuffer
from llm_protocol.content import Text
from llm_protocol.events import TERMINAL, Event, ItemDone, ItemStarted, TextDelta

HOLD_LIMIT = 256
"""The most characters that are held back while they could be part of a fence."""

_HEAD = re.compile(r"\s*(?P<fence>`{3,}|~{3,})[^\n`]*\n")
_MAYBE_HEAD = re.compile(r"\s*(?:`{0,2}|~{0,2}|(?:`{3,}|~{3,})[^\n`]*)")


class CodeFenceDecoder:
    """Removes the fence of one text. `add` and `end` return the characters that are certainly not part of a fence."""

    def __init__(self) -> None:
        self._held = ""
        self._begun = False
        self._skip = 0  # the characters held back that do not belong to the text
        self._fence: re.Pattern[str] | None = None
        self._maybe: re.Pattern[str] | None = None
        self.touched = False

    def add(self, text: str) -> str:
        """Add a piece of the text. Return the characters that were not returned before and are certainly no part of a
        fence. Characters that may still become part of a fence are held back.
        """
        self.touched = True
        self._held += text
        if not self._begun and not self._begin():
            return ""
        tail = self._maybe.search(self._held) if self._maybe else None
        while tail and len(self._held) - tail.start() > HOLD_LIMIT:
            tail = tail.re.search(self._held, tail.start() + 1)
        return self._give(tail.start() if tail else len(self._held))

    def end(self) -> str:
        """The rest of the text, without a closing fence."""
        tail = self._fence.search(self._held) if self._fence else None
        return self._give(tail.start() if tail else len(self._held))

    def _begin(self) -> bool:
        """Return whether it is known how the text begins."""
        head = _HEAD.match(self._held)
        if head is None or head.end() > HOLD_LIMIT:
            self._begun = len(self._held) >= HOLD_LIMIT or _MAYBE_HEAD.fullmatch(self._held) is None
            return self._begun
        self._begun = True
        # The end of the fence line is kept for the search only: the next line may be the closing fence.
        self._held, self._skip = self._held[head.end() - 1 :], 1
        char, least = head["fence"][0], len(head["fence"])
        self._fence = re.compile(rf"\n[ \t]*{char}{{{least},}}\s*\Z")
        self._maybe = re.compile(rf"\n[ \t]*(?:{char}*|{char}{{{least},}}\s*)\Z")
        return True

    def _give(self, count: int) -> str:
        given, self._held = self._held[:count], self._held[count:]
        if given:
            given, self._skip = given[self._skip :], 0
        return given


@final
class CodeFenceStripper:
    """Removes the fence of every text item from the events of one response, from deltas and from complete items."""

    def __init__(self) -> None:
        self._texts: dict[int, tuple[CodeFenceDecoder, TextBuffer]] = {}

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """The filtered events. Text that is held back follows at the end of the item or response."""
        out: list[Event] = []
        for event in events:
            match event:
                case TextDelta():
                    self._delta(event, out)
                case ItemStarted(kind="text"):
                    self._texts[event.index] = (CodeFenceDecoder(), TextBuffer())
                    out.append(event)
                case ItemDone(part=Text() as text):
                    out.append(ItemDone(index=event.index, part=self._whole(event.index, text, out)))
                case _:
                    if isinstance(event, TERMINAL):
                        for index in list(self._texts):
                            self._flush(index, out)
                    out.append(event)
        return out

    def _delta(self, event: TextDelta, out: list[Event]) -> None:
        state, _ = self._texts.setdefault(event.index, (CodeFenceDecoder(), TextBuffer()))
        self._emit(event.index, state.add(event.text), out)

    def _emit(self, index: int, text: str, out: list[Event]) -> None:
        if text:
            self._texts[index][1].append(text)
            out.append(TextDelta(index, text))

    def _flush(self, index: int, out: list[Event]) -> str:
        state, pieces = self._texts[index]
        self._emit(index, state.end(), out)
        del self._texts[index]
        return pieces.text()

    def _whole(self, index: int, part: Text, out: list[Event]) -> Text:
        state, _ = self._texts.setdefault(index, (CodeFenceDecoder(), TextBuffer()))
        if not state.touched:  # an item that came without deltas
            self._emit(index, state.add(part.text), out)
        return msgspec.structs.replace(part, text=self._flush(index, out))
