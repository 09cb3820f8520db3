"""Which children are restarted when one fails, as in Erlang/OTP. Pure functions over names in start order."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import assert_never


class Restart(Enum):
    """When a child that has ended is restarted."""

    PERMANENT = "permanent"
    """Always, even after a normal return."""
    TRANSIENT = "transient"
    """Only after a crash."""
    TEMPORARY = "temporary"
    """Never, not even when its siblings are restarted as a group."""


class Strategy(Enum):
    """Which children are restarted when one fails: that child only, all children, or that child and those started after
    it.
    """

    ONE_FOR_ONE = "one for one"
    ONE_FOR_ALL = "one for all"
    REST_FOR_ONE = "rest for one"


def wants_restart(restart: Restart, *, crashed: bool) -> bool:
    """Return whether a child that ended by itself is restarted."""
    return restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and crashed)


def affected(strategy: Strategy, names: Sequence[str], failed: str) -> Sequence[str]:
    """Return the children to restart because `failed` failed, in start order. Stop them in reverse order, then start
    them in order.
    """
    match strategy:
        case Strategy.ONE_FOR_ONE:
            return (failed,)
        case Strategy.ONE_FOR_ALL:
            return names
        case Strategy.REST_FOR_ONE:
            return names[names.index(failed) :]
        case _:
            assert_never(strategy)
