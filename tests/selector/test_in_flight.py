"""What attempts tell that have not ended."""

from __future__ import annotations

import pytest

from llm_actors.catalog import Candidate
from llm_actors.selector import Performance, Selector
from llm_actors.selector.attempts import COUNTED, LOST_SECONDS, MAX_CANDIDATES, InFlight
from llm_actors.selector.performance import SLOW_SECONDS
from llm_protocol.failures import FailureKind
from llm_protocol.requests import RequestType
from llm_protocol.response import Usage
from support.selecting import A, B, failure, selector, success

CHAT = RequestType.CHAT
KEY = A, CHAT
USAGE = Usage(input_tokens=1_000, output_tokens=300)


def figure(*, took: float) -> Selector:
    """A takes so long, B three times that."""
    times = [(A, took), (B, 3 * took)]
    seen = [success(each, 100.0 + n, took=seconds) for n in range(20) for each, seconds in times]
    return selector(*seen)


def best(made: Selector, now: float) -> Candidate:
    return made.rank([A, B], CHAT, now=now, draw=0.5, select="fastest", usage=USAGE, explore=False).best()


def test_attempts_that_are_never_heard_of_are_forgotten() -> None:
    """The selector's actor was parked, and their observations were dropped."""
    flights = InFlight()
    for _ in range(1_000):
        flights.begun(KEY, 0.0)
    assert flights.count(KEY, 1.0) == COUNTED
    assert flights.count(KEY, LOST_SECONDS + 1) == 0
    flights.ended(KEY, 0.0, answered=True)


def test_callers_who_name_ever_new_models_do_not_fill_the_memory() -> None:
    flights = InFlight()
    for number in range(MAX_CANDIDATES + 100):
        flights.begun((Candidate("a", str(number)), CHAT), 0.0)
    assert len(flights._attempts) == MAX_CANDIDATES


def test_one_that_is_late_moves_the_traffic_before_it_ends_and_its_end_moves_it_back() -> None:
    made = figure(took=1.0)
    assert best(made, 120.0) == A

    assert made.admit(A, 120.0, usage=USAGE) is None
    assert best(made, 121.5) == A, "that is luck"
    assert best(made, 124.0) == B

    made.observe(success(A, 124.0, took=4.0), 0.5)
    assert best(made, 124.0) == A


def test_who_is_late_had_bad_luck_where_a_later_one_was_answered() -> None:
    made = figure(took=1.0)
    assert made.admit(A, 120.0, usage=USAGE) is None
    assert made.admit(A, 121.0, usage=USAGE) is None
    made.observe(success(A, 122.0, took=1.0), 0.5)
    assert best(made, 130.0) == A


def test_a_stream_that_delivers_is_not_silent() -> None:
    made = figure(took=1.0)
    assert made.admit(A, 120.0, usage=USAGE) is None
    assert made.stream_began(A, 1, 120.5, began=120.0) is False
    assert best(made, 150.0) == A
    made.stream_ended(A, 1)


def test_a_failure_tells_nothing_of_how_fast_the_others_will_be() -> None:
    made = figure(took=1.0)
    assert made.admit(A, 120.0, usage=USAGE) is None
    assert made.admit(A, 121.0, usage=USAGE) is None
    made.observe(failure(A, 121.5, kind=FailureKind.BAD_REQUEST, took=0.5), 0.5)
    assert best(made, 124.0) == B


def test_a_long_answer_was_expected_to_take_long() -> None:
    made = figure(took=1.0)
    assert made.admit(A, 120.0, usage=Usage(input_tokens=100, output_tokens=10_000)) is None
    assert best(made, 124.0) == A


@pytest.mark.parametrize(("age", "latency"), [(SLOW_SECONDS - 0.1, None), (SLOW_SECONDS, SLOW_SECONDS)])
def test_of_whom_nothing_is_known_a_long_wait_tells_something(age: float, latency: float | None) -> None:
    flights = InFlight()
    flights.begun(KEY, 0.0)
    assert flights.latency_s(KEY, Performance(), USAGE, age) == latency


def test_looking_is_cheap_with_many_in_flight() -> None:
    """The oldest silent one is found without a look at those behind it."""
    flights = InFlight()
    for number in range(COUNTED):
        flights.begun(KEY, float(number) / 1_000, 1.0)
    flights.delivers(KEY, 0.1)
    assert flights.latency_s(KEY, Performance(), USAGE, 60.0) == pytest.approx(60.0 - 0.101)
