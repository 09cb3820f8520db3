"""JSON schemas in the form that Gemini accepts: beside a ``$ref`` there may be only a description and a default.

Gemini refuses any other field there ("$ref was set alongside unsupported fields"). A field that does not restrict the
values is left out. If other fields are beside a reference, a copy of the definition takes the place of the reference,
with these fields added.
"""

from __future__ import annotations

from typing import Any, Final, final

from llm_protocol.content import JsonObject

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
