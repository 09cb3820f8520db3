"""An item of a response while it streams: the text received until now, and the part that the item becomes.

Every stream decoder, and the fold of events, keeps its state of an item in an `OpenItem`, and the text in a
`TextBuffer`. Wires with more state use subclasses. Tool calls arrive in more forms than text: see `codec.tool_calls`.
"""

from __future__ import annotations

from typing import final

from llm_protocol.content import Image, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from llm_protocol.events import Delta, ItemKind, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta

DELTA_OF: dict[ItemKind, type[Delta]] = {
    "text": TextDelta,
    "reasoning": ReasoningDelta,
    "tool_call": ToolCallDelta,
    "refusal": RefusalDelta,
}
"""The delta type of each kind that has one."""


class OpenItem:
    """An item that has started. ``index`` is its place among the response's items, from 0."""

    __slots__ = ("delta", "id", "index", "kind", "name", "pieces")

    def __init__(self, index: int, kind: ItemKind, id_: str | None = None, name: str | None = None) -> None:
        self.index = index
        self.kind: ItemKind = kind
        self.id = id_
        self.name = name
        self.pieces = TextBuffer()
        self.delta: type[Delta] = DELTA_OF.get(kind, TextDelta)

    def part(self, *, dialect: str | None = None) -> Part:
        """The item as it is now, as a part. ``dialect`` is the dialect to which its reasoning belongs."""
        text = self.pieces.text()
        match self.kind:
            case "text":
                return Text(text)
            case "refusal":
                return Refusal(text)
            case "reasoning":
                return Reasoning(text=text, id=self.id, dialect=dialect)
            case "tool_call":
                return ToolCall(id=self.id or "", name=self.name or "", arguments=text)
            case _:
                raise AssertionError(f"an item of kind {self.kind} has no text for a part")

    def readable_part(self) -> Part | None:
        """Return the part that a truncated item becomes: the text so far. ``None`` for a tool call or image, because
        an incomplete one is useless.
        """
        return self.part() if self.kind in ("text", "reasoning", "refusal") and self.pieces.text() else None


def kind_of(part: Part) -> ItemKind:
    """The kind of item for ``part``. Raises `ValueError` for a part that no response has, such as a tool result."""
    match part:
        case Text():
            return "text"
        case Reasoning():
            return "reasoning"
        case ToolCall():
            return "tool_call"
        case Refusal():
            return "refusal"
        case Image():
            return "image"
        case Opaque():
            return "opaque"
        case _:
            raise ValueError(f"a {type(part).__name__} is never part of a response")


def text_of(part: Part) -> str:
    """The text that the deltas of ``part`` add up to; empty for a part without deltas."""
    match part:
        case ToolCall():
            return part.arguments
        case Text() | Reasoning() | Refusal():
            return part.text
        case _:
            return ""


# ---------------------------------------------------------------- text in pieces


@final
class TextBuffer:
    """Collects pieces of a text. A list of them would take about 60 bytes more for each token."""

    __slots__ = ("utf8",)

    def __init__(self) -> None:
        self.utf8 = bytearray()
        """The text. Code that runs for each token may add to it itself; its text must not have lone surrogates."""

    def append(self, piece: str) -> None:
        """Add a piece at the end."""
        try:
            self.utf8 += piece.encode()
        except UnicodeEncodeError:  # a lone surrogate, which is rare: not with `surrogatepass` at once, which is slow
            self.utf8 += piece.encode("utf-8", "surrogatepass")

    def clear(self) -> None:
        """Remove all pieces."""
        self.utf8.clear()

    def text(self) -> str:
        """The whole text."""
        return self.utf8.decode("utf-8", "surrogatepass")

    def __bool__(self) -> bool:
        """Whether there is any text."""
        return bool(self.utf8)
