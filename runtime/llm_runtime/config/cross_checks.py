"""Checks that concern several sections of the configuration: whether the names in one section exist in another, and
whether settings have the section that they need.

Model names in routes and in callers' lists are checked against all providers, including discovered ones.
The provider in a name must exist. The model may be any, because vendors' lists are often incomplete. If there are no
providers at all, nothing is checked: opening the runtime reports that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from llm_protocol.policy import OwnNames, Policy
from llm_protocol.requests import AUTO
from llm_runtime.config.conversion import suggestion
from llm_runtime.config.errors import ConfigError, Mistakes, under
from llm_runtime.config.model import Config, Provider

WORKER_VARIABLE: Final = "LLM_RUNTIME_WORKER"
"""The environment variable in which the parent passes a worker its `WorkerPlace`."""


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


def check_budgets(config: Config) -> None:
    """Raise `ConfigError` for budgets that limit nothing or name unknown keys, teams or routes."""
    teams = {key.team for key in config.keys.values() if key.team}
    mistakes = Mistakes()
    for name, budget in config.budgets.items():
        with mistakes.under("budgets", name):
            if budget.usd is None and budget.tokens is None:
                raise ConfigError("a budget needs usd, tokens or both; without them it limits nothing")
            _check(budget.keys, config.keys, "there is no key", "keys")
            _check(budget.teams, teams, "no key has the team", "teams")
            _check(budget.routes, config.routes, "there is no route", "routes")
    mistakes.raise_any()


def check_request_log(config: Config) -> None:
    """Raise `ConfigError` if the request log names unknown keys or routes."""
    if config.request_log is None:
        return
    with under("request_log"):
        _check(config.request_log.keys, config.keys, "there is no key", "keys")
        _check(config.request_log.routes, config.routes, "there is no route", "routes")


def _check(named: Sequence[str], known: Collection[str], problem: str, where: str) -> None:
    for name in named:
        if name not in known:
            there = suggestion(name, known) or f"; known: {', '.join(sorted(known)) or 'none'}"
            raise ConfigError(f'{problem} "{name}"{there}', where)


def kept_in_memory(config: Config) -> Iterator[str]:
    """Yield a warning if there are budgets but no store: then budgets are in memory only."""
    if config.budgets and config.store is None:
        yield "budgets are kept in memory and are empty again after a restart; [store] keeps them in a file"


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
