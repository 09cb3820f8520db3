"""Checks of the settings that need Redis."""

from __future__ import annotations

from llm_runtime.config.errors import ConfigError, Mistakes
from llm_runtime.config.model import Config


def check_shared(config: Config) -> None:
    """Raise `ConfigError` if ``[cache]`` or ``[store]`` uses Redis without a section ``[redis]``, or if the cache has
    both Redis and a file.
    """
    mistakes = Mistakes()
    if config.cache.redis:
        with mistakes.under("cache", "redis"):
            if config.redis is None:
                raise ConfigError("needs the section [redis]")
            if config.cache.path is not None:
                raise ConfigError("with redis = true the cache has no file: omit path")
    if config.store is not None and config.store.redis and config.redis is None:
        with mistakes.under("store", "redis"):
            raise ConfigError("needs the section [redis]")
    mistakes.raise_any()
