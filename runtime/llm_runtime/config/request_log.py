"""``[request_log]``: which requests are recorded in files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from llm_runtime.config.conversion import Line, Section, convert
from llm_runtime.config.errors import under
from llm_runtime.config.keys import KeyReader
from llm_runtime.config.server import MIB
from llm_runtime.config.store import read_section, state_folder

FOLDER = "requests"
"""The name of the folder, in the state folder of this program."""


class RequestLogConfig(Section, frozen=True, kw_only=True):
    """``[request_log]``: which requests are recorded in files. Without this section no requests are recorded."""

    path: Line = ""
    """The folder of the files, one for each day; omitted: `requests` in `$XDG_STATE_HOME/llm-runtime`."""
    max_mb: Annotated[float, Meta(ge=1, le=1_000_000)] = 1_000.0
    """The size limit of all files together. The oldest day is deleted first."""
    keep_days: Annotated[int, Meta(ge=1, le=3_650)] = 14
    """The number of days for which files are kept."""
    redact: bool = True
    """Whether all texts are left out, so that only structure and numbers are recorded. With `false`, requests and
    responses are recorded completely.
    """
    keys: tuple[Line, ...] = ()
    """The callers whose requests are recorded, in addition to those to `routes`. If `keys` and `routes` are both
    omitted: all requests.
    """
    routes: tuple[Line, ...] = ()
    """The routes whose requests are recorded, in addition to those of `keys`."""

    @property
    def max_bytes(self) -> int:
        """The size limit of all files together, in bytes."""
        return int(self.max_mb * MIB)


def request_log_section(table: object, keys: KeyReader, folder: Path, environ: Mapping[str, str]) -> RequestLogConfig:
    """Return the section with an absolute path. A relative path starts at the folder of the configuration file."""
    found = convert(table, RequestLogConfig, keys.read)
    path = folder / os.path.expanduser(found.path) if found.path else state_folder(environ) / FOLDER
    return msgspec.structs.replace(found, path=os.path.abspath(path))


def request_log_folder(file: str | None, environ: Mapping[str, str]) -> str:
    """Return the folder of the request log for the configuration ``file``; without a file, the default folder. Raises
    `ConfigError`.
    """
    table, folder = read_section(file, "request_log")
    with under("request_log"):
        return request_log_section(table, KeyReader(environ, folder), folder, environ).path
