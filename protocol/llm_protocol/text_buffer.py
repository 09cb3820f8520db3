"""Collect a text that arrives in small pieces and is needed whole at the end."""

from __future__ import annotations

from typing import final

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
