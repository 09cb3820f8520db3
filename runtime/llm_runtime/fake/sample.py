"""Creates a small value that fits a JSON schema. It supports the part of JSON Schema that structured output uses."""

from __future__ import annotations

from typing import Any, final

from llm_protocol.content import JsonObject

MAX_DEPTH = 32
"""The depth below which values are ``None``, because a schema may contain itself."""

MAX_VALUES = 10_000
"""The most values. Further ones are ``None``, because a schema may contain itself several times."""

MAX_LENGTH = 4_096
"""The most characters of a string and items of a list, whatever the schema requires."""

_FORMATS = {
    "date": "2026-01-01",
    "time": "12:00:00Z",
    "date-time": "2026-01-01T12:00:00Z",
    "email": "fake@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def sample(schema: JsonObject, text: str = "fake") -> Any:
    """Return a value that fits ``schema``, with all properties, as few items as allowed, and the first of each choice.
    Strings are ``text`` unless the schema says otherwise.
    """
    return _Sampler(schema, text).value(schema, 0)


@final
class _Sampler:
    """Makes the value for the schema ``root``."""

    def __init__(self, root: JsonObject, text: str) -> None:
        self._root = root
        self._text = text
        self._left = MAX_VALUES

    def value(self, schema: Any, depth: int) -> Any:
        """Return a value for ``schema``, which is a part of the root."""
        self._left -= 1
        if not isinstance(schema, dict) or depth > MAX_DEPTH or self._left < 0:
            return None
        if "const" in schema:
            return schema["const"]
        for choices in ("enum", "examples"):
            if given := _list(schema, choices):
                return given[0]
        if isinstance(reference := schema.get("$ref"), str):
            return self.value(_resolved(reference, self._root), depth + 1)
        for choices in ("anyOf", "oneOf"):
            if given := _list(schema, choices):
                return self.value(given[0], depth + 1)
        if given := _list(schema, "allOf"):
            return self.value(_merged(given, self._root), depth + 1)
        return self._typed(schema, depth)

    def _typed(self, schema: JsonObject, depth: int) -> Any:
        properties = schema.get("properties")
        kind = schema.get("type", "object" if properties else "string")
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        match str(kind).lower():
            case "object":
                inner = properties if isinstance(properties, dict) else {}
                return {name: self.value(each, depth + 1) for name, each in inner.items()}
            case "array":
                return self._items(schema, depth)
            case "integer" | "number":
                return _number(schema)
            case "boolean":
                return True
            case "null":
                return None
        sample = _FORMATS.get(str(schema.get("format")), self._text)
        return sample[: _bound(schema, "maxLength", MAX_LENGTH)].ljust(_bound(schema, "minLength", 0), ".")

    def _items(self, schema: JsonObject, depth: int) -> list[Any]:
        before = self._left
        item = self.value(schema.get("items"), depth + 1)
        size = before - self._left
        count = min(max(1, _bound(schema, "minItems", 1)), max(1, before // size))
        self._left = before - count * size
        return [item] * count


def _number(schema: JsonObject) -> int | float:
    for name, more in (("minimum", 0), ("exclusiveMinimum", 1)):
        least = schema.get(name)
        if isinstance(least, int | float):
            return least + more
    most = schema.get("maximum")
    return min(1, most) if isinstance(most, int | float) else 1


def _bound(schema: JsonObject, name: str, default: int) -> int:
    """Return a length or count that the schema sets, or ``default``."""
    value = schema.get(name)
    return min(value, MAX_LENGTH) if type(value) is int and value >= 0 else default


def _list(schema: JsonObject, name: str) -> list[Any]:
    value = schema.get(name)
    return value if isinstance(value, list) else []


def _merged(parts: list[Any], root: JsonObject) -> JsonObject:
    """Return the parts of ``allOf`` as one schema. Properties are combined; of other keywords, the last one counts."""
    whole: JsonObject = {}
    properties: JsonObject = {}
    for part in parts:
        if isinstance(part, dict):
            sample = _resolved(part["$ref"], root) if isinstance(part.get("$ref"), str) else part
            whole |= sample
            properties |= sample["properties"] if isinstance(sample.get("properties"), dict) else {}
    return whole | ({"properties": properties} if properties else {})


def _resolved(reference: str, root: JsonObject) -> JsonObject:
    found: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(step) if step and isinstance(found, dict) else found
    return found if isinstance(found, dict) else {}
