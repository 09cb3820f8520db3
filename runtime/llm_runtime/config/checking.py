"""Checks a `Config` that was created in Python, with the same code and the same messages as a file."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, final

import msgspec

from llm_protocol.policy import NO_OWN_NAMES, OwnNames
from llm_protocol.secret import Secret
from llm_runtime.config.cross_checks import check_budgets, check_names, check_request_log, check_shared
from llm_runtime.config.errors import run_checks
from llm_runtime.config.keys import KeyReader
from llm_runtime.config.loading import from_table
from llm_runtime.config.model import Config

_SECTIONS = (
    "server", "timeouts", "attempts", "selection", "cross_model", "cache", "keys", "providers", "routes", "prices",
    "budgets",
)  # fmt: skip


@final
class _Given(KeyReader):
    """Takes the place of `KeyReader` for a `Config` whose keys are `Secret`s already. `table` replaces each key by a
    reference, as in a file; `read` returns the key of such a reference.
    """

    def __init__(self) -> None:
        super().__init__({}, Path())
        self._secrets: list[Secret] = []

    def table(self, value: object) -> Any:
        """Return ``value`` as a table of a file: without default values, and with references to keys."""
        match value:
            case Secret():
                self._secrets.append(value)
                return f"env:{len(self._secrets) - 1}"
            case msgspec.Struct():
                fields = msgspec.structs.fields(value)
                values = {each.name: getattr(value, each.name) for each in fields}
                return {
                    each.name: self.table(values[each.name]) for each in fields if values[each.name] != _default(each)
                }
            case dict():
                return {name: self.table(each) for name, each in value.items()}
            case list() | tuple():
                return [self.table(each) for each in value]
            case Enum():
                return value.value
            case _:
                return value

    def read(self, reference: object) -> Secret:
        name = str(reference).removeprefix("env:")
        if not name.isdecimal() or int(name) >= len(self._secrets):
            raise ValueError("a key must be a Secret: write Secret(...)")
        return self._secrets[int(name)]

    def read_provider(self, reference: object) -> Secret:
        return self.read(reference)


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default_factory() if callable(field.default_factory) else field.default


def checked_config(config: Config, own: OwnNames = NO_OWN_NAMES) -> Config:
    """Return ``config`` with defaults filled in, as for a file. For example, addresses lose a trailing slash, and a
    provider without an address gets its vendor's. ``own``: the strategies and orderings of the program. Raises
    `ConfigError` with all mistakes.
    """
    given = _Given()
    table = {name: given.table(getattr(config, name)) for name in _SECTIONS}
    found = from_table(table, given, Path.cwd(), "Python", config.vendors)
    found = msgspec.structs.replace(
        found, redis=config.redis, store=config.store, request_log=config.request_log, otel=config.otel
    )
    run_checks(
        partial(check_names, found, own),
        partial(check_budgets, found),
        partial(check_request_log, found),
        partial(check_shared, found),
    )
    return msgspec.structs.replace(
        config, **{name: getattr(found, name) for name in _SECTIONS}, notes=(*config.notes, *found.notes)
    )
