"""The rows of stored responses, and the changes to them.

A response is one row with its request, and one row for each piece of its log. A `running` response belongs to its
process; if the process ends, the response is `interrupted`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from llm_actors.store.messages import StoredResponseRow

if TYPE_CHECKING:
    import sqlite3

RUNNING: Final = 0
ENDED: Final = 1
INTERRUPTED: Final = 2

TABLES: Final = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, caller TEXT NOT NULL, owner TEXT NOT NULL, state INTEGER NOT NULL,
    created_at REAL NOT NULL, ended_at REAL, head BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS responses_by_end ON responses (ended_at) WHERE state > 0;
CREATE INDEX IF NOT EXISTS responses_running ON responses (owner) WHERE state = 0;
CREATE TABLE IF NOT EXISTS response_events (
    response TEXT NOT NULL, position INTEGER NOT NULL, events BLOB NOT NULL, PRIMARY KEY (response, position));
"""


class BeginResponse(msgspec.Struct, frozen=True):
    """Add a response in progress. ``head`` is its request and options."""

    id: str
    caller: str
    created_at: float
    head: bytes

    @property
    def size(self) -> int:
        """See `Write`."""
        return len(self.head)

    def apply(self, db: sqlite3.Connection, owner: str) -> None:
        """See `Write`."""
        db.execute(
            "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, NULL, ?)",
            (self.id, self.caller, owner, RUNNING, self.created_at, self.head),
        )


class AppendEvents(msgspec.Struct, frozen=True):
    """Add a piece of the log that begins at ``position``."""

    id: str
    position: int
    events: bytes

    @property
    def size(self) -> int:
        """See `Write`."""
        return len(self.events)

    def apply(self, db: sqlite3.Connection, owner: str) -> None:  # noqa: ARG002
        """See `Write`."""
        db.execute(
            "INSERT OR REPLACE INTO response_events SELECT ?, ?, ? WHERE EXISTS (SELECT 1 FROM responses WHERE id = ?)",
            (self.id, self.position, self.events, self.id),
        )


class EndResponse(msgspec.Struct, frozen=True):
    """Mark the response as ended: its log is complete."""

    id: str
    ended_at: float
    size: int = 0

    def apply(self, db: sqlite3.Connection, owner: str) -> None:  # noqa: ARG002
        """See `Write`."""
        db.execute("UPDATE responses SET state = ?, ended_at = ? WHERE id = ?", (ENDED, self.ended_at, self.id))


class DeleteResponse(msgspec.Struct, frozen=True):
    """Delete the response."""

    id: str
    size: int = 0

    def apply(self, db: sqlite3.Connection, owner: str) -> None:  # noqa: ARG002
        """See `Write`."""
        forget(db, (self.id,))


def forget(db: sqlite3.Connection, ids: tuple[str, ...]) -> None:
    """Delete responses with their events."""
    db.executemany("DELETE FROM response_events WHERE response = ?", [(each,) for each in ids])
    db.executemany("DELETE FROM responses WHERE id = ?", [(each,) for each in ids])


def oldest(db: sqlite3.Connection, count: int, *, ended_before: float | None = None) -> tuple[str, ...]:
    """Return the ids of up to ``count`` responses that ended earliest. ``ended_before``: only those that ended before
    it.
    """
    bound = "" if ended_before is None else "AND ended_at <= ?"
    values = (count,) if ended_before is None else (ended_before, count)
    rows = db.execute(f"SELECT id FROM responses WHERE state > 0 {bound} ORDER BY ended_at LIMIT ?", values)  # noqa: S608
    return tuple(each for (each,) in rows.fetchall())


def interrupt(db: sqlite3.Connection, owner: str, now: float) -> None:
    """Mark the responses in progress of a process that has ended as interrupted."""
    db.execute(
        "UPDATE responses SET state = ?, ended_at = ? WHERE owner = ? AND state = ?", (INTERRUPTED, now, owner, RUNNING)
    )


def find(db: sqlite3.Connection, response_id: str, caller: str) -> tuple[str, StoredResponseRow] | None:
    """Return the name of the process that owns the caller's response with this id, and the response; ``None`` if the
    file does not have it.
    """
    row = db.execute(
        "SELECT owner, state, ended_at, head FROM responses WHERE id = ? AND caller = ?", (response_id, caller)
    ).fetchone()
    if row is None:
        return None
    owner, state, ended_at, head = row
    pieces = db.execute("SELECT events FROM response_events WHERE response = ? ORDER BY position", (response_id,))
    events = tuple(each for (each,) in pieces.fetchall())
    return owner, StoredResponseRow(caller, head, events, ended_at, interrupted=state == INTERRUPTED)
