"""A reservation for its holder: a context manager. However its block is left, the reservation is settled."""

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
from llm_actors.limiter.results import Granted, LimiterStatistics
from llm_actors.store.ledger import LedgerEntry
from llm_protocol.dialect import RateLimits
from llm_protocol.failures import RULES, FailureKind, Settlement
from llm_protocol.response import Usage

LEASE_SECONDS = 900.0
"""The shortest lease, in seconds. A lease is longer if its holder has a later deadline."""

LEASE_GRACE = 60.0
"""Seconds between the holder's deadline and the end of its lease."""

USUAL_PRIORITY = 5

log = logging.getLogger(__name__)

_numbers = count(1)


@final
class Reservation:
    """A reservation for one request at ``provider``. Use it as a context manager around the attempt, and call
    `settle` or `refund` once; only the first call counts.

    If the block is left without such a call, everything is refunded, or only the concurrency if `sent` was called. No
    method waits.
    """

    __slots__ = ("_limiter", "_number", "_open", "_sent", "_ticket", "is_budgeted", "provider", "warning")

    def __init__(self, limiter: LimiterRef, granted: Granted, ticket: Ticket, *, is_budgeted: bool = False) -> None:
        self.provider = granted.provider
        self.warning = granted.warning
        self.is_budgeted = is_budgeted
        """Whether budgets apply. If they do, `settle` and `refund` need an ``entry``."""
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
        """End the reservation if neither `settle` nor `refund` was called. It is charged if `sent` was called, and
        refunded otherwise.
        """
        self._end(Settlement.CHARGED if self._sent else Settlement.REFUNDED)

    def sent(self) -> None:
        """Record that the request is being sent: from now on the vendor may work on it."""
        self._sent = True

    def settle(
        self, usage: Usage | None, limits: RateLimits | None = None, *, entry: LedgerEntry | None = None
    ) -> None:
        """End the reservation after a response. ``usage`` replaces the estimate, if the vendor reported any.
        ``limits``: the limits in its headers. ``entry``: the spending, if budgets apply.
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
        """End the reservation after a failure. If the request is known to be ``unsent``, everything is refunded;
        otherwise only what a failure of this ``kind`` proves to be unused. ``retry_after``: seconds during which no
        request goes to the provider or, with ``of_model``, to this model.
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
    """Send a message without waiting. If the mailbox is full, the message is lost, and the reservation ends when its
    lease expires.
    """
    try:
        limiter.cast(message)
    except MailboxFull:
        log.error("the limiter's mailbox is full: a reservation stays open until its lease expires")  # noqa: TRY400


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
    lease_s: float = LEASE_SECONDS,
) -> Reservation:
    """Reserve a request of about ``tokens`` tokens at the first provider of ``names`` that has capacity.

    If none has capacity, this waits until one has, but no longer than any of these: ``deadline`` on Trio's clock,
    after which it raises `CallExpired`; the deadline of the caller's cancel scope; 30 s if there is neither; the
    ``wait_s`` of the provider's limits, of which ``waited_s`` seconds have been used before; the ``wait_s`` of the
    caller's limits.

    Raises `RateLimitError`, with ``retry_after`` and ``limit_owner``, when the limits allow no longer wait, or as
    soon as it is certain that the wait would be too long. Raises `QueueFullError` if too many requests are waiting,
    and `KernelError` if the limiter is not running: `Parked`, at once, while it is parked. Cancelling this leaves
    nothing behind. If the limiter crashes on other messages, the request is queued again; if it crashes on this one
    twice, `ActorCrashed` is raised.

    ``models``: for each of ``names``, the vendor's name of the model. A deployment that is held is not waited for. If
    all are held, the `RateLimitError` has ``provider`` and ``model``.

    ``spend``: the amount that the budgets must pay. If they cannot, this raises `BudgetError` at once. When this
    returns, the ledger, if there is one, has a row for the spending.

    ``priority``: a lower number goes first. ``lease_s``: the least seconds of the lease, for a holder without a
    deadline.
    """
    if not names:
        raise ValueError("reserve needs at least one provider to choose from")
    if models and not len(models) == len(names) == len(set(names)):
        raise ValueError("reserve needs one model for each provider, and each provider once")
    begun = trio.current_time()
    since = begun - waited_s
    return await retry_after_crashes(
        lambda: _reserve(limiter, names, models, tokens, caller, priority, since, spend, deadline, lease_s)
    )


async def _reserve(
    limiter: LimiterRef,
    names: tuple[str, ...],
    models: tuple[str, ...],
    tokens: int,
    caller: str,
    priority: int,
    since: float,
    spend: SpendAsk | None,
    deadline: float,
    lease_s: float,
) -> Reservation:
    # ``deadline`` limits the wait alone: the request may take until the end of its scope.
    now, until = trio.current_time(), trio.current_effective_deadline()
    lease_s = lease_s if until == inf else max(lease_s, until - now + LEASE_GRACE)
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
                raise CallExpired(limiter.name, "the limits allow the request only after its deadline")
            await trio.sleep(granted.wait_s)
        return Reservation(limiter, granted, ticket, is_budgeted=spend is not None)
    except (trio.Cancelled, KernelError):
        ticket.over = Leave(number)
        _send(limiter, ticket.over)  # it may still be queued, or may just have been granted
        raise


async def statistics(limiter: LimiterRef) -> LimiterStatistics:
    """Return the statistics. Waits for the limiter's reply; raises only `KernelError`."""
    return await limiter.call(GetLimiterStatistics())


def snapshot(limiter: LimiterRef) -> LimiterStatistics | None:
    """Return the current statistics without waiting; ``None`` if the limiter is not running."""
    return limiter.read(GetLimiterStatistics())
