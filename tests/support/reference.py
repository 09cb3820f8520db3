"""The configuration's reference, made from its structs: each section, and of each key the type, unit, default and what
it does. ``bin/make-docs`` writes it into ``docs/configuration.md``.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect as types

from llm_actors.redis import RedisServer
from llm_protocol.model_facts import Capabilities, ModelRule
from llm_protocol.prices import OwnPrice
from llm_runtime.config import Config, OtelConfig, Provider

NOT_IN_THE_FILE = frozenset(("vendors", "reasons", "notes"))
"""Fields of `Config` that the file cannot say."""

UNITS = {
    "requests_per_minute": "requests/min",
    "keep_days": "days",
    "usd": "US dollars",
    "tokens": "tokens",
    "tokens_per_minute": "tokens/min",
    "max_cost": "US dollars",
    "input": "US dollars per million",
    "output": "US dollars per million",
    "cached_input": "US dollars per million",
    "cache_write": "US dollars per million",
    "reasoning": "US dollars per million",
    "image": "US dollars per million",
    "request": "US dollars",
    "max_tokens": "tokens",
    "context_window": "tokens",
    "max_output_tokens": "tokens",
    "connect": "s",
    "first_token": "s",
    "idle": "s",
    "total": "s",
    "chat": "MB",
    "completion": "MB",
    "code_generation": "MB",
    "embedding": "MB",
    "image_generation": "MB",
}
"""Of keys whose name does not end in their unit."""


PLAIN: dict[type[types.Type], str] = {
    types.BoolType: "`true` or `false`",
    types.StrType: "text",
    types.DateTimeType: "date and time with an offset",
    types.CustomType: '`"env:NAME"` or `"file:PATH"`',
}


KINDS: dict[tuple[type[msgspec.Struct], str], str] = {
    (RedisServer, "url"): "address",
    (Provider, "api_key"): '`"env:NAME"`, `"file:PATH"` or `"cmd:COMMAND"`',
    (OtelConfig, "headers"): "table of text",
}
"""Of keys whose type in the struct says less than the file allows."""


BY_PATTERN: dict[type[msgspec.Struct], str] = {Capabilities: '."PATTERN"', OwnPrice: '."PROVIDER/MODEL"'}
"""The names of sections that are not names of the user's choice."""


class Entry(NamedTuple):
    """One key of a section."""

    name: str
    type: str
    unit: str
    default: str
    meaning: str


def sections(struct: type[msgspec.Struct] = Config, path: str = "") -> Iterator[tuple[str, list[Entry]]]:
    """Every section below ``struct``, in the order of the fields, with its keys."""
    meanings = descriptions(ModelRule if struct is Capabilities else struct)
    entries: list[Entry] = []
    below: list[tuple[str, type[msgspec.Struct]]] = []
    info = types.type_info(struct)
    assert isinstance(info, types.StructType)
    for field in info.fields:
        if struct is Config and field.name in NOT_IN_THE_FILE:
            continue
        inner, name = section_of(field.type), f"{path}.{field.name}".lstrip(".")
        if inner is not None:
            own, suffix = inner
            below.append((name + suffix, own))
        else:
            unit = unit_of(field.name)
            kind = KINDS.get((struct, field.name)) or type_of(field.type)
            entries.append(Entry(field.name, kind, unit, default_of(field), meanings.get(field.name, "")))
    if entries:
        yield path, entries
    for name, own in below:
        yield from sections(own, name)


def section_of(of: types.Type) -> tuple[type[msgspec.Struct], str] | None:
    """The struct that a field holds as a section of its own, and what follows the field's name in it."""
    match of:
        case types.StructType():
            return of.cls, ""
        case types.DictType(value_type=types.StructType() as value):
            return value.cls, BY_PATTERN.get(value.cls, ".NAME")
        case types.UnionType():
            found = [each for each in of.types if isinstance(each, types.StructType)]
            # What replaces some of another section's keys is said in one line.
            return (found[0].cls, "") if found and not found[0].cls.__name__.endswith("Patch") else None
        case _:
            return None


def type_of(of: types.Type) -> str:
    """In words."""
    match of:
        case types.UnionType():
            return " or ".join(
                dict.fromkeys(type_of(each) for each in of.types if not isinstance(each, types.NoneType))
            )
        case types.IntType():
            return "integer" + _range(of.ge, of.gt, of.le)
        case types.FloatType():
            return "number" + _range(of.ge, of.gt, of.le)
        case types.LiteralType():
            return ", ".join(f"`{value}`" for value in of.values)
        case types.EnumType():
            return ", ".join(f"`{each.value}`" for each in of.cls)
        case types.VarTupleType() | types.ListType() | types.FrozenSetType():
            return f"list of {type_of(of.item_type)}"
        case types.DictType():
            return f"table of {type_of(of.value_type)}"
        case types.StructType():
            return f"table of {', '.join(f'`{field.name}`' for field in of.fields)}"
        case _:
            return PLAIN[type(of)]


def _range(least: float | None, above: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f", {least:,} to {most:,}"
    if above is not None and most is not None:
        return f", above {above:,}, at most {int(most) if most == int(most) else most:,}"
    return ""


def unit_of(name: str) -> str:
    """Of a key, by its name."""
    if name in UNITS:
        return UNITS[name]
    return {"s": "s", "mb": "MB"}.get(name.rpartition("_")[2], "") if "_" in name else ""


def default_of(field: types.Field) -> str:
    """As the file would say it."""
    if field.default_factory not in (msgspec.NODEFAULT, None):
        value = field.default_factory()
    elif field.default is not msgspec.NODEFAULT:
        value = field.default
    else:
        return "required"
    if value in (None, (), {}):
        return ""
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        return _toml(int(value)) if value.is_integer() else f"{value:g}"
    return msgspec.json.encode(value).decode()


@cache
def descriptions(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What is written below each field of a struct, in the order of the file."""
    found: dict[str, str] = {}
    for cls in reversed(struct.__mro__):
        if cls.__module__.startswith("llm_"):
            tree = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
            [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__]
            for field, text in pairwise(body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                        found[name] = _markdown(said)
    return found


def _markdown(text: str) -> str:
    text = " ".join(text.split()).replace("``None``", "omitted").replace("; omitted: not known", "")
    text = text.replace(". omitted", ". Omitted").removesuffix(" Omitted: not known.")
    return re.sub(r"``(.+?)``", r"`\1`", text).removesuffix(".")


def page() -> str:
    """The sections, for ``docs/configuration.md``."""
    return "\n\n".join(f"### `[{path}]`\n\n{_table(entries)}" for path, entries in sections())


def _table(entries: list[Entry]) -> str:
    rows = [
        f"| `{entry.name}` | {entry.type} | {entry.unit} | {entry.default} | {entry.meaning} |".replace("  ", " ")
        for entry in entries
    ]
    return "\n".join(["| key | type | unit | default | what it does |", "|---|---|---|---|---|", *rows])
