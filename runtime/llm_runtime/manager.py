"""The manager of a daemon decides when it stops and reloads: on signals, or on messages of the workers' parent."""

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
    """The interface between the daemon and whatever started its process: a shell, a service manager, or the workers'
    parent.
    """

    @property
    def notifier(self) -> Notifier:
        """The object that reports the result of a reload to the service manager."""
        ...

    def ready(self, url: str) -> None:
        """Report that requests are accepted at ``url``."""
        ...

    def stopping(self) -> None:
        """Report that the process is about to end."""
        ...

    async def watch(self) -> None:
        """Report regularly that the process is alive, until cancelled."""
        ...

    async def stops(self, stop: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
        """Call ``stop`` at each order to stop, until cancelled: the first lets responses in progress finish, the
        second ends them.
        """
        ...

    async def obey(self, reloader: Reloader) -> None:
        """Reload on each request to do so, until cancelled."""
        ...

    def asked_to_reload(self, reloader: Reloader) -> Reload:
        """Return the function to call when a client asks for a reload."""
        ...


@final
class SignalManager:
    """SIGTERM and SIGINT stop the daemon, SIGHUP reloads it, and systemd is notified."""

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
                with suppress(LLMClientError):  # the reloader has logged it
                    await reloader.reload()

    def asked_to_reload(self, reloader: Reloader) -> Reload:
        """See `Manager`."""
        return reloader.reload
