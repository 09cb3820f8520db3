"""What is known of a candidate's performance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.selector import Observed, Performance
from llm_actors.selector.performance import SAMPLE_SIZE, SLOW_SECONDS, STALE_SECONDS
from llm_protocol.failures import FailureKind
from llm_protocol.response import Usage
from support.selecting import A, failure, success

USUAL = 300


def known(*seen: Observed) -> Performance:
    performance = Performance()
    for each in seen:
        performance = performance.plus(each)
    return performance


def latency(performance: Performance, tokens: int = USUAL) -> float | None:
    return performance.latency_s(Usage(input_tokens=1_000, output_tokens=tokens))


def test_performance_tracker_tells_time_success_rate_and_price() -> None:
    performance = known(
        success(A, 1.0, first=0.2, took=1.2, tokens=100, cost=0.01),
        success(A, 2.0, first=0.4, took=1.4, tokens=100, cost=0.03),
        failure(A, 2.0),
    )
    assert performance.first_token.mean.value == pytest.approx(0.3)
    assert latency(performance, 100) == pytest.approx(1.3, rel=0.05)
    assert performance.cost_per_token.known == pytest.approx(0.02 / 1_100)
    assert performance.availability(2.0) == pytest.approx(7 / 8, abs=0.01)


def test_nothing_is_known_at_first() -> None:
    performance = Performance()
    assert latency(performance) is None
    assert performance.cost_per_token.known is None
    assert performance.availability(0.0) == 1.0
    assert performance.percentile(95, 0.0, stream=True, least=1) is None


def test_quick_failures_do_not_make_a_candidate_fast() -> None:
    slow = known(success(A, 1.0, took=5.0, tokens=USUAL), *[failure(A, 2.0, took=0.001) for _ in range(50)])
    assert latency(slow) == pytest.approx(5.0, rel=0.05)
    assert latency(known(failure(A, 1.0, took=0.001))) is None


@pytest.mark.parametrize("kind", [FailureKind.CANCELLED, FailureKind.DEADLINE])
def test_an_attempt_that_was_given_up_took_at_least_so_long(kind: FailureKind) -> None:
    """Else a candidate whose slow answers are all cut off, by deadlines or hedges, would look fast."""
    usual = success(A, 1.0, first=0.1, took=1.1, tokens=USUAL)
    given_up = failure(A, 40.0, kind, took=30.0)
    assert latency(known(usual, given_up)) == 30.0
    assert latency(known(given_up)) == 30.0
    assert known(usual, given_up).availability(40.0) == 1.0, "nobody's fault"
    assert latency(known(usual, given_up, usual)) == pytest.approx(1.1, rel=0.05), "it recovered"


def test_giving_up_early_tells_nothing() -> None:
    usual = success(A, 1.0, first=1.0, took=2.0, tokens=USUAL)
    early = failure(A, 2.0, FailureKind.CANCELLED, took=0.01)
    assert latency(known(early)) is None
    assert latency(known(usual, early)) == pytest.approx(2.0, rel=0.05)
    assert latency(known(failure(A, 2.0, FailureKind.CANCELLED, took=SLOW_SECONDS))) == SLOW_SECONDS


def test_leaving_in_the_middle_of_an_answer_tells_nothing_of_the_first_token() -> None:
    usual = success(A, 1.0, first=1.0, took=2.0, tokens=USUAL)
    for left in (
        failure(A, 90.0, FailureKind.CANCELLED, took=60.0, first=0.5),
        failure(A, 90.0, FailureKind.CANCELLED, took=60.0, partial=True),
    ):
        assert known(usual, left) == known(usual)


def test_hedges_that_cut_off_the_slowest_do_not_lower_the_p95() -> None:
    """Ever faster hedges would be the end of it."""
    seen = [success(A, 1.0, first=1.0, took=2.0) for _ in range(18)]
    cut = [failure(A, 2.0, FailureKind.CANCELLED, took=4.0) for _ in range(2)]
    assert known(*seen, *cut).percentile(95, 2.0, stream=True, least=20) == 4.0


def test_one_failure_among_many_weighs_little_and_fades() -> None:
    performance = known(*[success(A, 0.0) for _ in range(95)], failure(A, 0.0))
    assert performance.availability(0.0) == pytest.approx(100 / 101, abs=0.001)
    down = known(*[failure(A, 0.0) for _ in range(45)])
    assert down.availability(0.0) == pytest.approx(0.1)
    assert down.availability(600.0) > 0.95
    assert down.forgiven().availability(0.0) == 1.0


def test_percentiles_of_streams_and_of_whole_answers_are_kept_apart_and_get_stale() -> None:
    performance = known(*[success(A, 1.0, first=0.1 * n, took=n) for n in range(1, 21)])
    assert performance.percentile(50, 1.0, stream=True, least=20) == pytest.approx(1.0)
    assert performance.percentile(95, 1.0, stream=True, least=20) == pytest.approx(1.9)
    assert performance.percentile(95, 1.0, stream=False, least=20) == 19.0
    assert performance.percentile(95, 1.0, stream=True, least=21) is None
    assert performance.percentile(95, 2.0 + STALE_SECONDS, stream=True, least=20) is None


@given(
    st.lists(
        st.tuples(
            st.none() | st.sampled_from(FailureKind),
            st.floats(0, 100),
            st.none() | st.floats(0, 100),
            st.integers(0, 5_000),
            st.none() | st.floats(0, 1e9),
        ),
        max_size=100,
    )
)
def test_books_stay_bounded_and_sane(
    steps: list[tuple[FailureKind | None, float, float | None, int, float | None]],
) -> None:
    """G7"""
    performance, now = Performance(), 0.0
    for kind, took, first, tokens, retry_after in steps:
        now += took
        seen = (
            success(A, now, took=took, first=first, tokens=tokens)
            if kind is None
            else failure(A, now, kind, took=took, first=first, retry_after=retry_after)
        )
        performance = performance.plus(seen)
        assert 0 < performance.availability(now) <= 1
        told = latency(performance)
        assert told is None or 0 <= told < float("inf")
        assert max(len(performance.first_token.sample), len(performance.whole.sample)) <= SAMPLE_SIZE
