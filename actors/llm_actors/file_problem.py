"""What can be wrong with an SQLite file of ours, by SQLite's result codes and the system's errors; setting it aside.

One table says what kind of trouble an error is; the tier says what is done about it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from enum import Enum

ASIDE = ".damaged"
"""Appended to the name of a file that is set aside. There is at most one: a later one takes its place."""


class FileProblem(Enum):
    """A state of the file, in the words of the log."""

    DAMAGED = "is damaged or of another version"
    FULL = "cannot grow, the disk is full"
    READ_ONLY = "cannot be written, by its permissions or its file system's"
    UNREACHABLE = "cannot be opened, read or written"
    BUSY = "is locked by another process"
    FOREIGN = "is a database of another program and is left alone"
    NEWER = "was written by a newer version and is left alone"


class NotOursError(Exception):
    """The file is a sound database, but not this version's cache. ``problem`` says whose it is."""

    def __init__(self, problem: FileProblem) -> None:
        super().__init__(problem.value)
        self.problem = problem


_BY_CODE = {
    sqlite3.SQLITE_FULL: FileProblem.FULL,
    sqlite3.SQLITE_READONLY: FileProblem.READ_ONLY,
    sqlite3.SQLITE_PERM: FileProblem.READ_ONLY,
    sqlite3.SQLITE_BUSY: FileProblem.BUSY,
    sqlite3.SQLITE_LOCKED: FileProblem.BUSY,
    sqlite3.SQLITE_PROTOCOL: FileProblem.BUSY,
    sqlite3.SQLITE_IOERR: FileProblem.UNREACHABLE,
    sqlite3.SQLITE_CANTOPEN: FileProblem.UNREACHABLE,
    sqlite3.SQLITE_NOMEM: FileProblem.UNREACHABLE,
    sqlite3.SQLITE_NOLFS: FileProblem.UNREACHABLE,
}
_BY_ERRNO = {
    errno.ENOSPC: FileProblem.FULL,
    errno.EDQUOT: FileProblem.FULL,
    errno.EFBIG: FileProblem.FULL,
    errno.EACCES: FileProblem.READ_ONLY,
    errno.EPERM: FileProblem.READ_ONLY,
    errno.EROFS: FileProblem.READ_ONLY,
}
Failing = (sqlite3.DatabaseError, OSError, NotOursError)
"""What working on the file may raise. `sqlite3.ProgrammingError` is among them, and is a bug."""


def file_problem_of(exc: Exception) -> FileProblem:
    """What ``exc``, one of `Failing`, says of the file. Raises it again if it is our own mistake."""
    match exc:
        case NotOursError():
            return exc.problem
        case OSError():
            return _BY_ERRNO.get(exc.errno or 0, FileProblem.UNREACHABLE)
        case sqlite3.ProgrammingError():
            raise exc
        case _:  # what SQLite does not blame on the system it blames on the file's contents
            code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
            return _BY_CODE.get(code & 0xFF, FileProblem.DAMAGED)


def inode_of(path: str) -> int | None:
    """Which file the name stands for at the moment."""
    with suppress(OSError):
        return os.stat(path).st_ino
    return None


def set_aside(path: str, inode: int | None) -> None:
    """Move the file and its journal out of the way, unless another process has done so (``inode``: the one we knew).

    Raises OSError where that is not allowed.
    """
    if inode is not None and inode_of(path) != inode:
        return
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.replace(path + suffix, path + ASIDE + suffix)
