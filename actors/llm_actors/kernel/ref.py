"""A ref: the address of an actor. It refers to the mailbox, so it stays valid across restarts.

`call` is the only place where one actor waits for another, so all its limits are here: the deadline of the caller (or a
default), the capacity of the mailbox, and the refusal of cycles. Each actor's mailbox knows which others it is calling
at the moment. A call is refused if its target already waits, directly or through others, for the caller. Actors with
spare slots might survive such a cycle under light load; under heavy load it would deadlock them.
"""

from __future__ import annotations

from math import inf
from typing import Generic, TypeVar, cast, final

import trio

from llm_actors.kernel.delivery import Delivery, Reply
from llm_actors.kernel.errors import CallCycle, CallExpired, NotRunning
from llm_actors.kernel.inbox import acting
from llm_actors.kernel.lifecycle import CallAbandoned, CallTimedOut, ChildCrashed
from llm_actors.kernel.mailbox import Mailbox, MailboxStatistics
from llm_actors.kernel.message import ActorMessage, Asks, Cast
from llm_actors.kernel.trace import exception_site

DEFAULT_CALL_SECONDS = 30.0
"""The time limit of a call without a deadline."""

M_contra = TypeVar("M_contra", bound=ActorMessage, contravariant=True)
R = TypeVar("R")


@final
class Ref(Generic[M_contra]):
    """The address of an actor that takes messages of type `M_contra`."""

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

    def read(self, message: Asks[R]) -> R | None:
        """Answer `message` from the actor's current state, without waiting; None: use `call`.

        None if the actor does not run, is stopping, or has not declared such reads (`Inbox.answer_reads`). A read does
        not wait behind queued messages, this sender's own included. A bug in it is published as a crash and otherwise
        left to the call: there it crashes the actor.
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

    async def call(self, message: Asks[R], *, deadline: float = inf) -> R:
        """Send `message` and wait for its reply.

        The actor works under the caller's effective deadline and `deadline` (on Trio's clock), whichever is earlier, or
        for `DEFAULT_CALL_SECONDS` if there is neither. Raises `CallExpired` if a deadline other than the caller's own
        passes, the error that the actor passed to `fail`, or a `KernelError`. Cancelling the caller abandons the call:
        its work is cancelled, without waiting for that to end.
        """
        callers = trio.current_effective_deadline()
        if callers == -inf:
            await trio.lowlevel.checkpoint()
        if callers == deadline == inf:
            deadline = trio.current_time() + DEFAULT_CALL_SECONDS
        is_callers, deadline = callers <= deadline, min(callers, deadline)
        mailbox, caller = self._mailbox, acting.get()
        reply: Reply[R] = Reply()
        delivery: Delivery[ActorMessage] = Delivery(message, mailbox, deadline, cast("Reply[object]", reply))
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
            self._left(delivery)
        except trio.Cancelled:
            self._left(delivery)
            raise
        finally:
            if caller is not None:
                _finish_call(caller, mailbox)
        raise CallExpired(self.name, "no reply before its deadline")

    def cast(self, message: Cast) -> None:
        """Send `message` without waiting. An actor that is not running makes it a dead letter, counted.

        Raises `MailboxFull` where the mailbox's policy is to wait or to refuse.
        """
        delivery: Delivery[ActorMessage] = Delivery(message, self._mailbox, inf)
        try:
            self._mailbox.put(delivery)
        except NotRunning:
            return  # counted as a dead letter

    def _left(self, delivery: Delivery[ActorMessage]) -> None:
        """Count a caller that left before the reply."""
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
    """Return the names around the cycle that `caller` calling `target` would close, or None."""
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
