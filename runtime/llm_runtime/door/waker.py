"""A wake-up call for the one task that waits for several things."""

from __future__ import annotations

from typing import final

import trio


@final
class Waker:
    """Call `wake` as often as you like; `wait` returns once after any number of calls, also earlier ones."""

    __slots__ = ("_lot", "_woken")

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()
        self._woken = False

    def wake(self) -> None:
        """Let the waiting task go on. Never waits."""
        self._woken = True
        self._lot.unpark_all()

    async def wait(self) -> None:
        """Wait for a call of `wake` since the last return. The bounds are those of what is waited for."""
        if self._woken:
            await trio.lowlevel.checkpoint()
        while not self._woken:
            await self._lot.park()
        self._woken = False
