"""The store's file: one SQLite database in WAL mode, which a kill at any moment leaves sound.

A commit is in the kernel's hands when it returns, so it survives the end of the process. It is not flushed to the disk
(``synchronous = NORMAL``): a power cut may cost the last commits, and never the file.

Size: what counts is the pages in use. Responses that ended first make room. Age is by the wall clock.

Nothing here waits on Trio: it is worked in threads, one at a time. Everything may raise what `Failing` lists.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, final

from llm_actors.file_problem import FileProblem, NotOursError
from llm_actors.store import ledger, responses

if TYPE_CHECKING:
    from llm_actors.store.messages import StoredResponseRow
    from llm_actors.store.owner import Owner
    from llm_actors.store.write import Write

VERSION = 1
"""Of the tables. A file of a newer one is left alone."""

APPLICATION = 0x6C6C6D73
"""Says in the file's header whose it is: "llms"."""

BUSY_SECONDS = 1.0
"""How long one process waits for another's transaction."""

EXPIRE_STEP = 64
"""Responses dropped with each write because they are too old."""

EVICT_STEP = 8
"""Responses dropped at a time while room is made."""

EVICT_LIMIT = 512
"""Responses dropped for one write; the next goes on."""

SHRINK_PAGES = 1_000
"""Pages given back to the file system with each write, while the file is above its bound."""

JOURNAL_BYTES = 4_000_000
"""What is left of the write-ahead log after a checkpoint."""


@final
class StoreFile:
    """The open file."""

    def __init__(self, path: str, *, max_bytes: int, ttl_s: float, owner: Owner, now: float) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._owner = owner
        make_private(path)
        owner.hold()
        self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._set_up()
            self._page_bytes = self._pragma("page_size")
            self._settle_the_gone(now)
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        # auto_vacuum counts only before the first page is written, and switching to WAL writes it
        for setting in (
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            f"journal_size_limit = {JOURNAL_BYTES}",
            "cell_size_check = ON",
            "trusted_schema = OFF",
            "mmap_size = 0",  # a file that is cut short under a map kills the process
        ):
            self._db.execute(f"PRAGMA {setting}").fetchall()
        with self._transaction():
            is_new = self._db.execute("SELECT 1 FROM sqlite_schema").fetchone() is None
            if not is_new and self._pragma("application_id") != APPLICATION:
                raise NotOursError(FileProblem.FOREIGN)
            if self._pragma("user_version") > VERSION:
                raise NotOursError(FileProblem.NEWER)
            for statement in (responses.TABLES + ledger.TABLES).split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION}")
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    def _settle_the_gone(self, now: float) -> None:
        """Processes that shared the file and are no more: what they left open is as complete as it will be."""
        gone = [each for each in self._owner.others() if not self._owner.is_alive(each)]
        running = self._db.execute(
            "SELECT owner FROM responses WHERE state = 0 UNION SELECT owner FROM ledger WHERE outcome = 'open'"
        ).fetchall()
        gone += [each for (each,) in running if each not in gone and not self._owner.is_alive(each)]
        for each in gone:
            self._settle(each, now)

    def _settle(self, gone: str, now: float) -> None:
        with self._transaction():
            responses.interrupt(self._db, gone, now)
            ledger.settle_open(self._db, gone, now)
        self._owner.bury(gone)  # after it: a kill in between leaves it to the next start

    def write(self, writes: Sequence[Write], now: float) -> None:
        """Make all changes, or none; then room, where they went beyond the bound."""
        with self._transaction():
            for each in writes:
                each.apply(self._db, self._owner.name)
            responses.forget(self._db, responses.oldest(self._db, EXPIRE_STEP, ended_before=now - self._ttl_s))
            ledger.expire(self._db, now)
            self._make_room()
        if self._pragma("page_count") * self._page_bytes > self._max_bytes:
            # a page per step, and only a script steps to the end of what has no columns
            self._db.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")

    def _make_room(self) -> None:
        evicted = 0
        while evicted < EVICT_LIMIT and self.bytes_in_use() > self._max_bytes:
            ids = responses.oldest(self._db, EVICT_STEP)
            if not ids:
                return
            responses.forget(self._db, ids)
            evicted += len(ids)

    def find(self, response_id: str, caller: str, now: float) -> StoredResponseRow | None:
        """A caller's response, unless it is too old."""
        found = responses.find(self._db, response_id, caller)
        if found is not None and found[1].ended_at is None and not self._owner.is_alive(found[0]):
            self._settle(found[0], now)
            found = responses.find(self._db, response_id, caller)
        if found is None or (found[1].ended_at is not None and found[1].ended_at <= now - self._ttl_s):
            return None
        return found[1]

    def spend(self, by: ledger.By, since: float, caller: str | None) -> tuple[ledger.SpendRow, ...]:
        """What was spent."""
        return tuple(ledger.spend(self._db, by, since=since, caller=caller))

    def spent(self, since: float, now: float) -> tuple[ledger.SpentBy, ...]:
        """What budgets start from."""
        self._settle_the_gone(now)
        return tuple(ledger.spent_since(self._db, since))

    def bytes_in_use(self) -> int:
        """Bytes of the pages that hold something."""
        return (self._pragma("page_count") - self._pragma("freelist_count")) * self._page_bytes

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # what went wrong first is what matters
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file. Never raises for what the file is like: there is nothing left to be done about it."""
        with suppress(sqlite3.Error):
            self._db.close()


def make_private(path: str) -> None:
    """Create the file so that only its owner can read it. SQLite gives its journal the same mode."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with suppress(FileExistsError):  # one that exists is never opened here: to close it would drop SQLite's locks
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
