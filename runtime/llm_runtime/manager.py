"""Who decides when a daemon stops and reads its configuration again: signals, or the parent of several workers."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, final

import trio

from llm_protocol.errors import LLMClientError
from llm_runtime.reloading import Reloader
from llm_runtime.server.state import Reload
from llm_runtime.systemd import Notifier


class Manager(Protocol):
    """Whoever started the process."""

    @property
    def notifier(self) -> Notifier:
        """Is notified of the result of a reload."""
        ...

    def ready(self, url: str) -> None:
        """Requests are taken at ``url``."""
        ...

    def stopping(self) -> None:
        """The process is about to end."""
        ...

    async def watch(self) -> None:
        """Say as often as wanted that the process is alive, until cancelled."""
        ...

    async def stops(self, stop: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
        """Call ``stop`` at each order to stop, until cancelled: the first lets running responses finish, the second
        ends them.
        """
        ...

    async def obey(self, reloader: Reloader) -> None:
        """Reload on each request to do so, until cancelled."""
        ...

    def asked_to_reload(self, reloader: Reloader) -> Reload:
        """What is done when a client asks for a reload."""
        ...


@final
class SignalManager:
    """SIGTERM and SIGINT stop, SIGHUP reloads, and systemd is told."""

    def __init__(self, notifier: Notifier) -> None:
        self.notifier = notifier

    def ready(self, url: str) -> None:  # noqa: ARG002
        """See `Manager`."""
        self.notifier.ready()

    def stopping(self) -> None:
        """See `Manager`."""
        self.notifier.stopping()

    async def watch(self) -> None:
        """See `Manager`."""
        await self.notifier.watch()

    async def stops(self, stop: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
        """See `Manager`."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                stop()

    async def obey(self, reloader: Reloader) -> None:
        """See `Manager`."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                with suppress(LLMClientError):  # it is in the log
                    await reloader.reload()

    def asked_to_reload(self, reloader: Reloader) -> Reload:
        """See `Manager`."""
        return reloader.reload
