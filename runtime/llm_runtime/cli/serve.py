"""``llm-runtime serve``: run the daemon, and print the facts that its user needs."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import trio

from llm_actors.kernel import SchedulerInstrument
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.setup import CHECKOUT, configured
from llm_runtime.cli.terminal import print_ready, say
from llm_runtime.config import Config, ConfigError, with_server
from llm_runtime.config.cross_checks import WORKER_VARIABLE
from llm_runtime.config.server import ServerTls
from llm_runtime.systemd import Notifier, inherited_sockets

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the address of all interfaces cannot be connected to

log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace, environ: MutableMapping[str, str]) -> int:
    """Serve until stopped, and return the exit code. Raises `ConfigError` if it cannot start."""
    start_logging(arguments.log_level, arguments.log_format)
    change = partial(
        with_server,
        host=arguments.host,
        port=arguments.port,
        workers=arguments.workers,
        insecure_no_tls=arguments.insecure_no_tls,
    )
    tell = _log if arguments.log_format == "json" else say
    read = _Reading(arguments.config, environ, tell, change)
    if WORKER_VARIABLE in environ:
        return _run(partial(_work, environ, read))
    config = configured(arguments.config, environ, tell, change)
    try:
        inherited = inherited_sockets(environ)
    except OSError as exc:
        raise ConfigError(f"LISTEN_FDS: cannot listen on the inherited socket: {exc.strerror}") from None
    program = os.path.join("bin", "llm-runtime") if CHECKOUT in environ else "llm-runtime"
    ready = partial(_ready, config, program, tell)
    serve = _serve if config.server.workers == 1 else _serve_with_workers
    return _run(partial(serve, config, ready, tell, inherited, environ, read))


def _run(main: Callable[[], Awaitable[int]]) -> int:
    if not log.isEnabledFor(logging.DEBUG):
        return trio.run(main)
    scheduler = (
        SchedulerInstrument()
    )  # costs two clock readings per scheduler step, so only on request: for finding a blocked event loop
    try:
        return trio.run(main, instruments=[scheduler])
    finally:
        log.debug("event loop: %s", scheduler.statistics())


@dataclass(frozen=True)
class _Reading:
    """Reads the configuration ``file`` again, or ``copy`` in its place. Blocks."""

    file: str | None
    environ: Mapping[str, str]
    tell: Callable[[str], None]
    change: Callable[[Config], Config]

    def __call__(self, copy: str | None = None) -> Config:
        return configured(self.file, self.environ, self.tell, self.change, install=False, copy=copy)


def _log(line: str) -> None:
    """Write a message to the user, as JSON if the log format is JSON."""
    log.info("%s", line.removeprefix("llm-runtime: "))


def _ready(config: Config, program: str, tell: Callable[[str], None], url: str) -> None:
    print_ready(url)
    key = "LLM_RUNTIME_KEY=… " if config.keys else ""
    tell(f'llm-runtime: try: {key}{program} ask --url {reachable(url, config.server.tls)} "Say hello."')


async def _serve(
    config: Config,
    ready: Callable[[str], None],
    tell: Callable[[str], None],
    inherited: Sequence[socket.socket],
    environ: Mapping[str, str],
    read: _Reading,
) -> int:
    from llm_runtime import daemon  # imported here: the parent of several workers does not need it

    if not inherited:
        await daemon.check_address(config)
    _introduce(config, tell)
    manager = daemon.SignalManager(Notifier(environ))
    return await daemon.run(config, ready, inherited=inherited, manager=manager, read=read, file=read.file)


async def _serve_with_workers(
    config: Config,
    ready: Callable[[str], None],
    tell: Callable[[str], None],
    inherited: Sequence[socket.socket],
    environ: Mapping[str, str],
    read: _Reading,
) -> int:
    from llm_runtime.workers.parent import serve_with_workers

    _introduce(config, tell)
    return await serve_with_workers(ready, file=read.file, read=read, inherited=inherited, environ=environ)


async def _work(environ: MutableMapping[str, str], read: _Reading) -> int:
    from llm_runtime.workers.worker import run_worker

    return await run_worker(environ.pop(WORKER_VARIABLE), read, read.file)


def _introduce(config: Config, tell: Callable[[str], None]) -> None:
    """Print the providers, and the reason why each was found. Print warnings about settings that are allowed but
    unwise.
    """
    width = max(map(len, config.enabled), default=0)
    for name in config.enabled:
        tell(f"llm-runtime: provider {name:<{width}}  ({config.reasons.get(name, '')})")
    for note in config.notes:
        if tell is _log:
            log.warning("%s", note)
        else:
            tell(f"llm-runtime: warning: {note}")


def reachable(url: str, tls: ServerTls | None) -> str:
    """Return the URL at which a client on this machine reaches a daemon that listens on ``url``. The address of all
    interfaces is replaced by loopback. With TLS, the host is a name in the certificate. Blocks. Raises `ConfigError` if
    the certificate cannot be read.
    """
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        return url
    host = _LOOPBACK.get(parts.hostname, parts.hostname)
    if tls is not None:
        from llm_runtime.config.certificate import certificate_names  # ssl costs time

        names = [name for name in certificate_names(tls) if "*" not in name]
        if host not in names:
            host = next((name for name in names if name == "localhost"), names[0] if names else host)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port}"
