"""``[request_log]``: which requests are written down whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from llm_runtime.config.conversion import convert
from llm_runtime.config.errors import under
from llm_runtime.config.keys import KeyReader
from llm_runtime.config.section import Line, Section
from llm_runtime.config.store import read_section, state_folder

FOLDER = "requests"
"""The folder's name, in that of this program's state."""


class RequestLogConfig(Section, frozen=True, kw_only=True):
    """``[request_log]``: which requests are written down. Without the section none is."""

    path: Line = ""
    """The folder of its files, one for each day; omitted: `requests` in `$XDG_STATE_HOME/llm-runtime`."""
    max_mb: Annotated[float, Meta(ge=1, le=1_000_000)] = 1_000.0
    """How large they may become together; the oldest day makes room."""
    keep_days: Annotated[int, Meta(ge=1, le=3_650)] = 14
    """How many days are kept."""
    redact: bool = True
    """Leave out all texts, and keep shapes and numbers. `false` writes down what was asked and answered."""
    keys: tuple[Line, ...] = ()
    """The callers whose requests are written down; omitted, with `routes`: all."""
    routes: tuple[Line, ...] = ()
    """The routes whose requests are written down; omitted, with `keys`: all."""


def request_log_section(table: object, keys: KeyReader, folder: Path, environ: Mapping[str, str]) -> RequestLogConfig:
    """The section as it is used, with an absolute path. A relative one starts at the configuration file's folder."""
    found = convert(table, RequestLogConfig, keys.read)
    path = folder / os.path.expanduser(found.path) if found.path else state_folder(environ) / FOLDER
    return msgspec.structs.replace(found, path=os.path.abspath(path))


def request_log_folder(file: str | None, environ: Mapping[str, str]) -> str:
    """Where the request log is by the configuration ``file``; without one, the usual place. Raises `ConfigError`."""
    table, folder = read_section(file, "request_log")
    with under("request_log"):
        return request_log_section(table, KeyReader(environ, folder), folder, environ).path
