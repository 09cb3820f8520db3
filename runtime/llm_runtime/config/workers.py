"""Checks whether several workers can keep to the limits of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from llm_runtime.config.errors import ConfigError
from llm_runtime.config.model import Config

WORKER_VARIABLE: Final = "LLM_RUNTIME_WORKER"
"""The environment variable in which the parent passes a worker its `WorkerPlace`."""


def check_workers(config: Config) -> None:
    """Raise `ConfigError` if there are several workers and limits or budgets, but no ``[redis]`` through which the
    workers can share them.
    """
    limited = next(_limited(config), None)
    if config.server.workers > 1 and config.redis is None and limited is not None:
        message = f"several workers with {limited} need [redis], through which they share the limit"
        raise ConfigError(message, "server", "workers")


def _limited(config: Config) -> Iterator[str]:
    yield from (f"providers.{name}.limits" for name, each in config.enabled.items() if each.limits.is_limited)
    yield from (f"keys.{name}.limits" for name, key in config.keys.items() if key.limits.is_limited)
    yield from (f"budgets.{name}" for name in config.budgets)
