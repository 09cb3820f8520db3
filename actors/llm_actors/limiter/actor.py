"""The limiter actor: holds the books, answers who waits, and sleeps until the next one may go.

There is one timer, a sleeping task whose deadline moves; nothing polls. Everything is decided synchronously in
`RateLimiter`, so that a message is handled whole or, in a crash, not at all.

Where several processes share the limits, a grant is told when the `Ledger` has confirmed it: one more task, which
talks to Redis and calls back. It decides about the claims of its batch in one step, too.

What outlives an incarnation is the books themselves: they are its one checkpoint, saved by reference at the start, and
so never old. The next incarnation takes over open leases, what was used, debts and pauses. From the holders' tickets it
learns which of the leases have ended meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from random import random
from secrets import token_hex
from typing import NamedTuple, assert_never, final

import msgspec
import trio

from llm_actors.kernel import ChildSpec, Delivery, Inbox, Previous, serve
from llm_actors.limiter.callers import NO_LIMITS
from llm_actors.limiter.fair_queue import QueuedRequest
from llm_actors.limiter.messages import (
    LIMITER_MAILBOX,
    EndLease,
    GetLimiterStatistics,
    Leave,
    LimiterMessage,
    Reserve,
    Ticket,
)
from llm_actors.limiter.patience import LimitRefused
from llm_actors.limiter.rate_limiter import Decision, Granted, RateLimiter
from llm_actors.limiter.shared.coordinator import SharedLimits
from llm_actors.limiter.statistics import LimiterStatistics
from llm_actors.redis import RedisServer
from llm_protocol.errors import error_for
from llm_protocol.failures import Failure, Settlement
from llm_protocol.policy import Limits

log = logging.getLogger(__name__)


class SavedLimits(msgspec.Struct, frozen=True):
    """What one incarnation leaves to the next. ``process`` is its name among those who share the limits."""

    books: RateLimiter
    process: str
    tickets: dict[int, Ticket]


class _Asked(NamedTuple):
    """Who asked for a reservation, and waits for the answer."""

    delivery: Delivery[LimiterMessage]
    message: Reserve
    waiter: QueuedRequest


@final
class LimiterActor:
    """The `RateLimiter`. ``callers`` have limits by name; each other caller has ``other_callers``."""

    def __init__(
        self,
        providers: Mapping[str, Limits],
        callers: Mapping[str, Limits] | None = None,
        other_callers: Limits = NO_LIMITS,
        *,
        server: RedisServer | None = None,
        previous: Previous = None,
        draw: Callable[[], float] = random,
    ) -> None:
        """``server``: where the limits are shared with other processes."""
        self._books = RateLimiter(providers, callers, other_callers, draw=draw)
        process = token_hex(8)
        if isinstance(previous, SavedLimits):
            process = previous.process
            self._books.restart(previous.books)
        self._kept = SavedLimits(self._books, process, {})
        self._asked: dict[int, _Asked] = {}
        self._timer = trio.CancelScope()
        self._sharing = SharedLimits(
            server, self._books, waiter=self._waiter, confirmed=self._confirmed, draw=draw, process=process
        )
        if isinstance(previous, SavedLimits):
            self._catch_up(previous.tickets, trio.current_time())

    async def run(self, inbox: Inbox[LimiterMessage], *, task_status: trio.TaskStatus[None]) -> SavedLimits:
        """Serve until asked to stop. Those who wait then are told that it ended."""
        inbox.checkpoint(self._kept)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._keep_time)
            await self._sharing.start(nursery)
            inbox.answer_reads(GetLimiterStatistics, lambda _: self._measured())
            task_status.started()
            await serve(inbox, self._handle)
            nursery.cancel_scope.cancel(reason="the limiter stops")
        return self._kept

    async def _keep_time(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve the lines when it is time. Who changes the books moves the timer's deadline."""
        task_status.started()
        while True:
            with trio.CancelScope() as self._timer:
                self._announce()
                await trio.sleep_forever()
            self._books.serve(trio.current_time())

    async def _handle(self, delivery: Delivery[LimiterMessage]) -> None:
        now = trio.current_time()
        match delivery.message:
            case Reserve() as message:
                self._reserve(delivery, message, now)
            case EndLease() as message:
                self._end(message, now)
            case Leave() as message:
                self._leave(message, now)
            case GetLimiterStatistics() as message:
                delivery.reply(message, self._measured())
            case _ as never:
                assert_never(never)
        self._announce()

    def _measured(self) -> LimiterStatistics:
        return self._books.statistics(trio.current_time(), shared=self._sharing.is_on)

    def _reserve(self, delivery: Delivery[LimiterMessage], message: Reserve, now: float) -> None:
        waiter = QueuedRequest(
            message.number,
            message.names,
            message.tokens,
            caller=message.caller,
            priority=message.priority,
            deadline=delivery.deadline,
            lease_s=message.lease_s,
            waited_s=message.waited_s,
            models=message.models,
        )
        self._asked[message.number] = _Asked(delivery, message, waiter)
        self._kept.tickets[message.number] = message.ticket
        delivery.defer()
        self._books.reserve(waiter, now)

    def _waiter(self, number: int) -> QueuedRequest | None:
        asked = self._asked.get(number)
        return None if asked is None else asked.waiter

    def _catch_up(self, tickets: dict[int, Ticket], now: float) -> None:
        """Take in which reservations are over, whatever became of the messages that said so."""
        for number, ticket in tickets.items():
            match ticket.over:
                case EndLease() as message:
                    self._end(message, now)
                case Leave() as message:
                    self._leave(message, now)
                case None:
                    self._kept.tickets[number] = ticket

    def _leave(self, message: Leave, now: float) -> None:
        self._asked.pop(message.number, None)
        self._kept.tickets.pop(message.number, None)
        self._sharing.ended(self._books.leave(message.number, now), Settlement.REFUNDED)

    def _end(self, message: EndLease, now: float) -> None:
        self._kept.tickets.pop(message.number, None)
        lease = self._books.end(
            message.number,
            message.ending,
            now,
            message.tokens,
            said=message.said,
            hold_s=message.hold_s,
            of_model=message.of_model,
        )
        self._sharing.ended(lease, message.ending, message.tokens)
        if lease is not None and (message.said is not None or message.hold_s is not None):
            self._sharing.paused(lease.name, now)
            self._sharing.held(lease, now)

    def _announce(self) -> None:
        """Answer those about whom something was decided, and set the timer."""
        for decision in self._books.decisions():
            if isinstance(decision, LimitRefused) or not self._sharing.claim(decision):
                self._answer(decision)
        self._timer.deadline = self._books.due(trio.current_time())

    def _confirmed(self, granted: Sequence[Granted]) -> None:
        for each in granted:
            self._answer(each)
        self._announce()

    def _answer(self, decision: Decision) -> None:
        delivery, message, _ = self._asked.pop(decision.number)
        if isinstance(decision, Granted):
            delivery.reply(message, decision)  # who is gone has a `Leave` on its way, which gives it back
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


def limiter_child(
    providers: Mapping[str, Limits],
    callers: Mapping[str, Limits] | None = None,
    other_callers: Limits = NO_LIMITS,
    *,
    server: RedisServer | None = None,
    name: str = "limiter",
) -> ChildSpec[LimiterMessage]:
    """The spec of a limiter, for a supervisor. ``server``: where the limits are shared with other processes."""
    return ChildSpec(
        name,
        lambda previous: LimiterActor(providers, callers, other_callers, server=server, previous=previous),
        mailbox=LIMITER_MAILBOX,
    )
