"""A queue of actions from one thread to another. Any number of actions causes one wake-up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias, final

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
