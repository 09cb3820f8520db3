"""JSON schemas in the subsets that vendors accept.

Anthropic refuses objects that are not closed (``additionalProperties: false``), and bounds of numbers, texts and lists.
`accepted_schema` closes each object and moves each bound into the description, as the vendor's own SDK does. An object
that may have any field names cannot be closed without a change of meaning. Such a schema is refused, so that another
candidate is tried.

Gemini refuses any field beside a ``$ref`` except a description and a default ("$ref was set alongside unsupported
fields"). `with_plain_refs` leaves out a field that does not restrict the values. If other fields are beside a
reference, a copy of the definition takes the place of the reference, with these fields added.
"""

from __future__ import annotations

from typing import Any, Final, final

from llm_protocol.codec.fields import unsupported
from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject

_CLOSED_SCHEMAS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf")
_KEPT = frozenset(("type", "enum", "const", "description", "title", "default", "required", "$ref", "pattern"))
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"),
)
_DROPPED = frozenset(("$schema", "$id", "propertyOrdering", "nullable"))
"""Fields without a meaning for the model."""


def accepted_schema(schema: JsonObject) -> JsonObject:
    """The schema in the vendor's subset. Raises `UnsupportedError` for an object whose field names the schema does not
    list.
    """
    found: JsonObject = {}
    told: list[str] = []
    types = schema.get("type")
    if isinstance(types, list) and "enum" not in schema and "anyOf" not in schema:
        return _one_of(schema, types)
    for name, value in schema.items():
        if name in _CLOSED_SCHEMAS and isinstance(value, dict):
            found[name] = {key: _inner(inner) for key, inner in value.items()}
        elif name in (*_LISTS, "oneOf") and isinstance(value, list):
            found["anyOf" if name == "oneOf" else name] = [_inner(inner) for inner in value]
        elif name == "items":
            found[name] = _inner(value)
        elif name in _KEPT or (name == "format" and value in _FORMATS) or (name == "minItems" and value in (0, 1)):
            found[name] = value
        elif name not in _DROPPED and name != "additionalProperties":
            told.append(f"{name}: {value if isinstance(value, str) else encode_json(value).decode()}")
    if isinstance(types, list):
        found.pop("type", None)  # the values or the alternatives imply the type
    if types == "object" or "properties" in schema:
        found = _closed(found, schema)
    if told:
        words = [text for text in (found.get("description"), "{" + ", ".join(told) + "}") if isinstance(text, str)]
        found["description"] = "\n\n".join(words)
    return found


def _inner(schema: Any) -> Any:
    return accepted_schema(schema) if isinstance(schema, dict) else schema


def _closed(found: JsonObject, schema: JsonObject) -> JsonObject:
    more = schema.get("additionalProperties")
    if isinstance(more, dict) or (more is not False and not schema.get("properties")):
        message = "response_format: for Anthropic, each object in the schema must list its properties"
        raise unsupported("response_format", message)
    return {**found, "properties": found.get("properties", {}), "additionalProperties": False}


def _one_of(schema: JsonObject, types: list[Any]) -> JsonObject:
    """A schema with several types as alternatives of one type each."""
    outer: JsonObject = {name: schema[name] for name in ("description", "title", "default", "$defs") if name in schema}
    rest = {name: value for name, value in schema.items() if name not in (*outer, "type")}
    alternatives: list[JsonObject] = [{"type": each} if each == "null" else {**rest, "type": each} for each in types]
    return accepted_schema({**outer, "anyOf": alternatives})


# ---------------------------------------------------------------- Gemini: plain references

_BESIDE: Final = frozenset(("$ref", "description", "default"))
_NOTES: Final = frozenset(("title", "examples", "deprecated", "readOnly", "writeOnly", "$comment"))
_DATA: Final = frozenset(("const", "default", "enum", "examples"))
_SCHEMAS: Final = frozenset(("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"))
"""The fields that contain schemas by names, which may be any words."""

_MOST_COPIES: Final = 64
"""The most definitions that are copied into one schema. Further references lose the fields beside them."""


def with_plain_refs(schema: JsonObject) -> JsonObject:
    """Return ``schema`` with nothing beside its references that Gemini refuses."""
    fitted: JsonObject = _Fit(schema).value(schema)
    return fitted


@final
class _Fit:
    """One schema, and how many definitions may still be copied."""

    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._left = _MOST_COPIES

    def value(self, value: Any, *, is_copy: bool = False) -> Any:
        """``value``, with plain references. In a copy of a definition, no other definitions are copied."""
        if isinstance(value, list):
            return [self.value(each, is_copy=is_copy) for each in value]
        if not isinstance(value, dict):
            return value
        if isinstance(value.get("$ref"), str) and not value.keys() <= _BESIDE:
            return self._plain(value, is_copy=is_copy)
        return {name: self._field(name, each, is_copy=is_copy) for name, each in value.items()}

    def _field(self, name: str, field: Any, *, is_copy: bool) -> Any:
        if name in _DATA:
            return field
        if name in _SCHEMAS and isinstance(field, dict):
            return {key: self.value(each, is_copy=is_copy) for key, each in field.items()}
        return self.value(field, is_copy=is_copy)

    def _plain(self, schema: JsonObject, *, is_copy: bool) -> Any:
        rest = {name: each for name, each in schema.items() if name != "$ref" and name not in _NOTES}
        may_copy = not is_copy and self._left > 0 and not rest.keys() <= _BESIDE
        if may_copy and (definition := self._definition(schema["$ref"])) is not None:
            self._left -= 1
            return self.value({**definition, **rest}, is_copy=True)
        return {name: each for name, each in schema.items() if name in _BESIDE}

    def _definition(self, ref: str) -> JsonObject | None:
        """The schema to which a reference within the schema points, if there is one."""
        if not ref.startswith("#"):
            return None
        found: Any = self._root
        for step in ref[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else None
