"""The messages of the limiter's actor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, final

from llm_actors.kernel import Call, Cast, MailboxSpec, Ref
from llm_actors.limiter.budgets import SpendAsk
from llm_actors.limiter.results import Granted, LimiterStatistics
from llm_actors.store.ledger import LedgerEntry
from llm_protocol.dialect import RateLimits
from llm_protocol.failures import Settlement
from llm_protocol.policy import Limits

LIMITER_MAILBOX = MailboxSpec(65_536)
"""The mailbox of the limiter. In practice casts cannot fill it: a run has a few reservations, each with at most one
message under way, and the limiter handles thousands of messages a second. Unused capacity costs nothing.
"""


@final
class Ticket:
    """The end of a reservation, recorded by its holder in memory that survives a crash of the limiter. If the crash
    loses the message, the next incarnation reads it here.
    """

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over: EndLease | Leave | None = None


class Reserve(Call[Granted], frozen=True, kw_only=True):
    """Reserve a request of ``tokens`` at the first of ``names`` that has capacity, or wait until one has."""

    number: int
    names: tuple[str, ...]
    tokens: int
    caller: str
    priority: int
    lease_s: float
    waited_s: float = 0.0
    models: tuple[str, ...] = ()
    spend: SpendAsk | None = None
    """The amount that the budgets must pay; ``None`` if no budget applies."""
    ticket: Ticket


class Leave(Cast, frozen=True):
    """The sender of the `Reserve` with this ``number`` has gone. The reservation may have been granted."""

    number: int


class EndLease(Cast, frozen=True, kw_only=True):
    """Reservation ``number`` has ended.

    ``tokens``: the tokens it used, if known. ``hold_s``: the vendor's Retry-After in seconds; with ``of_model``, for
    this model only. ``entry``: the row to write to the ledger if budgets apply.
    """

    number: int
    ending: Settlement
    tokens: int | None = None
    reported: RateLimits | None = None
    hold_s: float | None = None
    of_model: bool = False
    entry: LedgerEntry | None = None


class ChangeLimits(Call[None], frozen=True, kw_only=True):
    """Replace all limits. Earlier usage still counts."""

    providers: Mapping[str, Limits]
    callers: Mapping[str, Limits]


class GetLimiterStatistics(Call[LimiterStatistics], frozen=True):
    """Return the statistics."""


LimiterMessage: TypeAlias = Reserve | Leave | EndLease | ChangeLimits | GetLimiterStatistics
LimiterRef: TypeAlias = Ref[LimiterMessage]
