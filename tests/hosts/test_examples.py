"""The agent of docs/examples works on every host whose functions it awaits, for real."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hosts.adapters import HOSTS
from hosts.conftest import Upstream

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
AWAITING = {name: host for name, host in HOSTS.items() if "sync" not in name.split("-")}


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("host", AWAITING.values(), ids=AWAITING)
def test_the_agent_works_although_a_model_of_its_panel_always_breaks(
    host: Callable[..., None], upstream: Upstream
) -> None:
    example = loaded("agent")
    spending = example.Spending(limit=1.0)
    said: list[str] = []

    async def scenario(rt: Any) -> None:
        agent = example.Agent(rt, spending, said.append, model="fake/m", members=["fake/m", "fake/slow", "fake/broken"])
        report = await agent.work("How do tides work?")
        assert [note.topic for note in agent.notes] == ["tides", "the moon"]
        assert all(len(note.vector) == 16 for note in agent.notes)
        assert report.startswith("You said: Report on: How do tides work?")
        assert "- the moon:" in report

    host(scenario, upstream.config, observers=[spending])
    assert "tides: 3 answers" in said
    assert spending.runs == 1 + 2 * (2 + 1 + 1) + 1
    assert upstream.is_left()


@pytest.mark.parametrize("host", AWAITING.values(), ids=AWAITING)
def test_the_agent_stops_when_its_money_is_spent(host: Callable[..., None], upstream: Upstream) -> None:
    example = loaded("agent")
    said: list[str] = []

    async def scenario(rt: Any) -> None:
        await example.Agent(rt, example.Spending(limit=0.0), said.append, model="fake/m").work("How do tides work?")

    host(scenario, upstream.config)
    assert said[0] == "the money is spent"
