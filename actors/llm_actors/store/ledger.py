"""The ledger: one row for each attempt, and one for each request that has ended without an attempt.

An attempt that a budget pays for has a row before it is made (`OpenEntry`), with the reserved amount. If its process
ends without closing the row, the reserved amount counts as spent, and the outcome is `UNKNOWN`. All other rows are
written in the background, see `Ledger`. The ledger contains names, numbers and kinds of failures, never a prompt or a
key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

import msgspec

if TYPE_CHECKING:
    import sqlite3

    from llm_actors.store.write import Write

OPEN: Final = "open"
UNKNOWN: Final = "unknown"
CACHED: Final = "cached"

KEEP_SECONDS: Final = 400 * 86_400.0
"""Seconds for which rows are kept: a year, and some time to evaluate it."""

EXPIRE_STEP: Final = 256
"""The most expired rows dropped with each write."""

BUFFERED: Final = 50_000
"""The most changes that wait to be written. Beyond that the oldest are lost, and one line is logged."""

log = logging.getLogger(__name__)

TABLES: Final = """
CREATE TABLE IF NOT EXISTS ledger (
    id INTEGER PRIMARY KEY, owner TEXT NOT NULL, number INTEGER NOT NULL, run TEXT NOT NULL,
    caller TEXT NOT NULL, team TEXT NOT NULL, route TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
    outcome TEXT NOT NULL, opened_at REAL NOT NULL, closed_at REAL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL,
    cost REAL);
CREATE INDEX IF NOT EXISTS ledger_by_time ON ledger (opened_at);
CREATE INDEX IF NOT EXISTS ledger_open ON ledger (owner, number) WHERE outcome = 'open';
"""


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One row. Times are in seconds since the epoch. ``cost`` is in US dollars, ``None`` if the price is unknown."""

    run: str
    """The request's id."""
    caller: str = ""
    team: str = ""
    route: str = ""
    provider: str = ""
    """The provider; empty if no attempt was made."""
    model: str = ""
    outcome: str = OPEN
    """``ok``, the kind of a failure, `CACHED`, `OPEN` or `UNKNOWN`."""
    opened_at: float
    closed_at: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    """Whether the tokens are an estimate, because the vendor sent no final counts."""
    cost: float | None = None

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


_FIELDS: Final = tuple(LedgerEntry.__struct_fields__)
_COLUMNS: Final = ", ".join(_FIELDS)
_ROW: Final = f"(?, ?{', ?' * len(_FIELDS)})"
_INSERT: Final = f"INSERT INTO ledger (owner, number, {_COLUMNS}) VALUES {_ROW}"  # noqa: S608
_CLOSE: Final = (
    f"UPDATE ledger SET {', '.join(f'{name} = ?' for name in _FIELDS)}"  # noqa: S608
    " WHERE owner = ? AND number = ? AND outcome = 'open'"
)
_OF_NOBODY: Final = 0
_MOST: Final = 2**63 - 1


class RecordEntry(msgspec.Struct, frozen=True):
    """Add a row for a call or request that has ended."""

    entry: LedgerEntry
    size: int = 200

    def apply(self, db: sqlite3.Connection, owner: str) -> None:
        """See `Write`."""
        add_records(db, owner, [self])


_ROWS_AT_ONCE: Final = 50
"""The most rows of one statement. Many rows share a statement because each statement releases the interpreter's lock.
SQLite before 3.32 takes 999 values, which are 52 rows.
"""


def add_records(db: sqlite3.Connection, owner: str, records: Sequence[RecordEntry]) -> None:
    """Add many rows; the effect is the same as adding each."""
    for at in range(0, len(records), _ROWS_AT_ONCE):
        some = records[at : at + _ROWS_AT_ONCE]
        values = [value for each in some for value in (owner, _OF_NOBODY, *msgspec.structs.astuple(each.entry))]
        _execute(db, _INSERT + f", {_ROW}" * (len(some) - 1), values)


def _execute(db: sqlite3.Connection, statement: str, values: Sequence[object]) -> sqlite3.Cursor:
    """Execute a statement. Texts with a lone surrogate and numbers beyond 64 bits, which SQLite refuses, are replaced.
    Otherwise one such row, from a program's own model name or id, would be tried again forever, and no other row would
    be written.
    """
    try:
        return db.execute(statement, values)
    except (UnicodeEncodeError, OverflowError):
        return db.execute(statement, [_storable(each) for each in values])


def _storable(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return min(value, _MOST) if isinstance(value, int) else value


class OpenEntry(msgspec.Struct, frozen=True):
    """Add the row of a call that is about to be made. ``number`` is the number of its reservation."""

    number: int
    entry: LedgerEntry
    size: int = 200

    def apply(self, db: sqlite3.Connection, owner: str) -> None:
        """See `Write`."""
        _execute(db, _INSERT, (owner, self.number, *msgspec.structs.astuple(self.entry)))


class CloseEntry(msgspec.Struct, frozen=True):
    """Close the row of a call with its result. If the row is missing, it is added."""

    number: int
    entry: LedgerEntry
    size: int = 200

    def apply(self, db: sqlite3.Connection, owner: str) -> None:
        """See `Write`."""
        entry = msgspec.structs.astuple(self.entry)
        if not _execute(db, _CLOSE, (*entry, owner, self.number)).rowcount:
            _execute(db, _INSERT, (owner, _OF_NOBODY, *entry))


class DropEntry(msgspec.Struct, frozen=True):
    """Delete the row of a call that was not made."""

    number: int
    size: int = 20

    def apply(self, db: sqlite3.Connection, owner: str) -> None:
        """See `Write`."""
        db.execute("DELETE FROM ledger WHERE owner = ? AND number = ? AND outcome = 'open'", (owner, self.number))


def settle_open(db: sqlite3.Connection, owner: str, now: float) -> None:
    """Close the open rows of a process that has ended: they count as spent."""
    db.execute(
        "UPDATE ledger SET outcome = ?, closed_at = ? WHERE owner = ? AND outcome = 'open'", (UNKNOWN, now, owner)
    )


def expire(db: sqlite3.Connection, now: float) -> None:
    """Drop expired rows: at most `EXPIRE_STEP`, the oldest first."""
    db.execute(
        "DELETE FROM ledger WHERE id IN (SELECT id FROM ledger WHERE opened_at < ? ORDER BY opened_at LIMIT ?)",
        (now - KEEP_SECONDS, EXPIRE_STEP),
    )


# -- queries ---------------------------------------------------------------------------------------------------------

By: TypeAlias = Literal["key", "team", "model", "route", "day"]

_GROUPS: Final[dict[By, str]] = {
    "key": "caller",
    "team": "team",
    "model": "CASE provider WHEN '' THEN '' ELSE provider || '/' || model END",
    "route": "route",
    "day": "date(opened_at, 'unixepoch')",
}


class SpendRow(msgspec.Struct, frozen=True, kw_only=True):
    """The spending of one key, team, model or route, or of one day (UTC). ``calls`` is the number of attempts, and
    ``cost`` the sum of the known costs. ``unpriced`` is the number of attempts with tokens but without a known price.
    ``unknown`` is the number of attempts with an unknown end, which count with the reserved amount.
    """

    name: str
    calls: int
    failed: int
    unknown: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost: float


def spend(
    db: sqlite3.Connection, by: By, *, since: float = 0.0, until: float | None = None, caller: str | None = None
) -> list[SpendRow]:
    """Return the spending of the attempts that began at ``since`` or later and before ``until`` (UNIX times; ``None``:
    no end), one row for each value of ``by``: days in order, other rows by cost, the highest first. ``caller``: only
    the spending of this caller.
    """
    conditions, values = ["opened_at >= ?"], list[object]([since])
    if until is not None:
        conditions.append("opened_at < ?")
        values.append(until)
    if caller is not None:
        conditions.append("caller = ?")
        values.append(caller)
    order = "name" if by == "day" else "total(cost) DESC, name"
    rows = db.execute(
        f"""SELECT {_GROUPS[by]} AS name, sum(provider != ''), sum(outcome NOT IN ('ok', 'cached', 'open', 'unknown')),
            sum(outcome = 'unknown'), sum(cost IS NULL AND input_tokens + output_tokens > 0),
            sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(cache_write_tokens), sum(reasoning_tokens),
            total(cost)
            FROM ledger WHERE {" AND ".join(conditions)} GROUP BY name ORDER BY {order}""",  # noqa: S608
        values,
    )
    return [SpendRow(**dict(zip(SpendRow.__struct_fields__, row, strict=True))) for row in rows]


class SpentBy(msgspec.Struct, frozen=True, array_like=True):
    """The spending of one process for one caller, team and route in one minute. ``cost`` is ``None`` for the spending
    whose price is unknown. ``opened_at``: the first row's time, in seconds since the epoch. ``gone``: the process has
    ended.
    """

    owner: str
    caller: str
    team: str
    route: str
    opened_at: float
    cost: float | None
    tokens: int
    gone: bool


def spent_since(db: sqlite3.Connection, since: float, is_alive: Callable[[str], bool]) -> list[SpentBy]:
    """Return the spending since ``since`` (UNIX time), from which budgets start, as sums per minute. ``is_alive``
    returns whether the process with this name in the ledger is still running.
    """
    rows = db.execute(
        """SELECT owner, caller, team, route, min(opened_at), CASE WHEN cost IS NULL THEN NULL ELSE sum(cost) END,
            sum(input_tokens + output_tokens)
            FROM ledger WHERE opened_at >= ? GROUP BY owner, caller, team, route, cost IS NULL,
            CAST(opened_at / 60 AS INTEGER)""",
        (since,),
    )
    found = rows.fetchall()
    gone = {owner: not is_alive(owner) for owner in {row[0] for row in found}}
    return [msgspec.convert((*row, gone[row[0]]), SpentBy) for row in found]


# -- writing in the background ---------------------------------------------------------------------------------------


@final
class Ledger:
    """Changes that wait to be written to the ledger. Adding one is as cheap as appending to a list. A task of the
    store writes them a few times per second. If the process is killed, the changes of the last interval are lost.
    """

    def __init__(self) -> None:
        self.owner = token_hex(8)
        """The name of this process, in the file and among the processes that share limits and budgets."""
        self._writes: list[Write] = []
        self._lost = 0
        self.on_first: Callable[[], None] | None = None
        """Called when the first change is added after all were taken."""

    def add(self, write: Write) -> None:
        """Add a change to be written soon."""
        if len(self._writes) >= BUFFERED:
            self._lose(len(self._writes) - BUFFERED + 1)
        self._writes.append(write)
        if len(self._writes) == 1 and self.on_first is not None:
            self.on_first()

    def record(self, entry: LedgerEntry) -> None:
        """Add a row to be written soon."""
        self.add(RecordEntry(entry))

    def take(self) -> list[Write]:
        """Remove and return all waiting changes."""
        writes, self._writes = self._writes, []
        return writes

    def put_back(self, writes: Iterable[Write]) -> None:
        """Put back changes that could not be written, before those added later."""
        self._writes = [*writes, *self._writes]
        if len(self._writes) > BUFFERED:
            self._lose(len(self._writes) - BUFFERED)

    def __len__(self) -> int:
        return len(self._writes)

    def _lose(self, count: int) -> None:
        if not self._lost:
            log.error("the ledger cannot be written, and more than %d changes wait: the oldest are lost", BUFFERED)
        self._lost += count
        del self._writes[:count]
