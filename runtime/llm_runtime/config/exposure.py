"""Checks who can reach the daemon. Loopback needs nothing; any other address needs a key, and TLS or an explicit
waiver.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from llm_runtime.config.cross_checks import check_workers
from llm_runtime.config.errors import ConfigError
from llm_runtime.config.model import Config

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})")


def is_loopback(host: str) -> bool:
    """Return whether ``host`` can be reached only from this machine. A name other than localhost does not count,
    because it may resolve to another address later.
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Python 3.13 counts ::ffff:127.0.0.1 as loopback. Systems bind it differently, so it does not count here.
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None


def check_exposure(config: Config) -> None:
    """Raise `ConfigError` if the server listens beyond loopback without a key, or without TLS unless
    ``insecure_no_tls`` allows that.
    """
    host = config.server.host
    _check_host(host)
    if config.server.unix is not None or is_loopback(host):
        return
    if not config.keys:
        raise ConfigError(f"{host} is reachable from other machines: add a key, [keys.NAME]", "server", "host")
    if config.server.tls is None and not config.server.insecure_no_tls:
        raise ConfigError(
            f"{host} is reachable from other machines, but the daemon has no TLS: set a certificate and its key in "
            "[server.tls], or put a TLS proxy in front and use --insecure-no-tls (server.insecure_no_tls = true)",
            "server",
            "host",
        )


def _check_host(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _HOST_NAME.fullmatch(host) or re.fullmatch(r"[\d.]+", host):
            raise ConfigError(f"{host!r} is not an address or host name", "server", "host") from None


def with_server(
    config: Config,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    insecure_no_tls: bool = False,
) -> Config:
    """Return ``config`` with the server options of the command line, validated again."""
    server = config.server
    server = msgspec.structs.replace(
        server,
        host=server.host if host is None else host,
        port=server.port if port is None else port,
        workers=server.workers if workers is None else workers,
        insecure_no_tls=server.insecure_no_tls or insecure_no_tls,
    )
    changed = msgspec.structs.replace(config, server=server)
    check_exposure(changed)
    check_workers(changed)
    return changed
