"""One clock tick for all connections, so that deadlines that need no precision cost neither a task nor a cancel
scope.
"""

from __future__ import annotations

from typing import Protocol, final

import trio

from llm_runtime.server.limits import TICK_SECONDS


class Ticking(Protocol):
    """An object with deadlines."""

    def tick(self, now: float) -> None:
        """Act on all deadlines that have passed at ``now`` (Trio's clock). Must not wait or raise."""
        ...


@final
class Ticker:
    """Calls the `tick` of its members every `TICK_SECONDS`, one after the other."""

    def __init__(self) -> None:
        self._members: dict[Ticking, None] = {}

    def add(self, member: Ticking) -> None:
        """Call the `tick` of ``member`` from now on."""
        self._members[member] = None

    def remove(self, member: Ticking) -> None:
        """Stop calling the `tick` of ``member``."""
        self._members.pop(member, None)

    async def run(self) -> None:
        """Call the members until cancelled."""
        while True:
            await trio.sleep(TICK_SECONDS)
            now = trio.current_time()
            for member in tuple(self._members):
                member.tick(now)
