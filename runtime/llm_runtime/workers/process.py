"""One worker from its parent's view: a process from its start to its end, and the messages between the two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from socket import socket, socketpair
from typing import Final, final

import msgspec
import trio

from llm_runtime.workers.link import AskReload, FromWorker, Outcome, Ready, Reload, StopOrder, WorkerLink
from llm_runtime.workers.place import WorkerPlace

NOT_STARTED: Final = 71
"""The exit code of a worker that could not be started: the BSD convention for an error of the operating system."""


@final
class WorkerProcess:
    """One worker process. ``copy`` is the configuration for it. ``ready`` is called when it accepts requests,
    ``asked`` when one of its clients wants a reload. Call `run` in a separate task.
    """

    def __init__(
        self,
        number: int,
        copy: str | None,
        *,
        ready: Callable[[WorkerProcess], None],
        asked: Callable[[WorkerProcess], None],
    ) -> None:
        self.number = number
        self.copy = copy
        self.pid = 0
        self.heard_at = trio.current_time()
        """The time of the worker's last message, on Trio's clock."""
        self.is_ready = False
        """Whether the worker accepts requests."""
        self.code: int | None = None
        """The exit code, when the process has ended; negative: the signal that ended it."""
        self._problem = ""
        self._ready = ready
        self._asked = asked
        self._stop_order: StopOrder | None = None
        self._reload = 0
        self._outcome: Outcome | None = None
        self._outcome_told = trio.Event()
        self._process: trio.Process | None = None
        self._link: WorkerLink[FromWorker] | None = None

    async def run(self, place: WorkerPlace, listeners: Sequence[socket], environ: Mapping[str, str]) -> None:
        """Start the process at ``place``, handle its messages, and return when it has ended, or could not be started.
        If this is cancelled, the process is killed.
        """
        try:
            self._link, self._process = await self._start(place, listeners, environ)
        except OSError as exc:
            self.code, self._problem = NOT_STARTED, exc.strerror or str(exc)
            self._note_end()
            return
        self.pid = self._process.pid
        try:
            if self._stop_order is not None:  # ordered before the process was started
                self.tell(self._stop_order)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._link.listen, self._take)
                self.code = await self._process.wait()
                nursery.cancel_scope.cancel("the worker has ended")
        finally:
            if self.code is None:
                self.kill()
                with trio.CancelScope(shield=True):
                    self.code = await self._process.wait()
            self._link.close()
            self._note_end()

    @staticmethod
    async def _start(
        place: WorkerPlace, listeners: Sequence[socket], environ: Mapping[str, str]
    ) -> tuple[WorkerLink[FromWorker], trio.Process]:
        ours, theirs = socketpair()
        with theirs:
            try:
                given = msgspec.structs.replace(place, link=theirs.fileno())
                process = await trio.lowlevel.open_process(
                    # the command line with which this process was started
                    [sys.executable, *sys.orig_argv[1:]],
                    stdin=subprocess.DEVNULL,
                    env={**environ, **given.environ()},
                    pass_fds=[theirs.fileno(), *(each.fileno() for each in listeners)],
                    start_new_session=True,  # the parent passes Ctrl-C on
                )
            except BaseException:
                ours.close()
                raise
        return WorkerLink(ours, msgspec.json.Decoder(FromWorker)), process

    def _note_end(self) -> None:
        self._link = None
        self.is_ready = False
        self._outcome_told.set()

    def _take(self, message: FromWorker) -> None:
        self.heard_at = trio.current_time()
        match message:
            case Ready():
                self.is_ready = True
                self._ready(self)
            case AskReload():
                self._asked(self)
            case Outcome(number=self._reload):
                self._outcome = message
                self._outcome_told.set()
            case _:
                pass  # `Alive`, or the outcome of a reload for which nothing waits any longer

    @property
    def fate(self) -> str:
        """How the process has ended, as the rest of a sentence whose subject is the worker."""
        if self.code is not None and self.code < 0:
            return f"was ended by {_signal_name(-self.code)}"
        if self._problem:
            return f"could not be started ({self._problem})"
        return f"ended with code {self.code}"

    def stop(self, *, at_once: bool = False) -> None:
        """Order the worker to finish its responses and end, or to end ``at_once``."""
        if self._stop_order is None or at_once:
            self._stop_order = StopOrder(at_once)
            self.tell(self._stop_order)

    def tell(self, message: object) -> None:
        """Send a message to the worker, if it is running."""
        if self._process is not None and self._link is not None:
            self._link.send(message)

    def kill(self) -> None:
        """Kill the process."""
        if self._process is not None and self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def reload(self, copy: str | None) -> Outcome:
        """Order the worker to apply the configuration ``copy``. Waits for the worker's reply, or until the worker has
        ended; the caller sets the time limit.
        """
        self._reload += 1
        self._outcome = None
        self._outcome_told = trio.Event()
        if self.code is None:
            self.tell(Reload(copy, self._reload))
            await self._outcome_told.wait()
        if self._outcome is None:
            return Outcome(problem=f"worker {self.number} ended meanwhile")
        if self._outcome.result is not None:
            self.copy = copy
        return self._outcome


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"
