"""``[store]``: the file for what outlives the process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from llm_runtime.config.conversion import convert
from llm_runtime.config.errors import ConfigError, under
from llm_runtime.config.keys import KeyReader
from llm_runtime.config.section import Line, Section

FILE = "store.sqlite3"
"""The file's name, in the folder of this program's state."""

DAY = 86_400.0


class StoreConfig(Section, frozen=True, kw_only=True):
    """``[store]``: the file for stored responses. Without the section they are in memory."""

    path: Line = ""
    """The file, an SQLite database; omitted: `store.sqlite3` in `$XDG_STATE_HOME/llm-runtime`."""
    max_mb: Annotated[float, Meta(ge=1, le=1_000_000)] = 1_000.0
    """How large it may become; the responses that ended first make room."""
    ttl_s: Annotated[float, Meta(gt=0, le=3650 * DAY)] = 30 * DAY
    """Seconds for which a response is kept after its end."""
    redis: bool = False
    """Whether stored responses are in `[redis]` instead, where all replicas with its prefix retrieve, resume, continue,
    cancel and delete them. The ledger stays in the file.
    """

    @property
    def max_bytes(self) -> int:
        """How large it may become, in bytes."""
        return int(self.max_mb * 1_000_000)


def store_section(table: object, keys: KeyReader, folder: Path, environ: Mapping[str, str]) -> StoreConfig:
    """The section as it is used, with an absolute path. A relative one starts at the configuration file's folder."""
    store = convert(table, StoreConfig, keys.read)
    path = folder / os.path.expanduser(store.path) if store.path else state_folder(environ) / FILE
    return msgspec.structs.replace(store, path=os.path.abspath(path))


def read_section(file: str | None, name: str) -> tuple[object, Path]:
    """The section ``name`` of the configuration ``file``, read for this alone, and the file's folder; empty without a
    file. Raises `ConfigError`.
    """
    import tomllib  # whoever has no file need not pay for it

    if file is None:
        return {}, Path()
    try:
        table = tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"cannot read the configuration: {exc}", file=file) from None
    return table.get(name, {}), Path(file).absolute().parent


def store_file(file: str | None, environ: Mapping[str, str]) -> str:
    """Where the store is by the configuration ``file``; without one, the usual place. Raises `ConfigError`."""
    table, folder = read_section(file, "store")
    with under("store"):
        return store_section(table, KeyReader(environ, folder), folder, environ).path


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where this program keeps what is neither configuration nor cache (XDG base directories)."""
    home = environ.get("XDG_STATE_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path(os.path.expanduser("~/.local/state"))
    return base / "llm-runtime"
