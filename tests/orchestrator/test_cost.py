"""Whose price counts: the model's that answered, where that is another one than was asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

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
    assert _cost(Candidate("gemini", asked), reported) == (None if cost is None else pytest.approx(cost))


def test_a_price_of_ones_own_holds_whatever_answered() -> None:
    asked = Candidate("gemini", "gemini-2.5-flash")
    assert _cost(asked, "gemini-3.8-flash", own=True) == _cost(asked, "gemini-2.5-flash")


def _cost(candidate: Candidate, reported: str, *, own: bool = False) -> float | None:
    services = SimpleNamespace(
        cost_of=lambda provider, model, usage: cost_of(provider, model, usage), has_own_price=lambda _: own
    )
    return Services.cost(cast("Services", services), candidate, reported, MILLION)
