"""The limiter actor: owns the `RateLimiter`, replies to queued requests, and sleeps until the next one may go.

There is one timer, a sleeping task whose deadline moves; nothing polls. All decisions are made synchronously in
`RateLimiter`, so a message is handled completely or, in a crash, not at all.

If several processes share the limits, a grant is reported when the `Ledger` has confirmed it: one more task, which
talks to Redis and calls back. It handles the claims of a batch in one step, too.

The `RateLimiter` itself outlives a restart: it is the actor's one checkpoint, saved by reference at the start, and so
never out of date. The next incarnation takes over open leases, usage, debts and pauses. The holders' tickets tell it
which leases have ended meanwhile.
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
from llm_actors.limiter.patience import LimitRefused
from llm_actors.limiter.rate_limiter import Decision, Granted, RateLimiter
from llm_actors.limiter.shared.coordinator import SharedLimits
from llm_actors.limiter.statistics import LimiterStatistics
from llm_actors.redis import RedisServer
from llm_actors.store import StoreRef, get_spent
from llm_actors.store.ledger import CloseEntry, DropEntry, Ledger
from llm_protocol.budgets import Budget, Payer, window_at
from llm_protocol.errors import error_for
from llm_protocol.failures import Failure, FailureKind, Settlement
from llm_protocol.policy import Limits

log = logging.getLogger(__name__)


class SavedLimits(msgspec.Struct, frozen=True):
    """What one incarnation leaves to the next. ``process`` is its name among the processes that share the limits."""

    rate_limiter: RateLimiter
    process: str
    tickets: dict[int, Ticket]
    budgets: Budgets


class _PendingRequest(NamedTuple):
    """A pending reservation and its caller."""

    delivery: Delivery[LimiterMessage]
    message: Reserve
    waiter: QueuedRequest


@final
class LimiterActor:
    """Owns the `RateLimiter`. ``callers`` have limits by name; every other caller has ``other_callers``."""

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
        """``server``: where limits and budgets are shared with other processes. ``store`` and ``ledger``: where what
        budgets pay is written down.
        """
        self._wall = wall
        self._store = store
        self._ledger = ledger
        self._budgets = Budgets(budgets or {}, shared=server is not None)
        self._is_new = not isinstance(previous, SavedLimits)
        self._rate_limiter = RateLimiter(providers, callers, other_callers, draw=draw)
        # The ledger's rows have this name, too: what both tell of this process counts once.
        process = token_hex(8) if ledger is None else ledger.owner
        if isinstance(previous, SavedLimits):
            process = previous.process
            self._rate_limiter.restart(previous.rate_limiter)
            self._budgets = previous.budgets
        self._kept = SavedLimits(self._rate_limiter, process, {}, self._budgets)
        self._pending: dict[int, _PendingRequest] = {}
        self._granted: dict[int, Granted] = {}
        """What was granted and waits for the budgets' confirmation."""
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
            self._catch_up(previous.tickets, trio.current_time())
            for number in [each for each in self._budgets.holds if each not in self._kept.tickets]:
                self._release(number)

    async def run(self, inbox: Inbox[LimiterMessage], *, task_status: trio.TaskStatus[None]) -> SavedLimits:
        """Serve until asked to stop. Requests still queued then fail."""
        inbox.checkpoint(self._kept)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._keep_time)
            await self._sharing.start(nursery)
            if self._budgets.table:
                await self._load_budgets()
                await self._budget_coordinator.start(nursery)
            inbox.answer_reads(GetLimiterStatistics, lambda _: self._measured())
            task_status.started()
            await serve_at_once(inbox, self._handle)
            await self._budget_coordinator.leave()
            nursery.cancel_scope.cancel(reason="the limiter stops")
        return self._kept

    async def _load_budgets(self) -> None:
        """Begin with what was spent before, as far as the store has it."""
        if self._store is None or not self._is_new:
            return
        now = self._wall()
        # From the window before: a process that ended in it may have a share of this one.
        each_budget = self._budgets.table.budgets.values()
        since = min(window_at(each.per, window_at(each.per, now).start - 1).start for each in each_budget)
        rows = await get_spent(self._store, since)
        if rows is None:
            log.warning("the store cannot be read: budgets start from zero")
            return
        self._budgets.load(
            (
                (row.owner, Payer("", row.caller, row.team, row.route), row.opened_at, row.cost, row.tokens)
                for row in rows
            ),
            own=self._kept.process,
            gone={row.owner for row in rows if row.gone},
        )

    async def _keep_time(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve the queues when it is time. Every change of state moves the timer's deadline."""
        task_status.started()
        while True:
            with trio.CancelScope() as self._timer:
                self._announce()
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
                delivery.reply(message, self._measured())
            case _ as never:
                assert_never(never)
        self._announce()

    def _measured(self) -> LimiterStatistics:
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

    def _catch_up(self, tickets: dict[int, Ticket], now: float) -> None:
        """Apply the reservations that have ended, even if the messages about them were lost."""
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
        """Nothing was spent by a reservation."""
        if self._budgets.release(number) and self._ledger is not None:
            self._ledger.add(DropEntry(number))

    def _spend(self, message: EndLease) -> None:
        """A reservation that budgets pay is over: put down what it took."""
        number, entry = message.number, message.entry
        if entry is None and message.ending is Settlement.REFUNDED:
            self._release(number)
        elif entry is not None:
            self._budgets.end(number, usd=entry.cost, tokens=entry.tokens)
            if self._ledger is not None:
                self._ledger.add(CloseEntry(number, entry))
        else:  # it was sent, and nobody can say what became of it: its row stays as it is, and counts
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

    def _announce(self) -> None:
        """Reply to the requests that were decided, and set the timer."""
        for decision in self._rate_limiter.decisions():
            if isinstance(decision, LimitRefused) or not self._sharing.claim(decision):
                self._settle_on(decision)
        self._timer.deadline = self._rate_limiter.due(trio.current_time())

    def _confirmed(self, granted: Sequence[Granted]) -> None:
        for each in granted:
            self._settle_on(each)
        self._announce()

    def _settle_on(self, decision: Decision) -> None:
        """A decision that only budgets may still change."""
        hold = self._budgets.holds.get(decision.number)
        if hold is None:
            self._answer(decision)
        elif isinstance(decision, LimitRefused):
            self._release(decision.number)
            self._answer(decision)
        else:
            self._granted[decision.number] = decision._replace(warning=hold.warning)
            self._budget_coordinator.submit(decision.number)

    def _paid(self, numbers: Sequence[int]) -> None:
        """Reservations may go, as far as budgets are concerned."""
        for number in numbers:
            self._answer(self._granted.pop(number))
        for name in self._budgets.newly_warned(self._wall()):
            log.warning('budget "%s" has exceeded its soft limit', name)

    def _unpaid(self, number: int, why: str) -> None:
        """A reservation may not go: other processes have spent what there was."""
        self._granted.pop(number, None)
        pending = self._pending.pop(number)
        self._kept.tickets.pop(number, None)
        self._release(number)
        self._sharing.ended(self._rate_limiter.leave(number, trio.current_time()), Settlement.REFUNDED)
        pending.delivery.fail(error_for(Failure(kind=FailureKind.BUDGET, message=why)))
        self._announce()

    def _answer(self, decision: Decision) -> None:
        delivery, message, _ = self._pending.pop(decision.number)
        if isinstance(decision, Granted):
            delivery.reply(message, decision)  # a caller that is gone has sent a `Leave`, which returns the grant
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
    """Have other limits from now on. Waits until they hold; raises `KernelError` while the limiter is away."""
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
    """The spec of a limiter, for a supervisor. ``server``: where limits and budgets are shared with other processes.
    ``store`` and ``ledger``: where what ``budgets`` pay is written down. It is restarted with what ``providers`` and
    ``callers`` hold then.
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
