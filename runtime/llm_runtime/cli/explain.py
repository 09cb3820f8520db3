"""``llm-runtime explain MODEL``: which providers would be tried for a model, in order, and why.

A running daemon explains with what it has measured. Without a daemon, only the configuration and the prices are known.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
import trio

from llm_runtime.cli.daemon_client import daemon_client, decoded
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.setup import Daemon, configured, daemon
from llm_runtime.cli.terminal import leaf, print_out, say
from llm_runtime.opening import open_runtime


class _Explanation(msgspec.Struct):
    lines: list[str]


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Explain, and return the exit code. Raises `LLMClientError` or `ConfigError`."""
    start_logging(arguments.log_level, arguments.log_format)
    running = daemon(arguments.url, arguments.config, environ, arguments.ca_file)
    try:
        if running is not None:
            lines = trio.run(_explanation, running, arguments.model)
        else:
            lines = trio.run(_here, arguments, environ)
    except BaseExceptionGroup as group:
        raise leaf(group) from None
    for line in lines:
        print_out(line)
    return 0


async def _here(arguments: argparse.Namespace, environ: Mapping[str, str]) -> list[str]:
    async with open_runtime(configured(arguments.config, environ, say)) as rt:
        return (await rt.explain(arguments.model)).lines()


async def _explanation(running: Daemon, model: str) -> list[str]:
    async with daemon_client(running) as client:
        body = await client.get(f"/runtime/explain?model={quote(model, safe='', errors='replace')}")
    return decoded(body, _Explanation).lines
