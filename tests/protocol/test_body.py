"""The reader of client bodies, and the rules that hold on every wire because each of them reads with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_protocol.codec.body import Body, ResponseObject, reading_response
from llm_protocol.codec.json import WireError
from llm_protocol.dialect import ServerDialect
from llm_protocol.errors import BadRequestError
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.anthropic import AnthropicServer
from llm_protocol.wires.cohere import CohereServer
from llm_protocol.wires.gemini import GeminiServer
from llm_protocol.wires.openai_chat import OpenAIChatServer
from llm_protocol.wires.responses import OpenAIResponsesServer

HI = [{"role": "user", "content": "Hi"}]
WIRES: dict[str, tuple[ServerDialect, str, dict[str, Any]]] = {
    "openai_chat": (OpenAIChatServer(), "/v1/chat/completions", {"model": "m", "messages": HI}),
    "openai_responses": (OpenAIResponsesServer(), "/v1/responses", {"model": "m", "input": HI}),
    "anthropic": (AnthropicServer(), "/v1/messages", {"model": "m", "max_tokens": 9, "messages": HI}),
    "cohere": (CohereServer(), "/v2/chat", {"model": "m", "messages": HI}),
    "gemini": (GeminiServer(), "/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}),
}


def read(wire: str, fields: dict[str, Any]) -> ChatRequest:
    server, path, body = WIRES[wire]
    request = server.decode_request(path, json.dumps(body | fields).encode()).request
    assert isinstance(request, ChatRequest)
    return request


@pytest.mark.parametrize("wire", WIRES)
def test_null_counts_as_absent(wire: str) -> None:
    temperature: dict[str, Any] = {"temperature": None}
    fields = {"generationConfig": temperature} if wire == "gemini" else temperature
    assert read(wire, {**fields, "tools": None, "unknown": None}).parameters == read(wire, {}).parameters


@pytest.mark.parametrize("wire", WIRES)
def test_unknown_fields_are_kept_for_the_same_wire(wire: str) -> None:
    assert read(wire, {"novel": {"a": [1]}}).parameters.extra == {wire: {"novel": {"a": [1]}}}


@pytest.mark.parametrize("wire", WIRES)
def test_a_transport_field_is_refused_wherever_it_is(wire: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(wire, {"novel": {"a": [{"api_key": "secret"}]}})
    assert caught.value.failure.param == "novel.a[0].api_key"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("wire", "fields", "message"),
    [
        ("openai_chat", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ("anthropic", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ("openai_responses", {"input": [{"role": "user", "content": [{"type": "text"}]}]}, "input[0].content[0].text"),
        ("cohere", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("gemini", {"contents": [{"parts": [{"functionCall": {}}]}]}, "contents[0].parts[0].functionCall.name"),
    ],
)
def test_an_error_names_the_path_of_the_field(wire: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(wire, fields)
    assert caught.value.failure.param == message
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("missing")


@pytest.mark.parametrize(
    ("reader", "value", "message"),
    [
        ("string", 3, "p.f must be a string"),
        ("kind", None, "p.type must be a string; it is missing"),
        ("integer", 1.5, "p.f must be a whole number"),
        ("integer", True, "p.f must be a whole number"),
        ("number", "1", "p.f must be a number"),
        ("number", 10**400, "p.f must be a number"),
        ("boolean", 1, "p.f must be true or false"),
        ("strings", [1], "p.f must be a string or a list of strings"),
        ("object", [], "p.f must be an object"),
        ("required_object", None, "p.f must be an object; it is missing"),
        ("objects", {}, "p.f must be a list of objects"),
        ("objects", [{}, 1], "p.f[1] must be an object"),
        ("text_or_objects", 1, "p.f must be a string or a list of objects"),
        ("required_text_or_objects", None, "p.f must be a string or a list of objects; it is missing"),
    ],
)
def test_each_reader_says_what_would_be_right(reader: str, value: object, message: str) -> None:
    body = Body({"f": value}, "p")
    with pytest.raises(BadRequestError) as caught:
        getattr(body, reader)(*(() if reader == "kind" else ("f",)))
    assert str(caught.value) == message


def test_bounds_and_words_are_named() -> None:
    body = Body({"n": -1, "t": 1.5, "w": "x"})
    for read_it, message in (
        (lambda: body.integer("n", 0), "n must be a whole number of at least 0"),
        (lambda: body.number("n", 0), "n must be a number of at least 0"),
        (lambda: body.number("t", 0, 1), "t must be a number from 0 to 1"),
        (lambda: body.word("w", ("a", "b")), "w must be one of a, b"),
        (lambda: body.required_word("v", ("a", "b")), "v must be one of a, b; it is missing"),
    ):
        with pytest.raises(BadRequestError) as caught:
            read_it()
        assert str(caught.value) == message
    assert (body.integer("n", -1), body.number("t", 1, 2), body.word("w", {"x": 1}), body.word("v", ())) == (
        -1,
        1.5,
        "x",
        None,
    )


def test_a_response_may_have_numbers_for_ids_and_fields_of_any_name() -> None:
    found = ResponseObject({"id": 7, "headers": {}})
    assert found.string("id") == "7"
    assert found.rest() == {"headers": {}}


def test_a_wrong_field_of_a_response_is_not_the_clients_fault() -> None:
    with pytest.raises(WireError, match=r"^text must be a string$"), reading_response():
        ResponseObject({"text": []}).string("text")
