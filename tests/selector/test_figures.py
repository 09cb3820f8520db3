"""Running figures: they forget, and they are bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.selector.performance import SAMPLE_SIZE, DecayingCount, Mean, Series

values = st.floats(0, 1e6)


def test_a_fading_amount_halves_with_each_half_life() -> None:
    amount = DecayingCount(10.0).plus(0.0, 8.0)
    assert [amount.level(now) for now in (0.0, 10.0, 30.0)] == pytest.approx([8.0, 4.0, 1.0])
    assert amount.plus(10.0, 1.0).level(10.0) == pytest.approx(5.0)


@given(st.lists(st.tuples(values, st.floats(0, 100)), max_size=30), st.floats(0.1, 100))
def test_a_fading_amount_is_the_faded_sum_of_what_was_added(added: list[tuple[float, float]], half_life: float) -> None:
    fading, now = DecayingCount(half_life), 0.0
    moments: list[tuple[float, float]] = []
    for amount, pause in added:
        now += pause
        fading = fading.plus(now, amount)
        moments.append((now, amount))
    expected = sum(amount * 0.5 ** ((now - at) / half_life) for at, amount in moments)
    assert fading.level(now) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_mean_begins_as_the_plain_mean_and_then_follows() -> None:
    mean = Mean()
    assert mean.known is None
    for value in (1.0, 2.0, 3.0):
        mean = mean.plus(value)
    assert mean.known == pytest.approx(2.0)
    for _ in range(60):
        mean = mean.plus(10.0)
    assert mean.value == pytest.approx(10.0, rel=0.01)


@given(st.lists(values, min_size=1, max_size=200), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(given: list[float], percent: int) -> None:
    series = Series()
    for value in given:
        series = series.plus(value)
    recent = given[-SAMPLE_SIZE:]
    assert list(series.sample) == recent
    found = series.percentile(percent)
    assert found in recent
    reach = [value for value in recent if sum(other <= value for other in recent) * 100 >= percent * len(recent)]
    assert found == min(reach)


def test_only_the_newest_values_are_kept() -> None:
    """G7"""
    series = Series()
    for value in range(100):
        series = series.plus(float(value))
    assert series.sample == tuple(float(value) for value in range(100 - SAMPLE_SIZE, 100))


def test_no_percentile_of_too_few() -> None:
    assert Series().percentile(50) is None
    assert Series().plus(1.0).percentile(50, least=2) is None


def test_a_lower_bound_moves_the_percentiles_up_only_and_the_mean_not_at_all() -> None:
    series = Series()
    assert series.bounded(9.0) == series
    for _ in range(20):
        series = series.plus(1.0)
    assert series.bounded(0.5) == series
    slower = series
    for _ in range(3):
        slower = slower.bounded(9.0)
    assert slower.percentile(95) == 9.0
    assert slower.mean == series.mean
