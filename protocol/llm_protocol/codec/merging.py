"""Join deltas that a slow reader has not taken yet.

For a client that is slower than the model, many small deltas wait. Each would take a frame; joined, they take one.
Every encoder uses this module, so a slow reader is treated the same on every wire. The run log uses it, too: it keeps
old deltas joined, with the length of each, so that a reader can still resume between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from llm_protocol.events import DELTAS, Delta, Event, MemberDelta

AnyDelta: TypeAlias = Delta | MemberDelta

ANY_DELTAS = (*DELTAS, MemberDelta)

MAX_PIECE = 255
"""The most characters of a delta whose length `join` can keep, because one byte stores the length."""


def merged(events: Iterable[Event]) -> list[tuple[Event, int]]:
    """The events in order, each with the number of deltas it stands for. Adjacent deltas of one item become one."""
    found: list[tuple[Event, int]] = []
    pending: AnyDelta | None = None
    texts: list[str] = []
    count = 0
    for event in events:
        if not isinstance(event, ANY_DELTAS):
            if pending is not None:
                found.append((_with_text(pending, texts), count))
                pending = None
            found.append((event, 1))
        elif pending is not None and is_continued_by(pending, event):
            texts.append(event.text)
            count += len(event.lengths) or 1
        else:
            if pending is not None:
                found.append((_with_text(pending, texts), count))
            pending, texts, count = event, [event.text], len(event.lengths) or 1
    if pending is not None:
        found.append((_with_text(pending, texts), count))
    return found


def is_continued_by(first: AnyDelta, second: AnyDelta) -> bool:
    """Whether ``second`` continues the text of ``first``: the same item or the same member."""
    if isinstance(first, MemberDelta):
        return isinstance(second, MemberDelta) and first.member == second.member
    return not isinstance(second, MemberDelta) and type(first) is type(second) and first.index == second.index


def count_pieces(event: Event) -> int:
    """Return the number of events of the run log that ``event`` stands for."""
    return (len(event.lengths) or 1) if isinstance(event, ANY_DELTAS) else 1


def keeps_lengths(delta: AnyDelta) -> bool:
    """Whether `join` can keep the length of this delta, so that the delta may be passed to `join`."""
    return bool(delta.lengths) or len(delta.text) <= MAX_PIECE


def join(deltas: Sequence[AnyDelta]) -> AnyDelta:
    """Join deltas of one text into one delta that keeps the length of each. `keeps_lengths` must be true for each."""
    if len(deltas) == 1:
        return deltas[0]
    lengths = b"".join(delta.lengths or bytes((len(delta.text),)) for delta in deltas)
    return _made(deltas[0], "".join(delta.text for delta in deltas), lengths)


def cut(delta: AnyDelta, pieces: int) -> tuple[AnyDelta, AnyDelta]:
    """Split a joined delta after ``pieces`` of its deltas. Neither half may be empty."""
    at = sum(delta.lengths[:pieces])
    first = _made(delta, delta.text[:at], delta.lengths[:pieces])
    return first, _made(delta, delta.text[at:], delta.lengths[pieces:])


def without_lengths(delta: AnyDelta) -> AnyDelta:
    """Return the delta without the lengths of the deltas that were joined in it."""
    return _made(delta, delta.text, b"") if delta.lengths else delta


def _with_text(first: AnyDelta, texts: list[str]) -> AnyDelta:
    return _made(first, "".join(texts), b"") if len(texts) > 1 or first.lengths else first


def _made(like: AnyDelta, text: str, lengths: bytes) -> AnyDelta:
    if isinstance(like, MemberDelta):
        return MemberDelta(like.member, text, lengths)
    return type(like)(like.index, text, lengths)
