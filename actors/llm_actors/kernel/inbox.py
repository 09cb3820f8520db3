"""The actor's side of a mailbox, for one incarnation.

Iterating waits for the next message. The iteration ends as soon as the actor is asked to stop, even if messages are
queued.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Generic, TypeVar, cast

import msgspec
import trio

from llm_actors.kernel.delivery import ActorMessage, BaseCall, Delivery
from llm_actors.kernel.errors import KernelError
from llm_actors.kernel.mailbox import Mailbox

MESSAGES_PER_PASS = 64
"""The most messages that are received in a row before other tasks run. With one message per scheduler pass, a mailbox
that fills while hundreds of tasks run would empty so slowly that calls expire in it.
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
        """The scope in which the actor runs. The actor may cancel the scope to end itself."""
        self.stopping = False
        self.final = False
        self.failed = False
        """Whether the actor is stopped because its supervisor gives up after too many crashes. Then work in progress
        is cancelled.
        """
        self.saved: msgspec.Struct | None = None
        self._receive: trio.MemoryReceiveChannel[Delivery[ActorMessage]] | None = None
        self._received = MESSAGES_PER_PASS
        """Messages received since the last checkpoint. The first `receive` always has a checkpoint, so that the
        supervisor has recorded the start before a message is handled.
        """
        self._callbacks: list[Callable[[], object]] = []
        self._broken: Exception | None = None

    @property
    def name(self) -> str:
        """The actor's path in the tree."""
        return self.mailbox.name

    async def receive(self) -> Delivery[M_co]:
        """Wait for the next message. Raises `trio.EndOfChannel` once the actor is asked to stop, and the exception of
        a handler that ran in a sender's task (see `crash_with`). Cancellation loses no message.

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

    def answer_reads(self, kind: type[BaseCall[R]], answer: Callable[[Any], R | None]) -> None:
        """Let `Ref.read` call `answer` for messages of exactly the type `kind`, without sending a message to this
        actor.

        `answer` runs in the reader's task, while this actor's own task is suspended. It must not block or await. It
        returns None for a message that must be sent with `Ref.call`. The registration ends when the actor is asked to
        stop or ends.
        """
        if not self.stopping:
            self.mailbox.reads[kind] = answer

    def take_at_once(self, take: Callable[[Any], bool]) -> None:
        """Call `take` in the sender's task for each message that arrives while the queue is empty.

        `take` runs in the sender's task, while this actor's own task is suspended, and must not block, await or raise.
        It returns False if the message must be queued. The registration ends when the actor is asked to stop or ends.
        """
        if not self.stopping and self._broken is None:
            self.mailbox.at_once = take

    def crash_with(self, error: Exception) -> None:
        """Make `receive` raise `error`, the exception of a handler that ran in a sender's task, so that the actor
        crashes.
        """
        self._broken = error
        self.queue_everything()
        if self._receive is not None:
            self._receive.close()

    def queue_everything(self) -> None:
        """Queue every message from now on: undo `take_at_once`."""
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
        """Call `callback` when the actor is asked to stop, or now if it has been asked already. `callback` must not
        raise or block.
        """
        if self.stopping:
            callback()
        else:
            self._callbacks.append(callback)

    def close(self, *, final: bool, failed: bool = False) -> None:
        """Ask the actor to stop. `final`: no other incarnation follows. `failed`: see `Inbox.failed`."""
        self.final = self.final or final
        self.failed = self.failed or failed
        if not self.stopping:
            self.stopping = True
            self.mailbox.reads.clear()
            self.queue_everything()
            if self._receive is not None:
                self._receive.close()
            callbacks, self._callbacks = self._callbacks, []  # a callback that refers to this inbox forms a cycle
            for callback in callbacks:
                callback()

    def end(self, error: Callable[[], KernelError]) -> None:
        """Fail the calls that this incarnation has not answered, each with a new `error()`."""
        self.close(final=False)
        for delivery in tuple(self.mailbox.in_hand):
            delivery.fail(error())
