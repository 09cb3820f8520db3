"""Budgets: a ceiling on cost and tokens of the whole request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from llm_actors.catalog import Candidate
from llm_actors.orchestrator.strategies.budget import RequestBudget
from llm_protocol.estimate import Estimate
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Policy
from llm_protocol.requests import Parameters
from llm_protocol.response import Usage
from support.attempts import world
from support.panels import ask, members, outcomes, saying

TEN = Parameters(max_output_tokens=10)
"""So an attempt is expected to take some seven tokens in and ten out."""

A = Candidate("a", "m-a")


def cost_of(provider: str, model: str, usage: Usage) -> float | None:
    return None if provider == "z" else usage.total_tokens / 100


async def test_who_does_not_fit_is_not_asked_and_the_rest_goes_on(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")], b=[saying("two")], c=[saying("three")]) as w:
        asked = await ask(w, strategy="panel", max_tokens=40, parameters=TEN, synthesiser="longest")

        assert sorted(outcomes(asked).values()) == ["budget", "ok", "ok"]
        assert w.calls == 2
        [refused] = [each for each in members(asked).values() if each["outcome"] == "budget"]
        assert "it may take 1" in refused["error"]
        assert "of max_tokens are left" in refused["error"]


async def test_a_budget_for_nobody_is_a_failure(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")], b=[saying("two")]) as w:
        asked = await ask(w, strategy="panel", max_tokens=3)

        assert asked.failure is not None
        assert asked.failure.kind is FailureKind.BUDGET
        assert asked.failure.rule.status == 402
        assert w.calls == 0


async def test_a_synthesis_that_cannot_be_paid_degrades(autojump_clock: MockClock) -> None:
    small = Usage(input_tokens=5, output_tokens=2)
    async with world(a=[saying("one", usage=small)], b=[saying("two", usage=small)]) as w:
        asked = await ask(w, strategy="panel", max_tokens=40, parameters=TEN)

        assert asked.response.content == "one"
        assert asked.decision["synthesis"]["outcome"] == "degraded"
        assert asked.decision["synthesis"]["why"].startswith("budget: ")
        assert w.calls == 2


async def test_a_budget_reached_in_the_middle_of_an_answer_stops_it(autojump_clock: MockClock) -> None:
    """The vendor writes more than was put aside: it is stopped, down to its connection, and the others' answer is
    given.
    """
    async with world(a=[saying(*["wordy "] * 400, gap=0.01)], b=[saying("two")]) as w:
        parameters = Parameters(max_output_tokens=20)
        asked = await ask(w, strategy="panel", max_tokens=80, parameters=parameters, stream=False)

        assert outcomes(asked) == {"a/m-a": "budget", "b/m-b": "ok"}
        assert asked.response.content == "two"
        assert w["a"].aborted == 1
        assert asked.response.usage is not None
        assert asked.response.usage.total_tokens <= 80 + 27


async def test_max_cost_is_in_dollars(autojump_clock: MockClock) -> None:
    """At `a` a token costs a dollar, at `c` three."""
    async with world(a=[saying("one")], c=[saying("three")]) as w:
        asked = await ask(w, strategy="panel", max_cost=60.0, parameters=TEN, synthesiser="none")

    assert sorted(outcomes(asked).values()) in (["budget", "ok"], ["ok", "ok"])
    assert asked.response.cost is not None
    assert asked.response.cost <= 60 + 3 * 33


async def test_who_has_no_known_price_is_not_asked_under_max_cost(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")], z=[saying("two")]) as w:
        asked = await ask(w, strategy="panel", max_cost=1000.0)

        assert outcomes(asked) == {"a/m-a": "ok", "z/m-z": "budget"}
        assert "its price is not known" in members(asked)["z/m-z"]["error"]
        assert w["z"].calls == 0


@pytest.mark.parametrize("strategy", ["single", "fallback"])
async def test_a_budget_holds_for_a_single_answer_too(autojump_clock: MockClock, strategy: str) -> None:
    async with world(a=[saying("one")]) as w:
        refused = await ask(w, strategy=strategy, max_tokens=3)
        allowed = await ask(w, strategy=strategy, max_tokens=5_000)

        assert refused.failure is not None
        assert refused.failure.kind is FailureKind.BUDGET
        assert allowed.response.content == "one"
        assert w.calls == 1


async def test_a_single_answer_that_outgrows_its_budget_is_stopped_with_what_there_is(
    autojump_clock: MockClock,
) -> None:
    async with world(a=[saying(*["wordy "] * 400, gap=0.01)]) as w:
        asked = await ask(w, strategy="single", max_tokens=60, parameters=Parameters(max_output_tokens=20))

        assert asked.failure is not None
        assert asked.failure.kind is FailureKind.BUDGET
        assert asked.failure.partial
        assert asked.text.startswith("wordy ")
        assert w["a"].aborted == 1


async def test_a_request_can_lower_a_routes_ceiling_and_never_raise_it(autojump_clock: MockClock) -> None:
    routes = {"r": Policy(strategy="panel", members=("a/m-a", "b/m-b"), max_tokens=3)}
    async with world(a=[saying("one")], b=[saying("two")], routes=routes) as w:
        asked = await ask(w, model="r", max_tokens=1_000_000)

        assert asked.failure is not None
        assert asked.failure.kind is FailureKind.BUDGET
    assert Policy(max_cost=1.0).over(Policy(max_cost=5.0)).max_cost == 1.0


@given(
    limit=st.integers(1, 5_000),
    attempts=st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500), st.integers(0, 3_000)), max_size=12),
)
def test_a_ceiling_is_passed_by_less_than_one_members_share(limit: int, attempts: list[tuple[int, int, int]]) -> None:
    """All run at once, each writes as much as it likes until it is stopped; counts are exact."""
    ledger = RequestBudget(cost_of, None, limit)
    taken = 0
    for input_tokens, output_tokens, wanted in attempts:
        purse = ledger.purse(lambda: None)
        estimate = Estimate(input_tokens, output_tokens, input_tokens)
        if purse.refuses(A, estimate) is not None:
            continue
        hold = purse.hold(A, estimate)
        written = 0
        while written < wanted and not purse.overran:
            written += 1
            hold.grow(written * 4)
        hold.settle(Usage(input_tokens=input_tokens, output_tokens=written), 0.0)
        taken += input_tokens + written

    assert taken <= limit + 1
    assert ledger.holds == set()
    assert taken == (ledger.total.usage.total_tokens if ledger.total.usage else 0)


def test_what_is_put_aside_counts_until_it_is_settled() -> None:
    ledger = RequestBudget(cost_of, 1.0, None)
    first, second = ledger.purse(lambda: None), ledger.purse(lambda: None)
    sixty = Estimate(30, 30, 30)
    hold = first.hold(A, sixty)
    assert second.refuses(A, sixty) is not None

    hold.settle(Usage(input_tokens=10), 0.1)

    assert second.refuses(A, sixty) is None
    assert ledger.total.cost == 0.1


def test_an_unknown_cost_makes_the_total_unknown_and_stays_so() -> None:
    ledger = RequestBudget(cost_of)
    ledger.total.add(Usage(input_tokens=1), None)
    ledger.total.add(Usage(input_tokens=1), 0.5)
    assert ledger.total.cost is None
    assert ledger.total.usage == Usage(input_tokens=2)
