"""Decode JSON that does not fit the expected types: the readable fields are kept, and other fields that the response
does not need are left out.

Servers send numbers as strings, ids as numbers, and objects where others send strings. Such a field must not make the
response fail if the response does not need it (usage, ids, dates). A field that holds content must not be lost
silently.
"""

from __future__ import annotations

import json
from functools import cache
from math import isfinite
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from llm_protocol.codec.json import JsonDecoder, TooLarge, WireError, decode_object, scrub
from llm_protocol.content import JsonObject

S = TypeVar("S", bound=msgspec.Struct)


class _MisfitError(Exception):
    """The value has another type, and cannot be converted."""


def read(
    decoder: JsonDecoder[S],
    shape: type[S],
    data: bytes | str,
    essential: frozenset[str],
    ignored: set[str],
    *,
    types: frozenset[str] | None = None,
) -> S:
    """Decode ``data`` as a ``shape``: first strictly and, if that fails, field by field (see `fit`). Raises
    `WireError`.

    ``types``: an object whose ``type`` is not one of these has no essential fields. ``None``: any object has them.
    """
    try:
        return decoder.decode(data)
    except TooLarge:
        raise
    except WireError:
        value = read_object(data)
        is_known = types is None or str(value.get("type")) in types
        return fit(value, shape, essential if is_known else frozenset(), ignored)


def read_object(data: bytes | str) -> JsonObject:
    """The JSON object in a vendor's ``data``. NaN and Infinity, which are not JSON, are accepted as numbers.

    Raises `WireError`.
    """
    try:
        return decode_object(data)
    except TooLarge:
        raise
    except WireError as exc:
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        if ("NaN" not in text and "Infinity" not in text) or len(text) > MAX_NAN_CHARACTERS:
            raise
        try:
            value = scrub(json.loads(text))
        except (ValueError, RecursionError):
            raise exc from None
        if not isinstance(value, dict):
            raise
        return value


MAX_NAN_CHARACTERS = 1_000_000
"""The longest text, in characters, that is searched for NaN and Infinity, because the search needs Python's slow
decoder.
"""


def fit(value: Any, shape: type[S], essential: frozenset[str], ignored: set[str]) -> S:
    """Convert ``value`` to a ``shape``, field by field.

    A field that cannot be converted is left out, and its name is added to ``ignored``. Raises `WireError` if its name
    is in ``essential``, or if ``value`` is not an object.
    """
    if not isinstance(value, dict):
        raise WireError("expected a JSON object")
    found: dict[str, Any] = {}
    for field in _fields(shape):
        inner = value.get(field.encode_name)
        if inner is None:
            continue
        is_essential = field.encode_name in essential
        if is_essential and isinstance(inner, int | float):  # a number is not text that a model wrote
            raise WireError(f"{field.encode_name}: a number instead of text")
        try:
            found[field.name] = _fitted(inner, field.type, essential, ignored)
        except _MisfitError:
            if is_essential:
                raise WireError(f"{field.encode_name}: a value of the wrong type") from None
            ignored.add(field.encode_name)
    try:
        return shape(**found)
    except TypeError as exc:  # a required field of the shape; the text names it
        raise WireError(f"a field is missing: {exc}") from None


@cache
def _fields(shape: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(shape)  # cached, because it evaluates the annotations each time


def _fitted(value: Any, wanted: Any, essential: frozenset[str], ignored: set[str]) -> Any:
    options = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    for option in options:
        if option is type(None):
            continue
        try:
            return _one(value, option, essential, ignored)
        except _MisfitError:
            continue
    raise _MisfitError


def _one(value: Any, wanted: Any, essential: frozenset[str], ignored: set[str]) -> Any:
    if wanted is Any:
        return value
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        if not isinstance(value, dict):
            raise _MisfitError
        return fit(value, wanted, essential, ignored)
    if get_origin(wanted) is list:
        if not isinstance(value, list | dict):
            raise _MisfitError
        items = value if isinstance(value, list) else [value]  # a single value instead of a list
        return [_fitted(item, get_args(wanted)[0], essential, ignored) for item in items if item is not None]
    if wanted is str and isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not isfinite(value):  # only an integer that a double can represent
            raise _MisfitError
        return str(value)
    try:
        return msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError:
        raise _MisfitError from None
