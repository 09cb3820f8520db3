"""What waits to be written to the request log: a plain object, so that a request pays no more than for a list."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import final

from llm_actors.run import Run

QUEUE_BYTES = 64_000_000
"""Bytes of runs that wait to be written; what comes beyond that is left out, with a line in the log."""

log = logging.getLogger(__name__)


@final
class RequestLog:
    """Takes the runs of those who opted in: of ``keys`` and ``routes``; of all where neither is named."""

    def __init__(
        self, keys: Collection[str] = (), routes: Collection[str] = (), *, what: str = "the request log is not written"
    ) -> None:
        """``what`` is too slow, in words, if some are left out."""
        self._what = what
        self._keys = frozenset(keys)
        self._routes = frozenset(routes)
        self._runs: list[Run] = []
        self._bytes = 0
        self.dropped = 0
        """How many were left out."""
        self.on_first: Callable[[], None] | None = None
        """Called when there is something to write after there was nothing."""

    def wants(self, run: Run) -> bool:
        """Whether a run is to be written."""
        request = run.request
        if not self._keys and not self._routes:
            return True
        return request.caller in self._keys or request.model in self._routes

    def add(self, run: Run) -> None:
        """A run has ended. It is written soon, if it is wanted and there is room."""
        if not self.wants(run):
            return
        if self._runs and self._bytes + run.log.size > QUEUE_BYTES:
            if not self.dropped:
                log.error("%s fast enough: some requests are not logged", self._what)
            self.dropped += 1
            return
        self._bytes += run.log.size
        self._runs.append(run)
        if len(self._runs) == 1 and self.on_first is not None:
            self.on_first()

    def take(self) -> list[Run]:
        """All that wait."""
        runs, self._runs, self._bytes = self._runs, [], 0
        return runs

    def __len__(self) -> int:
        return len(self._runs)
