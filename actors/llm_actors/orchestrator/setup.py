"""The setup that runs use. A reload replaces it as a whole; a run keeps the setup with which it began."""

from __future__ import annotations

from types import TracebackType
from typing import Self, final

import trio

from llm_actors.orchestrator.routing import Router
from llm_actors.orchestrator.services import Services


@final
class Setup:
    """Services and router of one configuration. Used as a context manager, it counts as in use until the end of the
    block.
    """

    __slots__ = ("_idle", "_users", "router", "services")

    def __init__(self, services: Services, router: Router) -> None:
        self.services = services
        self.router = router
        self._users = 0
        self._idle: trio.Event | None = None

    def __enter__(self) -> Self:
        """Count a user until the end of the block."""
        self._users += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._users -= 1
        if not self._users and self._idle is not None:
            self._idle.set()

    async def unused(self) -> None:
        """Wait until no run uses the setup. Call this only after the setup was replaced, because then it gets no new
        users.
        """
        if self._users:
            self._idle = self._idle or trio.Event()
            await self._idle.wait()
        else:
            await trio.lowlevel.checkpoint()
