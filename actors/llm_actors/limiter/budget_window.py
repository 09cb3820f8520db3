"""One budget in one calendar window: what this process has of it, and what others have."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, final

from llm_protocol.budgets import CalendarWindow

Sharing: TypeAlias = Literal["off", "on", "alone"]
"""Of the budgets: with nobody; through Redis; or they are, and Redis is away."""


class Amount(NamedTuple):
    """US dollars and tokens."""

    usd: float = 0.0
    tokens: int = 0

    def plus(self, other: Amount) -> Amount:
        """Both."""
        return Amount(self.usd + other.usd, self.tokens + other.tokens)

    def minus(self, other: Amount) -> Amount:
        """The difference."""
        return Amount(self.usd - other.usd, self.tokens - other.tokens)

    def least(self, other: Amount) -> Amount:
        """The smaller of each."""
        return Amount(min(self.usd, other.usd), min(self.tokens, other.tokens))

    def most(self, other: Amount) -> Amount:
        """The larger of each."""
        return Amount(max(self.usd, other.usd), max(self.tokens, other.tokens))


NOTHING = Amount()


class Portion(NamedTuple):
    """What another process has of a budget in a window. ``own``: spent and reserved; ``share``: what it may have
    without asking, ``own`` included. ``gone``: it is no more, and this is all that it had.
    """

    own: Amount
    share: Amount
    gone: bool


class Told(NamedTuple):
    """What Redis tells of one budget in one window.

    ``share``: what this process may have spent and reserved without asking; ``spare``: how much of that it is to keep
    beyond what it has. ``complete``: all that share the budget have told what they have.
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
        """By this process."""
        self.reserved = Amount()
        """By this process, for what is in flight."""
        self.pending = Amount()
        """That part of ``reserved`` which nobody has confirmed yet."""
        self.base: dict[str, Amount] = {}
        """What others have spent, by their names, as the store's file had it at the start."""
        self.others: dict[str, Portion] = {}
        """What others have, as last told."""
        self.asked = 0
        """The number of the last question about it that was answered; 0: never told."""
        self.share = Amount()
        """What this process may have spent and reserved without asking."""
        self.spare = Amount()
        """How much of that it keeps, beyond what it has."""
        self.complete = False
        """Whether all that share it have told what they have."""
        self.warned = False

    @property
    def own(self) -> Amount:
        """What this process has spent and reserved."""
        return self.spent.plus(self.reserved)

    def before(self, sharing: Sharing) -> Amount:
        """What others have of it."""
        total = Amount()
        heard = sharing != "off" and self.asked
        for each in (portion.own for portion in self.others.values()) if heard else self.base.values():
            total = total.plus(each)
        return total

    @property
    def set_aside(self) -> Amount:
        """What others may still have without asking."""
        total = Amount()
        for each in self.others.values():
            total = total.plus(each.share.minus(each.own).most(NOTHING))
        return total
