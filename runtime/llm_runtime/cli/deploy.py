"""``llm-runtime deploy``: check a configuration, and make a running daemon apply it. Built on ``check``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from uuid import uuid4

import trio

from llm_actors.transport import parse_url
from llm_protocol.codec.json import encode_json
from llm_protocol.errors import LLMClientError
from llm_runtime.cli.check import checks_of
from llm_runtime.cli.daemon_client import DaemonClient, daemon_client, decoded
from llm_runtime.cli.logs import start_logging, timestamp
from llm_runtime.cli.setup import Daemon, configured, daemon
from llm_runtime.cli.terminal import FAILED, INTERRUPTED, leaf, print_out, say
from llm_runtime.config import Config, ConfigError
from llm_runtime.config.source_file import ConfigurationFile, configuration_file
from llm_runtime.probes import Check, CheckStatus, Report, refused, report
from llm_runtime.reloading import ReloadResult


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Deploy, report each step, and return the exit code. Raises `ConfigError`; with ``--json``, the report about it is
    printed first.
    """
    start_logging(arguments.log_level, arguments.log_format)
    if arguments.offline and arguments.url:
        raise ConfigError("--offline connects to nothing, --url connects to a daemon: give only one of them")
    source, identity, now = arguments.config or "environment", str(uuid4()), timestamp(time.time())
    try:
        config = configured(arguments.config, environ, say, install=False)
        running = daemon(arguments.url, None, environ, arguments.ca_file) if arguments.url else None
    except ConfigError as exc:
        if arguments.json:
            _write(refused("; ".join(map(str, exc.all)), source, id=identity, timestamp=now))
        raise
    validated = checks_of(config, source, offline=arguments.offline)
    if validated is None:
        return INTERRUPTED
    steps = [Check("initialise", source, CheckStatus.OK, "read"), *_planned(config), *validated]
    if running is not None and not any(each.status is CheckStatus.FAILED for each in validated):
        try:
            steps += trio.run(_brought_to, running, configuration_file(arguments.config))
        except BaseExceptionGroup as group:
            raise leaf(group) from None
    result = report(steps, id=identity, timestamp=now)
    if arguments.json:
        _write(result)
    else:
        for line in result.lines():
            print_out(line)
    return 0 if result.success else FAILED


def _planned(config: Config) -> list[Check]:
    """Return the planned steps, which are derived from the configuration alone: providers, monitoring and scaling."""
    server = config.server
    clients = ", ".join(f"{name} ({each.kind})" for name, each in config.enabled.items())
    readers = [name for name, key in config.keys.items() if key.metrics_only or key.admin]
    limits = [*(each.limits for each in config.enabled.values()), *(each.limits for each in config.keys.values())]
    limited = any(each.is_limited for each in limits)
    watched = Check("monitor", "metrics", CheckStatus.OK, "/livez, /readyz, /metrics")
    if config.keys and not readers:
        detail = "no key may read /metrics: set metrics_only = true in one [keys.NAME]"
        watched = Check("monitor", "metrics", CheckStatus.WARNING, detail)
    scale = f"at most {server.max_runs} requests in progress and {server.max_connections} connections"
    grows = Check("scale", "replicas", CheckStatus.OK, f"{scale}; limits are {_shared(config, limited=limited)}")
    if limited and config.redis is None:
        detail = f"{scale}; with several replicas, each applies the limits separately: share them with [redis]"
        grows = Check("scale", "replicas", CheckStatus.WARNING, detail)
    return [Check("configure", "providers", CheckStatus.OK, clients), watched, grows]


def _shared(config: Config, *, limited: bool) -> str:
    if not limited:
        return "not configured"
    return "shared through Redis" if config.redis is not None else "applied by each process separately"


async def _brought_to(running: Daemon, ours: ConfigurationFile) -> list[Check]:
    """Make the daemon reload its configuration file, and check that it answers afterwards. If the daemon reads a file
    with other content than ``ours``, the step fails and nothing is reloaded.
    """
    where = str(parse_url(running.base_url)[0])
    async with daemon_client(running) as client:
        try:
            theirs = decoded(await client.get("/runtime/configuration"), ConfigurationFile)
        except LLMClientError as exc:
            return [Check("deploy", where, CheckStatus.FAILED, str(exc))]
        if theirs.sha256 != ours.sha256:
            detail = f"the daemon at {where} reads another configuration ({theirs.file or 'its environment'})"
            return [Check("deploy", where, CheckStatus.FAILED, detail)]
        return [
            await _step("deploy", running, client, "POST", "/runtime/reload"),
            await _step("monitor", running, client, "GET", "/runtime/tree"),
        ]


async def _step(what: str, running: Daemon, client: DaemonClient, method: str, path: str) -> Check:
    where, begun = str(parse_url(running.base_url)[0]), trio.current_time()
    try:
        body = await (client.reload() if method == "POST" else client.get(path))
        detail = f"reloaded: {decoded(body, ReloadResult)}" if method == "POST" else "answers"
    except LLMClientError as exc:
        return Check(what, where, CheckStatus.FAILED, "; ".join(str(exc).splitlines()))
    seconds = round(trio.current_time() - begun, 3)
    return Check(what, where, CheckStatus.OK, detail, seconds)


def _write(result: Report) -> None:
    print_out(encode_json(result).decode())
