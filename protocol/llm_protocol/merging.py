"""Joining deltas that have piled up.

A reader that is slower than the model finds many small deltas waiting. Sent one by one they cost a frame each;
joined they cost one. Every encoder uses this, so that a slow reader is served in the same way on every wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llm_protocol.events import DELTAS, Delta, Event


def merged(events: Iterable[Event]) -> Iterator[tuple[Event, int]]:
    """The events in order, each with how many of the given ones it stands for: adjacent deltas of one item become
    one.
    """
    pending: Delta | None = None
    pieces: list[str] = []
    for event in events:
        if not isinstance(event, DELTAS):
            if pending is not None:
                yield _joined(pending, pieces), len(pieces)
                pending = None
            yield event, 1
        elif pending is not None and type(event) is type(pending) and event.index == pending.index:
            pieces.append(event.text)
        else:
            if pending is not None:
                yield _joined(pending, pieces), len(pieces)
            pending, pieces = event, [event.text]
    if pending is not None:
        yield _joined(pending, pieces), len(pieces)


def _joined(first: Delta, pieces: list[str]) -> Delta:
    return first if len(pieces) == 1 else type(first)(first.index, "".join(pieces))
