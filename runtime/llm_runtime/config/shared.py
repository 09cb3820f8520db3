"""Whether what is to be kept in Redis has a Redis."""

from __future__ import annotations

from llm_runtime.config.errors import ConfigError, Mistakes
from llm_runtime.config.model import Config


def check_shared(config: Config) -> None:
    """Raise `ConfigError` for sections that need a ``[redis]``, or say two places."""
    mistakes = Mistakes()
    if config.cache.redis:
        with mistakes.under("cache", "redis"):
            if config.redis is None:
                raise ConfigError("needs a [redis]")
            if config.cache.path is not None:
                raise ConfigError("redis is in the place of the file: leave out path")
    if config.store is not None and config.store.redis and config.redis is None:
        with mistakes.under("store", "redis"):
            raise ConfigError("needs a [redis]")
    mistakes.raise_any()
