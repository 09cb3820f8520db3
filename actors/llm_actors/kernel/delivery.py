"""Messages, and their delivery: the object that an actor receives and replies with, and where the caller waits.

Messages are frozen structs, passed by reference, never encoded inside the process. The reply to a `Call[R]` is an `R`,
so a type checker knows what `await ref.call(message)` returns. A `Cast` has no reply. The messages of an actor form a
union: match it exhaustively and end with `assert_never`.

A call is answered exactly once: by the handler with `reply` or `fail`; by the kernel if the handler crashed, did not
reply or ran out of time; or by the mailbox if the actor ended. A reply to a caller that has left is dropped and
counted.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextvars import Context
from typing import Any, Generic, Protocol, TypeVar, final

import msgspec
import trio

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class ActorMessage(msgspec.Struct, frozen=True):
    """The base of all messages. Only `Call` and `Cast` derive from it."""

    def fingerprint(self) -> Hashable | None:
        """Return a value that messages with the same payload share, or `None` if there is no payload to blame.

        Override it in messages that carry data from a caller, and leave unique ids out of it. Do not override it in
        messages that have only numbers and names: after two crashes, equal messages of other callers would be refused.
        """
        return None


class BaseCall(ActorMessage, Generic[R_co], frozen=True):
    """A call as its sender sees it: covariant in the type of the reply."""


class Call(BaseCall[R], Generic[R], frozen=True):
    """A message that expects one reply of exactly type `R`. Derive from this: `class Add(Call[int], frozen=True)`."""


class Cast(ActorMessage, frozen=True):
    """A message without a reply."""


@final
class Reply(Generic[R]):
    """The place where one caller waits for one reply: a value or an error.

    A memory channel of capacity one could do the same. This is much cheaper, because a reply has one waiter and one
    value. The first of `send`, `fail` and `abandon` decides; later ones do nothing.
    """

    __slots__ = ("_error", "_task", "_value", "abandoned", "answered")

    def __init__(self) -> None:
        self.answered = False
        self.abandoned = False
        self._value: R | None = None
        self._error: Exception | None = None
        self._task: trio.lowlevel.Task | None = None

    def send(self, value: R) -> bool:
        """Reply with `value`. Return whether the caller still waits for it."""
        self._value = value
        return self._settle()

    def fail(self, error: Exception) -> bool:
        """Make the caller's `wait` raise `error`. Return whether the caller still waits for it."""
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
        """Wait for the reply, and return its value or raise its error. Call this once. Cancelling this abandons the
        reply. If the reply has already arrived, there is no checkpoint.
        """
        if self.answered:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._forget_waiter)
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # a reply without an error has a value of this type

    def _forget_waiter(self, _: object) -> trio.lowlevel.Abort:
        # Here, and not when the cancelled task runs: code that runs before that must know that the caller has gone.
        self._task = None
        self.abandon()
        return trio.lowlevel.Abort.SUCCEEDED


M_co = TypeVar("M_co", bound=ActorMessage, covariant=True)


class DeliveryOwner(Protocol):
    """The part of the mailbox that its deliveries use."""

    @property
    def name(self) -> str:
        """The actor's name."""
        ...

    def forget(self, delivery: AnyDelivery) -> None:
        """Forget a call that was answered or abandoned."""
        ...

    def count_late_reply(self) -> None:
        """Count a reply that came after the caller had left."""
        ...


@final
class Delivery(Generic[M_co]):
    """One message with its deadline, its sender's context variables and the place of its reply."""

    __slots__ = ("_mailbox", "_reply", "_scope", "context", "deadline", "deferred", "is_call", "message")

    def __init__(
        self,
        message: M_co,
        mailbox: DeliveryOwner,
        deadline: float,
        reply: Reply[Any] | None = None,
    ) -> None:
        self.message = message
        self.deadline = deadline
        self.context: Context | None = None
        """The sender's context variables. None if the message was not queued."""
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
        """Whether the caller no longer waits. Check this before you begin deferred work."""
        return self._reply is not None and self._reply.abandoned

    @property
    def is_given_up(self) -> bool:
        """Whether the reply is no longer needed: the caller has left or its deadline has passed."""
        return self.abandoned or trio.current_time() >= self.deadline

    def reply(self, message: Call[R], value: R) -> bool:
        """Reply to the call. `message` must be the delivered message; it tells the type checker the type of `value`.

        Return whether the caller was still waiting. A late reply is dropped and counted.
        """
        if message is not self.message:
            raise ValueError(f"{self._mailbox.name}: reply() was given a message other than the delivered one")
        if self._reply is None or self._reply.answered:
            raise self._not_owed()
        return self._sent(taken=self._reply.send(value))

    def fail(self, error: Exception) -> bool:
        """Make the caller's `Ref.call` raise `error`. Return whether the caller was still waiting. Use this for
        expected errors; for a bug, let the exception propagate.
        """
        if self._reply is None or self._reply.answered:
            raise self._not_owed()
        return self._sent(taken=self._reply.fail(error))

    def defer(self) -> None:
        """Allow the handler to return before it replies. The call fails if this incarnation ends before the reply."""
        self.deferred = True

    def scope(self) -> trio.CancelScope:
        """Return a cancel scope for the work, which is cancelled at the call's deadline and when the caller leaves."""
        self._scope = trio.CancelScope(deadline=self.deadline)
        if self.abandoned:
            self._scope.cancel(reason="the caller has gone")
        return self._scope

    def abandon(self) -> None:
        """Record that the caller no longer waits, and cancel the work on its message."""
        assert self._reply is not None
        self._reply.abandon()
        self._mailbox.forget(self)
        if self._scope is not None:
            self._scope.cancel(reason="the caller has gone")

    def _not_owed(self) -> Exception:
        what = f"{self._mailbox.name}: {type(self.message).__name__}"
        if self._reply is None:
            return TypeError(f"{what} is a cast and takes no reply")
        return RuntimeError(f"{what} has already been answered")

    def _sent(self, *, taken: bool) -> bool:
        self._mailbox.forget(self)
        if not taken:
            self._mailbox.count_late_reply()
        return taken


AnyDelivery = Delivery[ActorMessage]
