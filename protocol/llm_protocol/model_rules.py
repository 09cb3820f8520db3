"""The facts about what a vendor's models accept: one table per vendor, which all other code reads.

There are three layers, and the first that has a fact wins: the configuration
(``[providers.NAME.capabilities."pattern"]``), the vendor's own model list, and the rows of
`llm_protocol.model_table`. A model that is in no layer counts as accepting everything: its vendor itself reports what
it refuses.

Request translation, selection, refusals, failover and the continuation of broken streams use `ModelRules.of`. No
other code tests the name of a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Any, Final, final

import msgspec

from llm_protocol.model_facts import Capabilities, ModelRule
from llm_protocol.model_table import ROWS

MAX_REMEMBERED: Final = 4096
"""The most models of one provider whose rule is cached."""

_FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(Capabilities))


def short_name(model: str) -> str:
    """Return the short form of a model's name: in lower case, without folders, a cloud's prefixes, or the account of a
    tuned model.
    """
    name = model.lower().rpartition("/")[2]
    if name.startswith("ft:"):
        name = name.split(":")[1]
    at = name.find("claude")
    return name if at < 0 else name[at:].replace(".", "-")


@final
class ModelRules:
    """The rules for the models of one provider. The facts about its models are in the table under ``vendor``.

    ``configured`` maps glob patterns for the whole name of a model to facts; the first match wins. Only the catalog
    calls `learn`; any code may call `of`, synchronously.
    """

    __slots__ = ("_configured", "_listed", "_remembered", "_rows", "has_responses", "vendor")

    def __init__(self, vendor: str, configured: Mapping[str, Capabilities] | None = None) -> None:
        self.vendor = vendor
        self.has_responses = False
        """Whether the provider can be called over the Responses API, too."""
        self._configured = [(re.compile(translate(glob)), facts) for glob, facts in (configured or {}).items()]
        self._listed: dict[str, Capabilities] = {}
        self._rows: tuple[tuple[re.Pattern[str], ModelRule], ...] | None = None
        self._remembered: dict[str, ModelRule] = {}

    def of(self, model: str) -> ModelRule:
        """Return the facts about ``model``, which is the vendor's name of a model."""
        try:
            return self._remembered[model]
        except KeyError:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            found = self._remembered[model] = self._look_up(model)
            return found

    def learn(self, listed: Mapping[str, Capabilities]) -> None:
        """Replace the facts of the vendor's list by ``listed``, by name of the model."""
        self._listed = dict(listed)
        self._remembered.clear()

    def _look_up(self, model: str) -> ModelRule:
        if self._rows is None:
            # Compiled when the rule of a model of the vendor is first needed.
            self._rows = tuple((re.compile(pattern), rule) for pattern, rule in ROWS.get(self.vendor, _OTHERS))
        name = short_name(model)
        rule = next((rule for pattern, rule in self._rows if pattern.match(name)), _FREE)
        stated: dict[str, Any] = {}
        for facts in self._layers(model):
            for field in _FIELDS:
                if (value := getattr(facts, field)) is not None:
                    stated.setdefault(field, value)
        return msgspec.structs.replace(rule, **stated) if stated else rule

    def _layers(self, model: str) -> list[Capabilities]:
        found = [facts for pattern, facts in self._configured if pattern.fullmatch(model)]
        return [*found, listed] if (listed := self._listed.get(model)) is not None else found


_FREE: Final = ModelRule()
_OTHERS: Final = ROWS["openai_compatible"]
"""The rows for vendors that have no rows of their own."""


@lru_cache(maxsize=64)
def rules_of(vendor: str) -> ModelRules:
    """The rules of the table alone, for code without a provider. They cannot learn."""
    return ModelRules(vendor)


def rule_of(vendor: str, model: str) -> ModelRule:
    """The rule for ``model`` in the table. The configuration is not considered."""
    return rules_of(vendor).of(model)
