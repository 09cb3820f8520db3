"""Gemini refuses a reference in a schema with anything beside it but a description and a default."""

from __future__ import annotations

from typing import Any

import pytest

from llm_protocol.codec.json import decode_object
from llm_protocol.codec.schemas import with_plain_refs
from llm_protocol.content import JsonObject, Message, ResponseFormat, Tool
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.gemini import Gemini

NAME = {"type": "string", "description": "A name.", "minLength": 1}
REF = {"$ref": "#/$defs/Name"}


def of(value: Any, name: JsonObject = NAME) -> JsonObject:
    return {"type": "object", "properties": {"x": value}, "$defs": {"Name": name}}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (REF, REF),
        ({**REF, "description": "Whose", "default": "a"}, {**REF, "description": "Whose", "default": "a"}),
        ({**REF, "title": "X", "examples": ["a"], "description": "Whose"}, {**REF, "description": "Whose"}),
        ({**REF, "minLength": 3}, {**NAME, "minLength": 3}),
        (
            {**REF, "title": "X", "maxLength": 9, "description": "Whose"},
            {**NAME, "maxLength": 9, "description": "Whose"},
        ),
        ({"type": "array", "items": {**REF, "title": "X"}}, {"type": "array", "items": REF}),
        ({"anyOf": [{**REF, "title": "X"}, {"type": "null"}]}, {"anyOf": [REF, {"type": "null"}]}),
        ({"$ref": "https://elsewhere.example/s", "minLength": 3}, {"$ref": "https://elsewhere.example/s"}),
        ({"$ref": "#/$defs/Gone/on", "minLength": 3}, {"$ref": "#/$defs/Gone/on"}),
        ({"enum": [{**REF, "title": "X"}]}, {"enum": [{**REF, "title": "X"}]}),
        ({"properties": {"$ref": {"type": "string"}, "a": {}}}, {"properties": {"$ref": {"type": "string"}, "a": {}}}),
    ],
)
def test_what_is_beside_a_reference(given: JsonObject, sent: JsonObject) -> None:
    assert with_plain_refs(of(given)) == of(sent)


def test_a_schema_that_refers_to_itself_is_copied_once() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Name", "minProperties": 1}}}
    plain = {"type": "object", "properties": {"next": REF}}
    fitted = with_plain_refs(of({**REF, "maxProperties": 2}, node))
    assert fitted["properties"]["x"] == {**plain, "maxProperties": 2}


def test_the_copies_are_bounded() -> None:
    fitted = with_plain_refs({"anyOf": [{**REF, "minLength": at} for at in range(10_000)], "$defs": {"Name": NAME}})
    assert sum("$ref" not in each for each in fitted["anyOf"]) == 64


def test_tools_and_formats_are_sent_so() -> None:
    schema = of({**REF, "title": "X"})
    request = ChatRequest(
        model="gemini-3.8-flash",
        messages=(Message.of("user", "hi"),),
        tools=(Tool(name="f", parameters=schema),),
        response_format=ResponseFormat(type="json_schema", schema=schema),
    )
    body = decode_object(Gemini().encode_request(request, stream=False).body)
    assert body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"] == of(REF)
    assert body["generationConfig"]["responseJsonSchema"] == of(REF)


@pytest.mark.parametrize("name", ["default", "enum", "const", "examples", "title", "$ref"])
def test_a_property_may_have_any_name(name: str) -> None:
    """Such a name is a keyword of JSON schemas, whose value may be data: the property was left as it was."""
    schema = {
        "type": "object",
        "properties": {name: {"$ref": "#/$defs/Color", "title": "Color"}},
        "$defs": {"Color": {"type": "string", "enum": ["red"]}},
    }
    assert with_plain_refs(schema)["properties"] == {name: {"$ref": "#/$defs/Color"}}
