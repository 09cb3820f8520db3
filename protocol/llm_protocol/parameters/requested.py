"""Which parameters a request uses: the canonical ones that are set, and the fields of the client's own wire. Pure.

A parameter that is set, and is also in ``extra``, could reach the vendor twice: as two output limits, or as a ``top_p``
under an API version that refuses it. Therefore `with_own_parameters` makes a value in ``extra`` the parameter itself
before the request is adapted and encoded. If the parameter is set as well, the set value is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from llm_protocol.codec.fields import typed
from llm_protocol.content import JsonObject
from llm_protocol.parameters.rows import ANTHROPIC, CHAT, COHERE, GEMINI, RESPONSES, Parameter
from llm_protocol.parameters.table import ROWS
from llm_protocol.requests import AnyRequest, ChatRequest, CompletionRequest, Parameters


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


# ---------------------------------------------------------------- parameters in `extra`

R = TypeVar("R", bound=AnyRequest)

_OTHER_NAMES: Final = {CHAT: {"max_completion_tokens": "max_output_tokens"}}
"""Names that wires use in addition to those in the table."""


def _names(wire: str, inside: str = "") -> Mapping[str, str]:
    """The wire's own names of the fields of `Parameters`, as the table has them. Only names at the top of the body, or
    at the top of the object ``inside``.
    """
    paths = {row.wires[wire]: row.name for row in CANONICAL if wire in row.wires}
    found = {path.removeprefix(inside): name for path, name in paths.items() if path.startswith(inside)}
    return {path: name for path, name in found.items() if "." not in path} | _OTHER_NAMES.get(wire, {})


NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    **{wire: _names(wire) for wire in (CHAT, RESPONSES, ANTHROPIC, COHERE)},
    "cerebras": _names(CHAT),
}
"""By dialect: the wire's own name of a parameter, and the field of `Parameters`. Gemini has no entry, because its
parameters are inside ``generationConfig``.
"""

_GEMINI: Final = _names(GEMINI, "generationConfig.")
_THINKING: Final = (("thinkingLevel", "reasoning_effort"), ("thinkingBudget", "reasoning_budget"))


def with_own_parameters(request: R, dialect: str) -> R:
    """The request with the parameters in ``extra[dialect]`` moved to the fields of `Parameters`. Raises
    `BadRequestError` for an invalid value.
    """
    parameters = request.parameters
    extra = parameters.extra.get(dialect)
    if not extra or not isinstance(request, ChatRequest | CompletionRequest):
        return request
    if dialect == "gemini":
        found, rest = _of_gemini(extra, parameters)
    else:
        names = NAMES.get(dialect, {})
        found = {names[name]: value for name, value in extra.items() if name in names}
        rest = {name: value for name, value in extra.items() if name not in names}
    if len(rest) == len(extra) and not found:
        return request
    return msgspec.structs.replace(request, parameters=_with(parameters, found, dialect, rest))


def _with(parameters: Parameters, found: JsonObject, dialect: str, rest: JsonObject) -> Parameters:
    unset = {
        name: value for name, value in found.items() if value is not None and getattr(parameters, name) in (None, ())
    }
    if isinstance(unset.get("stop"), str):
        unset["stop"] = [unset["stop"]]
    values = typed(unset, Parameters, f"parameters.extra.{dialect}")
    changes: dict[str, Any] = {name: getattr(values, name) for name in unset}
    return msgspec.structs.replace(parameters, **changes, extra={**parameters.extra, dialect: rest})


def _of_gemini(extra: JsonObject, parameters: Parameters) -> tuple[JsonObject, JsonObject]:
    """Move Gemini's parameters, most of which are inside ``generationConfig``. A thinking level and a thinking budget
    exclude each other.
    """
    config = extra.get("generationConfig")
    if not isinstance(config, dict):
        return {}, extra
    found = {ours: config[name] for name, ours in _GEMINI.items() if name in config}
    rest = {name: value for name, value in config.items() if name not in _GEMINI}
    thinking = rest.get("thinkingConfig")
    if isinstance(thinking, dict) and any(getattr(parameters, ours) is not None for _, ours in _THINKING):
        rest["thinkingConfig"] = {name: value for name, value in thinking.items() if name not in dict(_THINKING)}
    return found, {**extra, "generationConfig": rest} if rest != config else extra
