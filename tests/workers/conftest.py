"""Clocks for the tests of workers."""

from __future__ import annotations

import pytest

from llm_actors.testing import MovingClock


@pytest.fixture
def jumping_clock() -> MovingClock:
    """Virtual time that jumps when nothing happens for 5 ms: sockets need a moment to deliver."""
    return MovingClock(autojump_threshold=0.005)
