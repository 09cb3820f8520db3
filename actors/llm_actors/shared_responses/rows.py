"""What is written of a response, and what is read."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

LARGEST_BYTES = 32_000_000
"""The largest change. A response with a larger one is not shared."""


class ResponseState(StrEnum):
    """The state of a response in Redis."""

    RUNNING = "r"
    ENDED = "e"
    INTERRUPTED = "i"
    """The replica that made it has ended before it."""
    UNSHARED = "l"
    """Only the replica that made it has it: it is too large, or has no bytes."""
    DELETED = "d"
    MISSING = ""


class ReplicaOrder(StrEnum):
    """What the replica that makes a response is to do with it."""

    CANCEL = "c"
    DELETE = "d"
    HOLD = "f"
    """Go on for a while: somebody follows it at another replica."""


class ReplicaNews(NamedTuple):
    """What a replica hears of the others: their orders, each with the id of a response. ``is_known``: whether it was
    known itself; if not, it was not heard of for too long, or Redis has lost what it knew.
    """

    orders: list[tuple[ReplicaOrder, str]]
    is_known: bool


class Ending(StrEnum):
    """What a `Put` ends with."""

    OPEN = ""
    """More follows."""
    ENDED = "e"
    INTERRUPTED = "i"
    """The replica gives up to write it."""
    UNSHARED = "l"
    """No other replica can have it: see `ResponseState`."""


class Put(NamedTuple):
    """Add to a response the events of its log from position ``start`` up to ``end``, packed in ``piece``. ``begins``:
    its row is made first. ``generation`` is the same for all that belongs to one row.
    """

    id: str
    caller: str
    generation: str
    begins: bool
    head: bytes
    start: int
    end: int
    piece: bytes
    ending: Ending

    @property
    def size(self) -> int:
        """Its approximate size in bytes."""
        return len(self.head) + len(self.piece)

    def within_bounds(self) -> Put:
        """The same; if it is too large, without content and with an end that says so."""
        if self.size <= LARGEST_BYTES:
            return self
        return self._replace(head=b"", piece=b"", end=self.start, ending=Ending.UNSHARED)


class PutResult(NamedTuple):
    """What became of a `Put`. ``there``, if it was not made: how many events are there already."""

    status: str
    there: int = 0

    @property
    def is_done(self) -> bool:
        """Whether it was made."""
        return self.status == "ok"

    @property
    def is_gone(self) -> bool:
        """Whether Redis has lost the row."""
        return self.status == "gone"

    @property
    def is_lost(self) -> bool:
        """Whether others have been told that the response was interrupted."""
        return self.status == "lost"

    @property
    def is_deleted(self) -> bool:
        """Whether the response has been deleted."""
        return self.status == "deleted"


class SharedRow(NamedTuple):
    """A response in Redis. ``ended_at`` is a wall-clock time. ``events``: how many there are; Redis may have lost
    some of the pieces.
    """

    state: ResponseState
    generation: str
    ended_at: float
    events: int
    head: bytes
    pieces: list[bytes]


class SharedTail(NamedTuple):
    """How a response has gone on. ``events``: how many there are, see `SharedRow`."""

    state: ResponseState
    ended_at: float
    events: int
    pieces: list[bytes]
