"""One actor alone, with a script in place of each actor that it calls.

`alone` runs a real actor without a supervisor: it is not restarted, and the test can read its crash. A `ScriptedPeer`
replaces another actor: pass its `ref` to the actor, then `expect` messages and reply to them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar, cast, final

import trio

from llm_actors.kernel.child_run import ChildRun
from llm_actors.kernel.delivery import ActorMessage, Delivery
from llm_actors.kernel.inbox import Inbox
from llm_actors.kernel.lifecycle import Bus
from llm_actors.kernel.mailbox import Mailbox, MailboxSpec
from llm_actors.kernel.ref import Ref
from llm_actors.kernel.spec import Actor, Previous

START_SECONDS = 10.0
"""Seconds that the actor may take to start."""

STOP_SECONDS = 5.0
"""The grace period at the end of the block, in seconds."""

DEFAULT_MAILBOX = MailboxSpec()

M = TypeVar("M", bound=ActorMessage)
S = TypeVar("S", bound=ActorMessage)


@final
class LoneActor(Generic[M]):
    """The actor under test. Send messages to its `ref`; `mailbox` and `bus` show the kernel's view of it."""

    def __init__(self, name: str, mailbox: MailboxSpec) -> None:
        self.mailbox = Mailbox(name, mailbox)
        self.bus = self.mailbox.bus = Bus()
        self.ref: Ref[M] = Ref(self.mailbox)
        self._life = ChildRun(self.mailbox, lambda _: None)
        self._expected = False

    @property
    def handed_over(self) -> Previous:
        """The state that the next incarnation would inherit. Available once this one has ended."""
        return self._life.state if self._life.state is not None else self._life.inbox.saved

    async def crash(self) -> Exception:
        """Wait until the actor crashes, and return its exception."""
        self._expected = True
        await self._life.done.wait()
        if self._life.error is None:
            raise AssertionError(f"{self.mailbox.name} ended without a crash")
        return self._life.error

    async def stop(self) -> None:
        """Ask the actor to stop, and wait until it has. Raises the exception of a crash that was not expected."""
        if not await self._life.stop(STOP_SECONDS, final=True):
            raise AssertionError(f"{self.mailbox.name} ignored both the request to stop and its cancellation")
        if self._life.error is not None and not self._expected:
            raise self._life.error

    async def kill(self) -> None:
        """Cancel the actor if it still runs. `alone` does this even if the test has failed, because an incarnation is
        shielded from the nursery's cancellation.
        """
        with trio.CancelScope(shield=True):  # bounded by KILL_SECONDS
            await self._life.kill()

    async def start(self, nursery: trio.Nursery, actor: Actor[M]) -> None:
        """Start the actor; used by `alone`."""
        await self._life.start(nursery, lambda _: cast("Actor[ActorMessage]", actor), None, START_SECONDS)


@asynccontextmanager
async def alone(
    actor: Actor[M], *, name: str = "alone", mailbox: MailboxSpec = DEFAULT_MAILBOX
) -> AsyncIterator[LoneActor[M]]:
    """Run `actor` around a block and stop it afterwards. If it has crashed, its exception is raised at the end of the
    block, unless `crash` has returned it.
    """
    lone: LoneActor[M] = LoneActor(name, mailbox)
    async with trio.open_nursery() as nursery:
        await lone.start(nursery, actor)
        try:
            yield lone
            await lone.stop()
        finally:
            await lone.kill()


@final
class ScriptedPeer(Generic[M]):
    """Another actor, played by the test."""

    def __init__(self, name: str, mailbox: MailboxSpec = DEFAULT_MAILBOX) -> None:
        self._mailbox = Mailbox(name, mailbox)
        self._inbox: Inbox[ActorMessage] = Inbox(self._mailbox)
        self.ref: Ref[M] = Ref(self._mailbox)

    async def expect(self, kind: type[S]) -> Delivery[S]:
        """Wait for the next message, which must be of the type `kind`."""
        delivery = await self._inbox.receive()
        if not isinstance(delivery.message, kind):
            raise AssertionError(  # noqa: TRY004  (the test's finding, not a caller's mistake)
                f"{self._mailbox.name}: expected {kind.__name__}, got {type(delivery.message).__name__}"
            )
        return cast("Delivery[S]", delivery)

    async def serve(self, answer: Callable[[Delivery[M]], None]) -> None:
        """Pass every message to `answer`, until cancelled."""
        async for delivery in self._inbox:
            answer(cast("Delivery[M]", delivery))

    def assert_quiet(self) -> None:
        """Raise if a message waits."""
        waiting = self._mailbox.statistics().depth
        if waiting:
            raise AssertionError(f"{self._mailbox.name}: {waiting} messages wait")
