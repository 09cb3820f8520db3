"""A whole tree in virtual time, in a repeatable order.

Trio runs ready tasks in a random order on purpose. `run_virtual` fixes the seed of that order and the clock, so a
run can be repeated, and many seeds can be tried for one that fails.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from unittest.mock import patch

import trio
from trio._core import _run
from trio.testing import MockClock

T = TypeVar("T")


def run_virtual(
    main: Callable[[], Awaitable[T]], *, seed: int = 0, instruments: Sequence[trio.abc.Instrument] = ()
) -> T:
    """Run `main` on a clock that jumps whenever every task waits, in the task order that `seed` stands for."""
    order = random.Random(seed)  # noqa: S311  (an order of tasks, not a secret)
    # Private names of Trio, the ones its own Hypothesis plugin uses; there is no public way to seed the scheduler.
    with patch.multiple(_run, _r=order, _ALLOW_DETERMINISTIC_SCHEDULING=True):
        return trio.run(main, clock=MockClock(autojump_threshold=0), instruments=instruments)
