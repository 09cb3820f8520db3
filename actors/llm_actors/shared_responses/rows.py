"""The types of the changes that are written to a response in Redis, and of the rows that are read."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

LARGEST_BYTES = 32_000_000
"""The largest change in bytes. A response with a larger change is not shared."""


class ResponseState(StrEnum):
    """The state of a response in Redis."""

    RUNNING = "r"
    ENDED = "e"
    INTERRUPTED = "i"
    """The replica that produced the response has ended before the response was complete."""
    UNSHARED = "l"
    """Only the replica that produces the response has its content: it is too large, or cannot be packed."""
    DELETED = "d"
    MISSING = ""


class ReplicaOrder(StrEnum):
    """An order to the replica that produces a response."""

    CANCEL = "c"
    DELETE = "d"
    HOLD = "f"
    """Continue the response for some seconds (``HOLD_SECONDS`` of the server): it has a follower at another replica."""


class ReplicaNews(NamedTuple):
    """The result of `SharedResponses.sync`: the orders of other replicas, each with the id of a response.
    ``is_known``: whether the heartbeat was still in Redis. If not, it has expired, or Redis has lost its data.
    """

    orders: list[tuple[ReplicaOrder, str]]
    is_known: bool


class Ending(StrEnum):
    """The state of a response after a `Put`."""

    OPEN = ""
    """More events follow."""
    ENDED = "e"
    INTERRUPTED = "i"
    """The replica has given up writing the response."""
    UNSHARED = "l"
    """No other replica can read the response: see `ResponseState`."""


class Put(NamedTuple):
    """A change of a response's row: append the events of its log from position ``start`` up to ``end``, packed in
    ``piece``. ``head``: the packed request and options. ``begins``: create the row first. ``generation`` identifies the
    row: an earlier row with the same id has another generation.
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
        """The approximate size of the change in bytes."""
        return len(self.head) + len(self.piece)

    def within_bounds(self) -> Put:
        """Return this change. If it is too large, return one without content that marks the response as `UNSHARED`."""
        if self.size <= LARGEST_BYTES:
            return self
        return self._replace(head=b"", piece=b"", end=self.start, ending=Ending.UNSHARED)


class PutResult(NamedTuple):
    """The result of a `Put`. If the ``start`` of the `Put` did not match, ``there`` is the number of events that the
    row already has.
    """

    status: str
    there: int = 0

    @property
    def is_done(self) -> bool:
        """Whether the change was applied."""
        return self.status == "ok"

    @property
    def is_gone(self) -> bool:
        """Whether Redis has lost the row."""
        return self.status == "gone"

    @property
    def is_lost(self) -> bool:
        """Whether the row is interrupted. Other replicas may have reported that to clients, so no more events can be
        added.
        """
        return self.status == "lost"

    @property
    def is_deleted(self) -> bool:
        """Whether the response has been deleted."""
        return self.status == "deleted"


class SharedRow(NamedTuple):
    """The row of a response in Redis. ``ended_at`` is a UNIX time. ``events`` is the number of events that were
    written. Fewer events in ``pieces`` mean that Redis has lost some.
    """

    state: ResponseState
    generation: str
    ended_at: float
    events: int
    head: bytes
    pieces: list[bytes]


class SharedTail(NamedTuple):
    """The end of a row: its pieces from a given number on. ``events`` is the number of all events that were written,
    see `SharedRow`.
    """

    state: ResponseState
    ended_at: float
    events: int
    pieces: list[bytes]
