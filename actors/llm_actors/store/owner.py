"""Which processes share the file, and which of them are still there.

Each holds a lock on a small file of its own beside the store; the kernel releases it when the process ends, however
that happens. `flock` and not a process id: ids are used again, and mean nothing between containers.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import final

_NAME = re.compile(r"[0-9a-f]{16}")


@final
class Owner:
    """Stands for this process among those that share the store at ``path``. Its methods may raise `OSError`."""

    def __init__(self, path: str, name: str | None = None) -> None:
        self._path = path
        self.name = name or token_hex(8)
        self._lock: int | None = None

    def hold(self) -> None:
        """Take the lock, unless it is held. The folder exists."""
        if self._lock is not None:
            return
        with self._alone():
            lock = os.open(self._file(self.name), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                raise
            self._lock = lock

    def release(self) -> None:
        """Let it go."""
        if self._lock is not None:
            with suppress(OSError):
                os.unlink(self._file(self.name))
            os.close(self._lock)
            self._lock = None

    def is_alive(self, name: str) -> bool:
        """Whether the process ``name`` still holds its lock. One that cannot be asked about counts as alive."""
        if name == self.name:
            return True
        with self._alone():
            try:
                lock = os.open(self._file(name), os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            except OSError:
                return True
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
            finally:
                os.close(lock)
            return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody takes a lock or tries one meanwhile: a file that was just made is not yet locked, and one that is just
        tried is locked by whoever tries.
        """
        lock = os.open(f"{self._path}-owners", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def bury(self, name: str) -> None:
        """Remove what a process that has gone has left."""
        with suppress(OSError):
            os.unlink(self._file(name))

    def others(self) -> Iterator[str]:
        """All that have a file, but this one."""
        folder, prefix = os.path.dirname(self._path), os.path.basename(self._path) + "-owner-"
        for entry in os.listdir(folder):
            name = entry.removeprefix(prefix)
            if name != entry and _NAME.fullmatch(name) and name != self.name:
                yield name

    def _file(self, name: str) -> str:
        return f"{self._path}-owner-{name}"
