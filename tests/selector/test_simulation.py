"""The real selector in worlds whose truth is known: what it loses, and how soon it notices.

Each is run at 0.5, 2 and 20 requests a second on a virtual clock, with five seeds, or two where it takes long.
`bin/bench selection` prints the figures, also for more seeds, and draws the plots of ``docs/selection.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import mean

import pytest

from llm_actors.selector.exploration import SHARE
from llm_protocol.policy import Select
from support.selection_scenarios import (
    COLD,
    FLAPPING,
    HANGING,
    LONG_OUTAGE,
    NEWLY_FAST,
    NEWLY_SLOW,
    RATES,
    RECOVERY,
    SEEDS,
    SETTLED_S,
    STEADY,
    THREE,
    Scenario,
)
from support.selection_world import History, run

MAX_REGRET = 0.05
NOTICED_S = 60.0

FEW_SEEDS = SEEDS[:2]
"""For what takes seconds here. `bin/bench selection` has them all."""

by_seed = pytest.mark.parametrize("seed", SEEDS)


def _seeds(rate: float) -> Sequence[int]:
    return SEEDS if rate < RATES[-1] else FEW_SEEDS


def by_rate_and_seed(*rates: float) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("rate", "seed"), [(rate, seed) for rate in rates for seed in _seeds(rate)])


def played(
    scenario: Scenario,
    rate: float,
    seed: int,
    *,
    seconds: float | None = None,
    select: Select = "fastest",
    stream: bool = True,
) -> History:
    return run(
        scenario.deployments, rate=rate, seconds=seconds or scenario.seconds, seed=seed, select=select, stream=stream
    )


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("scenario", [STEADY, THREE], ids=str)
def test_in_steady_state_little_is_lost_and_it_is_told(scenario: Scenario, rate: float) -> None:
    """On average: the requests of one seed are too few to tell chance from loss."""
    seconds = {0.5: 3_000.0, 2.0: 1_500.0}.get(rate, 450.0)
    histories = [played(scenario, rate, seed, seconds=seconds) for seed in _seeds(rate)]
    assert mean(each.regret(SETTLED_S, seconds) for each in histories) <= MAX_REGRET
    for history in histories:
        told = history.selector.exploration()
        assert 0 <= len(history.requests) - told.ranked < 100, "all but those before the first answer"
        assert told.explored == sum(each.explored for each in history.requests)
        trials = 30.0
        assert told.excess <= SHARE * told.ranked + trials


@by_rate_and_seed(*RATES)
@pytest.mark.parametrize("scenario", [RECOVERY, NEWLY_FAST, NEWLY_SLOW], ids=str)
def test_after_a_change_most_requests_go_to_the_best_within_a_minute(
    scenario: Scenario, rate: float, seed: int
) -> None:
    history = played(scenario, rate, seed, seconds=scenario.changed_at + 100)
    assert history.seconds_until_majority(scenario.watched, scenario.changed_at) <= NOTICED_S


@by_rate_and_seed(*RATES)
@pytest.mark.parametrize("stream", [True, False])
def test_one_that_hangs_is_left_before_its_first_attempt_ends(rate: float, seed: int, *, stream: bool) -> None:
    """Each takes a minute. The first seconds' requests are lost; what follows are probes of whether it still hangs."""
    history = played(HANGING, rate, seed, stream=stream)
    assert history.seconds_until_majority(HANGING.watched, HANGING.changed_at) <= max(8.0, 12 / rate)
    assert history.share("best", HANGING.changed_at + 24, HANGING.seconds) <= 2 / 12


@by_rate_and_seed(*RATES[:2])
def test_after_a_quarter_of_an_hour_too(rate: float, seed: int) -> None:
    history = played(LONG_OUTAGE, rate, seed)
    assert history.seconds_until_majority(LONG_OUTAGE.watched, LONG_OUTAGE.changed_at) <= NOTICED_S


@pytest.mark.parametrize("seed", FEW_SEEDS)
@pytest.mark.parametrize("select", ["score", "fastest"])
@pytest.mark.parametrize("stream", [True, False])
def test_so_it_is_by_score_and_for_whole_answers(select: Select, seed: int, *, stream: bool) -> None:
    steady = played(THREE, 2.0, seed, seconds=1_800.0, select=select, stream=stream)
    assert steady.regret(SETTLED_S, 1_800.0) <= MAX_REGRET
    for scenario in (RECOVERY, NEWLY_FAST, NEWLY_SLOW):
        history = played(scenario, 2.0, seed, seconds=scenario.changed_at + 100, select=select, stream=stream)
        assert history.seconds_until_majority(scenario.watched, scenario.changed_at) <= NOTICED_S


@by_rate_and_seed(*RATES[1:])
def test_one_that_flaps_is_used_while_it_is_fast(rate: float, seed: int) -> None:
    """To stay with the other one would lose 33 %, and with this one 67 %."""
    assert played(FLAPPING, rate, seed).regret(FLAPPING.changed_at, FLAPPING.seconds) <= 0.2


@by_rate_and_seed(*RATES)
def test_from_a_cold_start_most_requests_go_to_the_best_within_half_a_minute(rate: float, seed: int) -> None:
    history = played(COLD, rate, seed)
    assert history.share("best", 30.0, COLD.seconds) > 0.8


@by_seed
def test_a_hundred_cold_requests_at_once_are_spread(seed: int) -> None:
    history = run(COLD.deployments, rate=1.0, seconds=60.0, seed=seed, burst=100)
    counts = Counter(each.chosen for each in history.requests[:100])
    assert {each.at for each in history.requests[:100]} == {0.0}
    assert len(counts) == len(COLD.deployments)
    assert max(counts.values()) - min(counts.values()) <= 1
