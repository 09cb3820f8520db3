"""Every cell of the table is sent: read as a client of a wire says it, adapted, encoded, and looked for in the body."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_protocol.adjustments import Adjustment, header_value
from llm_protocol.dialect import ClientDialect
from llm_protocol.errors import UnsupportedError
from llm_protocol.parameters.requested import value_at
from llm_protocol.parameters.rows import Parameter
from llm_protocol.parameters.table import SECTIONS
from llm_protocol.parameters.targets import TARGETS
from llm_protocol.requests import ChatRequest
from llm_protocol.vendor_profile import CEREBRAS, COMPATIBLE, LOCAL, OPENAI
from llm_protocol.wires.anthropic import Anthropic, AnthropicServer
from llm_protocol.wires.cohere import Cohere, CohereServer
from llm_protocol.wires.gemini import Gemini, GeminiServer
from llm_protocol.wires.openai_chat import OpenAIChat, OpenAIChatServer
from llm_protocol.wires.responses import OpenAIResponses, OpenAIResponsesServer
from support.parameter_cells import COMMON, MODELS, OWN, PLACES, body_with, common_body
from support.parameter_table import page

CLIENTS: dict[str, ClientDialect] = {
    "openai": OpenAIChat(OPENAI),
    "responses": OpenAIResponses(),
    "cerebras": OpenAIChat(CEREBRAS),
    "compatible": OpenAIChat(COMPATIBLE),
    "local": OpenAIChat(LOCAL),
    "anthropic": Anthropic(),
    "gemini": Gemini(),
    "cohere": Cohere(),
}
SERVERS: dict[str, Any] = {
    "openai_chat": OpenAIChatServer(),
    "openai_responses": OpenAIResponsesServer(),
    "anthropic": AnthropicServer(),
    "gemini": GeminiServer(),
    "cohere": CohereServer(),
}


def read(wire: str, body: dict[str, Any]) -> ChatRequest:
    """The chat in a body of ``wire``."""
    path = PLACES[wire][0].format(model="m")
    request = SERVERS[wire].decode_request(path, json.dumps({"model": "m", **body}).encode()).request
    assert isinstance(request, ChatRequest)
    return request


def said(wire: str, path: str, value: Any) -> ChatRequest:
    """A chat in which a client of ``wire`` says ``value`` at ``path``."""
    return read(wire, body_with(wire, path, value))


def name_of(value: object) -> str:
    return str(getattr(value, "name", value))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("row", "wire"), [(row, wire) for row in OWN for wire in row.wires], ids=name_of)
def test_a_field_of_a_wire_meets_what_its_cell_says(row: Parameter, wire: str, target: str) -> None:
    client, cell, path = CLIENTS[target], row.cell(TARGETS[target]), row.wires[wire]
    request = said(wire, path, row.example).to(MODELS.get(target, "m"))
    if cell.action == "refuse":
        with pytest.raises(UnsupportedError) as caught:
            client.adapt(request)
        assert caught.value.failure.param == path
        return
    adapted = client.adapt(request)
    body = json.loads(client.encode_request(adapted.request, stream=False).body)
    told = {each.parameter: each.action for each in adapted.adjusted}
    name = row.wires.get("openai_chat" if target == "cerebras" else TARGETS[target].wire)
    found = None if name is None else value_at(body, name)
    match cell.action:
        case "send":
            assert found is not None
            assert path not in told
        case "translate":
            assert cell.how is not None
            assert told.get(path) == ("left_out" if found is None else None if found == row.example else "translated")
        case _:
            assert told.get(path) == "left_out"
            assert target in ("local", "compatible") or found is None or found != row.example


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("row", COMMON, ids=lambda row: row.name)
def test_a_common_parameter_meets_what_its_cell_says(row: Parameter, target: str) -> None:
    wire, body = common_body(row)
    request = read(wire, body)
    adapted = CLIENTS[target].adapt(request.to(MODELS.get(target, "m")))
    told = {each.parameter: each.action for each in adapted.adjusted}
    name, action = row.wires[wire], row.cell(TARGETS[target]).action
    if action == "leave out":
        assert told.get(name) == "left_out"
        assert getattr(adapted.request.parameters, row.name) in (None, ())
    elif action == "emulate":
        assert told.get(name) == "emulated"
        assert adapted.filters
    elif action == "translate":
        assert told.get(name) == "translated"
    else:
        assert told.get(name) in (None, "translated")


def test_what_asks_for_nothing_is_left_out_without_a_word() -> None:
    for row in OWN:
        for value in row.neutral:
            for wire, path in row.wires.items():
                for target, client in CLIENTS.items():
                    if row.cell(TARGETS[target]).action in ("leave out", "refuse") and TARGETS[target].wire != wire:
                        assert client.adapt(said(wire, path, value)).adjusted == (), (row.name, value, target)


def test_a_field_that_has_no_row_is_meaning() -> None:
    """It goes on where the own wire is spoken, and is refused by name elsewhere."""
    request = said("openai_chat", "brand_new", 1)
    for target, client in CLIENTS.items():
        if TARGETS[target].wire == "openai_chat":
            body = json.loads(client.encode_request(client.adapt(request).request, stream=False).body)
            assert body["brand_new"] == 1
        else:
            with pytest.raises(UnsupportedError, match="brand_new"):
                client.adapt(request)


def test_the_page_shows_each_row_once() -> None:
    names = [row.name for rows in SECTIONS.values() for row in rows]
    assert all(f"`{name}`" in page() for name in names)


def test_the_header_is_a_list_of_rfc_9651() -> None:
    adjusted = (Adjustment("seed", "left_out"), Adjustment('a"\nb', "translated", "é\\"))
    assert header_value(adjusted) == '"seed";action=left_out, "a\\"?b";action=translated;to="?\\\\"'
    assert header_value(()) is None
    assert len(header_value([Adjustment("x" * 200, "left_out")] * 100) or "") <= 2_048
