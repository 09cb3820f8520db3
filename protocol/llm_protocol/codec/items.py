"""An item of a response while it streams: the text received until now, and the part that the item becomes.

Every stream decoder, and the fold of events, keeps its state of an item in an `OpenItem`. Wires with more state use
subclasses. Tool calls arrive in more forms than text: see `codec.tool_calls`.
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

RECENT_PIECES = 64
"""The number of pieces that are kept as they arrived before they are joined."""

BLOCK_CHARACTERS = 16 * 1024
"""The approximate length, in characters, of joined pieces. A longer text has several blocks."""


@final
class TextBuffer:
    """Collects pieces of a text. A list of them would take about 60 bytes more for each token."""

    __slots__ = ("_blocks", "_recent")

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._recent: list[str] = []

    def append(self, piece: str) -> None:
        """Add a piece at the end."""
        self._recent.append(piece)
        if len(self._recent) >= RECENT_PIECES:
            self._join()

    def _join(self) -> None:
        text = "".join(self._recent)
        self._recent.clear()
        if self._blocks and len(self._blocks[-1]) < BLOCK_CHARACTERS:
            self._blocks[-1] += text
        else:
            self._blocks.append(text)

    def clear(self) -> None:
        """Remove all pieces."""
        self._blocks.clear()
        self._recent.clear()

    def text(self) -> str:
        """The whole text."""
        return "".join((*self._blocks, *self._recent))

    def __bool__(self) -> bool:
        """Whether any piece was added, even an empty one."""
        return bool(self._recent or self._blocks)
