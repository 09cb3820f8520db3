"""Checks the model names in routes and in callers' lists against all providers, including discovered ones.

The provider in a name must exist. The model may be any, because vendors' lists are often incomplete. If there are no
providers at all, nothing is checked: opening the runtime reports that.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_protocol.policy import OwnNames, Policy
from llm_protocol.requests import AUTO
from llm_runtime.config.conversion import suggestion
from llm_runtime.config.errors import ConfigError, Mistakes
from llm_runtime.config.model import Config, Provider


def check_names(config: Config, own: OwnNames) -> None:
    """Raise `ConfigError` for names that cannot be a model or a route, and for strategies and orderings that neither
    the runtime nor the program (``own``) has.
    """
    mistakes = Mistakes()
    for name, route in config.routes.items():
        with mistakes.under("routes", name):
            check_policy(route, own)
    if config.providers:
        _check_models(config, mistakes)
    mistakes.raise_any()


def _check_models(config: Config, mistakes: Mistakes) -> None:
    for name, route in config.routes.items():
        for where, model in route.models():
            with mistakes.under("routes", name):
                if model in config.routes and _is_no_model(model, config.providers):
                    raise ConfigError(f'"{model}" is a route, but a route can only contain models', where)
                _check_model(model, config.providers, where)
    for name, key in config.keys.items():
        for model in key.models or ():
            with mistakes.under("keys", name):
                _check_allowed(model, config)


def check_policy(policy: Policy, own: OwnNames) -> None:
    """Raise `ConfigError` for a strategy or an ordering that neither the runtime nor the program defines."""
    mistakes = Mistakes()
    for field, message in policy.unknown_names(own):
        with mistakes.under(field):
            raise ConfigError(message)
    mistakes.raise_any()


def _check_allowed(name: str, config: Config) -> None:
    if name in config.routes:
        return
    if name == AUTO:
        raise ConfigError(f'"{AUTO}" is not a model: it chooses among the models in this list; omit it', "models")
    if "*" in name and not name.endswith("/*"):
        raise ConfigError('the only pattern is "provider/*"; to allow all models, omit models', "models")
    _check_model(name, config.providers, "models")


def _is_no_model(name: str, providers: Mapping[str, Provider]) -> bool:
    """Return whether no provider can have such a model, as far as is known without the vendors' lists."""
    return all(provider.models and name not in provider.models for provider in providers.values())


def _near(name: str, providers: Mapping[str, Provider]) -> str:
    return suggestion(name, providers) or f"; known providers: {', '.join(providers) or 'none'}"


def _check_model(model: str, providers: Mapping[str, Provider], where: str) -> None:
    head, slash, _ = model.partition("/")
    listed = any(model in provider.models for provider in providers.values())
    if slash and head not in providers and not listed:
        raise ConfigError(f'no configured provider for "{model}"{_near(head, providers)}', where)
