r"""Characters that are cut in two: half of a surrogate pair at the end of one piece of a stream, half in the next.

Tokenisers split an emoji into tokens, and servers that write JSON in ASCII send ``"\ud83d"`` and then ``"\ude00"``.
Neither half is a character. `PairJoiner` moves the first half to the second in the JSON text, so that no wire's decoder
ever sees half a pair.
"""

from __future__ import annotations

import re
from typing import final

from llm_protocol.codec.sse import ServerSentEvent

HALF = "\\u"
"""What a piece with half a pair has in it; most have not."""

HELD_PIECES = 2
"""Pieces that are held back while the second half may still come: a ping may stand between."""

_FIRST_HALF = re.compile(r'(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2})"')
"""At the end of a string. The backslash that begins it stands behind an even number of others."""

_SECOND_HALF = re.compile(r'(?<!\\)"(\\u[dD][c-fC-F][0-9a-fA-F]{2})')
"""At the beginning of a string."""


@final
class PairJoiner:
    """Feed it the pieces of a stream in order: those with `HALF` in them, and all while any are held back."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: list[ServerSentEvent] = []
        """The pieces that are held back."""

    def feed(self, piece: ServerSentEvent) -> list[ServerSentEvent]:
        """The pieces that can be read now."""
        ready: list[ServerSentEvent] = []
        if self.held:
            second = _SECOND_HALF.search(piece.data)
            may_come = len(self.held) < HELD_PIECES and piece.data.startswith("{")  # not behind [DONE]
            if second is None and may_come:
                self.held.append(piece)
                return []
            ready, self.held = self.held, []
            if second is not None:
                ready[0], half = _without_half(ready[0])
                at = second.start(1)
                piece = piece._replace(data=piece.data[:at] + half + piece.data[at:])
        if _FIRST_HALF.search(piece.data):
            self.held.append(piece)
        else:
            ready.append(piece)
        return ready

    def end(self) -> list[ServerSentEvent]:
        """The pieces that are held back: no second half will come."""
        held, self.held = self.held, []
        return held


def _without_half(piece: ServerSentEvent) -> tuple[ServerSentEvent, str]:
    found = _FIRST_HALF.search(piece.data)
    assert found is not None, "for this it is held back"
    start, end = found.span(1)
    return piece._replace(data=piece.data[:start] + piece.data[end:]), found[1]
