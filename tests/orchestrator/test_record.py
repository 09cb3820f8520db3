"""How the decision record says who failed."""

from __future__ import annotations

import pytest

from llm_actors.orchestrator.decision_record import about


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Connection refused", "one/m: Connection refused"),
        ("one: http://127.0.0.1:1: Connection refused", "one/m: http://127.0.0.1:1: Connection refused"),
        ("one/m: not tried, because it rests", "one/m: not tried, because it rests"),
        ("only one: of many", "one/m: only one: of many"),
        ("", "one/m: "),
    ],
)
def test_a_name_is_said_once(said: str, told: str) -> None:
    """Some failures begin with the provider's name, since they are told alone, too."""
    assert about("one/m", said) == told
