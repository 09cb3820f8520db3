"""``llm-runtime reload``: make a running daemon reload its configuration."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import trio

from llm_protocol.errors import LLMClientError
from llm_runtime.cli.daemon_client import daemon_client, decoded
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.setup import Daemon, daemon
from llm_runtime.cli.terminal import FAILED, leaf, print_error, print_out
from llm_runtime.reloading import ReloadResult

USUAL = "http://127.0.0.1:8080"


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Reload, print the changes, and return the exit code. Raises `ConfigError`."""
    start_logging("warning", "text")
    running = daemon(arguments.url or environ.get("LLM_RUNTIME_URL") or USUAL, None, environ, arguments.ca_file)
    assert running is not None
    try:
        body = trio.run(_ask, running)
    except BaseExceptionGroup as group:
        raise leaf(group) from None
    except LLMClientError as exc:
        for line in str(exc).splitlines():  # one for each mistake in the configuration
            print_error(line, FAILED)
        return FAILED
    if arguments.json:
        print_out(body.decode())
    else:
        print_out(f"reloaded: {decoded(body, ReloadResult)}")
    return 0


async def _ask(running: Daemon) -> bytes:
    async with daemon_client(running) as client:
        return await client.reload()
