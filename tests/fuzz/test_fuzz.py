"""The fuzzers in short: what once broke something, the seeds, and a few hundred mutations of them.

The long search is `fuzz.explore` and `fuzz.pump`.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.all import TARGETS
from fuzz.mutation import mutated
from fuzz.steps import STEP_SECONDS, at_most
from fuzz.target import Target

PATIENCE = 5
"""How many times longer a step may take here, beside other tests."""

CASES = [pytest.param(each, path, id=f"{each.name}-{path.name}") for each in TARGETS.values() for path in each.corpus()]


@pytest.mark.parametrize(("target", "path"), CASES)
def test_what_once_broke_something(target: Target, path: Path) -> None:
    with at_most(STEP_SECONDS * PATIENCE):
        target.check(path.read_bytes())


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_seeds_and_what_is_like_them(target: Target) -> None:
    seeds = target.seeds()

    @settings(max_examples=60, derandomize=True, database=None)
    @given(st.sampled_from(seeds), st.integers(0, 2**32))
    def check(seed: bytes, number: int) -> None:
        chance = random.Random(number)
        target.check(seed[: target.prefix] + mutated(seed[target.prefix :], chance))

    for seed in seeds[:60]:
        target.check(seed)
    check()
