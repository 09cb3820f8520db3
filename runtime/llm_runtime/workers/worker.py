"""One worker: a daemon that uses its parent's sockets and obeys its parent's orders."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, final

import msgspec
import trio

from llm_protocol.errors import InternalError, LLMClientError
from llm_runtime import daemon
from llm_runtime.config import Config, ConfigError
from llm_runtime.config.errors import together
from llm_runtime.reloading import Reloader, ReloadResult
from llm_runtime.server.state import Reload as ReloadCall
from llm_runtime.systemd import Notifier
from llm_runtime.workers.link import Alive, AskReload, FromParent, Outcome, Ready, Reload, StopOrder, WorkerLink, cut
from llm_runtime.workers.place import WorkerPlace, remove_folder
from llm_runtime.workers.siblings import WorkerSiblings

ALIVE_SECONDS: Final = 1.0
"""Seconds between two messages that tell the parent that the event loop of the worker runs."""

RELOAD_SECONDS: Final = 300.0
"""The most seconds that a client of a worker waits for all workers to reload."""


log = logging.getLogger(__name__)


async def run_worker(place_json: str, read: Callable[[str | None], Config], file: str | None) -> int:
    """Run a worker, and return the exit code. ``place_json`` is its `WorkerPlace`, as JSON. ``read`` reads a copy of
    the configuration ``file``; it blocks. Raises `ConfigError`.
    """
    place = msgspec.json.decode(place_json, type=WorkerPlace)
    config = read(place.copy)
    listeners = [_adopted(number) for number in place.listeners]
    link: WorkerLink[FromParent] = WorkerLink(_adopted(place.link), msgspec.json.Decoder(FromParent))
    parent = Parent(link, place, listeners)
    siblings = WorkerSiblings(place)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent.listen)
        code = await daemon.run(
            config,
            inherited=listeners,
            manager=parent,
            read=lambda: read(parent.copy),
            file=file,
            siblings=siblings,
        )
        nursery.cancel_scope.cancel("the worker has ended")
    if parent.is_gone:
        remove_folder(place.folder, unless_used=True)
    return code


def _adopted(number: int) -> socket.socket:
    os.set_inheritable(number, False)
    adopted = socket.socket(fileno=number)
    adopted.setblocking(False)
    return adopted


@final
class Parent:
    """The parent, as the `Manager` of its worker."""

    def __init__(self, link: WorkerLink[FromParent], place: WorkerPlace, listeners: Sequence[socket.socket]) -> None:
        self.notifier = Notifier({})
        self.is_gone = False
        """Whether the parent ended before this worker."""
        self.copy = place.copy
        """The copy of the configuration to read."""
        self._link = link
        self._listeners = listeners
        self._stops = 0
        self._stop: Callable[[], None] = _nothing
        self._reloads: deque[Reload] = deque()
        self._reload_ordered = trio.Event()
        self._asked: deque[_Question] = deque()

    async def listen(self) -> None:
        """Handle the messages of the parent. If the parent has ended, close the listening sockets at once, because
        another daemon may want to listen; then drain and end.
        """
        await self._link.listen(self._take)
        log.warning("the parent of this worker has ended: stopping")
        self.is_gone = True
        for listener in self._listeners:
            listener.close()
        while self._asked:
            self._asked.popleft().answer(Outcome(problem="the parent of the workers has ended"))
        self._stop_at_least(1)

    def _take(self, message: FromParent) -> None:
        match message:
            case StopOrder(at_once):
                self._stop_at_least(2 if at_once else 1)
            case Reload():
                self._reloads.append(message)
                self._reload_ordered.set()
            case Outcome():
                self._asked.popleft().answer(message)

    def _stop_at_least(self, times: int) -> None:
        """Carry out orders to stop, up to ``times`` in total. ``1``: finish the responses in progress first. ``2``: end
        at once.
        """
        while self._stops < times:
            self._stops += 1
            self._stop()

    # -- what a `Manager` does ---------------------------------------------------------------------------------------

    def ready(self, url: str) -> None:  # noqa: ARG002
        """Tell the parent that this worker accepts requests."""
        self._link.send(Ready())

    def stopping(self) -> None:
        """Do nothing: the parent notices when the process has ended."""

    async def watch(self) -> None:
        """Tell the parent regularly that the event loop runs."""
        while True:
            self._link.send(Alive())
            await trio.sleep(ALIVE_SECONDS)

    async def stops(self, stop: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
        """Carry out the parent's orders to stop. A signal counts only as the first order: a service manager may send
        one to all processes, and the parent passes on the signals that it gets.
        """
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            self._stop = stop
            for _ in range(self._stops):
                stop()
            async for _ in signals:
                self._stop_at_least(1)

    async def obey(self, reloader: Reloader) -> None:
        """Reload when the parent orders it, and reply with the result."""
        while True:
            await self._reload_ordered.wait()
            self._reload_ordered = trio.Event()
            while self._reloads:
                order = self._reloads.popleft()
                outcome = await self._reload(reloader, order.copy)
                self._link.send(msgspec.structs.replace(outcome, number=order.number))

    async def _reload(self, reloader: Reloader, copy: str | None) -> Outcome:
        before, self.copy = self.copy, copy
        try:
            return Outcome(result=await reloader.reload())
        except ConfigError as exc:
            outcome = Outcome(mistakes=cut(list(map(str, exc.all))))
        except LLMClientError as exc:
            outcome = Outcome(problem=str(exc))
        self.copy = before
        return outcome

    def asked_to_reload(self, reloader: Reloader) -> ReloadCall:  # noqa: ARG002
        """Ask the parent to reload all workers, including this one."""
        return self._reload_all

    async def _reload_all(self) -> ReloadResult:
        question = _Question()
        self._asked.append(question)
        self._link.send(AskReload())
        outcome = await question.outcome()
        if outcome.mistakes:
            raise together([ConfigError(each) for each in outcome.mistakes])
        if outcome.result is None:
            raise InternalError(outcome.problem)
        return outcome.result


@final
class _Question:
    """A reload that a client waits for."""

    def __init__(self) -> None:
        self._answered = trio.Event()
        self._outcome = Outcome(problem="the workers are still reloading; the daemon's log will show the result")

    def answer(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._answered.set()

    async def outcome(self) -> Outcome:
        with trio.move_on_after(RELOAD_SECONDS):
            await self._answered.wait()
        return self._outcome


def _nothing() -> None:
    """Do nothing: the daemon does not run yet."""
