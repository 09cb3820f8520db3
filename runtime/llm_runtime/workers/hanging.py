"""Which workers hang, as their parent judges it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from llm_runtime.workers.process import WorkerProcess

SILENT_SECONDS: Final = 30.0
"""A worker of which nothing was heard for so long hangs."""

START_SECONDS: Final = 120.0
"""The same for one that does not take requests yet: it says nothing before it does."""

WATCH_SECONDS: Final = 1.0
"""How often the parent looks."""


@final
class HangWatch:
    """What the parent has seen of its workers. ``now`` is the time on Trio's clock."""

    def __init__(self, now: float) -> None:
        self._looked_at = now

    def look(self, workers: Iterable[WorkerProcess], now: float) -> list[tuple[WorkerProcess, str]]:
        """Those that hang, each with what it has not done, in words. Call it every `WATCH_SECONDS`."""
        stood_still = now > self._looked_at + 2 * WATCH_SECONDS
        self._looked_at = now
        found: list[tuple[WorkerProcess, str]] = []
        for worker in workers:
            if stood_still:  # the parent has read nothing meanwhile
                worker.heard_at = now
            elif worker.code is not None:
                pass  # it has ended
            elif worker.is_ready and now > worker.heard_at + SILENT_SECONDS:
                found.append((worker, f"has not responded for {SILENT_SECONDS:g} s"))
            elif not worker.is_ready and now > worker.heard_at + START_SECONDS:
                found.append((worker, f"has not started within {START_SECONDS:g} s"))
        return found
