"""The address by which a client on this machine reaches a daemon."""

from __future__ import annotations

from urllib.parse import urlsplit

from llm_runtime.config.server import ServerTls

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the address of all interfaces cannot be connected to


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
