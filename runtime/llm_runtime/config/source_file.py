"""A digest of the file that a configuration is read from, to find out whether two processes read the same
configuration.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from llm_runtime.config.errors import ConfigError


class ConfigurationFile(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration file of a daemon: its path and the SHA-256 digest of its current content, in hexadecimal. Both
    are ``None`` if there is no file.
    """

    file: str | None = None
    sha256: str | None = None


def configuration_file(path: str | None) -> ConfigurationFile:
    """Return the path and the digest of the configuration file at ``path``. Raises `ConfigError` if it cannot be read.
    Blocks.
    """
    if path is None:
        return ConfigurationFile()
    try:
        content = Path(path).read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot read the configuration: {exc.strerror}", file=path) from None
    return ConfigurationFile(file=str(Path(path).absolute()), sha256=hashlib.sha256(content).hexdigest())
