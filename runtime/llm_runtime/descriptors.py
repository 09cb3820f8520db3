"""File descriptors: as many as the system allows, with some kept for the way out.

A connection that cannot be accepted waits, but a request that has been accepted and cannot reach its provider fails.
So connections may use half of what there is, and never the half for providers.
"""

from __future__ import annotations

import importlib
import logging
import resource

import msgspec
import trio

from llm_runtime.config import Server
from llm_runtime.server.limits import DEPARTING_CONNECTIONS, RESERVED_CONNECTIONS

OTHER_FILES = 64
"""Descriptors for what is neither a client nor a provider: logs, the cache, Redis, Trio, files that are read."""

LEAST_CONNECTIONS = 8
"""As many are let in however few descriptors there are."""

PRELOADED = (
    "certifi",
    "difflib",
    "encodings.idna",  # the codec of host names
    "llm_actors.orchestrator.strategies.several",
    "llm_protocol.codec.wording",
    "llm_protocol.prices",
    "llm_protocol.wires.anthropic",
    "llm_protocol.wires.cohere",
    "llm_protocol.wires.gemini",
    "llm_protocol.codec.json_array",
    "llm_protocol.wires.openai_chat",
    "llm_runtime.dashboard",
    "llm_runtime.metrics",
    "llm_runtime.server.session",
    "llm_runtime.statistics",
    "prometheus_client.core",
)
"""Modules that are imported by the first request that needs them."""

log = logging.getLogger(__name__)


def raise_limit() -> int:
    """Let this process open as many files as it may. Returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS refuses "infinity" here
        return soft
    return hard


def fitted(server: Server, files: int) -> Server:
    """``server`` with no more connections and runs than ``files`` descriptors are enough for; -1 is no limit."""
    if files < 0:
        return server
    free = files - OTHER_FILES - RESERVED_CONNECTIONS - DEPARTING_CONNECTIONS
    connections = min(server.max_connections, max(free // 2, LEAST_CONNECTIONS))
    runs = min(server.max_runs, max(free - connections, LEAST_CONNECTIONS))
    return msgspec.structs.replace(server, max_connections=connections, max_runs=runs)


def fit(server: Server) -> Server:
    """Raise the limit, fit ``server`` to it, and say so in the log."""
    files = raise_limit()
    result = fitted(server, files)
    if result == server:
        log.info(
            "%d connections and %d requests at once; %s open files", server.max_connections, server.max_runs, files
        )
    else:
        log.warning(
            "only %d files may be open: %d connections and %d requests at once, not %d and %d; "
            "raise the limit (ulimit -n, LimitNOFILE=)",
            files,
            result.max_connections,
            result.max_runs,
            server.max_connections,
            server.max_runs,
        )
    return result


async def preload() -> None:
    """Import what requests will need, one module per turn: an import opens files, and must not be the one thing that a
    full process can no longer do.
    """
    for name in PRELOADED:
        importlib.import_module(name)
        await trio.lowlevel.checkpoint()
