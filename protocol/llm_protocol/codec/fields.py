"""The fields of request bodies: which ones ``extra`` may add, which ones are never allowed, and what the client sides
of all wires share.

In this module, ``dialect`` is the name of a wire, the key of its fields in ``extra``; ``vendor`` is the recipient's
name in messages. Server sides read bodies with `codec.body`; `typed` checks the runtime's own objects, such as
``llm_runtime``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from llm_protocol.content import HostedTool, JsonObject, Opaque, Part, ToolResult
from llm_protocol.errors import BadRequestError, UnsupportedError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import NO_OWN_NAMES, OwnNames, Policy
from llm_protocol.requests import Parameters

T = TypeVar("T")

_TRANSPORT = re.compile(
    r"(base_?url|api_?base|api_?keys?|authorization|(extra|default)?_?headers|extra_?(body|query)|(https?|all)?_?prox(y|ies))"
)
"""Fields that decide where a request goes and with which key. Names are compared in lower case, with ``-`` as ``_``."""


_SCALARS = frozenset((str, int, float, bool, type(None)))


def unsupported(param: str, message: str) -> UnsupportedError:
    """The error for a field that this vendor does not support."""
    return UnsupportedError(Failure(kind=FailureKind.UNSUPPORTED, message=message, param=param))


def bad_request(param: str | None, message: str) -> BadRequestError:
    """The error for a field that is wrong."""
    return BadRequestError(Failure(kind=FailureKind.BAD_REQUEST, message=message, param=param))


_MISSING = re.compile(r"missing required field `(\w+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_ENUM = re.compile(r"Invalid enum value '(.*)'", re.DOTALL)
_EMPTY = "Expected `array` of length >= 1"


def typed(value: Any, type_: type[T], where: str = "") -> T:
    """Convert decoded JSON to ``type_``. Raises `BadRequestError` with the path of the field at fault; the path begins
    with ``where``.
    """
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as exc:
        from llm_protocol.codec import wording  # imported only for errors

        reason, _, below = str(exc).partition(" - at `$")
        below = below.rstrip("`")
        path = f"{where}{below}".lstrip(".")
        if missing := _MISSING.search(reason):
            path = f"{path}.{missing[1]}".lstrip(".")
            raise bad_request(path, f"{path} is missing") from None
        if reason == _EMPTY:
            raise bad_request(path, f"{path} is empty: it must have at least one element") from None
        if unknown := _UNKNOWN.fullmatch(reason):
            near = wording.suggestion(unknown[1], wording.fields_at(type_, below))
            path = f"{path}.{unknown[1]}".lstrip(".")
            raise bad_request(path, f"{path}: unknown field{near}") from None
        if enum := _ENUM.fullmatch(reason):
            raise bad_request(path, f"{path}: {wording.not_one_of(enum[1], type_, below)}") from None
        raise bad_request(path or None, f"{path or 'the body'}: {wording.in_words(reason)}") from None


def typed_policy(value: Any, where: str, own: OwnNames = NO_OWN_NAMES) -> Policy:
    """Return decoded JSON as a policy. The names of strategies and orderings must exist. Raises as `typed` does."""
    policy = value if isinstance(value, Policy) else typed(value, Policy, where)
    for field, message in policy.unknown_names(own):
        raise bad_request(f"{where}.{field}", f"{where}.{field}: {message}")
    return policy


def add_extra(body: JsonObject, parameters: Parameters, dialect: str) -> None:
    """Add ``parameters.extra[dialect]`` to ``body``. A field that ``body`` already has is not replaced. Raises
    `BadRequestError` for a transport field; see `refuse_transport`.
    """
    extra = parameters.extra.get(dialect)
    if extra:
        refuse_transport(extra)
        for name, value in extra.items():
            body.setdefault(name, value)


def refuse_transport(value: Any, path: str = "") -> None:
    """Raise `BadRequestError` if a field at any depth would decide where a request goes or with which key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            where = f"{path}.{name}" if path else str(name)
            if _TRANSPORT.fullmatch(str(name).lower().replace("-", "_")):
                raise bad_request(
                    where,
                    f"{where} is not accepted: only the configuration sets where a request goes and with which key",
                )
            if type(inner) not in _SCALARS:
                refuse_transport(inner, where)
    elif isinstance(value, list | tuple) and not _SCALARS.issuperset(map(type, value)):  # in C for long lists
        for at, inner in enumerate(value):
            if type(inner) not in _SCALARS:
                refuse_transport(inner, f"{path}[{at}]")


# ---------------------------------------------------------------- what client sides share


def own_fields(extra: Mapping[str, JsonObject] | None, dialect: str) -> JsonObject:
    """Return the ``extra`` fields of a part, tool or message for ``dialect``. The result is not a copy."""
    return extra.get(dialect, {}) if extra else {}


def own_value(block: Opaque | HostedTool, where: str, dialect: str, vendor: str) -> JsonObject:
    """Return the content of a block or hosted tool unchanged. ``where`` is its path in the request. Raises
    `UnsupportedError` if it belongs to another dialect than ``dialect``.
    """
    if block.dialect == dialect:
        return block.value
    what = "a hosted tool" if isinstance(block, HostedTool) else "a block"
    raise unsupported(where, f"{where}: {what} of {block.dialect} cannot be sent to {vendor}")


def only_result(part: Part, where: str) -> ToolResult:
    """Return ``part``, which is in a message with the role ``tool``. Raises `BadRequestError` if it is not a tool
    result.
    """
    if not isinstance(part, ToolResult):
        raise bad_request(where, f"{where}: a message of role tool may contain only tool results")
    return part


def set_parameters(parameters: Parameters, names: Mapping[str, str]) -> JsonObject:
    """The parameters that are set, under the wire's names. ``names`` maps fields of `Parameters` to the wire's
    names.
    """
    return {
        name: list(value) if isinstance(value, tuple) else value
        for ours, name in names.items()
        if (value := getattr(parameters, ours)) not in (None, ())
    }
