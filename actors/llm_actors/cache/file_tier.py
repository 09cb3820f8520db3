"""The file tier: the cache file and the handling of its failures. A problem with the file causes misses, not errors.

Failures are handled in one place, `_suffer`. A damaged file is renamed and replaced at once. A full disk stops writes,
not reads. A write that finds the file locked by another process is lost. After any other failure the file is closed,
and not used for `RETRY_SECONDS`. One line is logged when a problem begins, and one when the file works again. The file
is tried again at its next use: nothing runs in the background.

The methods do I/O and are called in threads, never two at the same time. Only `ready` and `statistics` do no I/O.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import TypeVar, final

from llm_actors.cache.clock import MachineClock, machine_clock
from llm_actors.cache.entry import LARGEST_SHARE, Entry, Found
from llm_actors.cache.file import CacheFile
from llm_actors.cache.key import CacheKey
from llm_actors.cache.statistics import CacheCounters, TierStatistics, statistics_of
from llm_actors.file_problem import ASIDE, Failing, FileProblem, file_problem_of, inode_of, set_aside

RETRY_SECONDS = 5.0
"""Seconds for which a file that failed is not used."""

log = logging.getLogger(__name__)

T = TypeVar("T")


@final
class FileTier:
    """Responses, encoded as bytes (`entry.pack`), in the file at ``path``, which is opened on first use."""

    def __init__(self, path: str, *, max_bytes: int, ttl_s: float, clock: MachineClock | None = None) -> None:
        self.count = CacheCounters()
        self._path = os.path.abspath(os.path.expanduser(path))
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock or machine_clock()
        self._file: CacheFile | None = None
        self._rests_until = self._writes_rest_until = -inf
        self._reported: FileProblem | None = None
        self._inode: int | None = None
        self._bytes = 0

    def ready(self) -> bool:
        """Whether the file can be used. False while it is closed after a failure."""
        return self._clock.since_boot() >= self._rests_until

    def read(self, keys: Collection[CacheKey]) -> dict[CacheKey, Found]:
        """Return the entries for those of ``keys`` that the file has; none if it cannot be read."""
        found = self._try(lambda file: file.get(keys)) or {}
        self.count.hits += len(found)
        self.count.misses += len(keys) - len(found)
        return found

    def write(self, entries: Sequence[Entry]) -> None:
        """Store ``entries``, or drop them if the file fails."""
        fitting = [entry for entry in entries if len(entry.value) * LARGEST_SHARE <= self._max_bytes]
        self.count.dropped += len(entries) - len(fitting)
        if not fitting:
            return
        if inode_of(self._path) != self._inode:
            self.close()  # deleted, or set aside by another process: what we write there is never found
        rests = self._clock.since_boot() < self._writes_rest_until
        stored = 0 if rests else self._try(lambda file: file.put(fitting)) or 0
        self.count.stored += stored
        self.count.dropped += len(fitting) - stored
        if stored and self._reported is not None:
            log.info("the cache file %s works again", self._path)
            self._reported = None

    def open(self) -> None:
        """Open the file now, so that the first lookup does not wait for that."""
        self._try(lambda _: None)

    def close(self) -> None:
        """Close the file. The tier can still be used afterwards."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _try(self, work: Callable[[CacheFile], T]) -> T | None:
        if not self.ready():
            return None
        try:
            if self._file is None:
                self._file = self._opened()
            done = work(self._file)
            self._bytes = self._file.bytes_in_use()
        except Failing as exc:
            self._suffer(file_problem_of(exc))
            return None
        return done

    def _opened(self) -> CacheFile:
        self._inode = inode_of(self._path)
        file = CacheFile(self._path, max_bytes=self._max_bytes, ttl_s=self._ttl_s, clock=self._clock, count=self.count)
        self._inode = inode_of(self._path)
        return file

    def _suffer(self, problem: FileProblem) -> None:
        self.count.errors += 1
        rest = self._clock.since_boot() + RETRY_SECONDS
        if self._file is not None and problem is FileProblem.BUSY:
            return  # another process writes: this one write is lost
        if self._file is not None and problem is FileProblem.FULL:
            self._writes_rest_until = rest
        elif problem is FileProblem.DAMAGED:
            self._report(problem, self._begin_anew(rest))
            return
        else:
            self.close()
            self._rests_until = rest
        self._report(problem)

    def _begin_anew(self, rest: float) -> bool:
        """Return whether the damaged file was renamed."""
        self.close()
        is_aside = False
        try:
            set_aside(self._path, self._inode)
            is_aside = True
            if self._reported is FileProblem.DAMAGED:
                self._rests_until = rest  # the new one was damaged too, before anything could be stored in it
            else:
                self._file = self._opened()
        except Failing:
            self._rests_until = rest
        return is_aside

    def _report(self, problem: FileProblem, is_aside: bool = False) -> None:
        if problem is self._reported:
            return
        self._reported = problem
        what = f"renamed to {self._path}{ASIDE}" if is_aside else "requests continue without it"
        log.error("the cache file %s %s: %s", self._path, problem.value, what)

    def statistics(self) -> TierStatistics:
        """Return counters, and the file's size at its last use."""
        return statistics_of(self.count, entries=None, size=self._bytes)
