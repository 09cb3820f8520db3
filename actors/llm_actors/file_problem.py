"""Problems with an SQLite file, classified by SQLite's result codes and the system's errors; and how a damaged file
is set aside (renamed, so that a new one can replace it).

One table maps errors to problems; the tier decides how to handle them.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from enum import Enum

ASIDE = ".damaged"
"""The suffix of a file that is set aside. There is at most one: a later one replaces it."""


class FileProblem(Enum):
    """A problem with the file, as it is worded in the log."""

    DAMAGED = "is damaged or of another version"
    FULL = "cannot grow because the disk is full"
    READ_ONLY = "cannot be written because its permissions or its file system forbid it"
    UNREACHABLE = "cannot be opened, read or written"
    BUSY = "is locked by another process"
    FOREIGN = "is a database of another program and is not changed"
    NEWER = "was written by a newer version of llm-runtime and is not changed"


class NotOursError(Exception):
    """The file is a valid database, but of another program or version. ``problem`` says which."""

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
"""The exceptions that work on the file may raise. They include `sqlite3.ProgrammingError`, which is a bug."""


def file_problem_of(exc: Exception) -> FileProblem:
    """Return the problem that ``exc``, one of `Failing`, means. Raises ``exc`` again if it is a bug."""
    match exc:
        case NotOursError():
            return exc.problem
        case OSError():
            return _BY_ERRNO.get(exc.errno or 0, FileProblem.UNREACHABLE)
        case sqlite3.ProgrammingError():
            raise exc
        case _:  # any other error of SQLite means damaged contents
            code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
            return _BY_CODE.get(code & 0xFF, FileProblem.DAMAGED)


def inode_of(path: str) -> int | None:
    """Return the inode of the file that now has the name ``path``; ``None`` if there is none."""
    with suppress(OSError):
        return os.stat(path).st_ino
    return None


def set_aside(path: str, inode: int | None) -> None:
    """Rename the file and its journal: `ASIDE` is appended to the file's name. Does nothing if the file's inode is not
    ``inode``, because another process has then replaced the file. If ``inode`` is ``None``, the file is always renamed.
    Raises `OSError` if the file cannot be renamed.
    """
    if inode is not None and inode_of(path) != inode:
        return
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.replace(path + suffix, path + ASIDE + suffix)
