"""Whether the models that routes and callers' lists name can exist, by all providers, those that were found included.

A provider must be known; its model may be any, for vendors' lists are often incomplete. Where there are no providers at
all, that is what is told, when the runtime opens.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_protocol.policy import OwnNames, Policy
from llm_protocol.requests import AUTO
from llm_runtime.config.conversion import suggestion
from llm_runtime.config.errors import ConfigError, Mistakes
from llm_runtime.config.model import Config, Key, Provider


def check_names(config: Config) -> None:
    """Raise `ConfigError` for the names that nothing can be meant by."""
    if not config.providers:
        return
    mistakes = Mistakes()
    for name, route in config.routes.items():
        with mistakes.under("routes", name):
            for where, model in route.models():
                if model in config.routes and _is_no_model(model, config.providers):
                    raise ConfigError(f'"{model}" is a route, but a route can only contain models', where)
                _check_model(model, config.providers, where)
    for name, key in config.keys.items():
        with mistakes.under("keys", name):
            _check_list(key, config)
    mistakes.raise_any()


def check_policy(policy: Policy, own: OwnNames) -> None:
    """Raise `ConfigError` for a strategy or an ordering that neither the runtime nor the program has."""
    mistakes = Mistakes()
    for field, message in policy.unknown_names(own):
        with mistakes.under(field):
            raise ConfigError(message)
    mistakes.raise_any()


def _check_list(key: Key, config: Config) -> None:
    for name in key.models or ():
        if name in config.routes:
            continue
        if name == AUTO:
            raise ConfigError(f'"{AUTO}" is not a model: it chooses among these', "models")
        if "*" in name and not name.endswith("/*"):
            raise ConfigError('the only pattern is "provider/*"; to allow all models, omit models', "models")
        _check_model(name, config.providers, "models")


def _is_no_model(name: str, providers: Mapping[str, Provider]) -> bool:
    """Whether nobody has such a model, as far as that is known before the vendors are asked."""
    return all(provider.models and name not in provider.models for provider in providers.values())


def _near(name: str, providers: Mapping[str, Provider]) -> str:
    return suggestion(name, providers) or f"; there are: {', '.join(providers)}"


def _check_model(model: str, providers: Mapping[str, Provider], where: str) -> None:
    head, slash, _ = model.partition("/")
    listed = any(model in provider.models for provider in providers.values())
    if slash and head not in providers and not listed:
        raise ConfigError(f'"{model}" is of no configured provider{_near(head, providers)}', where)
