"""A reservation, as its holder sees it: a scope. However the scope is left, the reservation is settled."""

from __future__ import annotations

import logging
from itertools import count
from math import inf
from types import TracebackType
from typing import final

import trio

from llm_actors.kernel import CallExpired, Cast, KernelError, MailboxFull, retry_after_crashes
from llm_actors.limiter.budgets import SpendAsk
from llm_actors.limiter.messages import EndLease, GetLimiterStatistics, Leave, LimiterRef, Reserve, Ticket
from llm_actors.limiter.rate_limiter import Granted
from llm_actors.limiter.statistics import LimiterStatistics
from llm_actors.store.ledger import LedgerEntry
from llm_protocol.dialect import RateLimits
from llm_protocol.failures import RULES, FailureKind, Settlement
from llm_protocol.response import Usage

LEASE_SECONDS = 900.0
"""The shortest lease; it is longer if its holder's deadline is later."""

LEASE_GRACE = 60.0
"""Seconds between the holder's deadline and the end of its lease."""

USUAL_PRIORITY = 5

log = logging.getLogger(__name__)

_numbers = count(1)


@final
class Reservation:
    """A reservation for one request at ``provider``. Use it as a scope around the attempt, and end it once with
    `settle` or `refund`; the first call counts.

    If it is left without either, everything is returned if `sent` was not called, and only the concurrency if it was.
    No method waits.
    """

    __slots__ = ("_limiter", "_number", "_open", "_sent", "_ticket", "is_budgeted", "provider", "warning")

    def __init__(self, limiter: LimiterRef, granted: Granted, ticket: Ticket, *, is_budgeted: bool = False) -> None:
        self.provider = granted.provider
        self.warning = granted.warning
        self.is_budgeted = is_budgeted
        """Whether budgets pay: then what it took is told to the ledger with its end."""
        self._limiter = limiter
        self._number = granted.number
        self._open = True
        self._sent = False
        self._ticket = ticket

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """The block is left, or none was entered."""
        self._end(Settlement.CHARGED if self._sent else Settlement.REFUNDED)

    def sent(self) -> None:
        """The request is being sent: from now on the vendor may be working on it."""
        self._sent = True

    def settle(
        self, usage: Usage | None, limits: RateLimits | None = None, *, entry: LedgerEntry | None = None
    ) -> None:
        """It was answered. ``usage`` replaces the estimate, if the vendor gave any; ``limits`` are its headers.
        ``entry``: for the ledger, where budgets pay.
        """
        self._end(Settlement.CHARGED, None if usage is None else usage.total_tokens, limits, entry=entry)

    def refund(
        self,
        kind: FailureKind,
        *,
        retry_after: float | None = None,
        of_model: bool = False,
        limits: RateLimits | None = None,
        unsent: bool = False,
        entry: LedgerEntry | None = None,
    ) -> None:
        """The request failed. Everything is returned if it is known to be ``unsent``, else what ``kind`` proves unused;
        ``retry_after`` (seconds) holds the provider or, with ``of_model``, that model alone.
        """
        ending = Settlement.REFUNDED if unsent else RULES[kind].settlement
        self._end(ending, None, limits, retry_after, of_model, entry=entry)

    def _end(
        self,
        ending: Settlement,
        tokens: int | None = None,
        reported: RateLimits | None = None,
        hold_s: float | None = None,
        of_model: bool = False,
        *,
        entry: LedgerEntry | None = None,
    ) -> None:
        if self._open:
            self._open = False
            over = EndLease(
                number=self._number,
                ending=ending,
                tokens=tokens,
                reported=reported,
                hold_s=hold_s,
                of_model=of_model,
                entry=entry,
            )
            self._ticket.over = over
            _send(self._limiter, over)


def _send(limiter: LimiterRef, message: Cast) -> None:
    """Cast. A cast that is refused is not lost silently: the mailbox counts it, and the end of the lease makes up for
    it.
    """
    try:
        limiter.cast(message)
    except MailboxFull:
        log.error("the limiter's mailbox is full: a reservation stays open until its lease ends")  # noqa: TRY400


async def reserve(
    limiter: LimiterRef,
    names: tuple[str, ...],
    *,
    tokens: int,
    caller: str = "",
    priority: int = USUAL_PRIORITY,
    waited_s: float = 0.0,
    models: tuple[str, ...] = (),
    spend: SpendAsk | None = None,
    deadline: float = inf,
) -> Reservation:
    """Reserve capacity for a request of about ``tokens`` tokens at the first of ``names`` (in rank order) that has it.

    Waits for whichever has it first: until ``deadline`` on Trio's clock, after which it raises `CallExpired`, within
    the caller's own deadline (30 s where there is neither), and no longer than the ``wait_s`` of
    the provider's limits, of which ``waited_s`` has been used before, and that of the caller's. Raises `RateLimitError`
    with ``retry_after`` and ``limit_owner`` when that is over, or as soon as it is clear that it will not do;
    `QueueFullError` when too many wait already, or a `KernelError`: `Parked` at once while the limiter is. Cancelling
    it leaves nothing behind. A crash of the limiter costs the place in line, not the request, however often it crashes
    over others; one that it crashed over twice raises `ActorCrashed`.

    ``models``, if given, has the vendor's name of the model that it is for at each of ``names``. A vendor that wants no
    request for that model now is not waited for: the `RateLimitError` that says so has ``provider`` and ``model``.

    ``spend``: what budgets are to pay. Raises `BudgetError` at once where they do not. What they pay has its row in the
    ledger when this returns, if there is one.
    """
    if not names:
        raise ValueError("reserve needs at least one provider to choose from")
    if models and not len(models) == len(names) == len(set(names)):
        raise ValueError("reserve needs one model for each provider, and each provider once")
    begun = trio.current_time()
    since = begun - waited_s
    return await retry_after_crashes(
        lambda: _ask(limiter, names, models, tokens, caller, priority, since, spend, deadline)
    )


async def _ask(
    limiter: LimiterRef,
    names: tuple[str, ...],
    models: tuple[str, ...],
    tokens: int,
    caller: str,
    priority: int,
    since: float,
    spend: SpendAsk | None,
    deadline: float,
) -> Reservation:
    now, until = trio.current_time(), min(deadline, trio.current_effective_deadline())
    lease_s = LEASE_SECONDS if until == inf else max(LEASE_SECONDS, until - now + LEASE_GRACE)
    number = next(_numbers)
    names = names if models else tuple(dict.fromkeys(names))
    ticket = Ticket()
    ask = Reserve(
        number=number,
        names=names,
        tokens=max(0, tokens),
        caller=caller,
        priority=priority,
        lease_s=lease_s,
        waited_s=now - since,
        models=models,
        spend=spend,
        ticket=ticket,
    )
    try:
        granted = await limiter.call(ask, deadline=deadline)
        if granted.wait_s:
            if trio.current_time() + granted.wait_s > deadline:
                raise CallExpired(limiter.name, "it has capacity only after the deadline")
            await trio.sleep(granted.wait_s)
        return Reservation(limiter, granted, ticket, is_budgeted=spend is not None)
    except (trio.Cancelled, KernelError):
        ticket.over = Leave(number)
        _send(limiter, ticket.over)  # it may be queued there, or have been granted at this very moment
        raise


async def statistics(limiter: LimiterRef) -> LimiterStatistics:
    """The statistics. Waits for the limiter's reply; raises only `KernelError`."""
    return await limiter.call(GetLimiterStatistics())


def snapshot(limiter: LimiterRef) -> LimiterStatistics | None:
    """The current statistics, without waiting for the limiter's mailbox; ``None`` if it does not run."""
    return limiter.read(GetLimiterStatistics())
