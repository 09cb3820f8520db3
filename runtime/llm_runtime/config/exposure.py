"""Check who can reach the daemon: loopback needs nothing; any other address needs a key and a decision about TLS."""

from __future__ import annotations

import ipaddress
import re

import msgspec

from llm_runtime.config.errors import ConfigError
from llm_runtime.config.model import Config
from llm_runtime.config.workers import check_workers

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})")


def is_loopback(host: str) -> bool:
    """Whether ``host`` is reachable only from this machine. A name other than localhost never is: what it resolves to
    may change.
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Python 3.13 began to call ::ffff:127.0.0.1 a loopback address. How systems bind it differs, so it is none here.
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None


def check_exposure(config: Config) -> None:
    """Refuse an address beyond loopback without a key, or without TLS unless the configuration allows it."""
    host = config.server.host
    _check_host(host)
    if config.server.unix is not None or is_loopback(host):
        return
    if not config.keys:
        raise ConfigError(f"{host} can be reached by others: configure a key, [keys.NAME]", "server", "host")
    if config.server.tls is None and not config.server.insecure_no_tls:
        raise ConfigError(
            f"{host} can be reached by others, but the daemon has no TLS: name a certificate in [server.tls], or put "
            "a TLS proxy in front of it and use --insecure-no-tls (server.insecure_no_tls = true)",
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
    """``config`` with the server options of the command line, validated again as a whole."""
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
