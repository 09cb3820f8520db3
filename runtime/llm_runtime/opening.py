"""Opens a runtime around a block of a Trio program."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import msgspec
import trio

from llm_actors.cache import CacheStore
from llm_actors.orchestrator import StrategyFunction
from llm_actors.selector import OrderingFunction
from llm_protocol.policy import OwnNames
from llm_protocol.vendor import Vendor
from llm_runtime.config import Config
from llm_runtime.config.vendors import installed_vendors, with_vendors
from llm_runtime.extensions import Extensions
from llm_runtime.hooks import Middleware, Observer, hooked
from llm_runtime.runtime import Runtime

ConfigSource: TypeAlias = "Config | str | os.PathLike[str] | None"
"""A configuration, or the path of its file; ``None`` uses the providers found in the environment."""


@asynccontextmanager
async def open_runtime(
    config: ConfigSource = None,
    *,
    vendors: Sequence[Vendor] = (),
    observers: Sequence[Observer] = (),
    middleware: Sequence[Middleware] = (),
    strategies: Mapping[str, StrategyFunction] | None = None,
    orderings: Mapping[str, OrderingFunction] | None = None,
    cache_store: CacheStore | None = None,
) -> AsyncIterator[Runtime]:
    """Run a runtime while a block of a Trio program runs.

    ``config`` is a `Config`, the path of a TOML file, or ``None``: then there is a provider for each vendor whose key
    variable is set, and the local model if it is installed. ``vendors`` are added to those of `llm_protocol.vendors`
    and, unless ``config`` is a `Config`, of installed packages (entry points in the group ``llm_runtime.vendors``).
    Policies and routes use ``strategies`` and ``orderings`` by name. ``cache_store`` replaces ``cache.path``. See
    docs/how-to/extend.md. Raises `ConfigError`; a `Config` is checked like a file.

    When the block is left, requests in progress have ``server.drain_s`` seconds to finish. If it is cancelled, they end
    at once. An exception of the block propagates unchanged. A runtime that gives up cancels the block and raises
    `GaveUp` in an exception group. Two runtimes in one process share nothing.
    """
    _require_trio()
    extensions = Extensions(strategies or {}, orderings or {}, cache_store).checked()
    if isinstance(config, Config):
        from llm_runtime.config.checking import checked_config  # imported here: it is not needed for files

        config = msgspec.structs.replace(config, vendors=with_vendors(config.vendors, vendors))
        config = checked_config(config, extensions.names)
    else:
        config = await trio.to_thread.run_sync(_configured, config, vendors, extensions.names)
    # The hooks are the outer ones: they are there until the last run has ended.
    runtime = Runtime(config, extensions=extensions)
    async with hooked(observers, middleware) as hooks, runtime.running():
        runtime.hook(hooks)
        yield runtime


def _require_trio() -> None:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        where = "on asyncio, use llm_runtime.aio.open_runtime; without an event loop, llm_runtime.sync.open_runtime"
        raise RuntimeError(f"llm_runtime.open_runtime runs on Trio; {where}") from None


def _configured(
    file: str | os.PathLike[str] | None,
    vendors: Sequence[Vendor],
    own: OwnNames,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    from llm_runtime.config import discover, load
    from llm_runtime.local_model import is_installed

    known, local = with_vendors(installed_vendors(), vendors), is_installed()
    if file is None:
        return discover(environ, local=local, vendors=known)
    return load(file, environ, local=local, vendors=known, own=own)
