"""Whose price counts: the model's that answered, where that is another one than was asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from llm_actors.catalog import Candidate
from llm_actors.orchestrator.services import Services
from llm_protocol.prices import cost_of
from llm_protocol.response import Usage

MILLION = Usage(input_tokens=1_000_000)


@pytest.mark.parametrize(
    ("asked", "reported", "cost"),
    [
        ("gemini-2.5-pro", "gemini-3.8-flash", 0.75),
        ("gemini-2.5-flash", "gemini-3.5-flash-lite", 0.3),
        ("gemini-3.8-flash", "", 0.75),
        ("gemini-3.8-flash", "models/gemini-3.8-flash", 0.75),
        ("gemini-3.8-flash", "something-unheard-of", 0.75),
        ("our-deployment", "gemini-3.8-flash", 0.75),
        ("our-deployment", "", None),
    ],
)
def test_a_rerouted_request_costs_what_its_answer_costs(asked: str, reported: str, cost: float | None) -> None:
    services = cast("Services", SimpleNamespace(cost_of=lambda provider, model, usage: cost_of(provider, model, usage)))
    found: Any = Services.cost(services, Candidate("gemini", asked), reported, MILLION)
    assert found == (None if cost is None else pytest.approx(cost))
