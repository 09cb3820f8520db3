"""Which processes share the file, and which of them are still alive.

Each process holds a lock on its own small file beside the store. The operating system releases the lock when the
process ends, for whatever reason. A lock (`flock`) is used and not a process id, because process ids are reused, and
differ between containers.
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
    """One process among those that share the store at ``path``. Its methods may raise `OSError`."""

    def __init__(self, path: str, name: str | None = None) -> None:
        self._path = path
        self.name = name or token_hex(8)
        self._lock: int | None = None

    def hold(self) -> None:
        """Take the lock, unless this process holds it already. The folder must exist."""
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
        """Release the lock."""
        if self._lock is not None:
            with suppress(OSError):
                os.unlink(self._file(self.name))
            os.close(self._lock)
            self._lock = None

    def is_alive(self, name: str) -> bool:
        """Whether the process ``name`` still holds its lock. If that cannot be determined, it counts as alive."""
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
        """Hold a lock on the folder while a process takes or tests a lock. Otherwise another process might find a new
        file before it is locked, or a free file locked by the process that tests it.
        """
        lock = os.open(f"{self._path}-owners", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def bury(self, name: str) -> None:
        """Remove the lock file of a process that has ended."""
        with suppress(OSError):
            os.unlink(self._file(name))

    def others(self) -> Iterator[str]:
        """Return the names of all other processes that have a lock file."""
        folder, prefix = os.path.dirname(self._path), os.path.basename(self._path) + "-owner-"
        for entry in os.listdir(folder):
            name = entry.removeprefix(prefix)
            if name != entry and _NAME.fullmatch(name) and name != self.name:
                yield name

    def _file(self, name: str) -> str:
        return f"{self._path}-owner-{name}"
