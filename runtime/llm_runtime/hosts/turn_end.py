"""The end of a turn of the Trio scheduler, when other threads are woken: once for all events of the turn.

Waking a thread is a system call, at which Python lets that thread run. If each event woke it, the two threads would
alternate, one event at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import trio


@final
class TurnEnd(trio.abc.Instrument):
    """Functions that are called when the turn ends. Register this with `trio.lowlevel.add_instrument`."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], object]] = []
        self._is_over = False

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` at the end of this turn, or at once if no turn follows. Called in the Trio thread.
        ``function`` must not raise.
        """
        if self._is_over:
            function()
            return
        self._waiting.append(function)
        if self._is_over:  # `close` was called meanwhile, in the other thread
            self.before_io_wait(0)

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - it is Trio's
        """See `trio.abc.Instrument`."""
        while self._waiting:  # they may call for others
            waiting, self._waiting = self._waiting, []
            for function in waiting:
                function()

    def close(self) -> None:
        """Call the remaining functions: Trio has ended."""
        self._is_over = True
        self.before_io_wait(0)
