"""What the parent tells a worker at its start, and the folder that they share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from llm_runtime.config import ConfigError
from llm_runtime.config.workers import WORKER_VARIABLE

LONGEST_FOLDER = 72
"""Bytes of the path of the folder in which the workers' folder is made. The path of a socket there has up to 29 more,
and may have 107 on Linux and 103 on macOS.
"""

SUFFIX = ".sock"


class WorkerPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Which worker this is, and what it has inherited: ``link`` and ``listeners`` are descriptors, ``copy`` is the copy
    of the configuration that holds.
    """

    number: int
    count: int
    folder: str
    link: int
    listeners: tuple[int, ...]
    copy: str | None

    def environ(self) -> dict[str, str]:
        """It, for the environment of the worker."""
        return {WORKER_VARIABLE: msgspec.json.encode(self).decode()}


def socket_path(folder: str, number: int) -> str:
    """Where worker ``number`` can be asked."""
    return os.path.join(folder, f"{number}{SUFFIX}")


def make_folder(environ: Mapping[str, str]) -> str:
    """A new folder that only this user can enter. Raises `ConfigError`."""
    for base in (environ.get("RUNTIME_DIRECTORY", ""), environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()):
        if not base or len(os.fsencode(base)) > LONGEST_FOLDER:
            continue
        with suppress(OSError):
            return tempfile.mkdtemp(prefix="llm-runtime-", dir=base)
    raise ConfigError("several workers need a folder for their sockets: set TMPDIR to one with a short path")


def remove_folder(folder: str, *, unless_used: bool = False) -> None:
    """Remove it with all that is in it; ``unless_used``: only if no worker has its socket there any more."""
    with suppress(OSError):
        if not unless_used or not any(each.endswith(SUFFIX) for each in os.listdir(folder)):
            shutil.rmtree(folder, ignore_errors=True)
