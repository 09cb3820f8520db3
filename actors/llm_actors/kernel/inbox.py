"""The actor's side of a mailbox, for one incarnation.

Iterating waits for the next message worth handling and ends when the actor is asked to stop, even with messages
queued: a stop is never behind data.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Generic, TypeVar, cast

import msgspec
import trio

from llm_actors.kernel.delivery import Delivery
from llm_actors.kernel.errors import KernelError
from llm_actors.kernel.mailbox import Mailbox
from llm_actors.kernel.message import ActorMessage

M_co = TypeVar("M_co", bound=ActorMessage, covariant=True)

acting: ContextVar[Mailbox | None] = ContextVar("llm_actors_acting", default=None)
"""The actor on whose behalf the current task runs, so that a circle of calls can be seen."""


class Inbox(Generic[M_co]):
    """Receives messages until the actor is asked to stop."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.scope = trio.CancelScope(shield=True)
        """The actor runs in it, and may cancel it to end itself."""
        self.stopping = False
        self.final = False
        self.failed = False
        """The stop follows from too many crashes around this actor: what is in hand is cancelled, not finished."""
        self.saved: msgspec.Struct | None = None
        self._receive: trio.MemoryReceiveChannel[Delivery[ActorMessage]] | None = None
        self._callbacks: list[Callable[[], object]] = []

    @property
    def name(self) -> str:
        """The actor's path in the tree."""
        return self.mailbox.name

    async def receive(self) -> Delivery[M_co]:
        """Wait for the next message. Raise `trio.EndOfChannel` once a stop is asked for. Cancelling loses nothing."""
        if self.stopping:
            raise trio.EndOfChannel
        receive = self._receive = self._receive or self.mailbox.reader()
        while True:
            try:
                delivery = await receive.receive()
            except trio.ClosedResourceError:
                raise trio.EndOfChannel from None
            if self.mailbox.admit(delivery):
                return cast("Delivery[M_co]", delivery)

    def __aiter__(self) -> Inbox[M_co]:
        return self

    async def __anext__(self) -> Delivery[M_co]:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def checkpoint(self, state: msgspec.Struct) -> None:
        """Save the state that the next incarnation is given should this one crash."""
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
            if self._receive is not None:
                self._receive.close()
            for callback in self._callbacks:
                callback()

    def end(self, error: Callable[[], KernelError]) -> None:
        """Answer the calls that this incarnation leaves unanswered."""
        self.close(final=False)
        for delivery in tuple(self.mailbox.in_hand):
            delivery.fail(error())
