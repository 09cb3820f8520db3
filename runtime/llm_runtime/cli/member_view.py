"""Shows the members of a strategy in a terminal or a file: the text of each member on lines with its name, then the
response.

Tokens of concurrent streams would be mixed up, so a member's text is buffered until it fills a line. The response is
streamed as it arrives, below a line.
"""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import AsyncIterator, Iterator
from typing import Protocol, final

from llm_protocol.events import (
    Event,
    MemberDelta,
    MemberDone,
    MemberEvent,
    MemberFailed,
    MemberStarted,
    TextDelta,
)

COLUMNS = 80
"""The assumed width of the output, in columns, if stdout is not a terminal."""

LABEL_COLUMNS = 24
"""The columns for a member's name. Of a longer name the end is shown, which distinguishes models best."""

NARROWEST = 16
"""The fewest columns for the text after a name, even in a narrow terminal."""


class Writer(Protocol):
    """The output, such as stdout."""

    async def write(self, text: str) -> None:
        """Write a piece."""
        ...


def columns() -> int:
    """Return the width of the terminal, or `COLUMNS` if stdout is not a terminal."""
    return shutil.get_terminal_size((COLUMNS, 24)).columns


async def watch(events: AsyncIterator[Event], sheet: Writer, width: int) -> None:
    """Write the members and the response to ``sheet``, until ``events`` end. Raises the exceptions of ``events``."""
    stage = MemberView(width)
    began = False
    async for event in events:
        if isinstance(event, MemberStarted | MemberDelta | MemberDone | MemberFailed):
            for line in stage.lines(event):
                await sheet.write(line + "\n")
        elif isinstance(event, TextDelta):
            if not began and stage.shown:
                await sheet.write(rule("answer", width) + "\n")
            began = True
            await sheet.write(event.text)


def rule(title: str, width: int) -> str:
    """Return a horizontal line with a title in it."""
    return f"── {title} ".ljust(width, "─")[:width]


@final
class MemberView:
    """Formats the events of members as lines of text."""

    def __init__(self, width: int) -> None:
        self.shown = False
        self._width = width
        self._label = 0
        self._texts: dict[str, str] = {}

    def lines(self, event: MemberEvent) -> Iterator[str]:
        """Return the lines to write for ``event``, the next event."""
        self.shown = True
        name = event.member
        match event:
            case MemberStarted():
                self._label = max(self._label, min(len(name), LABEL_COLUMNS))
                self._texts[name] = ""
                if event.round:
                    yield self._line(name, f"(round {event.round + 1})")
            case MemberDelta():
                yield from self._filled(name, event.text)
            case MemberDone():
                yield from self._rest(name)
                yield self._line(name, f"({_summary(event)})")
            case MemberFailed(failure=failure):
                yield from self._rest(name)
                for piece in wrapped(f"({failure.kind.value}: {failure.message})", self._room):
                    yield self._line(name, piece)

    @property
    def _room(self) -> int:
        return max(NARROWEST, self._width - self._label - len(" │ "))

    def _line(self, name: str, text: str) -> str:
        label = name if len(name) <= LABEL_COLUMNS else "…" + name[1 - LABEL_COLUMNS :]
        return f"{label:<{self._label}} │ {text}".rstrip()

    def _filled(self, name: str, text: str) -> Iterator[str]:
        *lines, self._texts[name] = wrapped(self._texts.get(name, "") + text, self._room)
        for line in lines:
            yield self._line(name, line)

    def _rest(self, name: str) -> Iterator[str]:
        if rest := self._texts.pop(name, "").rstrip():
            yield self._line(name, rest)


def wrapped(text: str, room: int) -> list[str]:
    """Return the text in lines of at most ``room`` columns, broken between words if possible; at least one line."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        rest = paragraph
        while (cut := _fitting(rest, room)) < len(rest):
            space = rest.rfind(" ", 1, cut + 1)
            lines.append(rest[: space if space > 0 else cut])
            rest = rest[space + 1 :] if space > 0 else rest[cut:]
        lines.append(rest)
    return lines


def _fitting(text: str, room: int) -> int:
    """Return how many characters of a text fit into the columns; at least one."""
    used = 0
    for at, char in enumerate(text):
        used += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used > room:
            return max(at, 1)
    return len(text)


def _summary(done: MemberDone) -> str:
    tokens = "done" if done.usage is None else f"done: {done.usage.total_tokens} tokens"
    return tokens if done.cost is None else f"{tokens}, ${done.cost:.6f}"
