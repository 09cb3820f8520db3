"""The parent of several workers: it owns the listening sockets, and starts, restarts, reloads and stops the workers.

A worker that ends is restarted as the kernel restarts an actor: at once, then after growing delays. After too many
restarts within a time the parent gives up. Meanwhile the other workers accept new connections.
"""

from __future__ import annotations

import logging
import random
import signal
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Final, final

import trio

from llm_actors.kernel.window import Backoff, Intensity, RestartWindow, Streak
from llm_runtime.config import Config, ConfigError
from llm_runtime.server.actors import address_of
from llm_runtime.server.listener import CannotListenError, listen, removed_after
from llm_runtime.systemd import Notifier
from llm_runtime.workers.place import WorkerPlace, make_folder, remove_folder
from llm_runtime.workers.process import NOT_STARTED, WorkerProcess
from llm_runtime.workers.reloads import Copies, Reloads

STOPPED, GAVE_UP, CUT_OFF = 0, 1, 130
"""Exit codes, the same as of a daemon of one process (`llm_runtime.daemon`)."""

INTENSITY: Final = Intensity()
BACKOFF: Final = Backoff()

END_SECONDS: Final = 15.0
"""The most seconds that a worker may exist after its drain. All of its last steps have limits within that."""

AT_ONCE_SECONDS: Final = 7.0
"""The most seconds that a worker may exist after it was told to end at once."""

SILENT_SECONDS: Final = 30.0
"""Seconds without a message after which a worker counts as hanging."""

START_SECONDS: Final = 120.0
"""Seconds after which a worker that still does not accept requests counts as hanging. Until it does, it sends no
messages.
"""

WATCH_SECONDS: Final = 1.0
"""Seconds between two checks by the parent."""

log = logging.getLogger(__name__)


async def serve_with_workers(
    ready: Callable[[str], None],
    *,
    file: str | None,
    read: Callable[[str | None], Config],
    inherited: Sequence[socket.socket],
    environ: Mapping[str, str],
) -> int:
    """Serve with as many workers as configured, and return the exit code. ``ready`` is called with the URL once all
    of them accept requests. ``read`` reads a copy of the configuration ``file``; it blocks. ``inherited`` are sockets
    to listen on instead of the configured address. Raises `ConfigError` if the daemon cannot start.
    """
    folder = make_folder(environ)
    try:
        copies = Copies(file, folder, read)
        copy, config = await trio.to_thread.run_sync(copies.take)
        copies.accept(copy)
        listeners = list(inherited) or await _listening(config)
        address = address_of(config.server, listeners[0], inherited=bool(inherited))
        with removed_after(None if inherited else config.server.unix):
            try:
                parent = WorkersParent(
                    config, listeners, folder, copies, environ, Notifier(environ), partial(ready, address.url)
                )
                return await parent.run()
            finally:
                for listener in listeners:
                    listener.close()
    finally:
        remove_folder(folder)


async def _listening(config: Config) -> list[socket.socket]:
    try:
        return await listen(config.server)
    except CannotListenError as exc:
        raise ConfigError(str(exc)) from exc


@final
class WorkersParent:
    """Runs the workers. ``listeners`` are the sockets from which they accept connections; ``copies`` provides the
    configuration. ``ready`` is called when all workers accept requests for the first time.
    """

    def __init__(
        self,
        config: Config,
        listeners: Sequence[socket.socket],
        folder: str,
        copies: Copies,
        environ: Mapping[str, str],
        notifier: Notifier,
        ready: Callable[[], None],
    ) -> None:
        self._config = config
        self._listeners = listeners
        self._folder = folder
        self._copies = copies
        self._environ = environ
        self._notifier = notifier
        self._ready = ready
        self._has_started = False
        self._workers: dict[int, WorkerProcess] = {}
        self._window = RestartWindow(INTENSITY)
        self._stops = 0
        self._stopping = trio.Event()
        self._kill_at = inf
        self._reloads = Reloads(copies, self._workers.values, notifier)
        self._code = STOPPED

    async def run(self) -> int:
        """Keep the workers running until told to stop. Then wait until all have ended, and return the exit code."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._obey_signals)
            nursery.start_soon(self._reloads.run)
            nursery.start_soon(self._watch)
            nursery.start_soon(self._notifier.watch)
            async with trio.open_nursery() as keeping:
                for number in range(1, self._config.server.workers + 1):
                    keeping.start_soon(self._keep, number)
            nursery.cancel_scope.cancel("all workers have ended")
        log.info("stopped")
        return self._code

    async def _obey_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(
            signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
        ) as signals:
            task_status.started()
            async for number in signals:
                if number in (signal.SIGINT, signal.SIGTERM):
                    self._stop(STOPPED)
                elif number == signal.SIGHUP:
                    self._reloads.order()

    # -- the workers -------------------------------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        """Keep a worker with this number running, one process after another, until it is time to stop."""
        streak = Streak(BACKOFF)
        while not self._stops:
            worker = self._workers[number] = WorkerProcess(
                number, self._copies.current, ready=self._note_ready, asked=self._reloads.order
            )
            await worker.run(self._place(worker), self._listeners, self._environ)
            if not self._stops:
                with trio.move_on_after(self._pause(worker, streak)):
                    await self._stopping.wait()

    def _place(self, worker: WorkerProcess) -> WorkerPlace:
        return WorkerPlace(
            number=worker.number,
            count=self._config.server.workers,
            folder=self._folder,
            link=-1,
            listeners=tuple(each.fileno() for each in self._listeners),
            copy=worker.copy,
        )

    def _note_ready(self, worker: WorkerProcess) -> None:
        log.info("worker %d is process %d", worker.number, worker.pid)
        self._reloads.note_ready(worker)
        if not (self._has_started or self._stops) and all(each.is_ready for each in self._workers.values()):
            self._has_started = True
            self._reloads.begin()
            self._ready()
            self._notifier.ready()

    def _pause(self, worker: WorkerProcess, streak: Streak) -> float:
        """Return how many seconds to wait before a worker that ended by itself is started again. Too many such ends,
        or one before all workers have started, end the daemon.
        """
        if not self._has_started:
            log.critical("worker %d %s at the start, so the daemon stops", worker.number, worker.fate)
            self._stop(max(worker.code or 0, GAVE_UP))
            return 0.0
        if worker.code == STOPPED:  # the worker has received a signal and has drained
            log.info("worker %d %s; it is started again", worker.number, worker.fate)
            return 0.0
        what = "its start is tried again" if worker.code == NOT_STARTED else "it is restarted; its requests are lost"
        log.error("worker %d %s; %s", worker.number, worker.fate, what)
        now = trio.current_time()
        if not self._window.admit(now):
            log.critical(
                "gave up, because more than %d workers ended within %g s: the daemon stops",
                INTENSITY.restarts,
                INTENSITY.period,
            )
            self._stop(GAVE_UP)
        return streak.next_delay(now, random.random())  # noqa: S311 - no secret

    # -- the end -----------------------------------------------------------------------------------------------------

    def _stop(self, code: int) -> None:
        self._stops += 1
        self._reloads.end()
        server = self._config.server
        seconds = server.ready_delay_s + server.drain_s + END_SECONDS if self._stops == 1 else AT_ONCE_SECONDS
        self._kill_at = trio.current_time() + seconds
        if self._stops == 1:
            self._notifier.stopping()
            self._code = code
            log.info(
                "stopping: responses in progress have %g s to finish; a second signal ends them now", server.drain_s
            )
        else:
            self._code = self._code or CUT_OFF
        self._stopping.set()
        for worker in self._workers.values():
            worker.stop(at_once=self._stops > 1)

    async def _watch(self) -> None:
        """Kill the workers that hang, and at the end those that have not ended in time."""
        watch = HangWatch(trio.current_time())
        while True:
            await trio.sleep(WATCH_SECONDS)
            now = trio.current_time()
            for worker, words in watch.look(self._workers.values(), now):
                log.error("worker %d %s; it is killed", worker.number, words)
                worker.kill()
            if now > self._kill_at:
                for worker in self._workers.values():
                    worker.kill()


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
