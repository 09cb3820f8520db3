"""A whole tree in virtual time, in a repeatable order.

Trio runs ready tasks in a random order on purpose. `run_virtual` fixes the seed of that order and the clock, so a
run can be repeated, and many seeds can be tried for one that fails.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, MutableSequence, Sequence
from enum import Enum
from typing import Any, TypeVar, final
from unittest.mock import patch

import trio
from trio._core import _run
from trio.testing import MockClock

from llm_actors.testing.clock import MovingClock

T = TypeVar("T")


class Order(Enum):
    """Which of the tasks that are scheduled together runs first."""

    OLDEST_FIRST = "oldest first"
    NEWEST_FIRST = "newest first"


@final
class _Sorted(random.Random):
    """A random generator that sorts where Trio shuffles. Trio sorts a batch of tasks by age, shuffles the batch, and
    takes tasks from its end.
    """

    def __init__(self, order: Order) -> None:
        super().__init__(0)
        self._order = order

    def shuffle(self, x: MutableSequence[Any]) -> None:
        if self._order is Order.OLDEST_FIRST:
            x.reverse()


def run_virtual(
    main: Callable[[], Awaitable[T]],
    *,
    seed: int | Order = 0,
    instruments: Sequence[trio.abc.Instrument] = (),
    clock: MockClock | MovingClock | None = None,
) -> T:
    """Run `main` on a clock that jumps whenever every task waits. `seed` determines the order of tasks.

    `clock`: a `MovingClock`, to find errors that a clock without progress would hide.
    """
    order = _Sorted(seed) if isinstance(seed, Order) else random.Random(seed)  # noqa: S311  (not a secret)
    clock = clock or MockClock(autojump_threshold=0)
    # Private names of Trio, the ones its own Hypothesis plugin uses; there is no public way to seed the scheduler.
    with patch.multiple(_run, _r=order, _ALLOW_DETERMINISTIC_SCHEDULING=True):
        return trio.run(main, clock=clock, instruments=instruments)
