"""Turn msgspec's validation errors into readable messages: what is wrong, and which value would be right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

KINDS: Mapping[str, str] = {
    "object": "an object",
    "array": "a list",
    "str": "text",
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "datetime": "a date and time with an offset, such as 2030-01-31T12:00:00Z",
    "date": "a date",
    "time": "a time",
}
_KIND = re.compile(r"`([a-z]+(?: \| [a-z]+)*)`")
_BOUNDS = (
    (" of length ", " with a length "),
    (" >= ", " of at least "),
    (" <= ", " of at most "),
    (" > ", " greater than "),
    (" with a timezone component", ""),
)
_STEP = re.compile(r"\.(\w+)|\[(?:\d+|\.\.\.)\]")


def in_words(what: str, kinds: Mapping[str, str] = KINDS) -> str:
    """Describe in plain English a type that msgspec writes as ``Expected `float | null` > 0.0``."""

    def kind(match: re.Match[str]) -> str:
        return " or ".join(kinds.get(name, name) for name in match[1].split(" | ") if name != "null")

    if what.startswith("Expected "):
        for sign, words in _BOUNDS:
            what = what.replace(sign, words)
        what = _KIND.sub(kind, what).removesuffix(".0")
    return what[:1].lower() + what[1:]


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "x"?`` if a known word looks like ``word``, else an empty text."""
    import difflib

    close = difflib.get_close_matches(word[:64], list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def not_one_of(value: str, type_: Any, path: str) -> str:
    """Return the message that ``value`` is not one of the words allowed at ``path`` (such as ``.a.b[0]``) of ``type_``.
    The message lists these words.
    """
    names = list(dict.fromkeys(name for kind in _at(type_, path) for name in _choices(kind)))
    return f"not one of {', '.join(names)}{suggestion(value, names)}"


def fields_at(type_: Any, path: str) -> list[str]:
    """Return the field names that the object at ``path`` of ``type_`` may have."""
    return [field.encode_name for kind in _at(type_, path) for field in _fields(kind)]


def _at(type_: Any, path: str) -> list[Any]:
    """Return the types that are allowed at ``path``, with unions taken apart."""
    found = _apart(type_)
    for step in _STEP.finditer(path):
        found = [inner for kind in found for inner in _inside(kind, step[1])]
    return found


def _inside(kind: Any, name: str | None) -> list[Any]:
    """Return the types that are allowed in the field ``name``; for ``None``, at an index."""
    if name is not None:
        return [inner for field in _fields(kind) if field.encode_name == name for inner in _apart(field.type)]
    kinds = [inner for inner in get_args(kind) if inner is not ...]
    return _apart(kinds[-1]) if kinds and get_origin(kind) is not Literal else []


def _fields(kind: Any) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else ()


def _apart(kind: Any) -> list[Any]:
    if get_origin(kind) is Annotated:
        return _apart(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [inner for each in get_args(kind) for inner in _apart(each)]
    return [kind]


def _choices(kind: Any) -> list[str]:
    """Return the words that a type allows: the values of an enumeration or a literal."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(choice.value) for choice in kind]
    return [str(word) for word in get_args(kind)] if get_origin(kind) is Literal else []
