"""A ref: the address of an actor. It refers to the mailbox, so it stays valid across restarts.

`call` is the only place where one actor waits for another, so the limits of that wait are here: the deadline of the
caller (or a default), the capacity of the mailbox, and the refusal of call cycles. Each mailbox records which other
actors its actor is calling. A call is refused if its target already waits, directly or through others, for the caller:
under heavy load such a cycle would deadlock.

`retry_after_crashes` calls an actor again after it has crashed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Generic, TypeVar, cast, final

import trio

from llm_actors.kernel.delivery import ActorMessage, BaseCall, Cast, Delivery, Reply
from llm_actors.kernel.errors import ActorCrashed, CallCycle, CallExpired, NotRunning, exception_site
from llm_actors.kernel.inbox import acting
from llm_actors.kernel.lifecycle import CallAbandoned, CallTimedOut, ChildCrashed
from llm_actors.kernel.mailbox import Mailbox, MailboxStatistics

DEFAULT_CALL_SECONDS = 30.0
"""The time limit, in seconds, of a call that names no deadline and whose caller has none."""

M_contra = TypeVar("M_contra", bound=ActorMessage, contravariant=True)
R = TypeVar("R")


@final
class Ref(Generic[M_contra]):
    """The address of an actor that accepts messages of type `M_contra`."""

    __slots__ = ("_mailbox",)

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    @property
    def name(self) -> str:
        """The actor's path in the tree."""
        return self._mailbox.name

    def __repr__(self) -> str:
        return f"<Ref {self.name}>"

    def statistics(self) -> MailboxStatistics:
        """Return the mailbox's counters and gauges."""
        return self._mailbox.statistics()

    def read(self, message: BaseCall[R]) -> R | None:
        """Return the reply to `message` from the actor's current state, without waiting. If it returns None, use
        `call`.

        The result is None if the actor is not running, is stopping, or does not answer such reads
        (`Inbox.answer_reads`). A read overtakes queued messages, including those of the same sender. If the actor's
        function raises, the exception is published as a crash and the result is None; only a `call` crashes the
        actor.
        """
        answer = self._mailbox.reads.get(type(message))
        if answer is None:
            return None
        try:
            return cast("R | None", answer(message))
        except Exception as exc:
            if self._mailbox.bus is not None:
                self._mailbox.bus.publish(ChildCrashed(name=self.name, error=exception_site(exc)))
            return None

    async def call(self, message: BaseCall[R], *, deadline: float = inf, unlimited: bool = False) -> R:
        """Send `message` and wait for its reply.

        The time limit is `deadline` (on Trio's clock) or the deadline of the caller's cancel scope, whichever is
        earlier; without either, `DEFAULT_CALL_SECONDS`, or none if `unlimited`. Raises `CallExpired` if `deadline` or
        the default passes; if the caller's scope expires, the call is cancelled instead. Raises the error that the
        actor passed to `Delivery.fail`, or another `KernelError`. Cancelling the caller also cancels the actor's work
        on the message, without waiting for that work to end.
        """
        callers = trio.current_effective_deadline()
        if callers == -inf:
            await trio.lowlevel.checkpoint()
        if callers == deadline == inf and not unlimited:
            deadline = trio.current_time() + DEFAULT_CALL_SECONDS
        is_callers, deadline = callers <= deadline, min(callers, deadline)
        mailbox, caller = self._mailbox, acting.get()
        reply: Reply[R] = Reply()
        delivery: Delivery[ActorMessage] = Delivery(message, mailbox, deadline, reply)
        if caller is not None:
            cycle = find_cycle(caller, mailbox)
            if cycle is not None:
                raise CallCycle(mailbox.name, cycle)
            _begin_call(caller, mailbox)
        try:
            is_put = mailbox.put(delivery)
            if is_callers or reply.answered:
                if not is_put:
                    await mailbox.put_waiting(delivery)
                return await reply.wait()
            with trio.CancelScope(deadline=deadline):
                if not is_put:
                    await mailbox.put_waiting(delivery)
                return await reply.wait()
            self._abandon(delivery)
        except trio.Cancelled:
            self._abandon(delivery)
            raise
        finally:
            if caller is not None:
                _finish_call(caller, mailbox)
        raise CallExpired(self.name, "no reply before the deadline")

    def cast(self, message: Cast) -> None:
        """Send `message` without waiting. If the actor is not running, the message is dropped and counted as a dead
        letter.

        Raises `MailboxFull` if the mailbox is full and its overflow policy is `WAIT` or `REFUSE`.
        """
        delivery: Delivery[ActorMessage] = Delivery(message, self._mailbox, inf)
        try:
            self._mailbox.put(delivery)
        except NotRunning:
            return  # counted as a dead letter

    def _abandon(self, delivery: Delivery[ActorMessage]) -> None:
        """Abandon the call, and count whether its deadline passed or its caller was cancelled."""
        delivery.abandon()
        expired = trio.current_time() >= delivery.deadline
        count, bus = self._mailbox.count, self._mailbox.bus
        if expired:
            count.expired += 1
        else:
            count.abandoned += 1
        if bus is not None:
            bus.publish(CallTimedOut(name=self.name) if expired else CallAbandoned(name=self.name))


def find_cycle(caller: Mailbox, target: Mailbox) -> tuple[str, ...] | None:
    """Return the names of the actors in the cycle that a call from `caller` to `target` would close; None if there is
    none.
    """
    if caller is target:
        return caller.name, target.name
    if not target.calling:
        return None
    trail = _trail(target, caller, {target})
    return None if trail is None else (caller.name, *trail)


def _trail(start: Mailbox, goal: Mailbox, seen: set[Mailbox]) -> tuple[str, ...] | None:
    for callee in start.calling:
        if callee is goal:
            return start.name, goal.name
        if callee in seen:
            continue
        seen.add(callee)
        rest = _trail(callee, goal, seen)
        if rest is not None:
            return start.name, *rest
    return None


def _begin_call(caller: Mailbox, target: Mailbox) -> None:
    """Record that one more call is in progress."""
    caller.calling[target] = caller.calling.get(target, 0) + 1


def _finish_call(caller: Mailbox, target: Mailbox) -> None:
    """Record that one call has ended."""
    left = caller.calling[target] - 1
    if left:
        caller.calling[target] = left
    else:
        del caller.calling[target]


OWN_CRASHES = 2
"""After this many crashes of the actor while it handles the message, the message counts as the cause."""


async def retry_after_crashes(call: Callable[[], Awaitable[R]]) -> R:
    """Await `call()`. If the actor crashed while it handled another message, or once on this message, call again.

    The retries end with the caller's deadline, or sooner if the actor's supervisor parks it or gives up. Raises the
    exceptions of `call`; `ActorCrashed` once the actor has crashed on this message for the second time.
    """
    crashes = 0
    while True:
        try:
            return await call()
        except ActorCrashed as exc:
            crashes += not exc.bystander
            if crashes >= OWN_CRASHES:
                raise
