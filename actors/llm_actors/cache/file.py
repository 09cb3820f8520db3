"""The cache file: one SQLite database in WAL mode, which a crash at any time leaves consistent.

Size: only pages in use count. Before an entry is added, the oldest entries are dropped, so the file does not exceed
its limit. Freed pages are reused.

Age: the file has its own clock, which only moves forward. As long as the machine is on, this clock follows the
machine's time since boot, so two processes agree on it and a change of the wall clock has no effect. From one boot to
the next it moves by the difference of the wall clock, and never back. If the wall clock is wrong at a boot, entries
expire too early (if it is ahead) or live for up to one more lifetime (if it is behind).

Integrity: each entry has a digest of its key, value and time. SQLite detects only some kinds of damage; the digest
detects the others. So a damaged file causes misses and never a wrong response.

Nothing in this module waits on Trio. It runs in threads, one at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from hmac import compare_digest
from math import isfinite
from typing import final

from llm_actors.cache.clock import MachineClock
from llm_actors.cache.entry import Entry, Found
from llm_actors.cache.key import CacheKey
from llm_actors.cache.statistics import CacheCounters
from llm_actors.file_problem import FileProblem, NotOursError
from llm_actors.sqlite_file import SqliteFile

VERSION = 1
"""The version of the tables and of their content. A file of another version is renamed and replaced."""

BUSY_SECONDS = 0.1
"""Seconds that a write waits for the write of another process. Reads do not wait."""

EVICT_STEP = 4
"""The number of entries that are dropped at a time while space is freed."""

EVICT_LIMIT = 1_000
"""The most entries dropped for one write. If they do not free enough space (the limit was lowered), the new entries
are not stored.
"""

EXPIRE_LIMIT = 64
"""The most expired entries that are dropped with each write, the oldest first."""

_DROP_OLDEST = "DELETE FROM llm_cache WHERE id IN (SELECT id FROM llm_cache ORDER BY id LIMIT ?)"

_TABLES = """
CREATE TABLE IF NOT EXISTS llm_cache (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, born REAL NOT NULL, digest BLOB NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS llm_cache_clock (
    id INTEGER PRIMARY KEY CHECK (id = 0), boot TEXT NOT NULL, shift REAL NOT NULL, time REAL NOT NULL,
    wall REAL NOT NULL);
"""


@final
class CacheFile:
    """The open file. Every method, including the constructor, may raise the exceptions of `file_problem.Failing`."""

    def __init__(self, path: str, *, max_bytes: int, ttl_s: float, clock: MachineClock, count: CacheCounters) -> None:
        self._count = count
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._shift = 0.0
        self._sqlite = SqliteFile(path, busy_s=BUSY_SECONDS)
        self._db = self._sqlite.db
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        with self._sqlite.transaction():
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            if tables and "llm_cache" not in tables:
                raise NotOursError(FileProblem.FOREIGN)
            if tables and self._sqlite.pragma("user_version") != VERSION:
                raise NotOursError(FileProblem.DAMAGED)
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
            self._set_clock()

    def _set_clock(self) -> None:
        boot, since_boot, wall = self._clock.boot, self._clock.since_boot(), self._clock.wall()
        known = self._db.execute("SELECT boot, shift, time, wall FROM llm_cache_clock").fetchone()
        if known is not None:
            then, shift, time, then_wall = known
            if not all(isinstance(number, float) and isfinite(number) for number in (shift, time, then_wall)):
                raise NotOursError(FileProblem.DAMAGED)
            same_boot = boot != "" and then == boot
            self._shift = shift if same_boot else time + max(0.0, wall - then_wall) - since_boot
        self._db.execute(
            "INSERT OR REPLACE INTO llm_cache_clock VALUES (0, ?, ?, ?, ?)", (boot, self._shift, self._now(), wall)
        )

    def _now(self) -> float:
        return self._clock.since_boot() + self._shift

    def get(self, keys: Iterable[CacheKey]) -> dict[CacheKey, Found]:
        """Return the intact, unexpired entries for ``keys``."""
        now, found = self._now(), {}
        for key in keys:
            row = self._db.execute("SELECT born, digest, value FROM llm_cache WHERE key = ?", (key,)).fetchone()
            if row is None:
                continue
            born, digest, value = row
            if not _is_sound(key, born, digest, value):
                self._count.errors += 1
            elif 0 <= now - born < self._ttl_s:
                found[key] = Found(value, now - born)
            else:
                self._count.expired += 1
        return found

    def put(self, entries: Sequence[Entry]) -> int:
        """Add ``entries`` in one transaction, dropping the oldest entries to make room. Returns how many entries were
        stored.
        """
        now = self._now()
        with self._sqlite.transaction():
            self._drop_expired(now)
            added = self._add(entries, now)
            self._db.execute("UPDATE llm_cache_clock SET time = ?, wall = ?", (now, self._clock.wall()))
        self._sqlite.shrink(self._max_bytes)
        return added

    def _add(self, entries: Sequence[Entry], now: float) -> int:
        evictable = EVICT_LIMIT
        for added, entry in enumerate(entries):
            gone = self._make_room(self._cost(entry.value), evictable)
            if gone is None:
                return added
            evictable -= gone
            self._db.execute(
                "INSERT OR REPLACE INTO llm_cache (key, born, digest, value) VALUES (?, ?, ?, ?)",
                (entry.key, now, _digest(entry.key, now, entry.value), entry.value),
            )
        return len(entries)

    def _drop_expired(self, now: float) -> None:
        self._db.execute(f"{_DROP_OLDEST} AND born <= ?", (EXPIRE_LIMIT, now - self._ttl_s))

    def _make_room(self, needed: int, evictable: int) -> int | None:
        """Drop the oldest entries until there is space. Returns how many were dropped; ``None`` if the space is still
        too small.
        """
        evicted = 0
        while self.bytes_in_use() + needed > self._max_bytes:
            gone = self._db.execute(_DROP_OLDEST, (EVICT_STEP,)).rowcount
            evicted += gone
            self._count.evicted += gone
            if not gone or evicted >= evictable:
                return None
        return evicted

    def _cost(self, value: bytes) -> int:
        """Return the most bytes that a value needs: its own pages, and a new page in the tree of the table and in that
        of its index.
        """
        return (len(value) // (self._sqlite.page_bytes - 64) + 3) * self._sqlite.page_bytes

    def bytes_in_use(self) -> int:
        """Return the bytes of the pages in use."""
        return self._sqlite.bytes_in_use()

    def close(self) -> None:
        """Close the file. Errors of the file are ignored."""
        self._sqlite.close()


def _digest(key: CacheKey, born: float, value: bytes) -> bytes:
    return blake2b(struct.pack("<d", born) + value, digest_size=16, key=key).digest()


def _is_sound(key: CacheKey, born: object, digest: object, value: object) -> bool:
    if not (isinstance(born, float) and isinstance(digest, bytes) and isinstance(value, bytes)):
        return False  # SQLite's columns contain whatever a flipped bit makes of them
    return compare_digest(digest, _digest(key, born, value))
