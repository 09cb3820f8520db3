"""Python types as JSON schemas for models, and models' JSON as values of those types.

A type is anything msgspec supports (Struct, dataclass, TypedDict, lists, unions, …) or a pydantic model.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from llm_protocol.content import JsonObject

DEPTH: Final = 20
"""The nesting depth down to which references are expanded. A type that contains itself keeps references to ``$defs``.
"""


class DoesNotFitError(ValueError):
    """A text is not JSON of its type; the message says where and why."""


def schema_of(kind: Any) -> JsonObject:
    """The JSON schema of a type. Objects are closed (``additionalProperties`` is false), as strict modes require.

    Raises `TypeError` for a type that has no schema.
    """
    if (pydantic := _pydantic(kind)) is not None:
        whole = cast("JsonObject", pydantic.model_json_schema())
    else:
        try:
            whole = msgspec.json.schema(kind)
        except (TypeError, NotImplementedError) as exc:
            raise TypeError(f"there is no JSON schema for {_name(kind)}: {str(exc).splitlines()[0]}") from None
    return cast("JsonObject", _closed(_inlined(whole)))


def fits(kind: Any, text: str | bytes) -> Any:
    """The value of ``text``, which is JSON of type ``kind``. Raises `DoesNotFitError`."""
    try:
        if (pydantic := _pydantic(kind)) is not None:
            return pydantic.model_validate_json(text)
        return msgspec.json.decode(text, type=kind, dec_hook=_as_pydantic)
    except (msgspec.DecodeError, ValueError) as exc:  # pydantic's error is a ValueError
        raise DoesNotFitError(str(exc)) from None
    except RecursionError:
        raise DoesNotFitError("it is nested too deeply") from None


def is_object(schema: JsonObject) -> bool:
    """Whether ``schema`` is the schema of an object, which vendors require at the top level."""
    return schema.get("type") == "object"


def _pydantic(kind: Any) -> Any:
    return kind if isinstance(kind, type) and hasattr(kind, "model_json_schema") else None


def _as_pydantic(kind: Any, value: object) -> Any:
    """Convert a part of a value to a pydantic model. msgspec calls this for types that it does not know. Raises
    `ValueError` if the part does not fit.
    """
    if (pydantic := _pydantic(kind)) is None:
        raise TypeError(f"{_name(kind)} has no JSON schema")
    return pydantic.model_validate_json(msgspec.json.encode(value))


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


def _inlined(schema: JsonObject) -> JsonObject:
    """The schema without ``$defs``, which some vendors do not support, unless a type contains itself."""
    definitions = cast("dict[str, JsonObject]", schema.get("$defs", {}))
    top = {key: value for key, value in schema.items() if key != "$defs"}
    try:
        return cast("JsonObject", _written_out(top, definitions, ()))
    except RecursionError:
        reference = top.get("$ref")
        if isinstance(reference, str):  # vendors require an object at the top level
            return {**definitions[_target(reference)], "$defs": definitions}
        return schema


def _written_out(node: Any, definitions: dict[str, JsonObject], inside: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_written_out(each, definitions, inside) for each in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        name = _target(reference)
        if name in inside or len(inside) >= DEPTH:
            raise RecursionError
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return {**_written_out(definitions[name], definitions, (*inside, name)), **beside}
    return {key: _written_out(value, definitions, inside) for key, value in node.items()}


def _target(reference: str) -> str:
    return reference.removeprefix("#/$defs/")


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed
