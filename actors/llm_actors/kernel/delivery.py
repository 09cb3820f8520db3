"""A delivered message: what the actor receives, how it replies, and where its caller waits for the reply.

A call is answered exactly once: by the handler (`reply`, `fail`), by the kernel if the handler crashed, did not reply
or ran out of time, or by the mailbox if the actor ended. A reply to a caller that is gone is only counted.
"""

from __future__ import annotations

from contextvars import Context
from typing import Generic, Protocol, TypeVar, cast, final

import trio

from llm_actors.kernel.message import ActorMessage, Call

R = TypeVar("R")


@final
class Reply(Generic[R]):
    """The place where one caller waits for one reply: a value or an error.

    It does what a memory channel of capacity one would do per call, at a fraction of the cost, because a reply has one
    waiter and one value. The first of reply and abandonment wins; what comes later is dropped.
    """

    __slots__ = ("_error", "_task", "_value", "abandoned", "answered")

    def __init__(self) -> None:
        self.answered = False
        self.abandoned = False
        self._value: R | None = None
        self._error: Exception | None = None
        self._task: trio.lowlevel.Task | None = None

    def send(self, value: R) -> bool:
        """Reply. Return whether a caller was there to receive it."""
        self._value = value
        return self._settle()

    def fail(self, error: Exception) -> bool:
        """Let the caller's wait raise `error`. Return whether a caller was there to receive it."""
        self._error = error
        return self._settle()

    def _settle(self) -> bool:
        if self.answered or self.abandoned:
            return False
        self.answered = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
        return True

    def abandon(self) -> None:
        """Record that the caller no longer waits."""
        self.abandoned = not self.answered

    async def wait(self) -> R:
        """Wait for the reply, once. Cancelling it abandons the reply. A reply that has arrived needs no checkpoint."""
        if self.answered:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._forget_waiter)
        if self._error is not None:
            raise self._error
        return cast("R", self._value)

    def _forget_waiter(self, _: object) -> trio.lowlevel.Abort:
        # At once, and not when the cancelled task runs: decisions before that must know that the caller is gone.
        self._task = None
        self.abandon()
        return trio.lowlevel.Abort.SUCCEEDED


M_co = TypeVar("M_co", bound=ActorMessage, covariant=True)


class DeliveryOwner(Protocol):
    """The mailbox a message came through, as far as the message needs it."""

    @property
    def name(self) -> str:
        """The actor's name."""
        ...

    def let_go(self, delivery: AnyDelivery) -> None:
        """Forget a delivery that is settled."""
        ...

    def count_late_reply(self) -> None:
        """Count a reply whose caller was gone."""
        ...


@final
class Delivery(Generic[M_co]):
    """One message, the place of its reply, its deadline and its sender's context variables."""

    __slots__ = ("_mailbox", "_reply", "_scope", "context", "deadline", "deferred", "is_call", "message")

    def __init__(
        self,
        message: M_co,
        mailbox: DeliveryOwner,
        deadline: float,
        reply: Reply[object] | None = None,
    ) -> None:
        self.message = message
        self.deadline = deadline
        self.context: Context | None = None
        """The sender's context variables, for a message that waits in the mailbox."""
        self.deferred = False
        self._mailbox = mailbox
        self._reply = reply
        self.is_call = reply is not None
        """Whether a caller waits for a reply."""
        self._scope: trio.CancelScope | None = None

    @property
    def answered(self) -> bool:
        """Whether the reply has been given."""
        return self._reply is not None and self._reply.answered

    @property
    def abandoned(self) -> bool:
        """Whether the caller is gone. Check it before work that was deferred."""
        return self._reply is not None and self._reply.abandoned

    @property
    def is_given_up(self) -> bool:
        """Whether the work is no longer needed: the caller is gone or its deadline has passed."""
        return self.abandoned or trio.current_time() >= self.deadline

    def reply(self, message: Call[R], value: R) -> bool:
        """Reply to the call; `message` is the one delivered, and gives the type checker the type of `value`.

        Return whether the caller was still there; a late reply is dropped and counted.
        """
        if message is not self.message:
            raise ValueError(f"{self._mailbox.name}: the reply is to another message than the one delivered")
        reply = self._owed()
        return self._sent(taken=reply.send(value))

    def fail(self, error: Exception) -> bool:
        """Let the caller's `call` raise `error`. For expected errors: a crash needs no `fail`."""
        reply = self._owed()
        return self._sent(taken=reply.fail(error))

    def defer(self) -> None:
        """Keep the call to reply after the handler has returned. It fails if this incarnation ends first."""
        self.deferred = True

    def scope(self) -> trio.CancelScope:
        """Return the scope for the work: it ends at the call's deadline and when the caller leaves."""
        self._scope = trio.CancelScope(deadline=self.deadline)
        if self.abandoned:
            self._scope.cancel(reason="the caller has gone")
        return self._scope

    def abandon(self) -> None:
        """Record that the caller is gone, and stop the work that was for it alone."""
        assert self._reply is not None
        self._reply.abandon()
        self._mailbox.let_go(self)
        if self._scope is not None:
            self._scope.cancel(reason="the caller has gone")

    def _owed(self) -> Reply[object]:
        if self._reply is None:
            raise TypeError(f"{self._mailbox.name}: {type(self.message).__name__} is a cast, which has no reply")
        if self._reply.answered:
            raise RuntimeError(f"{self._mailbox.name}: {type(self.message).__name__} has already been answered")
        return self._reply

    def _sent(self, *, taken: bool) -> bool:
        self._mailbox.let_go(self)
        if not taken:
            self._mailbox.count_late_reply()
        return taken


AnyDelivery = Delivery[ActorMessage]
