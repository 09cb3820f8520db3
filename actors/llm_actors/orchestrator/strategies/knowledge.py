"""Earlier answers of a conversation, stored to be given to models that are called later in it.

Answers are stored only if a route or request says so, and only for the same caller. Their number and size are
limited. They are in memory only: a restart forgets them, and so does `forget`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, final

MAX_CONVERSATIONS = 1_000
"""The most conversations that are stored; the least recently used is dropped."""

MAX_PIECES = 12
"""The most answers of one conversation that are stored; the oldest are dropped."""

PIECE_CHARACTERS = 4_000
"""The most characters of each answer, from its beginning."""


class Piece(NamedTuple):
    """An answer, with the name of the ``member`` that gave it."""

    member: str
    text: str


@final
class Knowledge:
    """The stored answers of all conversations of this runtime."""

    def __init__(self) -> None:
        self._pieces: OrderedDict[tuple[str, str], tuple[Piece, ...]] = OrderedDict()

    def of(self, caller: str, conversation: str) -> tuple[Piece, ...]:
        """Return the stored answers, the oldest first."""
        return self._pieces.get((caller, conversation), ())

    def keep(self, caller: str, conversation: str, answers: Sequence[Piece]) -> None:
        """Add ``answers`` to those of the conversation, each cut to `PIECE_CHARACTERS`; empty ones are left out. Beyond
        `MAX_PIECES` the oldest answers are dropped, beyond `MAX_CONVERSATIONS` the conversation to which nothing was
        added for the longest time.
        """
        key = (caller, conversation)
        clipped = [Piece(member, text[:PIECE_CHARACTERS]) for member, text in answers if text]
        self._pieces[key] = (*self.of(caller, conversation), *clipped)[-MAX_PIECES:]
        self._pieces.move_to_end(key)
        if len(self._pieces) > MAX_CONVERSATIONS:
            self._pieces.popitem(last=False)

    def forget(self, caller: str, conversation: str | None = None) -> int:
        """Forget one conversation of the caller, or all of them. Returns how many were forgotten."""
        gone = [key for key in self._pieces if key[0] == caller and conversation in (None, key[1])]
        for key in gone:
            del self._pieces[key]
        return len(gone)

    def __len__(self) -> int:
        return len(self._pieces)
