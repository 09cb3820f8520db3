"""Random responses whose readers are cut off and come back: the short form of ``bin/bench resume``."""

from __future__ import annotations

import pytest

from support.resuming import resume_run


@pytest.mark.parametrize("seed", [1, 2])
async def test_who_is_cut_off_and_comes_back_has_the_stream_exactly(seed: int) -> None:
    tally = await resume_run(seed, cuts=60)
    assert tally.problems == []
    assert tally.cuts >= 60
