"""Clocks for the door's tests."""

from __future__ import annotations

import pytest
from trio.testing import MockClock


@pytest.fixture
def jumping_clock() -> MockClock:
    """Virtual time that jumps when nothing happens for 5 ms: sockets on loopback need a moment to deliver."""
    return MockClock(autojump_threshold=0.005)
