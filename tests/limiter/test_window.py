"""The sliding window on a clock moved by hand, beside a judge who remembers every single use."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_actors.limiter.window import KEEP_SECONDS, LAP_SECONDS, MINUTE, Charge, Window


def test_what_is_used_counts_for_a_minute_and_a_little_more_and_never_less() -> None:
    window = Window(1, 1)
    window.charge(1, 1000.99)
    assert window.ready_at(1, 1000.99) == 1000 + KEEP_SECONDS
    assert window.left(1000 + KEEP_SECONDS - 0.01) == 0
    assert window.left(1000 + KEEP_SECONDS) == 1
    assert 1000 + KEEP_SECONDS - 1000.99 >= MINUTE + 0.5


def test_one_second_takes_a_burst_and_a_request_larger_than_that_comes_first_in_it() -> None:
    window = Window(100, 10)
    window.charge(6, 1000.2)
    assert window.ready_at(4, 1000.5) == 1000.5
    assert window.ready_at(5, 1000.5) == 1001.0
    assert window.ready_at(90, 1000.5) == 1001.0
    window.charge(90, 1001.0)
    assert window.left(1001.0) == 4
    assert window.ready_at(1, 1001.0) == 1002.0


def test_those_ahead_take_their_bursts_and_their_windows() -> None:
    window = Window(60, 15)
    assert window.ready_at(1, 1000.0, ahead=14) == 1000.0
    assert window.ready_at(1, 1000.0, ahead=15) == 1001.0
    assert window.ready_at(1, 1000.0, ahead=59) == 1003.0
    assert window.ready_at(1, 1000.0, ahead=60) == 1000 + KEEP_SECONDS
    assert window.ready_at(1, 1000.0, ahead=200) == 1000 + 2 * LAP_SECONDS + KEEP_SECONDS


def test_a_refund_goes_back_to_its_own_second() -> None:
    window = Window(100, 100)
    early = window.charge(60, 1000.0)
    late = window.charge(40, 1030.0)
    early.correct(10, 1040.0)
    assert window.left(1040.0) == 50
    assert window.left(1000 + KEEP_SECONDS) == 60, "10 of the early one are left to expire"
    late.correct(0, 1070.0)
    assert window.left(1070.0) == 100
    early.correct(0, 1080.0)
    assert window.left(1080.0) == 100, "what no longer counts does not come back"


def test_an_overrun_is_owed_and_takes_what_becomes_free_before_anybody_else() -> None:
    window = Window(100, 100)
    charge = window.charge(100, 1000.0)
    charge.correct(350, 1010.0)
    assert window.ready_at(50, 1011.0) == 1000 + 2 * LAP_SECONDS + KEEP_SECONDS
    assert window.ready_at(51, 1011.0) == 1000 + 3 * LAP_SECONDS + KEEP_SECONDS
    for laps, left in enumerate((0, 0, 50, 100)):
        assert window.left(1000 + laps * LAP_SECONDS + KEEP_SECONDS) == left


def test_a_request_larger_than_the_limit_needs_an_empty_window_and_pays_for_all_of_it() -> None:
    window = Window(100, 25)
    window.charge(1, 1000.0)
    assert window.ready_at(250, 1001.0) == 1000 + KEEP_SECONDS
    large = window.charge(250, 1061.5)
    assert window.ready_at(100, 1062.0) == 1061 + 2 * LAP_SECONDS + KEEP_SECONDS
    large.correct(120, 1070.0)
    assert window.ready_at(80, 1070.0) == 1061 + KEEP_SECONDS
    assert window.ready_at(81, 1070.0) == 1061 + LAP_SECONDS + KEEP_SECONDS


def test_a_request_that_goes_later_counts_from_then() -> None:
    window = Window(10, 10)
    window.charge(9, 1000.0)
    charge = window.charge(1, 1000.0)
    moved = window.move(charge, 1030.0, 1000.1)
    assert window.left(1000 + KEEP_SECONDS) == 9
    moved.correct(0, 1070.0)
    assert window.left(1070.0) == 10


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.integers(1, 200),
    st.floats(0.001, 1.0),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20_000), st.integers(0, 120)), max_size=120),
)
def test_no_60_seconds_hold_more_than_the_limit(limit: int, share: float, steps: list[tuple[int, int, int]]) -> None:
    """Whatever comes, goes back, or goes a little later; and what fits by the window's own word is never too much."""
    window, now = Window(limit, max(1, int(limit * share))), 1000.0
    went: list[list[float]] = []  # when, and how much in the end
    open_charges: list[tuple[Charge, list[float]]] = []
    for what, millis, cost in steps:
        cost = min(cost, limit)
        if what < 5:
            at = window.ready_at(cost, now)
            assert at >= now
            now = at
            assert window.ready_at(cost, now) == now, "it is ready when it said it would be"
            charge, event = window.charge(cost, now), [now, float(cost)]
            if what == 4:  # other processes make it wait
                event[0] = now + millis % 3
                charge = window.move(charge, event[0], now)
            went.append(event)
            open_charges.append((charge, event))
        elif what < 7 and open_charges:
            charge, event = open_charges.pop(millis % len(open_charges))
            real = min(charge.cost, cost)
            charge.correct(real, now)
            event[1] = real
        else:
            now += millis / 1000
    for start, _ in went:
        assert sum(used for at, used in went if start <= at < start + MINUTE) <= limit
        second = sum(used for at, used in went if int(at) == int(start))
        assert second <= max(window.burst, *(used for at, used in went if int(at) == int(start))) or _moved(steps)
    window.left(now + 10 * KEEP_SECONDS)
    assert window.left(now + 10 * KEEP_SECONDS) == limit, "nothing is kept for ever"
    assert not window._used
    assert not window._seconds


def _moved(steps: list[tuple[int, int, int]]) -> bool:
    return any(what == 4 for what, _, _ in steps)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 300), st.integers(0, 900)), min_size=1, max_size=60))
def test_what_is_used_beyond_the_estimates_is_paid_for_in_the_end(steps: list[tuple[int, int, int]]) -> None:
    """Of estimates that are too low the limit holds on average, with no more than one window's worth on credit."""
    limit, now, spent, most = 200, 1000.0, 0, 0
    window = Window(limit, limit)
    for millis, estimate, real in steps:
        now = window.ready_at(estimate, now + millis / 1000)
        allowed = limit * ((now - 1000.0) // MINUTE + 1)
        assert spent <= allowed, "before the next one goes all earlier ones are paid for"
        window.charge(estimate, now).correct(real, now)
        spent, most = spent + real, max(most, real)
