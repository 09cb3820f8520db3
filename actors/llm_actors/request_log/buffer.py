"""The runs that wait to be written to the request log: a plain object, so that a request costs no more than an append
to a list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from math import inf
from typing import final

import trio

from llm_actors.run import Run
from llm_protocol.requests import size_of

QUEUE_BYTES = 64_000_000
"""The most bytes of runs that wait to be written, and of their requests. Further runs are dropped, with a log line."""

TELL_SECONDS = 60.0
"""Seconds between two log lines about dropped runs."""

log = logging.getLogger(__name__)


@final
class RequestLog:
    """Takes the runs of requests by one of the callers ``keys`` or to one of ``routes``; all runs if both are empty."""

    def __init__(
        self, keys: Collection[str] = (), routes: Collection[str] = (), *, what: str = "the request log is not written"
    ) -> None:
        """``what`` begins the log line about dropped runs, which continues with "fast enough"."""
        self._what = what
        self._keys = frozenset(keys)
        self._routes = frozenset(routes)
        self._runs: list[Run] = []
        self._bytes = 0
        self._tell_at = -inf
        self.dropped = 0
        """The number of dropped runs."""
        self.on_first: Callable[[], None] | None = None
        """Called when the first run is added after all were taken."""

    def wants(self, run: Run) -> bool:
        """Whether the run is to be written."""
        request = run.request
        if not self._keys and not self._routes:
            return True
        return request.caller in self._keys or request.model in self._routes

    def add(self, run: Run) -> None:
        """Add a run that has ended. It is dropped if it is not wanted or there is no room."""
        if not self.wants(run):
            return
        size = _size(run)
        if self._runs and self._bytes + size > QUEUE_BYTES:
            self.dropped += 1
            if (now := trio.current_time()) >= self._tell_at:
                self._tell_at = now + TELL_SECONDS
                log.error("%s fast enough; requests missing from it so far: %d", self._what, self.dropped)
            return
        self._bytes += size
        self._runs.append(run)
        if len(self._runs) == 1 and self.on_first is not None:
            self.on_first()

    def take(self) -> list[Run]:
        """Remove and return all waiting runs."""
        runs, self._runs, self._bytes = self._runs, [], 0
        return runs

    def __len__(self) -> int:
        return len(self._runs)


def _size(run: Run) -> int:
    """Return the memory of a run in bytes: its request, its events, and embeddings, which the log does not count."""
    end = run.log.end
    embeddings = () if end is None or end.response is None else end.response.embeddings
    return run.log.size + size_of(run.request) + sum(len(each.data) for each in embeddings)
