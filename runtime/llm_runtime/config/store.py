"""``[store]``: the file for data that survives a restart."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from llm_runtime.config.conversion import Line, Section, convert
from llm_runtime.config.errors import ConfigError, under
from llm_runtime.config.keys import KeyReader
from llm_runtime.config.server import MIB

FILE = "store.sqlite3"
"""The name of the file, in the state folder of this program."""

DAY = 86_400.0


class StoreConfig(Section, frozen=True, kw_only=True):
    """``[store]``: the file for stored responses; without the section, they are kept in memory."""

    path: Line = ""
    """The file, an SQLite database; omitted: `store.sqlite3` in `$XDG_STATE_HOME/llm-runtime`."""
    max_mb: Annotated[float, Meta(ge=1, le=1_000_000)] = 1_000.0
    """The size limit of the file. The oldest responses are deleted first."""
    ttl_s: Annotated[float, Meta(gt=0, le=3650 * DAY)] = 30 * DAY
    """Seconds for which a response is kept after its end; the default is 30 days."""
    redis: bool = False
    """Whether stored responses are kept in `[redis]` instead of the file. All replicas with the same prefix can then
    retrieve, resume, continue, cancel and delete them. The ledger stays in the file.
    """

    @property
    def max_bytes(self) -> int:
        """The size limit in bytes."""
        return int(self.max_mb * MIB)


def store_section(table: object, keys: KeyReader, folder: Path, environ: Mapping[str, str]) -> StoreConfig:
    """Return the section with an absolute path. A relative path starts at the folder of the configuration file."""
    store = convert(table, StoreConfig, keys.read)
    path = folder / os.path.expanduser(store.path) if store.path else state_folder(environ) / FILE
    return msgspec.structs.replace(store, path=os.path.abspath(path))


def read_section(file: str | None, name: str) -> tuple[object, Path]:
    """Read one section of the configuration ``file``, without validating it, and return it with the folder of the file.
    Without a file, the section is empty. Raises `ConfigError`.
    """
    import tomllib  # imported here: without a file, it is not needed

    if file is None:
        return {}, Path()
    try:
        table = tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"cannot read the configuration: {exc}", file=file) from None
    return table.get(name, {}), Path(file).absolute().parent


def store_file(file: str | None, environ: Mapping[str, str]) -> str:
    """Return the path of the store for the configuration ``file``; without a file, the default path. Raises
    `ConfigError`.
    """
    table, folder = read_section(file, "store")
    with under("store"):
        return store_section(table, KeyReader(environ, folder), folder, environ).path


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the state folder of this program, as the XDG Base Directory Specification defines it. Raises `ConfigError`
    if there is none.
    """
    home = environ.get("XDG_STATE_HOME", "")
    base = home if os.path.isabs(home) else os.path.expanduser("~/.local/state")
    if not os.path.isabs(base):
        raise ConfigError("there is no home folder: set XDG_STATE_HOME")
    return Path(base) / "llm-runtime"
