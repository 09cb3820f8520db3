"""Which children are replaced when one fails. Pure functions over names in start order; OTP's rules."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import assert_never


class Restart(Enum):
    """Which ends of a child lead to another incarnation."""

    PERMANENT = "permanent"
    """Every one, also a normal return."""
    TRANSIENT = "transient"
    """Only a crash."""
    TEMPORARY = "temporary"
    """None, not even when its siblings are restarted as a group."""


class Strategy(Enum):
    """Which siblings are replaced, too."""

    ONE_FOR_ONE = "one for one"
    ONE_FOR_ALL = "one for all"
    REST_FOR_ONE = "rest for one"


def wants_restart(restart: Restart, *, crashed: bool) -> bool:
    """Whether a child that ended by itself is restarted."""
    return restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and crashed)


def affected(strategy: Strategy, names: Sequence[str], failed: str) -> Sequence[str]:
    """Return the children to stop (in reverse) and to start (in order) because `failed` failed."""
    match strategy:
        case Strategy.ONE_FOR_ONE:
            return (failed,)
        case Strategy.ONE_FOR_ALL:
            return names
        case Strategy.REST_FOR_ONE:
            return names[names.index(failed) :]
        case _:
            assert_never(strategy)
