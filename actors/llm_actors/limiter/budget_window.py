"""One budget in one calendar window: the spending of this process and of the others."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, final

from llm_protocol.budgets import CalendarWindow

Sharing: TypeAlias = Literal["off", "on", "alone"]
"""Whether budgets are shared: `off` (not), `on` (through Redis), or `alone` (they are shared, but Redis is
unreachable).
"""


class Amount(NamedTuple):
    """An amount of US dollars and of tokens."""

    usd: float = 0.0
    tokens: int = 0

    def plus(self, other: Amount) -> Amount:
        """Return the sum."""
        return Amount(self.usd + other.usd, self.tokens + other.tokens)

    def minus(self, other: Amount) -> Amount:
        """Return the difference."""
        return Amount(self.usd - other.usd, self.tokens - other.tokens)

    def least(self, other: Amount) -> Amount:
        """Return the smaller amount of dollars and the smaller amount of tokens."""
        return Amount(min(self.usd, other.usd), min(self.tokens, other.tokens))

    def most(self, other: Amount) -> Amount:
        """Return the larger amount of dollars and the larger amount of tokens."""
        return Amount(max(self.usd, other.usd), max(self.tokens, other.tokens))


NOTHING = Amount()


class Portion(NamedTuple):
    """The part of another process in a budget's window. ``own`` is the amount that it has spent and reserved. ``share``
    is the most it may have spent and reserved without asking Redis; ``own`` is included. ``gone``: the process has
    ended, and ``own`` is final.
    """

    own: Amount
    share: Amount
    gone: bool


class Told(NamedTuple):
    """The reply of Redis about one budget in one window.

    ``share`` is the most that this process may have spent and reserved without asking Redis. ``spare`` is the unused
    part of it that the process may keep. ``complete``: every process that shares the budget has reported its
    spending.
    """

    others: dict[str, Portion]
    share: Amount
    spare: Amount
    complete: bool


@final
class WindowState:
    """The spending of one budget in one calendar window."""

    __slots__ = (
        "asked", "base", "complete", "others", "pending", "reserved", "share", "spare", "spent", "warned", "window"
    )  # fmt: skip

    def __init__(self, window: CalendarWindow) -> None:
        self.window = window
        self.spent = Amount()
        """The amount that this process has spent."""
        self.reserved = Amount()
        """The amount that this process has reserved for requests in progress."""
        self.pending = Amount()
        """The part of ``reserved`` that Redis has not confirmed yet."""
        self.base: dict[str, Amount] = {}
        """The spending of other processes, by name, as it was in the store's file at the start."""
        self.others: dict[str, Portion] = {}
        """The parts of other processes, by name, as Redis last reported them."""
        self.asked = 0
        """The number of the last question about this window that Redis answered; 0 if none was."""
        self.share = Amount()
        """The most that this process may have spent and reserved without asking Redis."""
        self.spare = Amount()
        """The unused part of ``share`` that this process may keep."""
        self.complete = False
        """Whether every process that shares the budget has reported its spending."""
        self.warned = False

    @property
    def own(self) -> Amount:
        """The amount that this process has spent and reserved."""
        return self.spent.plus(self.reserved)

    def before(self, sharing: Sharing) -> Amount:
        """Return the amount that other processes have spent and reserved: by the last reply of Redis, or else by the
        store's file.
        """
        total = Amount()
        heard = sharing != "off" and self.asked
        for each in (portion.own for portion in self.others.values()) if heard else self.base.values():
            total = total.plus(each)
        return total

    @property
    def set_aside(self) -> Amount:
        """The unused parts of the shares of other processes, which these may still use without asking."""
        total = Amount()
        for each in self.others.values():
            total = total.plus(each.share.minus(each.own).most(NOTHING))
        return total
