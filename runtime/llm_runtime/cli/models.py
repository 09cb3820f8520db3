"""``llm-runtime models``: list the models and routes that can be used, with this configuration or through a daemon."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import msgspec
import trio

from llm_protocol.errors import LLMClientError
from llm_protocol.requests import AUTO
from llm_runtime.cli.daemon_client import with_hint
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.setup import Daemon, configured, daemon
from llm_runtime.cli.terminal import leaf, print_out, say
from llm_runtime.opening import open_runtime
from llm_runtime.remote.runtime import connect


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the names, one on each line, and return the exit code. Raises `LLMClientError` or `ConfigError`."""
    start_logging(arguments.log_level, arguments.log_format)
    running = daemon(arguments.url, arguments.config, environ, arguments.ca_file)
    try:
        routes, found = trio.run(_here, arguments, environ) if running is None else trio.run(_there, running)
    except LLMClientError as exc:
        raise (exc if running is None else with_hint(exc)) from None
    except BaseExceptionGroup as group:
        raise leaf(group) from None
    if arguments.json:
        print_out(msgspec.json.encode(found).decode())
        return 0
    for name in (AUTO, *routes):
        print_out(name)
    for provider, models in found.items():
        for model in models:
            print_out(f"{provider}/{model}")
        if not models:
            say(f"llm-runtime: no model of {provider} is known: name its models in [providers.{provider}] models")
    return 0


async def _here(arguments: argparse.Namespace, environ: Mapping[str, str]) -> tuple[list[str], dict[str, list[str]]]:
    async with open_runtime(configured(arguments.config, environ, say)) as rt:
        return list(rt.routes), await rt.models()


async def _there(running: Daemon) -> tuple[list[str], dict[str, list[str]]]:
    async with connect(running.base_url, key=running.key, ca_file=running.ca_file) as rt:
        return list(rt.routes), await rt.models()
