"""``llm-runtime serve``: run the daemon, and print what its user needs to know."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import trio

from llm_actors.kernel import SchedulerInstrument
from llm_runtime import daemon
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.setup import CHECKOUT, configured
from llm_runtime.cli.terminal import print_out, say
from llm_runtime.config import Config, ConfigError, with_server
from llm_runtime.systemd import Notifier, inherited_sockets

log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serve until stopped, and return the exit code. Raises `ConfigError` if it cannot start."""
    start_logging(arguments.log_level, arguments.log_format)
    change = partial(with_server, host=arguments.host, port=arguments.port, insecure_no_tls=arguments.insecure_no_tls)
    tell = _log if arguments.log_format == "json" else say
    config = configured(arguments.config, environ, tell, change)
    read = partial(configured, arguments.config, environ, tell, change, install=False)
    program = os.path.join("bin", "llm-runtime") if CHECKOUT in environ else "llm-runtime"
    try:
        inherited = inherited_sockets(environ)
    except OSError as exc:
        raise ConfigError(f"LISTEN_FDS: cannot listen on what was passed on: {exc.strerror}") from None
    main = partial(_serve, config, program, tell, inherited, Notifier(environ), read)
    if not log.isEnabledFor(logging.DEBUG):
        return trio.run(main)
    scheduler = (
        SchedulerInstrument()
    )  # costs two clock readings per scheduler step, so only on request: for finding a blocked event loop
    try:
        return trio.run(main, instruments=[scheduler])
    finally:
        log.debug("event loop: %s", scheduler.statistics())


def _log(line: str) -> None:
    """A message to the user, as JSON if stderr is read by a machine."""
    log.info("%s", line.removeprefix("llm-runtime: "))


async def _serve(
    config: Config,
    program: str,
    tell: Callable[[str], None],
    inherited: Sequence[socket.socket],
    notifier: Notifier,
    read: Callable[[], Config],
) -> int:
    def ready(url: str) -> None:
        print_out(f"ready {url}")
        key = "LLM_RUNTIME_KEY=… " if config.keys else ""
        tell(f'llm-runtime: try: {key}{program} ask --url {url} "Say hello."')

    if not inherited:
        await daemon.check_address(config)
    for line in introduction(config):
        tell(line)
    return await daemon.run(config, ready, inherited=inherited, notifier=notifier, read=read)


def introduction(config: Config) -> list[str]:
    """The providers, and why each is there."""
    width = max(map(len, config.enabled), default=0)
    found = [f"llm-runtime: provider {name:<{width}}  ({config.reasons.get(name, '')})" for name in config.enabled]
    return [*found, *(f"llm-runtime: {note}" for note in config.notes)]
