"""The store's file with error handling: no problem with it ever fails a request.

A damaged file is set aside (renamed) and replaced by a new one at once. Any other problem closes the file until it is
tried again. One line is logged per kind of problem, and one when the file works again. The file is tried again when
it is next used: nothing runs in the background.

The methods do I/O and are called in threads, one at a time; `problem` does no I/O.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, TypeVar, final

from llm_actors.file_problem import ASIDE, Failing, FileProblem, file_problem_of, inode_of, set_aside
from llm_actors.store.file import StoreFile
from llm_actors.store.messages import Loaded
from llm_actors.store.owner import Owner

if TYPE_CHECKING:
    from llm_actors.store.ledger import By, SpendRow, SpentBy
    from llm_actors.store.write import Write

RETRY_SECONDS = 5.0
"""Seconds for which the file is not used after a problem."""

log = logging.getLogger(__name__)

T = TypeVar("T")


@final
class StoreTier:
    """The file at ``path``. It is opened when it is first used."""

    def __init__(
        self,
        path: str,
        *,
        max_bytes: int,
        ttl_s: float,
        owner: str | None = None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = os.path.abspath(os.path.expanduser(path))
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._wall = wall
        self._clock = clock
        self._owner = Owner(self._path, owner)
        self._file: StoreFile | None = None
        self._inode: int | None = None
        self._rests_until = -inf
        self.problem: FileProblem | None = None
        """The problem with the file at its last use, if there was one."""

    def open(self) -> None:
        """Open the file."""
        self._try(lambda _: None)

    def write(self, writes: Sequence[Write]) -> bool:
        """Make all changes or none. Return whether they were made."""
        if self._file is not None and inode_of(self._path) != self._inode:
            self._shut()  # deleted, or set aside by another process: what is written there is lost

        def work(file: StoreFile) -> bool:
            file.write(writes, self._wall())
            return True

        done = self._try(work) or False
        if done and self.problem is not None:
            log.info("the store %s works again", self._path)
            self.problem = None
        return done

    def find(self, response_id: str, caller: str) -> Loaded | None:
        """Return a caller's response, as `Loaded` without a row if the file does not contain it; ``None`` if the file
        cannot be read.
        """
        return self._try(lambda file: Loaded(file.find(response_id, caller, self._wall())))

    def spend(self, by: By, since: float, caller: str | None) -> tuple[SpendRow, ...] | None:
        """Return the spending (see `ledger.spend`); ``None`` if the file cannot be read."""
        return self._try(lambda file: file.spend(by, since, caller))

    def spent(self, since: float) -> tuple[SpentBy, ...] | None:
        """Return the spending since ``since`` (UNIX time), from which budgets start; ``None`` if the file cannot be
        read.
        """
        return self._try(lambda file: file.spent(since, self._wall()))

    def close(self) -> None:
        """Close the file, and release this process's lock."""
        self._shut()
        self._owner.release()

    def _shut(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _try(self, work: Callable[[StoreFile], T]) -> T | None:
        if self._clock() < self._rests_until:
            return None
        try:
            if self._file is None:
                self._file = self._opened()
            return work(self._file)
        except Failing as exc:
            self._suffer(file_problem_of(exc))
            return None

    def _opened(self) -> StoreFile:
        file = StoreFile(self._path, max_bytes=self._max_bytes, ttl_s=self._ttl_s, owner=self._owner, now=self._wall())
        self._inode = inode_of(self._path)
        return file

    def _suffer(self, problem: FileProblem) -> None:
        self._shut()
        rest = self._clock() + RETRY_SECONDS
        is_aside = False
        if problem is not FileProblem.DAMAGED or self.problem is FileProblem.DAMAGED:
            self._rests_until = rest  # the new file is damaged too, before anything could be stored in it
        else:
            try:
                set_aside(self._path, self._inode)
                is_aside = True
                self._file = self._opened()
            except Failing:
                self._rests_until = rest
        self._report(problem, is_aside)

    def _report(self, problem: FileProblem, is_aside: bool) -> None:
        if problem is self.problem:
            return
        self.problem = problem
        what = f"renamed to {self._path}{ASIDE}" if is_aside else "nothing is stored until it works again"
        log.error("the store %s %s: %s", self._path, problem.value, what)
