"""The store's file: one SQLite database in WAL mode, which a kill at any time leaves consistent.

A commit has reached the operating system when it returns, so it survives the end of the process. It is not flushed to
the disk (``synchronous = NORMAL``): a power failure may lose the last commits, but never damages the file.

Size: only pages in use count. Space is freed by dropping the responses that ended earliest. Age is measured by the wall
clock.

Nothing in this module waits on Trio: it runs in threads, one at a time. Every method may raise the exceptions of
`Failing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from llm_actors.file_problem import FileProblem, NotOursError
from llm_actors.sqlite_file import SqliteFile
from llm_actors.store import ledger, responses

if TYPE_CHECKING:
    from llm_actors.store.messages import StoredResponseRow
    from llm_actors.store.owner import Owner
    from llm_actors.store.write import Write

VERSION = 1
"""The version of the tables. A file of a newer version is not touched."""

APPLICATION = 0x6C6C6D73
"""The application id in the file's header, which identifies this program: "llms"."""

BUSY_SECONDS = 1.0
"""Seconds that a write waits for the transaction of another process."""

EXPIRE_STEP = 64
"""The most expired responses dropped with each write."""

EVICT_STEP = 8
"""The number of responses dropped at a time to free space."""

EVICT_LIMIT = 512
"""The most responses dropped for one write. If the file is still too large, the next write drops more."""


@final
class StoreFile:
    """The open file."""

    def __init__(self, path: str, *, max_bytes: int, ttl_s: float, owner: Owner, now: float) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._owner = owner
        self._sqlite = SqliteFile(path, busy_s=BUSY_SECONDS)
        self._db = self._sqlite.db
        try:
            owner.hold()  # before anything is written under its name
            self._set_up()
            self._settle_the_gone(now)
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        with self._sqlite.transaction():
            is_new = self._db.execute("SELECT 1 FROM sqlite_schema").fetchone() is None
            if not is_new and self._sqlite.pragma("application_id") != APPLICATION:
                raise NotOursError(FileProblem.FOREIGN)
            if self._sqlite.pragma("user_version") > VERSION:
                raise NotOursError(FileProblem.NEWER)
            for statement in (responses.TABLES + ledger.TABLES).split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION}")
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    def _settle_the_gone(self, now: float) -> None:
        """Mark responses as interrupted and close ledger rows, if the process that they belong to has ended."""
        gone = [each for each in self._owner.others() if not self._owner.is_alive(each)]
        running = self._db.execute(
            "SELECT owner FROM responses WHERE state = 0 UNION SELECT owner FROM ledger WHERE outcome = 'open'"
        ).fetchall()
        gone += [each for (each,) in running if each not in gone and not self._owner.is_alive(each)]
        for each in gone:
            self._settle(each, now)

    def _settle(self, gone: str, now: float) -> None:
        with self._sqlite.transaction():
            responses.interrupt(self._db, gone, now)
            ledger.settle_open(self._db, gone, now)
        self._owner.bury(gone)  # afterwards: if the process is killed in between, the next start repeats it

    def write(self, writes: Sequence[Write], now: float) -> None:
        """Make all changes or none. Then free space if the file exceeds its limit."""
        with self._sqlite.transaction():
            for each in writes:
                if not isinstance(each, ledger.RecordEntry):
                    each.apply(self._db, self._owner.name)
            records = [each for each in writes if isinstance(each, ledger.RecordEntry)]
            ledger.add_records(self._db, self._owner.name, records)
            responses.forget(self._db, responses.oldest(self._db, EXPIRE_STEP, ended_before=now - self._ttl_s))
            ledger.expire(self._db, now)
            self._make_room()
        self._sqlite.shrink(self._max_bytes)

    def _make_room(self) -> None:
        evicted = 0
        while evicted < EVICT_LIMIT and self.bytes_in_use() > self._max_bytes:
            ids = responses.oldest(self._db, EVICT_STEP)
            if not ids:
                return
            responses.forget(self._db, ids)
            evicted += len(ids)

    def find(self, response_id: str, caller: str, now: float) -> StoredResponseRow | None:
        """Return a caller's response; ``None`` if it does not exist or has expired at ``now`` (wall clock)."""
        found = responses.find(self._db, response_id, caller)
        if found is not None and found[1].ended_at is None and not self._owner.is_alive(found[0]):
            self._settle(found[0], now)
            found = responses.find(self._db, response_id, caller)
        if found is None or (found[1].ended_at is not None and found[1].ended_at <= now - self._ttl_s):
            return None
        return found[1]

    def spend(self, by: ledger.By, since: float, caller: str | None) -> tuple[ledger.SpendRow, ...]:
        """Return the spending; see `ledger.spend`."""
        return tuple(ledger.spend(self._db, by, since=since, caller=caller))

    def spent(self, since: float, now: float) -> tuple[ledger.SpentBy, ...]:
        """Return the spending since the time ``since`` (UNIX time), from which budgets start."""
        self._settle_the_gone(now)
        return tuple(ledger.spent_since(self._db, since, self._owner.is_alive))

    def bytes_in_use(self) -> int:
        """Return the bytes of the pages in use."""
        return self._sqlite.bytes_in_use()

    def close(self) -> None:
        """Close the file. Errors of the file are ignored: nothing can be done about them."""
        self._sqlite.close()
