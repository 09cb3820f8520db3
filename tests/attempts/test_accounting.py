"""What runs tell is what their vendors billed: the short form of ``bin/bench accounting``."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from support.accounting import random_runs

RUNS = 80


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_runs_are_told_as_they_are_billed(autojump_clock: MockClock, seed: int) -> None:
    audit = await random_runs(seed, RUNS)

    assert audit.problems == []
    assert audit.exact + audit.estimated == audit.runs == RUNS
    assert audit.estimated > 0
    assert audit.outcomes["ok"] > RUNS / 4
