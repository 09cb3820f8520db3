"""File descriptors: raise the limit as far as the system allows, and reserve some for outgoing connections.

A connection that cannot be accepted waits, but an accepted request that cannot reach its provider fails. So clients
may use half of the descriptors; the other half is for providers.
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
"""Descriptors for everything that is not a connection: logs, the cache, Redis, Trio, files that are read."""

LEAST_CONNECTIONS = 8
"""The fewest connections that are allowed, however few descriptors there are."""

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
"""Modules that would otherwise be imported by the first request that needs them."""

log = logging.getLogger(__name__)


def raise_limit() -> int:
    """Raise the limit of open files as far as allowed. Returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS rejects "infinity" here
        return soft
    return hard


def fitted(server: Server, files: int) -> Server:
    """Return ``server`` with ``max_connections`` and ``max_runs`` reduced to what ``files`` descriptors allow; -1 means
    that descriptors are not limited.
    """
    if files < 0:
        return server
    free = files - OTHER_FILES - RESERVED_CONNECTIONS - DEPARTING_CONNECTIONS
    connections = min(server.max_connections, max(free // 2, LEAST_CONNECTIONS))
    runs = min(server.max_runs, max(free - connections, LEAST_CONNECTIONS))
    return msgspec.structs.replace(server, max_connections=connections, max_runs=runs)


def fit(server: Server) -> Server:
    """Raise the limit of open files as far as possible, and log the result. Return ``server`` with its limits of
    connections and runs reduced to what the open files allow.
    """
    files = raise_limit()
    result = fitted(server, files)
    if result == server:
        log.info(
            "at most %d connections, %d requests in progress, %s open files",
            server.max_connections,
            server.max_runs,
            "any number of" if files < 0 else files,
        )
    else:
        log.warning(
            "the process may open only %d files, so it allows at most %d connections and %d requests in progress "
            "instead of the configured %d and %d; raise the limit (ulimit -n, LimitNOFILE=)",
            files,
            result.max_connections,
            result.max_runs,
            server.max_connections,
            server.max_runs,
        )
    return result


async def preload() -> None:
    """Import the modules that requests will need, one per scheduler pass. An import opens files, which fails in a
    process that has run out of descriptors.
    """
    for name in PRELOADED:
        importlib.import_module(name)
        await trio.lowlevel.checkpoint()
