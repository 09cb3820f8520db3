"""The file of a store, and the one thread at a time that works on it. All incarnations of the store's actor share them:
a thread may still be at work when its incarnation has crashed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar, TypeVarTuple, Unpack, final

import trio

if TYPE_CHECKING:
    from llm_actors.store.ledger import By, SpendRow, SpentBy
    from llm_actors.store.messages import Loaded
    from llm_actors.store.write import Write

CLOSE_SECONDS = 0.5
"""Seconds for closing the file. Less than the kernel gives a cancelled actor."""

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Tier(Protocol):
    """The file's interface, called in a thread. `StoreTier` is the one implementation. Its methods do not raise for a
    bad file.
    """

    def open(self) -> None: ...
    def write(self, writes: list[Write], /) -> bool: ...
    def find(self, response_id: str, caller: str, /) -> Loaded | None: ...
    def spend(self, by: By, since: float, caller: str | None, /) -> tuple[SpendRow, ...] | None: ...
    def spent(self, since: float, /) -> tuple[SpentBy, ...] | None: ...
    def close(self) -> None: ...


@final
class StoreThread:
    """Calls the methods of ``tier`` in a thread, one at a time."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self._limiter = trio.CapacityLimiter(1)
        self._is_closed = True

    @property
    def is_busy(self) -> bool:
        """Whether a method is running, also one whose caller was cancelled."""
        return self._limiter.borrowed_tokens > 0

    async def call(self, work: Callable[[Unpack[Ts]], R], *args: *Ts) -> R:
        """Return the result of ``work``. Waits until no other work is running. If this is cancelled, ``work`` is not
        begun, or continues in its thread.
        """
        self._is_closed = False
        return await trio.to_thread.run_sync(work, *args, abandon_on_cancel=True, limiter=self._limiter)

    async def close(self) -> None:
        """Close the file, which releases this process's lock, unless it is closed already. Waits at most
        `CLOSE_SECONDS`, also if this is cancelled.
        """
        if not self._is_closed:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await self.call(self.tier.close)
                self._is_closed = True
