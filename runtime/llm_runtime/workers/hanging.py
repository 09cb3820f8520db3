"""Decides which workers hang, for their parent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from llm_runtime.workers.process import WorkerProcess

SILENT_SECONDS: Final = 30.0
"""Seconds without a message after which a worker counts as hanging."""

START_SECONDS: Final = 120.0
"""Seconds after which a worker that still does not accept requests counts as hanging. Until it does, it sends no
messages.
"""

WATCH_SECONDS: Final = 1.0
"""Seconds between two checks by the parent."""


@final
class HangWatch:
    """The parent's observations of its workers. ``now`` is the time on Trio's clock."""

    def __init__(self, now: float) -> None:
        self._looked_at = now

    def look(self, workers: Iterable[WorkerProcess], now: float) -> list[tuple[WorkerProcess, str]]:
        """Return the hanging workers, each with the reason as text. Call this every `WATCH_SECONDS`."""
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
