r"""Characters that are cut in two: half of a surrogate pair at the end of one piece of a stream, half in the next.

Tokenizers split an emoji into tokens, and servers that write JSON in ASCII send ``"\ud83d"`` and then ``"\ude00"``.
Neither half is a character. `PairJoiner` moves the first half to the second in the JSON text, so that no wire's
decoder ever sees half a pair.
"""

from __future__ import annotations

import re
from typing import final

import msgspec

from llm_protocol.codec.sse import ServerSentEvent

HALF = "\\u"
"""The beginning of an escaped half of a pair. A piece without it contains no half; most pieces do not have it."""

HELD_PIECES = 2
"""The most pieces that are held back until the second half arrives: a ping may come between the halves."""

_FIRST_HALF = re.compile(r'(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2})"')
"""The first half at the end of a string. An even number of backslashes precedes it."""

_SECOND_HALF = re.compile(r'(?<!\\)"(\\u[dD][c-fC-F][0-9a-fA-F]{2})')
"""The second half at the beginning of a string."""


@final
class PairJoiner:
    """Joins the halves of surrogate pairs. Feed it the pieces of a stream in order: each piece that contains `HALF`,
    and every piece while pieces are held back (``held``).
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: list[ServerSentEvent] = []
        """The pieces that are held back."""

    def feed(self, piece: ServerSentEvent) -> list[ServerSentEvent]:
        """Take the next piece, and return the pieces that can be decoded now; none while a half is held back."""
        ready: list[ServerSentEvent] = []
        if self.held:
            second = _SECOND_HALF.search(piece.data)
            may_come = len(self.held) < HELD_PIECES and piece.data.startswith("{")  # not after [DONE]
            if second is None and may_come:
                self.held.append(piece)
                return []
            ready, self.held = self.held, []
            if second is not None:
                ready[0], half = _without_half(ready[0])
                at = second.start(1)
                piece = msgspec.structs.replace(piece, data=piece.data[:at] + half + piece.data[at:])
        if _FIRST_HALF.search(piece.data):
            self.held.append(piece)
        else:
            ready.append(piece)
        return ready

    def end(self) -> list[ServerSentEvent]:
        """Release the pieces that are held back: no second half will come."""
        held, self.held = self.held, []
        return held


def _without_half(piece: ServerSentEvent) -> tuple[ServerSentEvent, str]:
    found = _FIRST_HALF.search(piece.data)
    assert found is not None, "an event that is held back must match"
    start, end = found.span(1)
    return msgspec.structs.replace(piece, data=piece.data[:start] + piece.data[end:]), found[1]
