"""Whether a request joins a queue: never refused at an empty one or without data, always when it is hopeless."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.orchestrator.load import LEAST_TIMES, expected_wait, least_time, refused_for

times = st.lists(st.floats(0.01, 100.0), max_size=80)
seconds = st.floats(0.0, 600.0)


def test_the_wait_is_what_is_ahead_at_the_pace_of_all_slots() -> None:
    assert expected_wait(0, serving=0, slots=4, mean_s=2.0) == 0.0
    assert expected_wait(3, serving=0, slots=4, mean_s=2.0) == 0.0, "they all go at once"
    assert expected_wait(0, serving=4, slots=4, mean_s=2.0) == 0.5
    assert expected_wait(7, serving=4, slots=4, mean_s=2.0) == 4.0


def test_the_least_time_is_that_of_one_in_ten_and_needs_data() -> None:
    assert least_time([1.0] * (LEAST_TIMES - 1)) is None
    assert least_time([float(number) for number in range(100)]) == 10.0


@pytest.mark.parametrize(
    ("wait", "left", "standing", "expected"),
    [
        (4.0, 5.0, False, None),  # a burst may wait for as long as there is a chance
        (4.9, 5.0, False, None),
        (4.95, 5.0, False, 0.05),
        (6.0, 5.0, False, 1.1),
        (1.25, 5.0, True, None),
        (2.0, 5.0, True, 0.75),
        (100.0, 600.0, True, None),
        (0.0, 0.0, True, None),  # nobody waits: who has little time may try all the same
    ],
)
def test_a_standing_queue_may_cost_a_quarter_of_the_time_and_a_burst_all_but_the_least(
    wait: float, left: float, standing: bool, expected: float | None
) -> None:
    assert refused_for(wait, left, 0.1, standing=standing) == (None if expected is None else pytest.approx(expected))


@given(seconds, seconds, times, st.booleans())
def test_whoever_is_refused_has_a_queue_before_it_and_is_told_when_to_come_back(
    wait: float, left: float, known: list[float], standing: bool
) -> None:
    least = least_time(known)
    after = refused_for(wait, left, least, standing=standing)
    if after is None:
        assert wait == 0 or least is None or wait <= left - least
    else:
        assert wait > 0
        assert len(known) >= LEAST_TIMES
        assert 0 < after <= wait
