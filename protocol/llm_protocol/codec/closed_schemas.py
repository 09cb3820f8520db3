"""JSON schemas in the subset that Anthropic accepts for a response's format.

The vendor refuses objects that are not closed (``additionalProperties: false``), and bounds of numbers, texts and
lists. `accepted_schema` closes each object and moves each bound into the description, as the vendor's own SDK does. An
object that may have any field names cannot be closed without a change of meaning. Such a schema is refused, so that
another candidate is tried.
"""

from __future__ import annotations

from typing import Any

from llm_protocol.codec.fields import unsupported
from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject

_SCHEMAS = ("properties", "$defs", "definitions")
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
        if name in _SCHEMAS and isinstance(value, dict):
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
