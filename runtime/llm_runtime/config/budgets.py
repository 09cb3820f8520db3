"""Checks of budgets and the request log: each budget has a limit, and the keys, teams and routes that they name
exist.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from llm_runtime.config.conversion import suggestion
from llm_runtime.config.errors import ConfigError, Mistakes, under
from llm_runtime.config.model import Config


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
