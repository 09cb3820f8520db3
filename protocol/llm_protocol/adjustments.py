"""Adjustments: the changes that were made to a request before it went to its provider, as reported to callers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from llm_protocol.content import JsonObject

Change: TypeAlias = Literal["left_out", "translated", "emulated", "rewritten"]
"""``left_out``: the provider does not get the parameter. ``translated``: it gets the nearest value that it supports.
``emulated``: the runtime does the work itself. ``rewritten``: it gets another form with the same meaning.
"""

LOSSY: frozenset[Change] = frozenset(("left_out", "translated"))
"""The changes that alter the meaning of a request. A request whose policy is ``strict`` is refused if it needs one of
them.
"""

HEADER = "x-llm-runtime-adjusted"
HEADER_BYTES = 2_048
"""The most bytes of the value of the header `HEADER`. Adjustments that do not fit are only in the body."""


class Adjustment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One adjustment. ``parameter`` is the client's own name for it, ``to`` the value that was sent instead."""

    parameter: str
    action: Change
    to: str | int | float | None = None

    @property
    def in_words(self) -> str:
        """Return the adjustment as text for error messages: ``seed (left out)``."""
        words = self.action.replace("_", " ")
        return f"{self.parameter} ({words})" if self.to is None else f"{self.parameter} ({words} to {self.to})"

    def to_json(self) -> JsonObject:
        """Return the adjustment as an entry of the list ``llm_runtime.adjusted`` in a response."""
        found: JsonObject = {"parameter": self.parameter, "action": self.action}
        return found if self.to is None else {**found, "to": self.to}


def header_value(adjusted: Iterable[Adjustment]) -> str | None:
    """Return the value of `HEADER`, a list as defined by RFC 9651: ``"seed";action=left_out, "top_k";action=left_out``.
    ``None`` if nothing was changed.
    """
    items: list[str] = []
    left = HEADER_BYTES
    for each in adjusted:
        to = "" if each.to is None else f";to={_string(str(each.to))}"
        item = f"{_string(each.parameter)};action={each.action}{to}"
        left -= len(item) + 2
        if left < 0:
            break
        items.append(item)
    return ", ".join(items) or None


_SHOWN = 128
"""The most characters of a name or value that the header shows."""


def _string(text: str) -> str:
    """Return an RFC 9651 string: printable ASCII. Names come from clients, so no other characters may get into a
    header.
    """
    plain = "".join(char if " " <= char <= "~" else "?" for char in text[:_SHOWN])
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
