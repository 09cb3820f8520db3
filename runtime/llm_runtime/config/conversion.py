"""The base of the sections, and the conversion of a TOML table to one, with clear error messages.

`msgspec.convert` checks the values. It is called for each named entry, because its messages do not contain the keys of
a dict. Unknown keys are looked for first, so that the message can suggest the right one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from llm_protocol.codec.wording import KINDS, in_words, not_one_of
from llm_protocol.codec.wording import suggestion as suggestion
from llm_protocol.secret import Secret
from llm_runtime.config.errors import MOST_MISTAKES, ConfigError, Mistakes, together

Line = Annotated[str, Meta(min_length=1, max_length=1024)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of the sections: frozen, and unknown keys are errors."""


S = TypeVar("S", bound=msgspec.Struct)
ReadSecret = Callable[[object], Secret]

_WHERE = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_ENUM = re.compile(r"Invalid enum value '(?P<value>.*)'", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`")
_KINDS = {**KINDS, "object": "a table"}


def convert(table: object, section: type[S], read_secret: ReadSecret) -> S:
    """Return ``table`` as a ``section``. ``read_secret`` reads keys. Raises `ConfigError` with all mistakes in the
    table; their paths are relative to the table.
    """
    mistakes: list[ConfigError] = []
    left_out: set[str] = set()
    try:
        refuse_unknown(table, section)
    except ConfigError as exc:
        mistakes.append(exc)
        left_out = {each.path[0] for each in exc.all if each.path}

    def from_toml(kind: type[Any], value: object) -> object:
        assert kind is Secret
        return read_secret(value)

    rest = table
    while len(mistakes) < MOST_MISTAKES:
        if isinstance(table, dict):
            rest = {key: value for key, value in table.items() if key not in left_out}
        try:
            found = msgspec.convert(rest, section, dec_hook=from_toml)
        except msgspec.ValidationError as exc:
            missing = _MISSING.fullmatch(str(exc))
            if missing is None or missing["field"] not in left_out:
                mistakes.append(_explained(str(exc), section))
            if missing or not mistakes[-1].path or not isinstance(table, dict):
                break  # the mistake concerns the whole table
            left_out.add(mistakes[-1].path[0])
            continue
        if not mistakes:
            return found
        break
    raise together(mistakes)


def refuse_unknown(table: object, section: type[msgspec.Struct]) -> None:
    """Raise `ConfigError` for unknown keys of ``table`` and of the sections in it."""
    if not isinstance(table, dict):
        raise ConfigError("expected a table")
    mistakes = Mistakes()
    fields = {field.name: field.type for field in msgspec.structs.fields(section)}
    for key, value in table.items():
        with mistakes.under(key):
            if key not in fields:
                raise ConfigError(f"unknown key{suggestion(key, fields) or _all_of(fields)}")
            inner = fields[key]
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, dict):
                refuse_unknown(value, inner)
    mistakes.raise_any()


def _all_of(names: Iterable[str]) -> str:
    return f"; known keys: {', '.join(names)}"


def _explained(text: str, section: type[msgspec.Struct]) -> ConfigError:
    match = _WHERE.fullmatch(text)
    assert match
    what, where = match["what"], match["path"] or ""
    path = [part for part in where.replace("[", ".[").split(".") if part]
    if missing := _MISSING.fullmatch(what):
        return ConfigError(f"{missing['field']} is missing", *path)
    if enum := _ENUM.fullmatch(what):
        return ConfigError(not_one_of(enum["value"], section, where), *path)
    if unknown := _UNKNOWN.fullmatch(what):
        return ConfigError("unknown key", *path, unknown["field"])
    return ConfigError(in_words(what, _KINDS), *path)
