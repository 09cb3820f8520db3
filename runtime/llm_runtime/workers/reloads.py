"""Reloads of all workers: the parent reads the configuration first, then the workers apply it one by one.

Workers read a copy of the file. So a worker that is restarted gets the current configuration, even if the file has
changed since.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from typing import Final, final

import trio

from llm_actors.kernel.errors import exception_site, is_fatal
from llm_protocol.errors import LLMClientError
from llm_runtime.config import Config, ConfigError
from llm_runtime.reloading import RELOAD_CRASHED, ReloadResult
from llm_runtime.systemd import Notifier
from llm_runtime.workers.link import Outcome, cut
from llm_runtime.workers.process import WorkerProcess

ONE_SECONDS: Final = 60.0
"""The most seconds that one worker may take to reload. A worker that takes longer is restarted."""

log = logging.getLogger(__name__)


@final
class Copies:
    """Copies of the configuration ``file`` in ``folder``. ``read`` reads one and blocks. Without a file, ``None`` is
    used in place of a copy.
    """

    def __init__(self, file: str | None, folder: str, read: Callable[[str | None], Config]) -> None:
        self._file = file
        self._folder = folder
        self._read = read
        self._numbers = count(1)
        self.current: str | None = None
        """The current copy."""
        self._former: str | None = None

    def take(self) -> tuple[str | None, Config]:
        """Make a new copy of the configuration file. Return its path, which is ``None`` without a file, and the
        configuration. If this raises `ConfigError`, no copy is left. Blocks.
        """
        if self._file is None:
            return None, self._read(None)
        copy = os.path.join(self._folder, f"config-{next(self._numbers)}.toml")
        try:
            with open(self._file, "rb") as source, open(copy, "xb") as target:
                target.write(source.read())
            return copy, self._read(copy)
        except OSError as exc:
            self._remove(copy)
            raise ConfigError(f"cannot read the configuration: {exc.strerror}", file=self._file) from None
        except BaseException:
            self._remove(copy)
            raise

    def accept(self, copy: str | None) -> None:
        """Make this copy the current one. A worker that is just starting may still read the previous one."""
        if copy != self.current:
            self._remove(self._former)
            self._former, self.current = self.current, copy

    def refuse(self, copy: str | None) -> None:
        """Delete this copy: it does not become the current one."""
        self._remove(copy)

    @staticmethod
    def _remove(copy: str | None) -> None:
        if copy is not None:
            with suppress(OSError):
                os.unlink(copy)


@final
class Reloads:
    """Reloads the workers. ``workers`` returns the current ones. Call `run` in a separate task."""

    def __init__(self, copies: Copies, workers: Callable[[], Iterable[WorkerProcess]], notifier: Notifier) -> None:
        self._copies = copies
        self._workers = workers
        self._notifier = notifier
        self._orders: deque[WorkerProcess | None] = deque()
        self._started: deque[WorkerProcess] = deque()
        self._ordered = trio.Event()
        self._has_begun = trio.Event()
        self._is_over = False

    def order(self, asker: WorkerProcess | None = None) -> None:
        """Order a reload, and return without waiting. The result is sent to ``asker``; ``None``: to nobody."""
        self._orders.append(asker)
        self._ordered.set()

    def begin(self) -> None:
        """Allow reloads, because all workers have started."""
        self._has_begun.set()

    def end(self) -> None:
        """Refuse further reloads, because the workers are to stop. The service manager is not notified any more."""
        self._is_over = True
        self._has_begun.set()

    def note_ready(self, worker: WorkerProcess) -> None:
        """Record that a worker accepts requests. If the others reloaded while it started, it reloads, too."""
        self._started.append(worker)
        self._ordered.set()

    async def run(self) -> None:
        """Carry out reloads when they are ordered, until cancelled."""
        await self._has_begun.wait()
        while True:
            await self._ordered.wait()
            self._ordered = trio.Event()
            while self._started:
                worker = self._started.popleft()
                if worker.copy != self._copies.current and not self._is_over:
                    await self._bring_along(worker, self._copies.current)
            while self._orders:
                asker = self._orders.popleft()
                outcome = Outcome(problem="the daemon is stopping") if self._is_over else await self._reload()
                if asker is not None:
                    asker.tell(outcome)

    async def _reload(self) -> Outcome:
        self._notifier.reloading()
        try:
            copy, _ = await trio.to_thread.run_sync(self._copies.take)
        except ConfigError as exc:
            for each in exc.all:
                log.error("not reloaded; the old configuration stays in effect: %s", each)  # noqa: TRY400
            return Outcome(mistakes=cut(list(map(str, exc.all))))
        except LLMClientError as exc:
            log.error("not reloaded; the old configuration stays in effect: %s", exc)  # noqa: TRY400
            return Outcome(problem=str(exc))
        except Exception as exc:
            if is_fatal(exc):
                raise
            log.error("not reloaded; the old configuration stays in effect: %s", exception_site(exc))  # noqa: TRY400
            return Outcome(problem=RELOAD_CRASHED)
        else:
            return await self._one_by_one(copy)
        finally:
            if not self._is_over:
                self._notifier.ready()

    async def _one_by_one(self, copy: str | None) -> Outcome:
        done: Outcome | None = None
        for worker in [each for each in self._workers() if each.is_ready]:
            if done is None:
                first = await self._take_over(worker, copy)
                if first.result is None:
                    self._copies.refuse(copy)
                    return first  # no worker has applied the new configuration
                done = first
                self._copies.accept(copy)
            else:
                await self._bring_along(worker, copy)
        self._copies.accept(copy)
        nothing = ReloadResult()
        return done or Outcome(result=nothing)

    async def _bring_along(self, worker: WorkerProcess, copy: str | None) -> None:
        """Order a worker to apply the configuration of the other workers. If it cannot, it is restarted."""
        outcome = await self._take_over(worker, copy)
        if outcome.result is None and worker.code is None and not self._is_over:
            log.error(
                "worker %d could not apply the new configuration; the worker is restarted to apply it", worker.number
            )
            worker.stop()

    async def _take_over(self, worker: WorkerProcess, copy: str | None) -> Outcome:
        with trio.move_on_after(ONE_SECONDS):
            return await worker.reload(copy)
        worker.stop()  # otherwise it might later apply a configuration that no other worker has
        problem = f"worker {worker.number} did not reload within {ONE_SECONDS:g} s; it is restarted"
        log.error("%s", problem)
        return Outcome(problem=problem)
