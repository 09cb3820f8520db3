"""Everything that names parameters names all of them: a field of `Parameters` that is added reaches every list."""

from __future__ import annotations

import pytest

from llm_actors.request_log.record import request_shape
from llm_protocol.content import Message
from llm_protocol.parameters.requested import CANONICAL, NAMES, with_own_parameters
from llm_protocol.requests import ChatRequest, LLMRequest, Parameters
from llm_runtime.options import ChatOptions, Options
from llm_runtime.telemetry.spans import PARAMETER_ATTRIBUTES

FIELDS = frozenset(Parameters.__struct_fields__)
OF_CLIENTS = {"wire", "headers"}
"""Only the server sets them, for a client of a wire."""
WITHOUT_ROW = OF_CLIENTS | {"extra", "lenient"}
WITHOUT_ATTRIBUTE = WITHOUT_ROW | {
    "stop", "reasoning_effort", "reasoning_budget", "reasoning_summary", "parallel_tool_calls", "user",
}  # fmt: skip
"""OpenTelemetry's conventions have no number for them; ``stop`` and ``user`` are texts of the caller."""
TELLING = WITHOUT_ROW | {"stop", "user", "reasoning_summary"}
"""Texts, which a redacted request log leaves out."""


def test_a_program_can_pass_every_parameter() -> None:
    assert Options.__optional_keys__ >= FIELDS - OF_CLIENTS
    of_request = {*LLMRequest.__struct_fields__, *ChatRequest.__struct_fields__}
    assert FIELDS | of_request >= ChatOptions.__optional_keys__


def test_every_parameter_has_a_row() -> None:
    assert {row.name for row in CANONICAL} == FIELDS - WITHOUT_ROW


@pytest.mark.parametrize("dialect", NAMES)
def test_extra_has_every_parameter_of_its_wire(dialect: str) -> None:
    wire = "openai_chat" if dialect == "cerebras" else dialect
    on_wire = {row.name for row in CANONICAL if "." not in row.wires.get(wire, ".")}
    assert set(NAMES[dialect].values()) == on_wire


def test_an_end_user_in_extra_is_the_parameter() -> None:
    asked = Parameters(extra={"openai_chat": {"user": "u-1", "top_k": 5}})
    request = ChatRequest(model="m", messages=(Message.of("user", "hi"),), parameters=asked)
    own = with_own_parameters(request, "openai_chat").parameters
    assert (own.user, own.top_k, own.extra) == ("u-1", 5, {"openai_chat": {}})


def test_a_redacted_request_log_has_every_number() -> None:
    numbers = dict.fromkeys(FIELDS - TELLING, 1)
    parameters = Parameters(**numbers, user="u-1", stop=("x",), reasoning_summary="auto")  # type: ignore[arg-type]
    request = ChatRequest(model="m", messages=(), parameters=parameters)
    assert request_shape(request)["parameters"] == numbers


def test_a_span_has_every_parameter_of_the_conventions() -> None:
    assert PARAMETER_ATTRIBUTES.keys() == FIELDS - WITHOUT_ATTRIBUTE
