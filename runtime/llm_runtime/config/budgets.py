"""Whether the budgets limit anything, and whether whom they and the request log name is there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from llm_runtime.config.conversion import suggestion
from llm_runtime.config.errors import ConfigError, Mistakes, under
from llm_runtime.config.model import Config


def check_budgets(config: Config) -> None:
    """Raise `ConfigError` for budgets that cannot be meant so."""
    teams = {key.team for key in config.keys.values() if key.team}
    mistakes = Mistakes()
    for name, budget in config.budgets.items():
        with mistakes.under("budgets", name):
            if budget.usd is None and budget.tokens is None:
                raise ConfigError("a budget needs usd or tokens: without either it limits nothing")
            _check(budget.keys, config.keys, "key", "keys")
            _check(budget.teams, teams, "team of a key", "teams")
            _check(budget.routes, config.routes, "route", "routes")
    mistakes.raise_any()


def check_request_log(config: Config) -> None:
    """Raise `ConfigError` where the request log is of somebody who is not there."""
    if config.request_log is None:
        return
    with under("request_log"):
        _check(config.request_log.keys, config.keys, "key", "keys")
        _check(config.request_log.routes, config.routes, "route", "routes")


def _check(named: Sequence[str], known: Collection[str], what: str, where: str) -> None:
    for name in named:
        if name not in known:
            there = suggestion(name, known) or f"; there are: {', '.join(sorted(known)) or 'none'}"
            raise ConfigError(f'"{name}" is no {what}{there}', where)


def kept_in_memory(config: Config) -> Iterator[str]:
    """A line for whoever has budgets and nothing that remembers them."""
    if config.budgets and config.store is None:
        yield "budgets are in memory alone, and begin anew with each start: [store] keeps them"
