"""Extra calls are paid from the traffic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.selector.attempts import RETRY_FLOOR, RETRY_SHARE, CallBudget, hedge_budget, retry_budget


def test_five_requests_in_flight_can_make_all_three_attempts_each() -> None:
    """The floor: without traffic a share of it is nothing."""
    budget = retry_budget()
    for _ in range(5):
        budget.count(0.0)
    assert sum(budget.spend(1.0) for _ in range(100)) == 10


def test_the_floor_refills_slowly() -> None:
    budget = retry_budget()
    spent = sum(budget.spend(moment / 10) for moment in range(600))
    assert spent <= RETRY_FLOOR + 60, "less than one extra call a second"


def test_extra_calls_stay_below_a_fifth_of_the_traffic() -> None:
    """50 requests a second for 60 s, each of which wants two more calls."""
    budget, extra = retry_budget(), 0
    for number in range(3_000):
        now = number / 50
        budget.count(now)
        extra += budget.spend(now) + budget.spend(now)
    assert 500 < extra <= 600 + RETRY_FLOOR


def test_old_traffic_allows_nothing() -> None:
    budget = CallBudget(0.2, floor=0.0, half_life=10.0)
    for _ in range(1_000):
        budget.count(0.0)
    assert budget.room(0.0) == pytest.approx(200)
    assert not budget.spend(100.0)


def test_at_most_one_request_in_twenty_is_hedged() -> None:
    """A slow program earns its hedges too: here one request a second."""
    budget, hedged = hedge_budget(), 0
    for number in range(1_000):
        budget.count(float(number))
        hedged += budget.spend(float(number))
    assert 40 <= hedged <= 50


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_extra_calls_never_exceed_the_share_and_the_floor_by_more_than_its_refill(
    steps: list[tuple[float, int, int]],
) -> None:
    budget, now, requests, extra = retry_budget(), 0.0, 0, 0
    for pause, count, wanted in steps:
        now += pause
        for _ in range(count):
            budget.count(now)
        requests += count
        extra += sum(budget.spend(now) for _ in range(wanted))
        assert extra <= RETRY_SHARE * requests + RETRY_FLOOR * (1 + now * 0.07) + 1e-6
        assert budget.room(now) >= 0
