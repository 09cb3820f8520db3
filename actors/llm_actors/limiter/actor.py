"""The limiter actor: holds the books, answers who waits, and sleeps until the next one may go.

There is one timer, a sleeping task whose deadline moves; nothing polls. Everything is decided synchronously in
`Books`, so that a message is handled whole or, in a crash, not at all.

What outlives an incarnation is the books themselves: they are its one checkpoint, saved by reference at the start, and
so never old. The next incarnation trusts of them only what cannot burst: open leases, debts and pauses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from random import random
from typing import assert_never, final

import msgspec
import trio

from llm_actors.kernel import ChildSpec, Delivery, Inbox, Previous, serve
from llm_actors.limiter.books import Books, Decision, Granted
from llm_actors.limiter.callers import NO_LIMITS
from llm_actors.limiter.line import Waiter
from llm_actors.limiter.messages import (
    LIMITER_MAILBOX,
    End,
    Leave,
    LimiterMessage,
    Measure,
    Observe,
    Reserve,
)
from llm_protocol.errors import error_for
from llm_protocol.failures import Failure
from llm_protocol.policy import Limits

log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """What one incarnation leaves to the next."""

    books: Books


@final
class LimiterActor:
    """The `RateLimiter`. ``callers`` have limits by name; each other caller has ``other_callers``."""

    def __init__(
        self,
        deployments: Mapping[str, Limits],
        callers: Mapping[str, Limits] | None = None,
        other_callers: Limits = NO_LIMITS,
        *,
        previous: Previous = None,
        draw: Callable[[], float] = random,
    ) -> None:
        now = trio.current_time()
        self._books = Books(deployments, callers, other_callers, draw=draw, now=now)
        if isinstance(previous, Kept):
            self._books.restart(previous.books, now)
        self._asked: dict[int, tuple[Delivery[LimiterMessage], Reserve]] = {}
        self._timer = trio.CancelScope()

    async def run(self, inbox: Inbox[LimiterMessage], *, task_status: trio.TaskStatus[None]) -> Kept:
        """Serve until asked to stop. Those who wait then are told that it ended."""
        kept = Kept(self._books)
        inbox.checkpoint(kept)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._keep_time)
            task_status.started()
            await serve(inbox, self._handle)
            nursery.cancel_scope.cancel(reason="the limiter stops")
        return kept

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
            case End() as message:
                self._books.end(
                    message.number, message.ending, now, message.tokens, said=message.said, hold_s=message.hold_s
                )
            case Leave(number):
                self._asked.pop(number, None)
                self._books.leave(number, now)
            case Observe(deployment, said):
                self._books.observe(deployment, said, now)
            case Measure() as message:
                delivery.reply(message, self._books.statistics(now))
            case _ as never:
                assert_never(never)
        self._announce()

    def _reserve(self, delivery: Delivery[LimiterMessage], message: Reserve, now: float) -> None:
        waiter = Waiter(
            message.number,
            message.names,
            message.tokens,
            caller=message.caller,
            priority=message.priority,
            deadline=delivery.deadline,
            lease_s=message.lease_s,
        )
        self._asked[message.number] = delivery, message
        delivery.defer()
        self._books.reserve(waiter, now)

    def _announce(self) -> None:
        """Answer those about whom something was decided, and set the timer."""
        for decision in self._books.decisions():
            self._answer(decision)
        self._timer.deadline = self._books.due(trio.current_time())

    def _answer(self, decision: Decision) -> None:
        delivery, message = self._asked.pop(decision.number)
        if isinstance(decision, Granted):
            delivery.reply(message, decision)  # who is gone has a `Leave` on its way, which gives it back
        else:
            failure = Failure(kind=decision.kind, message=decision.why, retry_after=decision.retry_after)
            delivery.fail(error_for(failure))


def limiter_child(
    deployments: Mapping[str, Limits],
    callers: Mapping[str, Limits] | None = None,
    other_callers: Limits = NO_LIMITS,
    *,
    name: str = "limiter",
) -> ChildSpec[LimiterMessage]:
    """The spec of a limiter, for a supervisor."""
    return ChildSpec(
        name,
        lambda previous: LimiterActor(deployments, callers, other_callers, previous=previous),
        mailbox=LIMITER_MAILBOX,
    )
