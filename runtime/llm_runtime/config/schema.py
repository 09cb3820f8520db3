"""The JSON Schema of the configuration file, made from the structs. For editors, and for checks in other languages."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from llm_protocol.secret import Secret
from llm_protocol.vendor import VendorTable
from llm_runtime.config.model import Config

NOT_IN_THE_FILE: Final = frozenset(("vendors", "reasons", "notes"))
"""Fields of `Config` that are not in the file."""

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kinds: VendorTable) -> dict[str, Any]:
    """Return the schema of a file whose providers have one of ``kinds``."""
    fields: list[tuple[str, Any, Any]] = [
        (each.name, each.type, msgspec.field(default_factory=dict))
        for each in msgspec.structs.fields(Config)
        if each.name not in NOT_IN_THE_FILE
    ]
    file = msgspec.defstruct("File", fields)
    _, components = msgspec.json.schema_components([file], schema_hook=_of_custom, ref_template="#/$defs/{name}")
    properties = components.pop("File")["properties"]
    components["Provider"]["properties"]["kind"] = {"enum": list(kinds)}
    return {
        "$schema": DIALECT,
        "title": "The configuration of llm-runtime",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _without_default(each) for name, each in properties.items()},
        "$defs": components,
    }


def _of_custom(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {
            "type": "string",
            "pattern": "^(env|file|cmd):.+",
            "description": "Where the secret is, not the secret.",
        }
    raise NotImplementedError(kind)


def _without_default(field: dict[str, Any]) -> dict[str, Any]:
    """Remove ``null`` and the default from an optional section, because TOML has no null."""
    found = {name: value for name, value in field.items() if name != "default"}
    if "anyOf" in found:
        choices = [each for each in found["anyOf"] if each != {"type": "null"}]
        return choices[0] if len(choices) == 1 else {"anyOf": choices}
    return found
