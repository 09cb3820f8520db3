"""The actor's side of a mailbox, for one incarnation.

Iterating waits for the next message to handle, and ends when the actor is asked to stop, even with messages queued: a
stop is never behind data.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Generic, TypeVar, cast

import msgspec
import trio

from llm_actors.kernel.delivery import Delivery
from llm_actors.kernel.errors import KernelError
from llm_actors.kernel.mailbox import Mailbox
from llm_actors.kernel.message import ActorMessage, Asks

MESSAGES_PER_PASS = 64
"""Messages that are received before other tasks run. With one per scheduler pass, a mailbox that fills while hundreds
of tasks run would be emptied so slowly that calls expire in it.
"""

R = TypeVar("R")
M_co = TypeVar("M_co", bound=ActorMessage, covariant=True)

acting: ContextVar[Mailbox | None] = ContextVar("llm_actors_acting", default=None)
"""The actor on whose behalf the current task runs, so that a cycle of calls can be detected."""


class Inbox(Generic[M_co]):
    """Receives messages until the actor is asked to stop."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.scope = trio.CancelScope(shield=True)
        """The scope in which the actor runs; it may cancel it to end itself."""
        self.stopping = False
        self.final = False
        self.failed = False
        """The stop follows from too many crashes around this actor: work in progress is cancelled, not finished."""
        self.saved: msgspec.Struct | None = None
        self._receive: trio.MemoryReceiveChannel[Delivery[ActorMessage]] | None = None
        self._received = MESSAGES_PER_PASS
        """Since the last checkpoint. The first message is behind one, so that the supervisor has noted the start."""
        self._callbacks: list[Callable[[], object]] = []
        self._broken: Exception | None = None

    @property
    def name(self) -> str:
        """The actor's path in the tree."""
        return self.mailbox.name

    async def receive(self) -> Delivery[M_co]:
        """Wait for the next message. Raise `trio.EndOfChannel` once a stop is asked for, and the exception of a handler
        that ran in a sender's task (see `break_off`). Cancelling loses nothing.

        Other tasks run only if nothing is queued, or after `MESSAGES_PER_PASS` messages.
        """
        if self.stopping or self._broken is not None:
            raise self._end()
        receive = self._receive = self._receive or self.mailbox.reader()
        while True:
            try:
                delivery = await self._next(receive)
            except trio.ClosedResourceError:
                raise self._end() from None
            if self.mailbox.received(delivery):
                self._received += 1
                return cast("Delivery[M_co]", delivery)

    def _end(self) -> Exception:
        return self._broken or trio.EndOfChannel()

    async def _next(self, receive: trio.MemoryReceiveChannel[Delivery[ActorMessage]]) -> Delivery[ActorMessage]:
        await trio.lowlevel.checkpoint_if_cancelled()  # a cancelled actor gets no further message
        if self._received < MESSAGES_PER_PASS:
            try:
                return receive.receive_nowait()
            except trio.WouldBlock:
                pass
        self._received = 0
        return await receive.receive()

    def answer_reads(self, kind: type[Asks[R]], answer: Callable[[Any], R | None]) -> None:
        """Let `Ref.read` have messages of exactly `kind` answered by `answer`, without a message to this actor.

        `answer` runs in the reader's task, between two steps of this actor. It must not block or await; it returns
        None for what needs a call. It is forgotten when the actor is asked to stop or ends.
        """
        if not self.stopping:
            self.mailbox.reads[kind] = answer

    def take_at_once(self, take: Callable[[Any], bool]) -> None:
        """Let `take` handle each message for which nothing is queued, in its sender's task; False: it must be queued.

        `take` runs between two steps of this actor, and must not block, await or raise. It is forgotten when the actor
        is asked to stop or ends.
        """
        if not self.stopping and self._broken is None:
            self.mailbox.at_once = take

    def break_off(self, error: Exception) -> None:
        """Let the actor crash with `error`, which was raised in a sender's task: `receive` raises it."""
        self._broken = error
        self.take_nothing_at_once()
        if self._receive is not None:
            self._receive.close()

    def take_nothing_at_once(self) -> None:
        """Let all further messages wait in the queue."""
        self.mailbox.at_once = None

    def __aiter__(self) -> Inbox[M_co]:
        return self

    async def __anext__(self) -> Delivery[M_co]:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def checkpoint(self, state: msgspec.Struct) -> None:
        """Save the state for the next incarnation, in case this one crashes."""
        self.saved = state

    def when_stopping(self, callback: Callable[[], object]) -> None:
        """Call `callback` (which must not raise or block) when the actor is asked to stop, or now if it was."""
        self._callbacks.append(callback)
        if self.stopping:
            callback()

    def close(self, *, final: bool, failed: bool = False) -> None:
        """Ask the actor to stop. `final`: no other incarnation follows. `failed`: see the attribute."""
        self.final = self.final or final
        self.failed = self.failed or failed
        if not self.stopping:
            self.stopping = True
            self.mailbox.reads.clear()
            self.take_nothing_at_once()
            if self._receive is not None:
                self._receive.close()
            for callback in self._callbacks:
                callback()

    def end(self, error: Callable[[], KernelError]) -> None:
        """Fail the calls that this incarnation leaves unanswered."""
        self.close(final=False)
        for delivery in tuple(self.mailbox.in_hand):
            delivery.fail(error())
