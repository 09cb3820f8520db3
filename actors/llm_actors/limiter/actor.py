"""The limiter's actor: owns the `RateLimiter`, replies to queued requests, and wakes up when the next request may be
sent.

There is one timer, a sleeping task whose deadline moves; nothing polls. `RateLimiter` makes all decisions
synchronously, so a message is handled completely or, in a crash, not at all.

If several processes share the limits, the shared ledger must confirm a grant first (`SharedLimits`). If budgets apply,
they must confirm it, too (`BudgetCoordinator`).

The `RateLimiter` survives a restart: the checkpoint is a reference to it, saved at the start, and so never out of date.
The next incarnation takes over open leases, usage, debts and holds. The holders' tickets tell it which leases have
ended in the meantime.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from random import random
from secrets import token_hex
from typing import NamedTuple, assert_never, final

import msgspec
import trio

from llm_actors.kernel import ChildSpec, Delivery, Inbox, Previous, retry_after_crashes, serve_at_once
from llm_actors.limiter.budget_coordinator import BudgetCoordinator
from llm_actors.limiter.budgets import BudgetRefused, Budgets
from llm_actors.limiter.callers import NO_LIMITS
from llm_actors.limiter.fair_queue import QueuedRequest
from llm_actors.limiter.messages import (
    LIMITER_MAILBOX,
    ChangeLimits,
    EndLease,
    GetLimiterStatistics,
    Leave,
    LimiterMessage,
    LimiterRef,
    Reserve,
    Ticket,
)
from llm_actors.limiter.rate_limiter import RateLimiter
from llm_actors.limiter.results import Decision, Granted, LimiterStatistics, LimitRefused
from llm_actors.limiter.shared.coordinator import SharedLimits
from llm_actors.redis import RedisServer
from llm_actors.store import StoreRef, get_spent
from llm_actors.store.ledger import CloseEntry, DropEntry, Ledger
from llm_protocol.budgets import Budget, Payer, window_at
from llm_protocol.errors import error_for
from llm_protocol.failures import Failure, FailureKind, Settlement
from llm_protocol.policy import Limits

LOAD_AGAIN_SECONDS = 5.0
"""Seconds until the earlier spending is read again from a store that could not be read."""

log = logging.getLogger(__name__)


class SavedLimits(msgspec.Struct, frozen=True):
    """The state that the next incarnation inherits. ``process`` is the name of this process among those that share
    the limits.
    """

    rate_limiter: RateLimiter
    process: str
    tickets: dict[int, Ticket]
    budgets: Budgets


class _PendingRequest(NamedTuple):
    """A request that has no decision yet, with the call that waits for it."""

    delivery: Delivery[LimiterMessage]
    message: Reserve
    waiter: QueuedRequest


@final
class LimiterActor:
    """Owns the `RateLimiter`. ``callers`` have limits by name; every other caller has the limits ``other_callers``."""

    def __init__(
        self,
        providers: Mapping[str, Limits],
        callers: Mapping[str, Limits] | None = None,
        other_callers: Limits = NO_LIMITS,
        *,
        server: RedisServer | None = None,
        budgets: Mapping[str, Budget] | None = None,
        store: StoreRef | None = None,
        ledger: Ledger | None = None,
        previous: Previous = None,
        draw: Callable[[], float] = random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``server``: the Redis through which limits and budgets are shared with other processes. ``store`` and
        ``ledger``: where the spending that budgets count is stored. ``previous``: the `SavedLimits` of the previous
        incarnation. ``draw`` returns the jitter, in [0, 1); ``wall`` the wall clock in seconds.
        """
        self._wall = wall
        self._store = store
        self._ledger = ledger
        self._budgets = Budgets(budgets or {}, shared=server is not None)
        self._rate_limiter = RateLimiter(providers, callers, other_callers, draw=draw)
        # Rows in the ledger have the same name, so spending that Redis and the ledger both report counts once.
        process = token_hex(8) if ledger is None else ledger.owner
        if isinstance(previous, SavedLimits):
            process = previous.process
            self._rate_limiter.restart(previous.rate_limiter)
            self._budgets = previous.budgets
        self._kept = SavedLimits(self._rate_limiter, process, {}, self._budgets)
        self._pending: dict[int, _PendingRequest] = {}
        self._granted: dict[int, Granted] = {}
        """Grants that wait until the budgets confirm them."""
        self._timer = trio.CancelScope()
        self._sharing = SharedLimits(
            server, self._rate_limiter, waiter=self._waiter, confirmed=self._confirmed, draw=draw, process=process
        )
        self._budget_coordinator = BudgetCoordinator(
            self._budgets,
            store=store,
            ledger=ledger,
            server=server,
            process=process,
            wanted=lambda number: number in self._pending,
            paid=self._paid,
            unpaid=self._unpaid,
            wall=wall,
        )
        if isinstance(previous, SavedLimits):
            self._end_by_tickets(previous.tickets, trio.current_time())
            for number in [each for each in self._budgets.holds if each not in self._kept.tickets]:
                self._release(number)

    async def run(self, inbox: Inbox[LimiterMessage], *, task_status: trio.TaskStatus[None]) -> SavedLimits:
        """Handle messages until asked to stop. Requests that are still queued then fail."""
        inbox.checkpoint(self._kept)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._keep_time)
            await self._sharing.start(nursery)
            if self._budgets.table:
                store = None if self._budgets.is_loaded else self._store
                if store is not None and not await self._load_budgets(store):
                    nursery.start_soon(self._load_budgets_later, store)
                await self._budget_coordinator.start(nursery)
            inbox.answer_reads(GetLimiterStatistics, lambda _: self._statistics())
            task_status.started()
            await serve_at_once(inbox, self._handle)
            await self._budget_coordinator.leave()
            nursery.cancel_scope.cancel(reason="the limiter stops")
        return self._kept

    async def _load_budgets_later(self, store: StoreRef) -> None:
        log.warning("the store cannot be read: until it can be read, budgets do not count earlier spending")
        while True:
            await trio.sleep(LOAD_AGAIN_SECONDS)
            if await self._load_budgets(store, is_late=True):
                log.info("the store can be read: budgets count the earlier spending")
                return

    async def _load_budgets(self, store: StoreRef, *, is_late: bool = False) -> bool:
        """Load the earlier spending from the store. Returns whether the store could be read. ``is_late``: this process
        has reserved requests before, so its own rows are left out.
        """
        now = self._wall()
        # Load the window before too: a process that ended in it may still have a share of the present one.
        each_budget = self._budgets.table.budgets.values()
        since = min(window_at(each.per, window_at(each.per, now).start - 1).start for each in each_budget)
        rows, own = await get_spent(store, since), self._kept.process
        if rows is None:
            return False
        self._budgets.load(
            (
                (row.owner, Payer("", row.caller, row.team, row.route), row.opened_at, row.cost, row.tokens)
                for row in rows
                if not (is_late and row.owner == own)  # they are counted already
            ),
            own=own,
            gone={row.owner for row in rows if row.gone},
        )
        return True

    async def _keep_time(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve the queues when the timer fires. Each change of state moves the deadline of the timer."""
        task_status.started()
        while True:
            with trio.CancelScope() as self._timer:
                self._pass_on_all()
                await trio.sleep_forever()
            self._rate_limiter.serve(trio.current_time())

    def _handle(self, delivery: Delivery[LimiterMessage]) -> None:
        now = trio.current_time()
        match delivery.message:
            case Reserve() as message:
                self._reserve(delivery, message, now)
            case EndLease() as message:
                self._end(message, now)
            case Leave() as message:
                self._leave(message, now)
            case ChangeLimits() as message:
                self._rate_limiter.change(message.providers, message.callers, now)
                delivery.reply(message, None)
            case GetLimiterStatistics() as message:
                delivery.reply(message, self._statistics())
            case _ as never:
                assert_never(never)
        self._pass_on_all()

    def _statistics(self) -> LimiterStatistics:
        found = self._rate_limiter.statistics(trio.current_time(), shared=self._sharing.is_on)
        if not self._budgets.table:
            return found
        return msgspec.structs.replace(found, budgets=self._budgets.statistics(self._wall()))

    def _reserve(self, delivery: Delivery[LimiterMessage], message: Reserve, now: float) -> None:
        names, models = message.names, message.models
        if message.spend is not None:
            held = self._budgets.reserve(message.number, message.spend, self._wall())
            if isinstance(held, BudgetRefused):
                delivery.fail(error_for(Failure(kind=FailureKind.BUDGET, message=held.why)))
                return
            payable = [each for each, name in enumerate(names) if name in held.names]
            names = tuple(names[each] for each in payable)
            models = tuple(models[each] for each in payable) if models else ()
        waiter = QueuedRequest(
            message.number,
            names,
            message.tokens,
            caller=message.caller,
            priority=message.priority,
            deadline=delivery.deadline,
            lease_s=message.lease_s,
            waited_s=message.waited_s,
            models=models,
        )
        self._pending[message.number] = _PendingRequest(delivery, message, waiter)
        self._kept.tickets[message.number] = message.ticket
        delivery.defer()
        self._rate_limiter.reserve(waiter, now)

    def _waiter(self, number: int) -> QueuedRequest | None:
        pending = self._pending.get(number)
        return None if pending is None else pending.waiter

    def _end_by_tickets(self, tickets: dict[int, Ticket], now: float) -> None:
        """After a restart, end the reservations whose tickets say so, in case the messages were lost."""
        for number, ticket in tickets.items():
            match ticket.over:
                case EndLease() as message:
                    self._end(message, now)
                case Leave() as message:
                    self._leave(message, now)
                case None:
                    self._kept.tickets[number] = ticket

    def _leave(self, message: Leave, now: float) -> None:
        self._pending.pop(message.number, None)
        self._granted.pop(message.number, None)
        self._kept.tickets.pop(message.number, None)
        self._release(message.number)
        self._sharing.ended(self._rate_limiter.leave(message.number, now), Settlement.REFUNDED)

    def _release(self, number: int) -> None:
        """Give back the budget hold of a reservation that has spent nothing."""
        if self._budgets.release(number) and self._ledger is not None:
            self._ledger.add(DropEntry(number))

    def _spend(self, message: EndLease) -> None:
        """Charge the budgets for a reservation that has ended."""
        number, entry = message.number, message.entry
        if entry is None and message.ending is Settlement.REFUNDED:
            self._release(number)
        elif entry is not None:
            self._budgets.end(number, usd=entry.cost, tokens=entry.tokens)
            if self._ledger is not None:
                self._ledger.add(CloseEntry(number, entry))
        else:  # it was sent, but its result is unknown: its row in the ledger stays open, and counts
            self._budgets.end(number, usd=None, tokens=None)

    def _end(self, message: EndLease, now: float) -> None:
        self._kept.tickets.pop(message.number, None)
        if message.number in self._budgets.holds:
            self._spend(message)
        lease = self._rate_limiter.end(
            message.number,
            message.ending,
            now,
            message.tokens,
            reported=message.reported,
            hold_s=message.hold_s,
            of_model=message.of_model,
        )
        self._sharing.ended(lease, message.ending, message.tokens)
        if lease is not None and (message.reported is not None or message.hold_s is not None):
            self._sharing.paused(lease.name, now)
            self._sharing.held(lease, now)

    def _pass_on_all(self) -> None:
        """Pass on the new decisions, and set the timer."""
        for decision in self._rate_limiter.decisions():
            if isinstance(decision, LimitRefused) or not self._sharing.claim(decision):
                self._pass_on(decision)
        self._timer.deadline = self._rate_limiter.due(trio.current_time())

    def _confirmed(self, granted: Sequence[Granted]) -> None:
        for each in granted:
            self._pass_on(each)
        self._pass_on_all()

    def _pass_on(self, decision: Decision) -> None:
        """Pass on a decision; a grant only after the budgets have confirmed it."""
        hold = self._budgets.holds.get(decision.number)
        if hold is None:
            self._reply(decision)
        elif isinstance(decision, LimitRefused):
            self._release(decision.number)
            self._reply(decision)
        else:
            self._granted[decision.number] = decision._replace(warning=hold.warning)
            self._budget_coordinator.submit(decision.number)

    def _paid(self, numbers: Sequence[int]) -> None:
        """Reply to requests whose reservations the budgets have confirmed."""
        for number in numbers:
            self._reply(self._granted.pop(number))
        for name in self._budgets.newly_warned(self._wall()):
            log.warning('budget "%s" has exceeded its soft limit', name)

    def _unpaid(self, number: int, why: str) -> None:
        """Refuse a request whose reservation the budgets do not confirm, for the reason ``why``: other processes have
        spent the rest of a budget.
        """
        self._granted.pop(number, None)
        pending = self._pending.pop(number)
        self._kept.tickets.pop(number, None)
        self._release(number)
        self._sharing.ended(self._rate_limiter.leave(number, trio.current_time()), Settlement.REFUNDED)
        pending.delivery.fail(error_for(Failure(kind=FailureKind.BUDGET, message=why)))
        self._pass_on_all()

    def _reply(self, decision: Decision) -> None:
        delivery, message, _ = self._pending.pop(decision.number)
        if isinstance(decision, Granted):
            delivery.reply(message, decision)  # a caller that has gone sends a `Leave`, which returns the grant
        else:
            self._kept.tickets.pop(decision.number, None)
            failure = Failure(
                kind=decision.kind,
                message=decision.why,
                provider=decision.held and decision.held.provider,
                model=decision.held and decision.held.model,
                retry_after=decision.retry_after,
                limit_owner=decision.owner,
            )
            delivery.fail(error_for(failure))


async def change_limits(limiter: LimiterRef, providers: Mapping[str, Limits], callers: Mapping[str, Limits]) -> None:
    """Replace all limits, and wait until they apply. Raises `KernelError` while the limiter is not running."""
    await retry_after_crashes(lambda: limiter.call(ChangeLimits(providers=providers, callers=callers)))


def limiter_child(
    providers: Mapping[str, Limits],
    callers: Mapping[str, Limits] | None = None,
    other_callers: Limits = NO_LIMITS,
    *,
    server: RedisServer | None = None,
    budgets: Mapping[str, Budget] | None = None,
    store: StoreRef | None = None,
    ledger: Ledger | None = None,
    name: str = "limiter",
) -> ChildSpec[LimiterMessage]:
    """Return the spec of a limiter, for a supervisor. The parameters are those of `LimiterActor`.

    A restart reads ``providers`` and ``callers`` again, so changes to these mappings apply then.
    """
    return ChildSpec(
        name,
        lambda previous: LimiterActor(
            providers,
            callers,
            other_callers,
            server=server,
            budgets=budgets,
            store=store,
            ledger=ledger,
            previous=previous,
        ),
        mailbox=LIMITER_MAILBOX,
    )
