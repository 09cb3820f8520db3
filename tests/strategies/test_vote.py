"""``vote``: what most of them say."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from llm_actors.orchestrator.strategies.merging import as_json, canonical
from support.attempts import stall, status, world
from support.panels import ask, outcomes, saying


async def test_the_majority_wins_and_the_split_is_reported(autojump_clock: MockClock) -> None:
    scripts: dict[str, Any] = {"a": [saying("Lyon")], "b": [saying("Paris")], "c": [saying("paris.", late=1)]}
    async with world(**scripts) as w:
        asked = await ask(w, strategy="vote")

    assert asked.response.content == "Paris"
    assert asked.decision["vote"] == {
        "split": [{"votes": 2, "members": ["b/m-b", "c/m-c"]}, {"votes": 1, "members": ["a/m-a"]}],
        "majority": True,
    }
    assert len(asked.response.members) == 2


async def test_json_is_compared_by_value(autojump_clock: MockClock) -> None:
    scripts: dict[str, Any] = {
        "a": [saying('{"city": "Paris", "n": 1}')],
        "b": [saying('```json\n{"n":1,"city":"Paris"}\n```')],
        "c": [saying('{"city": "Rome", "n": 1}')],
    }
    async with world(**scripts) as w:
        asked = await ask(w, strategy="vote")

    assert asked.decision["vote"]["split"][0] == {"votes": 2, "members": ["a/m-a", "b/m-b"]}
    assert asked.response.content == '{"city": "Paris", "n": 1}'


async def test_a_tie_goes_to_whoever_stands_first(autojump_clock: MockClock) -> None:
    async with world(a=[saying("yes", late=1)], b=[saying("no")]) as w:
        asked = await ask(w, strategy="vote")

    assert asked.response.content == "yes"
    assert asked.decision["vote"]["majority"] is False


async def test_the_others_are_cancelled_once_more_than_half_agree(autojump_clock: MockClock) -> None:
    scripts: dict[str, Any] = {"a": [saying("yes", late=1)], "b": [saying("Yes", late=2)], "c": [stall()]}
    async with world(**scripts) as w:
        asked = await ask(w, strategy="vote")

        assert asked.took == pytest.approx(2)
        assert outcomes(asked)["c/m-c"] == "cancelled"
        assert w["c"].aborted == 1


async def test_who_fails_has_no_vote(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[saying("no")], c=[saying("no")]) as w:
        asked = await ask(w, strategy="vote")

    assert asked.response.content == "no"
    assert asked.decision["vote"]["split"] == [{"votes": 2, "members": ["b/m-b", "c/m-c"]}]


async def test_one_model_can_be_asked_several_times(autojump_clock: MockClock) -> None:
    async with world(a=[saying("no"), saying("yes"), saying("yes")]) as w:
        asked = await ask(w, strategy="vote", members=("a/m-a",), samples=3)

    assert asked.response.content == "yes"
    assert len(asked.decision["members"]) == 3


async def test_nobody_voting_is_a_failure(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[status(401)]) as w:
        asked = await ask(w, strategy="vote")

    assert asked.failure is not None
    assert "none of 2 members" in asked.failure.message


async def test_numbers_are_compared_by_value(autojump_clock: MockClock) -> None:
    scripts: dict[str, Any] = {"a": [saying("3")], "b": [saying("2")], "c": [saying("2.0")]}
    async with world(**scripts) as w:
        asked = await ask(w, strategy="vote")

    assert asked.response.content in ("2", "2.0")
    assert asked.decision["vote"]["split"][0]["votes"] == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"n": 2}', '{"n": 2.0}'),
        ("[1e2]", "[100]"),
        ("-0.0", "0"),
        ('{"a": [1.0, {"b": 3}]}', '{"a":[1,{"b":3.0}]}'),
    ],
)
def test_the_same_value_is_the_same_ballot(one: str, other: str) -> None:
    assert canonical(as_json(one)) == canonical(as_json(other))


@pytest.mark.parametrize("text", ["1e300", "123456789012345678901234567890", "[" * 500 + "]" * 500, "9007199254740993"])
def test_odd_values_have_a_ballot_too(text: str) -> None:
    value = as_json(text)
    assert value is None or canonical(value)
