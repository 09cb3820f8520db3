"""``llm-runtime check``: check the configuration as `serve` does, then everything that the configuration names:
providers, routes, files, Redis.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from uuid import uuid4

import trio

from llm_protocol.codec.json import encode_json
from llm_runtime.cli.logs import start_logging, timestamp
from llm_runtime.cli.setup import configured
from llm_runtime.cli.signals import cancel_on_signal
from llm_runtime.cli.terminal import FAILED, INTERRUPTED, leaf, print_out, say
from llm_runtime.config import Config, ConfigError
from llm_runtime.probes import Check, Report, check, refused, report


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Check, and return the exit code. Raises `ConfigError`; with ``--json``, the report about it is printed first."""
    start_logging(arguments.log_level, arguments.log_format)
    source = arguments.config or "environment"
    identity, now = str(uuid4()), timestamp(time.time())
    try:
        config = configured(arguments.config, environ, say, install=False)
    except ConfigError as exc:
        if arguments.json:
            _write(refused("; ".join(map(str, exc.all)), source, id=identity, timestamp=now))
        raise
    checks = checks_of(config, source, offline=arguments.offline)
    if checks is None:
        return INTERRUPTED
    result = report(checks, id=identity, timestamp=now)
    if arguments.json:
        _write(result)
    else:
        for line in result.lines():
            print_out(line)
    return 0 if result.success else FAILED


def checks_of(config: Config, source: str, *, offline: bool) -> Sequence[Check] | None:
    """Return the checks of ``config``, read from ``source``; ``None`` if a signal arrived first. Runs Trio."""

    async def main() -> Sequence[Check] | None:
        checks: Sequence[Check] | None = None
        async with trio.open_nursery() as nursery:
            await nursery.start(cancel_on_signal, nursery.cancel_scope)
            checks = await check(config, source, offline=offline)
            nursery.cancel_scope.cancel(reason="checked")
        return checks

    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        raise leaf(group) from None


def _write(result: Report) -> None:
    print_out(encode_json(result).decode())
