"""Which parameters a request uses: the canonical ones that are set, and the fields of the client's own wire. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from llm_protocol.content import JsonObject
from llm_protocol.parameters.table import ROWS, Parameter
from llm_protocol.requests import Parameters


class Used(NamedTuple):
    """One parameter of a request: its row, if the table has one, the client's name for it, and its value."""

    row: Parameter | None
    path: str
    value: Any


CANONICAL: Final = tuple(row for row in ROWS if row.field in Parameters.__struct_fields__)
"""The rows of the table for the fields of `Parameters`."""


def name_of(parameter: str, wire: str | None) -> str:
    """The name that a client of ``wire`` uses for a field of `Parameters`; the name of the table's row if the wire has
    no such parameter.
    """
    row = next(each for each in CANONICAL if each.name == parameter)
    return row.wires.get(wire or "", row.name)


@cache
def rows_of(wire: str) -> Mapping[str, Parameter]:
    """The rows of the table for fields in ``extra``, by their path on ``wire``."""
    return {row.wires[wire]: row for row in ROWS if row.field is None and wire in row.wires}


@cache
def _prefixes(wire: str) -> frozenset[str]:
    """The paths of the objects whose fields have rows of their own."""
    paths = (path.split(".") for path in rows_of(wire))
    return frozenset(".".join(path[:depth]) for path in paths for depth in range(1, len(path)))


def own_fields(extra: JsonObject, wire: str, before: str = "") -> Iterator[Used]:
    """Yield the fields of ``extra``, which a client of ``wire`` sent. If the table has rows for the fields of an
    object, these fields are yielded one by one, with dotted paths. All paths begin with ``before``.
    """
    rows, prefixes = rows_of(wire), _prefixes(wire)
    for name, value in extra.items():
        path = f"{before}{name}"
        if path in prefixes and isinstance(value, dict):
            yield from own_fields(value, wire, f"{path}.")
        elif value is not None:
            yield Used(rows.get(path), path, value)


def value_at(body: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; ``None`` if absent."""
    found: Any = body
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def with_value(body: JsonObject, path: str, value: Any) -> JsonObject:
    """A copy of ``body`` with ``value`` at ``path``; objects that are not on the path are shared."""
    name, dot, rest = path.partition(".")
    if not dot:
        return {**body, name: value}
    inner = body.get(name)
    return {**body, name: with_value(inner if isinstance(inner, dict) else {}, rest, value)}


def without_value(body: JsonObject, path: str) -> JsonObject:
    """A copy of ``body`` without the value at ``path``, and without objects that become empty."""
    name, dot, rest = path.partition(".")
    if name not in body:
        return body
    left = {key: value for key, value in body.items() if key != name}
    inner = body[name]
    if dot and isinstance(inner, dict) and (kept := without_value(inner, rest)):
        return {**left, name: kept}
    return left
