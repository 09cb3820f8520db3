"""Reading a client's JSON field by field, with errors that name the field."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

from llm_protocol.codec.fields import bad_request, refuse_transport
from llm_protocol.content import JsonObject

T = TypeVar("T")

_WORDS: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    list: "a list",
}


def camel(name: str) -> str:
    """``inline_data`` as ``inlineData``: Google takes both."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


class Fields:
    """One JSON object. Names are taken in either case, ``null`` counts as absent, what is not taken is the `rest`."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise bad_request(where or None, f"{where or 'the body'} must be an object")
        self._where = where
        self._left: JsonObject = {camel(name): item for name, item in value.items() if item is not None}

    def path(self, name: str) -> str:
        """Where the field ``name`` stands in the body."""
        return f"{self._where}.{name}" if self._where else name

    def take(self, name: str, kind: type[T]) -> T | None:
        """The field, out of the rest. Raises `BadRequestError` when it is of another type."""
        if name not in self._left:
            return None
        value = _as(self._left.pop(name), kind)
        if not isinstance(value, kind):
            raise bad_request(self.path(name), f"{self.path(name)} must be {_WORDS[kind]}")
        return value

    def take_fields(self, name: str) -> Fields | None:
        """The object ``name``, to be read in its turn."""
        return Fields(self._left.pop(name), self.path(name)) if name in self._left else None

    def take_list(self, name: str) -> list[Any]:
        """The list ``name``, empty if absent. One object counts as a list of it, as Google has it."""
        value = self._left.get(name)
        if isinstance(value, dict):
            del self._left[name]
            return [value]
        return self.take(name, list) or []

    def take_strings(self, name: str) -> tuple[str, ...]:
        """The list of strings ``name``, empty if absent."""
        found = self.take(name, list) or []
        if not all(isinstance(item, str) for item in found):
            raise bad_request(self.path(name), f"{self.path(name)} must be a list of strings")
        return tuple(found)

    def peek(self, name: str) -> Any:
        """The field, left where it is."""
        return self._left.get(name)

    def put_back(self, name: str, value: Any) -> None:
        """Make ``value`` part of the rest, if there is anything in it."""
        if value not in (None, {}, [], ()):
            self._left[name] = value

    @property
    def rest(self) -> JsonObject:
        """What was not taken. Raises `BadRequestError` if it would say where a request goes."""
        refuse_transport(self._left, self._where)
        return self._left


def _as(value: object, kind: type) -> object:
    if kind is bool or isinstance(value, bool):
        return value if kind is bool else None
    if kind is float and isinstance(value, int):
        return float(value) if abs(value) <= sys.float_info.max else None
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


_TYPES = frozenset(("STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"))
_ONE_SCHEMA = ("items", "additionalProperties", "not")
_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


def json_schema(schema: object) -> Any:
    """Google's subset of OpenAPI as JSON schema: types in lower case, ``nullable`` as a type, counts as numbers."""
    if not isinstance(schema, dict):
        return schema
    found: JsonObject = {}
    for key, value in schema.items():
        name = camel(key)
        if name == "type" and isinstance(value, str):
            found[name] = value.lower() if value.upper() in _TYPES else value
        elif name == "properties" and isinstance(value, dict):
            found[name] = {child: json_schema(inner) for child, inner in value.items()}
        elif name in _SCHEMAS and isinstance(value, list):
            found[name] = [json_schema(inner) for inner in value]
        elif name in _ONE_SCHEMA:
            found[name] = json_schema(value)
        elif name in _COUNTS and isinstance(value, str) and value.isdecimal():
            found[name] = int(value)
        elif name != "nullable":
            found[name if "_" in key else key] = value
    if schema.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found
