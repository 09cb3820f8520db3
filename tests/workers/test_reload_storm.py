"""Reloads under load, and a worker that is killed: the short form of ``bin/bench reloads``."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.reload_storm import ReloadStorm


@pytest.mark.time_limit(180)
async def test_nothing_is_lost_while_everything_changes(tmp_path: Path) -> None:
    storm = ReloadStorm(tmp_path, streams=6, rate=6, reloads=13, pause=0.1, seed=3)
    tally = await storm.run()
    assert tally.problems == []
    assert set(tally.done) >= {"rotate_vendor_key", "renew_certificate", "remove_extra", "reload_badly"}
    assert tally.broken <= 12
