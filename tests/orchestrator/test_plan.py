"""The attempt plan: a pure decision after each failure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.orchestrator.plan import Again, AttemptPlan, Next, Stop
from llm_protocol.failures import RULES, Failure, FailureKind, Step
from llm_protocol.policy import PROVIDER_WAIT_SECONDS, Attempts

SILENT = (FailureKind.TIMEOUT_FIRST_TOKEN, FailureKind.TIMEOUT_IDLE, FailureKind.TIMEOUT_TOTAL)
kinds = st.sampled_from(FailureKind)
draws = st.floats(0, 0.999)


def plan(
    *candidates: str,
    attempts: Attempts | None = None,
    deadline: float = 600.0,
    budget: Callable[[str], bool] = lambda _: True,
    fits: Callable[[str, str], bool] = lambda _one, _other: True,
    draw: float = 0.5,
    wait_s: float = PROVIDER_WAIT_SECONDS,
) -> AttemptPlan[str]:
    return AttemptPlan(
        candidates or ("a",),
        attempts or Attempts(),
        deadline=deadline,
        may_retry=budget,
        fits=fits,
        draw=lambda: draw,
        wait_s=lambda _: wait_s,
    )


def failed(kind: FailureKind, retry_after: float | None = None) -> Failure:
    return Failure(kind=kind, message="x", retry_after=retry_after)


def test_mission_three_attempts_with_waits_from_4_to_10_seconds_by_default() -> None:
    for draw, waits in ((0.0, [4.0, 4.0]), (0.5, [6.0, 7.0]), (0.999, [7.996, 9.994])):
        made = plan(draw=draw)
        moves = [made.after(failed(FailureKind.SERVER_ERROR), 0.0) for _ in range(3)]
        assert [move.after_s for move in moves if isinstance(move, Again)] == pytest.approx(waits)
        assert moves[2] == Stop("it was tried 3 times")


@pytest.mark.parametrize("asked", [0.0, 0.5, 30.0])
def test_retry_after_comes_first(asked: float) -> None:
    move = plan().after(failed(FailureKind.RATE_LIMITED, asked), 0.0)
    assert isinstance(move, Again)
    assert asked <= move.after_s <= asked * 1.1


def test_a_retry_after_that_is_longer_than_the_request_may_wait_ends_at_once_or_goes_on_to_the_next() -> None:
    refused = failed(FailureKind.RATE_LIMITED, 2.0)
    assert isinstance(plan(wait_s=2.0).after(refused, 0.0), Again)
    assert plan(wait_s=1.9).after(refused, 0.0) == Stop("the wait would be longer than wait_s of the limits")
    assert plan("a", "b", wait_s=1.9).after(refused, 0.0) == Next()
    assert isinstance(plan(wait_s=0.0).after(failed(FailureKind.RATE_LIMITED), 0.0), Again), "that is no queue"
    waited = plan(wait_s=5.0)
    waited.waited_s = 3.5
    assert waited.after(refused, 0.0) == Stop("the wait would be longer than wait_s of the limits")


def test_a_retry_after_past_the_deadline_ends_at_once() -> None:
    assert plan(deadline=20).after(failed(FailureKind.RATE_LIMITED, 30.0), 0.0) == Stop(
        "the wait would pass the deadline"
    )


def test_with_another_candidate_one_quick_retry_and_then_the_next() -> None:
    made = plan("a", "b")
    first = made.after(failed(FailureKind.OVERLOADED), 0.0)
    assert isinstance(first, Again)
    assert first.after_s <= 1.0
    assert made.after(failed(FailureKind.OVERLOADED), 1.0) == Next()
    assert made.current == "b"


def test_a_long_retry_after_is_not_waited_for_when_another_candidate_is_at_hand() -> None:
    assert plan("a", "b").after(failed(FailureKind.RATE_LIMITED, 30.0), 0.0) == Next()
    short = plan("a", "b").after(failed(FailureKind.RATE_LIMITED, 2.0), 0.0)
    assert isinstance(short, Again)
    assert short.after_s >= 2.0


@pytest.mark.parametrize("kind", SILENT)
def test_a_silent_route_is_never_asked_again(kind: FailureKind) -> None:
    assert plan("a", "b").after(failed(kind), 0.0) == Next()
    assert isinstance(plan("a").after(failed(kind), 0.0), Stop)


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if RULES[kind].step is Step.STOP])
def test_what_no_attempt_can_help_stops(kind: FailureKind) -> None:
    assert isinstance(plan("a", "b", "c").after(failed(kind), 0.0), Stop)


def test_a_prompt_that_is_too_long_goes_to_a_larger_window_only() -> None:
    made = plan("small", "tiny", "large", fits=lambda _, other: other == "large")
    assert made.after(failed(FailureKind.CONTEXT_LENGTH), 0.0) == Next()
    assert made.current == "large"
    assert isinstance(plan("small", "tiny", fits=lambda *_: False).after(failed(FailureKind.CONTEXT_LENGTH), 0.0), Stop)


def test_without_retry_budget_there_is_no_retry_but_a_next_candidate() -> None:
    assert plan("a", "b", budget=lambda _: False).after(failed(FailureKind.NETWORK), 0.0) == Next()
    assert plan("a", budget=lambda _: False).after(failed(FailureKind.NETWORK), 0.0) == Stop(
        "the retry budget is used up"
    )


def test_waiting_for_who_rests_takes_nothing_from_the_retry_budget() -> None:
    """Nobody was called. Else of many that find a provider resting for a second only a few could wait for it."""
    rests = failed(FailureKind.OVERLOADED, 1.0)
    assert isinstance(plan(budget=lambda _: False).after(rests, 0.0, called=False), Again)


def test_a_refusal_without_a_call_uses_up_no_attempt_and_is_waited_for_within_a_bound() -> None:
    made, waited = plan(attempts=Attempts(max=1), draw=0.0), 0.0
    while isinstance(move := made.after(failed(FailureKind.OVERLOADED, 4.0), waited, called=False), Again):
        waited += move.after_s
    assert (waited, move) == (28.0, Stop("the wait would be longer than wait_s of the limits"))
    assert plan().after(failed(FailureKind.OVERLOADED, 31.0), 0.0, called=False) == Stop(
        "the wait would be longer than wait_s of the limits"
    )
    mixed = plan(draw=0.0)
    for _ in range(2):
        assert isinstance(mixed.after(failed(FailureKind.OVERLOADED, 1.0), 0.0, called=False), Again)
        assert isinstance(mixed.after(failed(FailureKind.SERVER_ERROR), 0.0), Again)
    assert mixed.after(failed(FailureKind.SERVER_ERROR), 0.0) == Stop("it was tried 3 times")


def test_a_refusal_that_says_to_come_at_once_is_not_followed_by_a_tight_loop() -> None:
    made, waits = plan(), 0
    while isinstance(made.after(failed(FailureKind.OVERLOADED, 0.0), 0.0, called=False), Again):
        waits += 1
    assert waits < 1_000


def test_what_kept_one_from_being_asked_need_not_keep_the_next() -> None:
    made = plan("dear", "cheap")
    assert made.after(failed(FailureKind.BUDGET), 0.0, called=False) == Next()
    assert made.after(failed(FailureKind.BUDGET), 0.0, called=False) == Stop("no other candidate")


@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.lists(st.tuples(kinds, st.none() | st.floats(0, 100)), min_size=40, max_size=40),
    draws,
    st.floats(1, 600),
)
def test_every_plan_ends_bounded_and_before_the_deadline(
    candidates: int, most: int, outcomes: list[tuple[FailureKind, float | None]], draw: float, deadline: float
) -> None:
    """G6: never more than ``max`` attempts at one candidate, one quick retry while there are others, no wait past D."""
    names = [str(index) for index in range(candidates)]
    made = plan(*names, attempts=Attempts(max=most), deadline=deadline, draw=draw)
    asked, now = [made.current], 0.0
    for kind, retry_after in outcomes:
        move = made.after(failed(kind, retry_after), now)
        if isinstance(move, Stop):
            break
        if isinstance(move, Again):
            now += move.after_s
            assert now < deadline
        asked.append(made.current)
    else:
        pytest.fail("the plan did not end")

    for name in names:
        assert asked.count(name) <= most
    assert asked == sorted(asked, key=int)
