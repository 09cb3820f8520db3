"""The request log's actor: takes the waiting runs a few times a second, and writes them in a thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Never, Protocol, final

import trio

from llm_actors.kernel import ChildSpec, Inbox
from llm_actors.request_log.buffer import RequestLog
from llm_actors.request_log.files import RequestLogFiles
from llm_actors.run import Run

REQUEST_LOG_MAILBOX = None
"""The actor gets no messages: the runs to write are in a `RequestLog`."""

WRITE_SECONDS = 0.25
"""Seconds between two writes."""

FLUSH_SECONDS = 2.0
"""Seconds in which waiting runs may still be written after the actor is asked to stop."""

log = logging.getLogger(__name__)


class RunWriter(Protocol):
    """Writes runs that have ended. Both methods are called in a thread, one at a time."""

    def write(self, runs: Sequence[Run], /) -> None:
        """Write the runs. May raise `OSError`."""

    def close(self) -> None:
        """Release what the writer holds open. No further runs follow."""


@final
class RequestLogActor:
    """Writes the runs in ``waiting`` with ``writer``. Runs whose write fails are lost. While a write
    hangs, further runs wait in ``waiting``, which drops runs when it is full.
    """

    def __init__(self, waiting: RequestLog, writer: RunWriter) -> None:
        self._waiting = waiting
        self._writer = writer
        self._thread = trio.CapacityLimiter(1)
        self._is_away = False

    async def run(self, inbox: Inbox[Never], *, task_status: trio.TaskStatus[None]) -> None:
        """Write the waiting runs until asked to stop. Then write the remaining runs, for at most `FLUSH_SECONDS`."""
        stopping = trio.Event()
        inbox.when_stopping(stopping.set)
        task_status.started()
        while not stopping.is_set():
            news = trio.Event()
            self._waiting.on_first = news.set
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_first_of, nursery.cancel_scope, stopping)
                if not self._waiting:
                    await news.wait()
                await trio.sleep(WRITE_SECONDS)
                nursery.cancel_scope.cancel("the time of the next write has come")
            # A write that was given up may still hold its runs. Until it ends, further runs wait in the bounded buffer.
            if not self._thread.borrowed_tokens:
                with trio.move_on_after(FLUSH_SECONDS):
                    await self._write()
        with trio.move_on_after(FLUSH_SECONDS):
            await self._write()
            await trio.to_thread.run_sync(self._writer.close, abandon_on_cancel=True, limiter=self._thread)

    async def _write(self) -> None:
        runs = self._waiting.take()
        if not runs:
            return
        problem = await trio.to_thread.run_sync(self._try, runs, abandon_on_cancel=True, limiter=self._thread)
        if problem and not self._is_away:
            log.error(
                "the request log cannot be written (%s): requests are not logged until it can be written", problem
            )
        elif self._is_away and not problem:
            log.info("the request log is written again")
        self._is_away = bool(problem)

    def _try(self, runs: list[Run]) -> str:
        try:
            self._writer.write(runs)
        except OSError as exc:
            return exc.strerror or type(exc).__name__
        return ""


async def _first_of(scope: trio.CancelScope, stopping: trio.Event) -> None:
    await stopping.wait()
    scope.cancel("the runtime stops")


def request_log_child(
    waiting: RequestLog, path: str, *, max_bytes: int, keep_days: int, redacted: bool, name: str = "request-log"
) -> ChildSpec[Never]:
    """Return the spec of a request log that writes to the folder ``path``, for a supervisor."""
    files = RequestLogFiles(path, max_bytes=max_bytes, keep_days=keep_days, redacted=redacted, wall=time.time)
    return ChildSpec(name, lambda _: RequestLogActor(waiting, files), mailbox=REQUEST_LOG_MAILBOX)
