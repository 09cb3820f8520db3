"""The books of budgets: what is refused, what comes back, and which window it is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.limiter.budget_window import Amount, Portion, Told
from llm_actors.limiter.budgets import BudgetHold, BudgetRefused, Budgets, SpendAsk
from llm_protocol.budgets import Budget, Payer, Per, window_at

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
DAY = 86_400


def ask(usd: float | None, tokens: int = 10, *, caller: str = "me", **more: float | None) -> SpendAsk:
    costs = {"p": usd, **more}
    return SpendAsk(Payer("run", caller, "team", "route"), costs, {"p": "m"}, 1, tokens)


def refused(found: BudgetHold | BudgetRefused) -> str:
    assert isinstance(found, BudgetRefused)
    return found.why


@pytest.mark.parametrize(
    ("per", "start", "end"),
    [
        ("minute", "2028-02-29T23:59:00Z", "2028-03-01T00:00:00Z"),
        ("day", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"),
        ("month", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
    ],
)
def test_windows_are_the_calendars(per: Per, start: str, end: str) -> None:
    window = window_at(per, datetime.fromisoformat("2028-02-29T23:59:59.9Z").timestamp())
    assert [datetime.fromtimestamp(each, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for each in window] == [start, end]


def test_what_is_reserved_counts_and_what_was_not_used_comes_back() -> None:
    budgets = Budgets({"b": Budget(usd=1.0, per="day")})
    assert isinstance(budgets.reserve(1, ask(0.6), NOON), BudgetHold)
    why = refused(budgets.reserve(2, ask(0.6), NOON))
    assert why == (
        'budget "b" has $0.4000 of $1.00 (needed: about $0.6000) left for this day; '
        "it resets at 2026-12-01T00:00:00Z, in 43200 s"
    )
    budgets.end(1, usd=0.1, tokens=3)
    assert isinstance(budgets.reserve(3, ask(0.9), NOON), BudgetHold)
    assert budgets.release(3)
    assert not budgets.release(3)
    assert budgets.statistics(NOON)["b"].usd == pytest.approx(0.1)


def test_a_request_is_paid_by_all_budgets_that_name_it_or_by_none() -> None:
    table = {
        "all": Budget(usd=10.0),
        "mine": Budget(usd=1.0, keys=("me",)),
        "theirs": Budget(usd=0.1, keys=("they",)),
        "few": Budget(tokens=100, teams=("team",), routes=("route",)),
    }
    budgets = Budgets(table)
    held = budgets.reserve(1, ask(0.5, 60), NOON)
    assert isinstance(held, BudgetHold)
    assert {part.name for part in held.parts} == {"all", "mine", "few"}
    assert '"few"' in refused(budgets.reserve(2, ask(0.1, 60), NOON))
    assert budgets.statistics(NOON)["mine"].usd == 0.5, "what one refuses, the others do not have"


def test_who_cannot_be_paid_is_left_out_and_the_dearest_of_the_others_is_reserved() -> None:
    budgets = Budgets({"b": Budget(usd=1.0)})
    held = budgets.reserve(1, ask(2.0, cheap=0.2, middle=0.5, secret=None), NOON)
    assert isinstance(held, BudgetHold)
    assert held.names == ("cheap", "middle")
    assert held.parts[0].amount.usd == 0.5


@pytest.mark.parametrize(("unknown", "counted"), [("allow", 0.0), (5.0, 0.005), ("refuse", None)])
def test_a_price_that_is_not_known(unknown: str | float, counted: float | None) -> None:
    budgets = Budgets({"b": Budget(usd=1.0, unknown_price=unknown)})  # type: ignore[arg-type]
    held = budgets.reserve(1, ask(None, 1_000), NOON)
    if counted is None:
        assert refused(held) == (
            'budget "b": the price of p/m is not known; '
            'the configuration needs [prices."p/m"], or unknown_price = "allow" in [budgets.b]'
        )
        return
    budgets.end(1, usd=None, tokens=1_000)
    assert budgets.statistics(NOON)["b"].usd == counted


def test_a_run_over_midnight_counts_where_it_began() -> None:
    budgets = Budgets({"b": Budget(usd=1.0, per="day")})
    assert isinstance(budgets.reserve(1, ask(0.9), NOON), BudgetHold)
    tomorrow = NOON + DAY
    assert isinstance(budgets.reserve(2, ask(0.9), tomorrow), BudgetHold)
    budgets.end(1, usd=5.0, tokens=1)
    assert budgets.statistics(tomorrow)["b"].usd == 0.9


def test_a_wall_clock_that_is_set_forth_and_back_finds_its_window_as_it_was() -> None:
    budgets = Budgets({"b": Budget(usd=1.0, per="day")})
    budgets.reserve(1, ask(0.9), NOON)
    budgets.end(1, usd=0.9, tokens=1)
    for number, jump in enumerate((400 * DAY, -400 * DAY, DAY)):
        assert isinstance(budgets.reserve(10 + number, ask(0.5), NOON + jump), BudgetHold)
    assert isinstance(budgets.reserve(20, ask(0.5), NOON), BudgetRefused)


def test_what_was_spent_before_the_start_counts() -> None:
    budgets = Budgets({"b": Budget(usd=1.0, per="day")})
    payer = Payer("", "me")
    budgets.load([("gone", payer, NOON, 0.3, 5), ("gone", payer, NOON, None, 5), ("gone", payer, NOON - DAY, 9.0, 5)])
    assert budgets.statistics(NOON)["b"].usd == 0.3
    assert isinstance(budgets.reserve(1, ask(0.8), NOON), BudgetRefused)


def test_alone_each_keeps_to_its_share_and_says_so() -> None:
    budgets = Budgets({"b": Budget(usd=1.0, per="day")}, shared=True)
    assert "has not yet reported the spending of this day" in refused(budgets.reserve(1, ask(0.01), NOON))
    budgets.join()
    state = budgets.state("b", NOON)
    assert isinstance(budgets.reserve(2, ask(0.2), NOON), BudgetHold)
    theirs = {"other": Portion(Amount(0.4, 0), Amount(0.45, 0), gone=False)}
    told = Told(theirs, share=Amount(0.3, 0), spare=Amount(0.1, 0), complete=True)
    budgets.heard(state, told, budgets.ask([state]))
    assert budgets.statistics(NOON)["b"].usd == pytest.approx(0.6)
    why = refused(budgets.reserve(3, ask(0.9), NOON))
    assert "has $0.3500 of $1.00" in why, "what is set aside for others is not there"
    budgets.go_alone()
    assert isinstance(budgets.reserve(4, ask(0.1), NOON), BudgetHold)
    why = refused(budgets.reserve(5, ask(0.01), NOON))
    assert "of this process's share, while Redis is unreachable" in why


def test_past_the_soft_limit_it_is_told() -> None:
    budgets = Budgets({"b": Budget(usd=1.0, per="day", soft=0.5)})
    first = budgets.reserve(1, ask(0.4), NOON)
    second = budgets.reserve(2, ask(0.2), NOON)
    assert isinstance(first, BudgetHold)
    assert isinstance(second, BudgetHold)
    assert (first.warning, second.warning) == ("", "b=0.60")
    assert [*budgets.newly_warned(NOON)] == ["b"]
    assert [*budgets.newly_warned(NOON)] == []


@given(
    st.lists(
        st.tuples(st.sampled_from(["reserve", "end", "release"]), st.floats(0.001, 0.5), st.integers(0, 3)),
        max_size=60,
    )
)
def test_no_more_is_reserved_than_there_is(steps: list[tuple[str, float, int]]) -> None:
    """Whatever happens, what is granted fits; only what is spent beyond its reservation can be too much."""
    budgets, overrun, at = Budgets({"b": Budget(usd=1.0, per="day")}), 0.0, NOON
    for number, (step, usd, which) in enumerate(steps):
        numbers = sorted(budgets.holds)
        if step == "reserve":
            budgets.reserve(number, ask(usd), at)
        elif numbers:
            chosen = numbers[which % len(numbers)]
            if step == "end":
                overrun += max(0.0, usd - budgets.holds[chosen].parts[0].amount.usd)
                budgets.end(chosen, usd=usd, tokens=1)
            else:
                budgets.release(chosen)
        assert budgets.statistics(at)["b"].usd <= 1.0 + overrun + 1e-6
