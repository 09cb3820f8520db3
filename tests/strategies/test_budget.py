"""Budgets: a ceiling on cost and tokens of the whole request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from llm_actors.catalog import Candidate
from llm_actors.orchestrator.strategies.budget import MemberBudget, MemberHold, RequestBudget
from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.estimate import Estimate
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Policy
from llm_protocol.requests import ChatRequest, Parameters
from llm_protocol.response import FinishReason, Usage
from support.attempts import world
from support.billing import Ledger, billing
from support.panels import ask, members, outcomes, saying

TEN = Parameters(max_output_tokens=10)
"""So an attempt is expected to take some seven tokens in and ten out."""

A = Candidate("a", "m-a")
REQUEST = ChatRequest(messages=(Message.of("user", "q"),))


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
    obey=st.booleans(),
    later=st.integers(0, 3),
)
def test_a_ceiling_is_passed_by_less_than_one_members_share(
    limit: int, attempts: list[tuple[int, int, int]], obey: bool, later: int
) -> None:
    """All run at once. Vendors write as much as they like until they are stopped, or until they have written what they
    were allowed to; counts are exact.
    """
    ledger = RequestBudget(cost_of, None, limit)
    estimates = {ledger.budget(lambda: None): Estimate(into, out, into) for into, out, _ in attempts}
    wanted = dict(zip(estimates, (wanted for _, _, wanted in attempts), strict=True))
    left_out = ledger.admit({budget: ledger.expected(A, each) for budget, each in estimates.items()}, later)
    held: dict[MemberBudget, MemberHold] = {}
    for budget, estimate in estimates.items():
        if budget not in left_out and budget.refuses(A, estimate, REQUEST) is None:
            held[budget] = budget.hold(A, estimate, REQUEST)
    taken = 0
    for budget, hold in held.items():
        assert hold.most is not None
        written = 0
        while written < (min(wanted[budget], hold.most) if obey else wanted[budget]) and not budget.overran:
            written += 1
            hold.grow(written)
        assert not (obey and budget.overran), "who keeps to what it may write is never stopped"
        hold.settle(Usage(input_tokens=estimates[budget].input_tokens, output_tokens=written), 0.0)
        taken += estimates[budget].input_tokens + written

    assert taken <= limit + (0 if obey else len(held))
    assert ledger.holds == set()
    assert taken == (ledger.total.usage.total_tokens if ledger.total.usage else 0)


def test_what_is_put_aside_counts_until_it_is_settled() -> None:
    ledger = RequestBudget(cost_of, 1.0, None)
    first, second = ledger.budget(lambda: None), ledger.budget(lambda: None)
    sixty = Estimate(30, 30, 30)
    hold = first.hold(A, sixty, REQUEST)
    assert hold.most == 70
    assert second.refuses(A, sixty, REQUEST) is not None

    hold.settle(Usage(input_tokens=10), 0.1)

    assert second.refuses(A, sixty, REQUEST) is None
    assert second.hold(A, sixty, REQUEST).most == 60
    assert ledger.total.cost == 0.1


async def test_the_vendor_is_told_how_much_is_left(autojump_clock: MockClock) -> None:
    ledger = Ledger()
    async with world(a=[billing(ledger, words=400)]) as w:
        asked = await ask(w, "word" * 100, strategy="single", max_tokens=300)

    [bill] = ledger.bills
    assert bill.most is not None
    assert bill.input_tokens + bill.most == pytest.approx(300, abs=10)
    assert asked.failure is None
    assert asked.response.finish_reason is FinishReason.LENGTH
    assert [each["max_output_tokens"] for each in asked.attempts] == [bill.most], "that it was lowered is told"
    assert sum(ledger.total()) <= 310


async def test_a_limit_that_the_budget_leaves_as_it_is_is_not_told(autojump_clock: MockClock) -> None:
    budgets: list[dict[str, Any]] = [{}, {"max_tokens": 100_000}]
    for budget in budgets:
        async with world(a=[billing(Ledger(), words=5)]) as w:
            request = w.request(strategy="single", **budget)
            run = Run(msgspec.structs.replace(request, parameters=Parameters(max_output_tokens=50)), stream=True)
            await w.hand_in(run)
            asked = await w.see(run, trio.current_time())
        assert all("max_output_tokens" not in each for each in asked.attempts)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_limit_that_the_client_named_and_a_budget_lowers_is_told_as_adjusted(
    stream: bool, autojump_clock: MockClock
) -> None:
    ledger = Ledger()
    async with world(a=[billing(ledger, words=400)]) as w:
        request = w.request(strategy="single", max_tokens=300, prompt="word" * 100)
        parameters = Parameters(max_output_tokens=1_000, wire="openai_chat")
        run = Run(msgspec.structs.replace(request, parameters=parameters), stream=stream)
        await w.hand_in(run)
        asked = await w.see(run, trio.current_time())
    [bill] = ledger.bills
    assert [each.to_json() for each in asked.response.adjusted] == [
        {"parameter": "max_tokens", "action": "translated", "to": bill.most}
    ]


async def test_hidden_reasoning_counts(autojump_clock: MockClock) -> None:
    """Fifteen thousand tokens of it were used under ``max_tokens = 1000``."""
    ledger = Ledger()
    async with world(a=[billing(ledger, words=30, hidden=15_000)]) as w:
        asked = await ask(w, strategy="single", max_tokens=1_000)

    assert sum(ledger.total()) <= 1_010
    assert asked.response.finish_reason is FinishReason.LENGTH


async def test_max_cost_becomes_tokens_by_the_candidates_price(autojump_clock: MockClock) -> None:
    """At `c` a token costs three dollars."""
    ledger = Ledger()
    async with world(c=[billing(ledger, words=400)]) as w:
        asked = await ask(w, "word" * 100, strategy="single", max_cost=600.0)

    assert asked.response.cost is not None
    assert 500 <= asked.response.cost <= 630
    assert asked.failure is None


async def test_the_budget_stops_who_matters_least_and_the_others_finish(autojump_clock: MockClock) -> None:
    ledger = Ledger()
    long = [billing(ledger, words=300, gap=0.01)]
    async with world(a=long, b=long, c=long) as w:
        for name in "abc":
            await ask(w, strategy="single", candidates=(f"{name}/m-{name}",))  # so that it is known what they write
        del ledger.bills[:]
        asked = await ask(w, strategy="panel", max_tokens=700, synthesiser="none")

    assert outcomes(asked) == {"a/m-a": "ok", "b/m-b": "ok", "c/m-c": "budget"}
    assert {member.finish_reason for member in asked.response.members} == {FinishReason.STOP}
    assert sum(ledger.total()) <= 700


def test_a_reasoning_budget_fits_into_what_is_left() -> None:
    ledger = RequestBudget(cost_of, None, 3_000)
    asked = ChatRequest(messages=(Message.of("user", "q"),), parameters=Parameters(reasoning_budget=8_000))
    hold = ledger.budget(lambda: None).hold(A, Estimate(10, 10, 10), asked)

    limited = hold.limit(asked).parameters
    assert limited.max_output_tokens == 2_990
    assert limited.reasoning_budget == 1_495


def test_an_unknown_cost_makes_the_total_unknown_and_stays_so() -> None:
    ledger = RequestBudget(cost_of)
    ledger.total.add(Usage(input_tokens=1), None)
    ledger.total.add(Usage(input_tokens=1), 0.5)
    assert ledger.total.cost is None
    assert ledger.total.usage == Usage(input_tokens=2)


def test_an_attempt_of_unknown_cost_takes_what_was_put_aside_and_gives_back_nothing_else() -> None:
    """Such as one with a web search without a known price, although the tokens have one."""
    ledger = RequestBudget(cost_of, 1.0, None)
    first, second = ledger.budget(lambda: None), ledger.budget(lambda: None)
    first.hold(A, Estimate(10, 10, 10), REQUEST).settle(Usage(input_tokens=10), 0.4)
    hold = second.hold(A, Estimate(10, 10, 10), REQUEST)
    aside = hold.cost
    assert ledger.cost_left == pytest.approx(1.0 - 0.4 - aside)
    hold.settle(Usage(input_tokens=10, output_tokens=5), None)

    assert ledger.cost_left == pytest.approx(1.0 - 0.4 - aside)
    assert ledger.total.cost is None, "what it cost in all stays unknown"

    ledger.budget(lambda: None).hold(A, Estimate(0, 0, 0), REQUEST).settle(None, None)
    assert ledger.cost_left == pytest.approx(1.0 - 0.4 - aside), "what used nothing costs nothing"
