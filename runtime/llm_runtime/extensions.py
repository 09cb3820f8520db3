"""What a program adds to the runtime that it opens: strategies and orderings, under the names that policies use, and a
store for the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, get_args

from llm_actors.cache import CacheStore
from llm_actors.orchestrator import StrategyFunction
from llm_actors.selector import OrderingFunction
from llm_protocol.policy import OwnNames, Select, Strategy
from llm_runtime.config import ConfigError
from llm_runtime.config.loading import NAME, NAME_RULE


class Extensions(NamedTuple):
    """Strategies and orderings, by name, and a store that replaces the file of the cache."""

    strategies: Mapping[str, StrategyFunction] = {}
    orderings: Mapping[str, OrderingFunction] = {}
    cache_store: CacheStore | None = None

    @property
    def names(self) -> OwnNames:
        """The names that policies may use besides those of the runtime."""
        return OwnNames(tuple(self.strategies), tuple(self.orderings))

    def checked(self) -> Extensions:
        """Return these extensions. Raises `ConfigError` for a name that is taken or invalid, and for a value that is
        not a function.
        """
        for kind, own, taken in (
            ("strategies", self.strategies, get_args(Strategy)),
            ("orderings", self.orderings, get_args(Select)),
        ):
            for name, function in own.items():
                if name in taken:
                    raise ConfigError(f"the names {', '.join(taken)} are reserved: choose others", kind, name)
                if not NAME.fullmatch(name):
                    raise ConfigError(NAME_RULE, kind, name)
                if not callable(function):
                    raise ConfigError(f"expected a function, got {type(function).__name__}", kind, name)
        return self


NO_EXTENSIONS = Extensions()
