"""The data that the parent passes to a worker at its start, and the folder that the workers share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from llm_runtime.config import ConfigError
from llm_runtime.config.cross_checks import WORKER_VARIABLE

LONGEST_FOLDER = 72
"""The most bytes of the path in which the workers' folder is created. The path of a socket in that folder has up to 29
more bytes. It may have 107 on Linux and 103 on macOS.
"""

SUFFIX = ".sock"


class WorkerPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The number of a worker, and what it inherits: ``link`` and ``listeners`` are descriptors, ``copy`` is the path
    of the current copy of the configuration.
    """

    number: int
    count: int
    folder: str
    link: int
    listeners: tuple[int, ...]
    copy: str | None

    def environ(self) -> dict[str, str]:
        """Return this place as environment variables for the worker."""
        return {WORKER_VARIABLE: msgspec.json.encode(self).decode()}


def socket_path(folder: str, number: int) -> str:
    """Return the path of the unix socket at which worker ``number`` answers the messages of its siblings."""
    return os.path.join(folder, f"{number}{SUFFIX}")


def make_folder(environ: Mapping[str, str]) -> str:
    """Create a folder that only this user can enter. Raises `ConfigError`."""
    for base in (environ.get("RUNTIME_DIRECTORY", ""), environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()):
        if not base or len(os.fsencode(base)) > LONGEST_FOLDER:
            continue
        with suppress(OSError):
            return tempfile.mkdtemp(prefix="llm-runtime-", dir=base)
    raise ConfigError(
        "no folder for the workers' sockets was found: set TMPDIR to a writable folder whose path has at most "
        f"{LONGEST_FOLDER} bytes"
    )


def remove_folder(folder: str, *, unless_used: bool = False) -> None:
    """Remove the folder with its content. ``unless_used``: only if no worker has its socket there any more."""
    with suppress(OSError):
        if not unless_used or not any(each.endswith(SUFFIX) for each in os.listdir(folder)):
            shutil.rmtree(folder, ignore_errors=True)
