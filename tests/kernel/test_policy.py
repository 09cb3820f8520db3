"""The pure parts: strategy, window, backoff."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.kernel import Backoff, Intensity, Restart, Strategy
from llm_actors.kernel.spec import affected, wants_restart
from llm_actors.kernel.window import RestartWindow, Streak

NAMES = ("a", "b", "c")


def test_who_is_affected() -> None:
    assert affected(Strategy.ONE_FOR_ONE, NAMES, "b") == ("b",)
    assert affected(Strategy.REST_FOR_ONE, NAMES, "b") == ("b", "c")
    assert affected(Strategy.ONE_FOR_ALL, NAMES, "b") == NAMES


def test_who_comes_back() -> None:
    table = {
        (restart, crashed): wants_restart(restart, crashed=crashed) for restart in Restart for crashed in (False, True)
    }
    assert {key for key, value in table.items() if value} == {
        (Restart.PERMANENT, False),
        (Restart.PERMANENT, True),
        (Restart.TRANSIENT, True),
    }


@given(
    times=st.lists(st.integers(0, 100), min_size=1, max_size=40).map(sorted),
    restarts=st.integers(0, 5),
    period=st.integers(1, 30),
)
def test_the_window_admits_exactly_what_otp_would(times: list[int], restarts: int, period: int) -> None:
    """OTP: more than `restarts` within the last `period` seconds, the present one included, is too much."""
    window = RestartWindow(Intensity(restarts, float(period)))
    for index, now in enumerate(times):
        recent = [time for time in times[: index + 1] if time >= now - period]
        assert window.admit(float(now)) == (len(recent) <= restarts)


@given(failures=st.integers(1, 200), draw=st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_a_cap_and_keep_half_of_themselves(failures: int, draw: float) -> None:
    backoff = Backoff(base=0.1, factor=2.0, cap=30.0)
    longest = 0.0 if failures == 1 else min(30.0, 0.1 * 2.0 ** (failures - 2))
    assert longest / 2 <= backoff.delay(failures, draw) <= longest


def test_a_streak_ends_after_a_quiet_period() -> None:
    streak = Streak(Backoff(base=1.0, quiet=10.0))
    delays = [streak.next_delay(now, 1.0) for now in (100.0, 101.0, 102.0, 112.5, 113.0)]
    assert delays == [0.0, 1.0, 2.0, 0.0, 1.0]


def test_no_backoff_is_no_wait() -> None:
    assert [Backoff.none().delay(failures, 0.9) for failures in range(1, 6)] == [0.0] * 5


@pytest.mark.parametrize("arguments", [(-1, 5.0), (1, 0.0)])
def test_an_intensity_is_checked(arguments: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match=r"negative|longer"):
        Intensity(*arguments)


def test_a_backoff_is_checked() -> None:
    with pytest.raises(ValueError, match="backoff"):
        Backoff(base=2.0, cap=1.0)
