"""From a TOML table to a section's struct, with errors that a person can act on.

`msgspec.convert` does the checking. It is called once per named entry, because its messages cannot name the keys of a
dict; unknown keys are looked for first, to suggest what was meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from llm_protocol.secret import Secret
from llm_runtime.config.errors import ConfigError, under

S = TypeVar("S", bound=msgspec.Struct)
ReadSecret = Callable[[object], Secret]

_WHERE = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_ENUM = re.compile(r"Invalid enum value '(?P<value>.*)'", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`")
_TYPE = re.compile(r"`([a-z]+(?: \| [a-z]+)*)`")
_TYPES = {
    "object": "a table",
    "array": "a list",
    "str": "text",
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "datetime": "a date and time with an offset, such as 2030-01-31T12:00:00Z",
    "date": "a date",
    "time": "a time",
}
_BOUNDS = (
    (" of length ", " with a length "),
    (" >= ", " of at least "),
    (" <= ", " of at most "),
    (" > ", " greater than "),
    (" with a timezone component", ""),
)


def convert(table: object, section: type[S], read_secret: ReadSecret) -> S:
    """``table`` as ``section``, keys read by ``read_secret``. Raises `ConfigError`, its path relative to the table."""
    refuse_unknown(table, section)

    def from_toml(kind: type[Any], value: object) -> object:
        assert kind is Secret
        return read_secret(value)

    try:
        return msgspec.convert(table, section, dec_hook=from_toml)
    except msgspec.ValidationError as exc:
        raise _explained(str(exc), section) from None


def refuse_unknown(table: object, section: type[msgspec.Struct]) -> None:
    """Refuse the first key of ``table``, or of a section within it, that does not exist."""
    if not isinstance(table, dict):
        raise ConfigError("expected a table")
    fields = {field.name: field.type for field in msgspec.structs.fields(section)}
    for key, value in table.items():
        if key not in fields:
            raise ConfigError(f"unknown key{suggestion(key, fields)}", key)
        inner = fields[key]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, dict):
            with under(key):
                refuse_unknown(value, inner)


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean "x"?`` when something known looks like ``word``, else the empty text."""
    import difflib

    close = difflib.get_close_matches(word[:64], list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _explained(text: str, section: type[msgspec.Struct]) -> ConfigError:
    match = _WHERE.fullmatch(text)
    assert match
    what, where = match["what"], match["path"] or ""
    path = [part for part in where.replace("[", ".[").split(".") if part]
    if missing := _MISSING.fullmatch(what):
        return ConfigError(f"{missing['field']} is missing", *path)
    if enum := _ENUM.fullmatch(what):
        return ConfigError(_not_one_of(enum["value"], path[0], section), *path)
    if unknown := _UNKNOWN.fullmatch(what):
        return ConfigError("unknown key", *path, unknown["field"])
    if what.startswith("Expected "):
        what = _in_words(what)
    return ConfigError(what[:1].lower() + what[1:], *path)


def _in_words(what: str) -> str:
    """What msgspec calls ``Expected `float | null` > 0.0``, as it would be said."""
    for sign, words in _BOUNDS:
        what = what.replace(sign, words)
    return _TYPE.sub(_type, what).removesuffix(".0")


def _type(match: re.Match[str]) -> str:
    return " or ".join(_TYPES.get(name, name) for name in match[1].split(" | ") if name != "null")


def _not_one_of(value: str, field: str, section: type[msgspec.Struct]) -> str:
    [kind] = [known.type for known in msgspec.structs.fields(section) if known.name == field]
    names = _choices(kind)
    return f"not one of {', '.join(names)}{suggestion(value, names)}"


def _choices(kind: Any) -> list[str]:
    """The words that a type allows: an enumeration's, or those of the literals in it."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(choice.value) for choice in kind]
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [choice for inner in get_args(kind) for choice in _choices(inner)]
