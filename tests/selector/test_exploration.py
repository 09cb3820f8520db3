"""Who is asked although another is better: how soon, and at what cost."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.catalog import Candidate
from llm_actors.selector import Performance, Selector
from llm_actors.selector.attempts import CHOSEN_SECONDS
from llm_actors.selector.exploration import (
    FRESH_SECONDS,
    MAX_STATES,
    SHARE,
    TRIALS,
    UNANSWERED_SECONDS,
    Exploration,
    Rival,
)
from llm_actors.selector.latency import LatencyModel
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Select
from llm_protocol.requests import RequestType
from support.selecting import A, B, C, cost_of, failure, selector, success

CHAT = RequestType.CHAT
BEST = A, CHAT


def known(seen_at: float = -inf, latency: LatencyModel | None = None) -> Performance:
    return Performance(seen_at=seen_at, latency=latency or LatencyModel(since_change=TRIALS))


def rival(candidate: Candidate, excess: float, performance: Performance, *, could_win: bool = True) -> Rival:
    return Rival((candidate, CHAT), performance, excess, could_win)


def firsts(made: Selector, count: int, *, now: float = 1.0, select: Select = "score") -> list[Candidate]:
    """Who is asked first by so many requests at once, each of which is made."""
    found = []
    for number in range(count):
        found.append(made.rank([A, B, C], CHAT, now=now, draw=(number + 0.5) / count, select=select).best())
        assert made.admit(found[-1], now) is None
    return found


@given(st.lists(st.floats(0.05, 100), min_size=1, max_size=8))
def test_the_cost_of_exploring_is_bounded_whatever_the_candidates(excesses: list[float]) -> None:
    """Of each request's time or money, over all candidates together."""
    exploration, performance = Exploration(), known(seen_at=-1_000.0)
    rivals = [rival(Candidate(str(place), "m"), excess, performance) for place, excess in enumerate(excesses)]
    spent, requests = 0.0, 3_000
    for number in range(requests):
        place = exploration.next(BEST, rivals, now=number * UNANSWERED_SECONDS)
        spent += 0.0 if place is None else excesses[place]
    assert spent <= SHARE * requests + 1e-9
    told = exploration.statistics()
    assert told.ranked == requests
    assert told.excess == pytest.approx(spent)


def test_who_is_nearly_as_good_is_explored_more_often_and_nobody_never() -> None:
    exploration, performance = Exploration(), known(seen_at=-1_000.0)
    rivals = [rival(B, 0.5, performance), rival(C, 9.0, performance)]
    found = Counter(exploration.next(BEST, rivals, now=number * 60.0) for number in range(2_000))
    assert found[0] > 4 * found[1] > 0


def test_who_could_not_be_the_best_at_any_speed_is_not_explored() -> None:
    exploration = Exploration()
    hopeless = rival(B, 1.0, known(), could_win=False)
    assert all(exploration.next(BEST, [hopeless], now=number * 60.0) is None for number in range(1_000))


def test_a_new_candidate_has_its_trials_at_once_one_after_another() -> None:
    made, now = selector(*[success(A, 0.5, took=0.1) for _ in range(10)]), 1.0
    for trial in range(TRIALS):
        assert made.rank([A, C], CHAT, now=now, draw=0.5).choices[0].reason.startswith("explored: ")
        assert {made.rank([A, C], CHAT, now=now + 1, draw=0.5).best() for _ in range(9)} == {A}, "one at a time"
        now += 2.0
        made.observe(success(C, now, took=2.0), 0.5)
        assert made.known(C).latency.since_change == trial + 1
    assert {made.rank([A, C], CHAT, now=now, draw=0.5).best() for _ in range(100)} == {A}, "now it is saved up for"


def test_a_trial_that_is_not_heard_of_is_made_again() -> None:
    made = selector(success(A, 0.5, took=0.1))
    firsts = [made.rank([A, C], CHAT, now=1.0 + number, draw=0.5).best() for number in range(32)]
    assert firsts.count(C) == 2
    assert firsts[round(UNANSWERED_SECONDS)] == C


@pytest.mark.parametrize("answers", [0, 1])
def test_a_new_candidate_that_fails_is_not_asked_by_every_request(answers: int) -> None:
    seen = [success(C, 0.5, took=0.5)] * answers
    made, asked = selector(*[success(A, 0.5, took=0.1) for _ in range(10)], *seen), 0
    for number in range(100):
        now = 1.0 + number
        if made.rank([A, C], CHAT, now=now, draw=0.5).best() == C:
            asked += 1
            made.observe(failure(C, now, FailureKind.INVALID_TOOL_CALL), 0.5)
    assert 1 < asked < 10


def test_with_much_traffic_a_well_known_candidate_is_explored_once_in_a_while() -> None:
    made = selector(*[success(each, 0.1 * n, took=1.0 + (each == C)) for n in range(10) for each in (A, C)])
    explored = []
    for now in (1.0 + number / 100 for number in range(5_000)):
        first = made.rank([A, C], CHAT, now=now, draw=0.5).choices[0]
        if first.candidate == C:
            explored.append((now, first.reason))
    times = 0.9 + FRESH_SECONDS, 0.9 + FRESH_SECONDS + UNANSWERED_SECONDS
    assert [at for at, _ in explored] == pytest.approx(times, abs=0.02)
    assert [reason for _, reason in explored] == [f"explored: last measured {n} s ago" for n in (20, 50)]


@pytest.mark.parametrize("select", ["score", "fastest"])
def test_a_hundred_cold_requests_do_not_all_go_to_one(select: Select) -> None:
    counts = Counter(firsts(Selector(cost_of), 99, select=select))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert counts.keys() == {A, B, C}


def test_a_hundred_cold_requests_that_wait_for_a_limit_are_spread_too() -> None:
    """They are all ranked before the first is made."""
    made = Selector(cost_of)
    ranked = Counter(made.rank([A, B, C], CHAT, now=1.0, draw=(n + 0.5) / 99).best() for n in range(99))
    assert max(ranked.values()) <= 34


@pytest.mark.parametrize("select", ["score", "fastest"])
@pytest.mark.parametrize("draw", [0.0, 0.5, 0.99])
def test_a_cold_request_goes_where_explain_says(draw: float, select: Select) -> None:
    """To the best by score, as nothing else tells them apart."""
    made = Selector(cost_of)
    explained = [made.rank([C, A, B], CHAT, now=1.0, draw=draw, select=select, explore=False) for _ in range(2)]
    asked = made.rank([C, A, B], CHAT, now=1.0, draw=draw, select=select)
    assert asked.choices == explained[0].choices == explained[1].choices
    assert asked.best() == min(asked.choices, key=lambda each: each.score).candidate
    assert asked.choices[0].reason.startswith("not measured yet, and has the fewest attempts in progress; then ")


def test_a_cold_request_that_waits_counts_for_a_while_only() -> None:
    made = Selector(cost_of)
    first = made.rank([A, B], CHAT, now=1.0, draw=0.5).best()
    assert made.rank([A, B], CHAT, now=2.0, draw=0.5, explore=False).best() != first
    assert made.rank([A, B], CHAT, now=2.0 + CHOSEN_SECONDS, draw=0.5, explore=False).best() == first
    assert made.admit(first, 3.0) is None
    assert made.rank([A, B], CHAT, now=4.0, draw=0.5, explore=False).best() != first, "in flight now"


def test_with_one_measured_a_hundred_requests_go_there_but_for_the_trials() -> None:
    counts = Counter(firsts(selector(success(A, 0.5, took=1.0)), 100))
    assert counts == {A: 98, B: 1, C: 1}


def test_looking_explores_nothing_and_counts_nothing() -> None:
    made = selector(success(A, 0.5, took=0.1))
    for _ in range(100):
        assert made.rank([A, C], CHAT, now=1.0, draw=0.0, explore=False).best() == A
    assert made.exploration().ranked == 0
    assert made.rank([A, C], CHAT, now=1.0, draw=0.0).best() == C


def test_callers_who_name_ever_new_models_do_not_fill_the_memory() -> None:
    exploration = Exploration()
    for number in range(MAX_STATES + 100):
        exploration.next((Candidate("a", str(number)), CHAT), [], 0.0)
    assert len(exploration._states) == MAX_STATES
