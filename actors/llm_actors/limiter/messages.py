"""The messages of the limiter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, final

from llm_actors.kernel import Call, Cast, MailboxSpec, Ref
from llm_actors.limiter.budgets import SpendAsk
from llm_actors.limiter.rate_limiter import Granted
from llm_actors.limiter.statistics import LimiterStatistics
from llm_actors.store.ledger import LedgerEntry
from llm_protocol.dialect import RateLimits
from llm_protocol.failures import Settlement
from llm_protocol.policy import Limits

LIMITER_MAILBOX = MailboxSpec(65_536)
"""A mailbox that casts cannot fill in practice: a run has a handful of reservations, each with at most one message on
its way, and a limiter reads thousands a second. An empty mailbox costs nothing.
"""


@final
class Ticket:
    """The holder's side of a reservation, in memory that outlives the limiter: a crash may lose the message that it has
    ended.
    """

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over: EndLease | Leave | None = None


class Reserve(Call[Granted], frozen=True, kw_only=True):
    """Reserve the first of ``names`` that has capacity for a request of ``tokens``, or wait for the first
    that has it.
    """

    number: int
    names: tuple[str, ...]
    tokens: int
    caller: str
    priority: int
    lease_s: float
    waited_s: float = 0.0
    models: tuple[str, ...] = ()
    spend: SpendAsk | None = None
    """What budgets are to pay; ``None``: there are none that do."""
    ticket: Ticket


class Leave(Cast, frozen=True):
    """The caller that asked for reservation ``number`` is gone, whether or not it was granted."""

    number: int


class EndLease(Cast, frozen=True, kw_only=True):
    """Reservation ``number`` is over. ``tokens``: what was really used, if known. ``hold_s``: a Retry-After,
    ``of_model``: for this model alone. ``entry``: what the ledger is told, where budgets pay.
    """

    number: int
    ending: Settlement
    tokens: int | None = None
    reported: RateLimits | None = None
    hold_s: float | None = None
    of_model: bool = False
    entry: LedgerEntry | None = None


class ChangeLimits(Call[None], frozen=True, kw_only=True):
    """Have these limits from now on, instead of all that were there. What was used stays."""

    providers: Mapping[str, Limits]
    callers: Mapping[str, Limits]


class GetLimiterStatistics(Call[LimiterStatistics], frozen=True):
    """Get the statistics."""


LimiterMessage: TypeAlias = Reserve | Leave | EndLease | ChangeLimits | GetLimiterStatistics
LimiterRef: TypeAlias = Ref[LimiterMessage]
