"""Actions that one thread hands to another, which is woken once for any number of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias, final

Action: TypeAlias = Callable[[], object]


@final
class Actions:
    """``wake`` has the other thread call its argument soon, and does not wait; what it raises comes out of `post`."""

    __slots__ = ("_lock", "_posted", "_wake")

    def __init__(self, wake: Callable[[Action], object]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._posted: list[Action] = []

    def post(self, action: Action) -> None:
        """Have ``action`` run in the other thread, after those posted before. It must not raise."""
        with self._lock:  # also while waking: another thread's action must not rely on a wake-up that fails
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
