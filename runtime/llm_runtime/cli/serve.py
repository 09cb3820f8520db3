"""``llm-runtime serve``: the daemon, with what it says to whoever started it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from functools import partial

import trio

from llm_runtime import daemon
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.setup import CHECKOUT, configured
from llm_runtime.cli.terminal import announce, say
from llm_runtime.config import Config, with_server


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serve until told to stop, and give the exit code. Raises `ConfigError` for what must be put right first."""
    start_logging(arguments.log_level, arguments.log_format)
    change = partial(with_server, host=arguments.host, port=arguments.port, insecure_no_tls=arguments.insecure_no_tls)
    config = configured(arguments.config, environ, say, change)
    return trio.run(_serve, config, os.path.join("bin", "llm-runtime") if CHECKOUT in environ else "llm-runtime")


async def _serve(config: Config, program: str) -> int:
    def ready(url: str) -> None:
        announce(f"ready {url}")
        say(f'llm-runtime: try: {program} ask --url {url} "Say hello."')

    await daemon.check_address(config)
    for line in introduction(config):
        say(line)
    return await daemon.run(config, ready)


def introduction(config: Config) -> list[str]:
    """What was found, and why."""
    width = max(map(len, config.enabled), default=0)
    found = [f"llm-runtime: provider {name:<{width}}  ({config.reasons.get(name, '')})" for name in config.enabled]
    return [*found, *(f"llm-runtime: {note}" for note in config.notes)]
