"""Warnings about allowed but unsafe settings of a configuration file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from llm_runtime.config.model import Key, Provider
from llm_runtime.config.providers import sends_key_in_clear
from llm_runtime.config.server import ServerTls

SECRET_CHARACTERS = 16
"""A caller's secret with fewer characters than this may be guessed."""


def certificate_notes(tls: ServerTls | None) -> Iterator[str]:
    """Yield a warning if the server's certificate expires soon. Blocks. Raises `ConfigError` if its files cannot be
    used.
    """
    if tls is None:
        return
    from llm_runtime.config.certificate import SOON, server_context, valid_until  # imported here: ssl takes time

    server_context(tls)
    left = valid_until(tls) - datetime.now(UTC)
    if left < SOON:
        yield f"server.tls.certificate expires in {left.days} days"


def unencrypted_keys(providers: Mapping[str, Provider]) -> Iterator[str]:
    """Yield a warning for each provider whose key is sent over a network without TLS."""
    for name, provider in providers.items():
        if provider.enabled and sends_key_in_clear(provider):
            yield f"providers.{name}.base_url is http, so its key is sent unencrypted"


def short_secrets(callers: Mapping[str, Key]) -> Iterator[str]:
    """Yield a warning for each caller whose secret may be guessed."""
    for name, key in callers.items():
        if key.secret.length < SECRET_CHARACTERS:
            yield (
                f"keys.{name}.secret has fewer than {SECRET_CHARACTERS} characters and may be guessed: "
                "create one with openssl rand -hex 32"
            )


def expired_keys(callers: Mapping[str, Key]) -> Iterator[str]:
    """Yield a warning for each caller whose key has expired."""
    now = datetime.now(UTC)
    for name, key in callers.items():
        if key.expires is not None and key.expires <= now:
            yield f"keys.{name} expired at {key.expires.isoformat()}: it is refused like an unknown key"
