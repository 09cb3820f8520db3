"""``[redis]``: the address of the server. It may be written in the configuration, but not with a password."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from urllib.parse import urlsplit

from llm_actors.redis import SCHEMES, RedisServer
from llm_protocol.secret import Secret
from llm_runtime.config.conversion import convert
from llm_runtime.config.errors import ConfigError
from llm_runtime.config.keys import FORMS, KeyReader

REQUIREMENT = "coredis>=6.9,<7"
"""The optional dependency in pyproject.toml."""


def redis_server(table: object, keys: KeyReader) -> RedisServer:
    """Return the validated section. Raises `ConfigError` if the section is invalid, or if the package that it needs is
    not installed.
    """
    server = convert(table, RedisServer, lambda value: _address(value, keys))
    if find_spec("coredis") is None:
        raise ConfigError(f"needs a package that is not installed: {sys.executable} -m pip install '{REQUIREMENT}'")
    return server


def _address(value: object, keys: KeyReader) -> Secret:
    written = isinstance(value, str) and not value.startswith(("env:", "file:"))
    url = Secret(value) if written and isinstance(value, str) else keys.read(value)
    try:
        parts = urlsplit(url.reveal())
        host, port, password = parts.hostname, parts.port, parts.password
    except ValueError:
        raise ValueError(f"not an address of a Redis server: {_EXAMPLE}") from None
    if written and password:
        words = f"a password must not be written here: {FORMS}; the variable or file must contain the whole address"
        raise ValueError(words)
    if parts.scheme not in SCHEMES or not (parts.path if parts.scheme == "unix" else host) or port == 0:
        raise ValueError(f"not an address of a Redis server: {_EXAMPLE}")
    return url


_EXAMPLE = 'expected "redis://HOST:PORT/DB", "rediss://…" (TLS) or "unix://PATH"'
