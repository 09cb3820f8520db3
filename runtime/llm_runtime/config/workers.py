"""Whether several workers can keep what the configuration limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from llm_runtime.config.errors import ConfigError
from llm_runtime.config.model import Config

WORKER_VARIABLE: Final = "LLM_RUNTIME_WORKER"
"""Set by the parent of several workers for each of them: what it has to know."""


def check_workers(config: Config) -> None:
    """Refuse more than one worker with limits that each of them would keep on its own."""
    limited = next(_limited(config), None)
    if config.server.workers > 1 and config.redis is None and limited is not None:
        message = f"more than one worker and {limited} need a [redis], over which the workers keep it together"
        raise ConfigError(message, "server", "workers")


def _limited(config: Config) -> Iterator[str]:
    yield from (f"providers.{name}.limits" for name, each in config.enabled.items() if each.limits.is_limited)
    yield from (f"keys.{name}.limits" for name, key in config.keys.items() if key.limits.is_limited)
    yield from (f"budgets.{name}" for name in config.budgets)
