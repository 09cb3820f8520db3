"""A private SQLite database in WAL mode: the common part of the cache's and the store's files. It stays consistent if
the process is killed at any moment.

Nothing in this module waits on Trio: it runs in threads, one at a time. Every method may raise the exceptions of
`file_problem.Failing`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import final

JOURNAL_BYTES = 4_000_000
"""The size to which the write-ahead log is truncated after a checkpoint."""

SHRINK_PAGES = 1_000
"""The most pages that one call of `SqliteFile.shrink` returns to the file system."""

SETTINGS = (
    "auto_vacuum = INCREMENTAL",  # effective only before the first page is written, which switching to WAL does
    "journal_mode = WAL",
    "synchronous = NORMAL",
    f"journal_size_limit = {JOURNAL_BYTES}",
    "cell_size_check = ON",
    "trusted_schema = OFF",
    "mmap_size = 0",  # a file that is truncated while it is mapped kills the process
)


@final
class SqliteFile:
    """The open database at ``path``, readable by its owner only. A write waits up to ``busy_s`` for another process's
    write; a read never waits.
    """

    def __init__(self, path: str, *, busy_s: float) -> None:
        _make_private(path)
        self.db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            for setting in SETTINGS:
                self.db.execute(f"PRAGMA {setting}").fetchall()
            self.page_bytes = self.pragma("page_size")
        except BaseException:
            self.close()
            raise

    def pragma(self, name: str) -> int:
        """Return the value of the numeric PRAGMA ``name``."""
        return int(self.db.execute(f"PRAGMA {name}").fetchone()[0])

    def bytes_in_use(self) -> int:
        """Return the bytes of the pages in use."""
        return (self.pragma("page_count") - self.pragma("freelist_count")) * self.page_bytes

    def shrink(self, max_bytes: int) -> None:
        """If the file has more than ``max_bytes``, return up to `SHRINK_PAGES` unused pages to the file system."""
        if self.pragma("page_count") * self.page_bytes > max_bytes:
            # each step frees one page, and only a script steps to the end of a statement without columns
            self.db.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in a transaction: everything that the block writes is committed, or nothing if it raises."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # the first error is the one that matters
                self.db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file. Errors of the file are ignored."""
        with suppress(sqlite3.Error):
            self.db.close()


def _make_private(path: str) -> None:
    """Create the file so that only its owner can read it. SQLite gives its journal the same mode."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with suppress(FileExistsError):  # an existing file is never opened here: closing it would drop SQLite's locks
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
