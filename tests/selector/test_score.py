"""The weighted score, and what it is made of, the cost among it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.catalog import Candidate
from llm_actors.selector import Figures, Performance, Weights
from llm_actors.selector.score import LEAST_UNAVAILABILITY, TYPICAL_USAGE, excess, expected_cost, normalised
from llm_protocol.prices import cost_of as shipped_cost_of
from llm_protocol.requests import RequestType
from llm_protocol.response import Usage
from support.selecting import A, B, cost_of, success

SMALL = Usage(input_tokens=10, output_tokens=10)

unknown_or = st.none() | st.floats(0, 1e6)
figures = st.builds(Figures, latency_s=unknown_or, cost_usd=unknown_or, availability=st.floats(0, 1))


def test_cost_calculator_uses_list_prices_for_one_and_the_same_usage() -> None:
    assert expected_cost(cost_of, B, Performance(), SMALL, 0.0) == pytest.approx(20e-6)


def test_cost_calculator_falls_back_on_what_tokens_have_cost() -> None:
    """The list price comes first: what tokens have cost depends on which they were."""
    performance = Performance().plus(success(A, 1.0, tokens=50, prompt=50, cost=0.5))
    assert expected_cost(cost_of, A, performance, SMALL, 1.0) == pytest.approx(0.1)
    assert expected_cost(cost_of, B, performance, SMALL, 1.0) == pytest.approx(20e-6)


def test_cost_calculator_says_unknown_and_never_zero() -> None:
    assert expected_cost(cost_of, A, Performance(), SMALL, 0.0) is None
    assert expected_cost(cost_of, Candidate("free", "m"), Performance(), SMALL, 0.0) == 0.0


@pytest.mark.parametrize("request_type", RequestType)
def test_cost_calculator_knows_a_typical_usage_of_each_type(request_type: RequestType) -> None:
    assert TYPICAL_USAGE[request_type].total_tokens > 0


def test_cost_calculator_agrees_with_the_shipped_prices() -> None:
    openai = Candidate("openai", "gpt-4o-mini")
    expected = shipped_cost_of("openai", "gpt-4o-mini", SMALL)
    assert expected is not None
    assert expected > 0
    assert expected_cost(shipped_cost_of, openai, Performance(), SMALL, 0.0) == expected


def test_cost_calculator_counts_as_cached_what_the_vendor_had_cached_of_late() -> None:
    openai, usage = Candidate("openai", "gpt-4o-mini"), Usage(input_tokens=10_000, output_tokens=10)
    performance = Performance().plus(success(openai, 1.0, cached=800))
    expected = shipped_cost_of(
        "openai", "gpt-4o-mini", Usage(input_tokens=10_000, output_tokens=10, cached_tokens=8_000)
    )
    assert expected_cost(shipped_cost_of, openai, performance, usage, 1.0) == expected
    assert Performance().cached_share(1.0) == 0.0


def test_what_exploring_costs_is_the_most_of_time_money_and_score() -> None:
    best, slow, dear = Figures(1.0, 0.01, 1.0), Figures(3.0, 0.01, 1.0), Figures(1.0, 0.05, 1.0)
    assert excess(slow, best, 0.6, 0.3, "score") == pytest.approx(2.0)
    assert excess(dear, best, 0.6, 0.3, "score") == pytest.approx(4.0)
    assert excess(dear, best, 0.9, 0.1, "fastest") == 0.0, "who wants the fastest pays for it"
    assert excess(Figures(None, None, 0.5), best, 0.3, 0.3, "score") == pytest.approx(0.5), "it may fail"


def test_the_default_weights_are_the_asked_for_ones() -> None:
    """The weights are 0.5, 0.3 and 0.2; the lowest score wins."""
    one, other = normalised([Figures(1.0, 0.02, 1.0), Figures(2.0, 0.01, 0.6)])
    assert one == pytest.approx((0.5, 1.0, 0.0))
    assert other == pytest.approx((1.0, 0.5, 1.0))
    assert one.score(Weights()) == pytest.approx(0.5 * 0.5 + 0.3 * 1.0)
    assert other.score(Weights()) == pytest.approx(0.5 * 1.0 + 0.3 * 0.5 + 0.2)


def test_a_small_difference_stays_small() -> None:
    one, other = normalised([Figures(1.00, 0.0100, 1.0), Figures(1.01, 0.0101, 0.999)])
    assert other.score(Weights()) - one.score(Weights()) < 0.02


def test_an_unknown_price_counts_as_the_highest_known_and_an_unknown_latency_as_the_mean() -> None:
    cheap, dear, unknown = normalised([Figures(1.0, 0.01, 1.0), Figures(3.0, 0.04, 1.0), Figures(None, None, 1.0)])
    assert unknown.price == dear.price == 1.0
    assert cheap.latency < unknown.latency < dear.latency
    assert unknown.latency == pytest.approx((cheap.latency + dear.latency) / 2)


def test_what_nobody_knows_decides_nothing() -> None:
    for terms in normalised([Figures(None, None, 1.0)] * 3):
        assert terms == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [{"performance": -0.1}, {"cost": float("nan")}, {"availability": float("inf")}])
def test_weights_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weights must not be negative"):
        Weights(**bad)
    with pytest.raises(ValueError, match="weights must not be negative"):
        Weights(performance=0, cost=0, availability=0)


@given(st.lists(figures, min_size=1, max_size=6), st.integers(1, 100))
def test_terms_are_between_0_and_1_and_keep_the_order_whatever_the_unit(candidates: list[Figures], unit: int) -> None:
    terms = normalised(candidates)
    assert all(0 <= value <= 1 for each in terms for value in each)
    for one, first in zip(candidates, terms, strict=True):
        for other, second in zip(candidates, terms, strict=True):
            if one.latency_s is not None and other.latency_s is not None and one.latency_s <= other.latency_s:
                assert first.latency <= second.latency
            if one.cost_usd is not None and (other.cost_usd is None or one.cost_usd <= other.cost_usd):
                assert first.price <= second.price
            if one.availability >= other.availability:
                assert first.unavailability <= second.unavailability
    scaled = normalised([each._replace(cost_usd=each.cost_usd and each.cost_usd * unit) for each in candidates])
    assert [each.price for each in scaled] == pytest.approx([each.price for each in terms])


def test_unavailability_below_the_least_is_measured_absolutely() -> None:
    [terms] = normalised([Figures(1.0, None, 0.99)])
    assert terms.unavailability == pytest.approx(0.01 / LEAST_UNAVAILABILITY)
