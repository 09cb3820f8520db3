"""What passes between two threads: a queue of actions, of which any number causes one wake-up, and the end of a turn of
the Trio scheduler, when the other thread is woken once for all events of the turn.

Waking a thread is a system call, at which Python lets that thread run. If each event woke it, the two threads would
alternate, one event at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias, final

import trio

Action: TypeAlias = Callable[[], object]


@final
class Actions:
    """Actions that any thread posts and that one thread runs, the runner. ``wake(action)`` makes the runner call
    ``action`` soon, and does not wait for it. `post` propagates the exceptions of ``wake``.
    """

    __slots__ = ("_lock", "_posted", "_wake")

    def __init__(self, wake: Callable[[Action], object]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._posted: list[Action] = []

    def post(self, action: Action) -> None:
        """Let the runner run ``action``, after the actions posted before. ``action`` must not raise."""
        with self._lock:  # the lock is held while waking, so that no other action relies on a wake-up that fails
            self._posted.append(action)
            if len(self._posted) == 1:
                try:
                    self._wake(self._run)
                except BaseException:
                    self._posted.clear()
                    raise

    def _run(self) -> None:
        with self._lock:
            posted, self._posted = self._posted, []
        for action in posted:
            action()


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
