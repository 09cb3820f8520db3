"""One incarnation of a child, from its factory to its end, guarded.

An exception never leaves the guard, since in a nursery it would cancel the siblings: a failed start is raised to the
caller that starts the child, a later crash is reported to the supervisor. The child's scope is inside the `try`, so
that the cancellation of a kill is absorbed first and not mistaken for a crash. The scope is shielded: the end of the
tree reaches a child through its supervisor, in order, and not through the nursery, all at once. And a start does not
use `nursery.start`, which would wait without end for a child that ignores the cancellation of its start.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import final

import msgspec
import trio

from llm_actors.kernel.delivery import Reply
from llm_actors.kernel.errors import KernelError, NotRunning, SupervisorFailed, crashed
from llm_actors.kernel.inbox import Inbox, acting
from llm_actors.kernel.mailbox import Mailbox
from llm_actors.kernel.message import ActorMessage
from llm_actors.kernel.spec import Actor, Previous

KILL_SECONDS = 1.0
"""How long a cancelled child may take before it is left behind."""


class EndReason(Enum):
    """How an incarnation ended."""

    NORMAL = "normal"
    STOPPED = "stopped"
    KILLED = "killed"
    CRASHED = "crashed"
    INTERRUPTED = "interrupted"
    """By an exception that no guard holds back: KeyboardInterrupt, SystemExit. The whole tree is going down."""


@final
class ChildRun:
    """A running actor, its inbox and its scope. `done` is set when it has ended, for `reason` and `error`."""

    __slots__ = (
        "_ended", "_killed", "_settled", "actor", "done", "error", "inbox", "reason", "started_at", "state",
        "up",
    )  # fmt: skip

    def __init__(self, mailbox: Mailbox, ended: Callable[[ChildRun], None]) -> None:
        self.inbox: Inbox[ActorMessage] = Inbox(mailbox)
        self.done = trio.Event()
        self.up = False
        self.actor: Actor[ActorMessage] | None = None
        self.reason = EndReason.INTERRUPTED
        self.error: Exception | None = None
        self.state: Previous = None
        self.started_at = trio.current_time()
        self._killed = False
        self._settled: Reply[None] = Reply()
        self._ended = ended

    def started(self, value: None = None) -> None:
        """Called by the actor when it is initialised. This object is its `task_status`."""
        del value
        if self.up:
            raise RuntimeError(f"{self.inbox.name}: started() was called twice")
        self.up = True
        self._settled.send(None)

    async def start(
        self,
        nursery: trio.Nursery,
        factory: Callable[[Previous], Actor[ActorMessage]],
        previous: Previous,
        timeout: float,
    ) -> None:
        """Start it in `nursery` and wait until it is up. Raise what prevented that, after the child has ended."""
        nursery.start_soon(self._live, factory, previous, name=self.inbox.name)
        try:
            with trio.move_on_after(timeout) as limit:
                await self._settled.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):  # bounded by KILL_SECONDS
                await self.kill()
            raise
        if limit.cancelled_caught:
            await self.kill()
            raise trio.TooSlowError
        if not self.up:
            raise self.error or RuntimeError("it returned without calling task_status.started()")

    async def _live(self, factory: Callable[[Previous], Actor[ActorMessage]], previous: Previous) -> None:
        acting.set(self.inbox.mailbox)
        try:
            with self.inbox.scope:
                self.actor = factory(previous)
                result = await self.actor.run(self.inbox, task_status=self)
                self.state = result if isinstance(result, msgspec.Struct) else None
            self.reason = self._clean_reason()
        except Exception as exc:
            self.error, self.reason = exc, EndReason.CRASHED
        finally:
            self.inbox.end(self._obituary)
            self.done.set()
            self._settled.send(None)
            if self.up and self.reason is not EndReason.INTERRUPTED:
                self._ended(self)

    def _clean_reason(self) -> EndReason:
        if self._killed and self.inbox.scope.cancelled_caught:
            return EndReason.KILLED
        return EndReason.STOPPED if self.inbox.stopping else EndReason.NORMAL

    def _obituary(self) -> KernelError:
        name = self.inbox.name
        if self.error is not None:
            return crashed(name, self.error, bystander=True)  # the call whose message it was has failed already
        if self.inbox.failed:
            return SupervisorFailed(name, "was cancelled: its supervisor gave up after too many crashes")
        return NotRunning(name, "ended before it answered")

    async def stop(self, grace: float, *, final: bool) -> bool:
        """Ask it to stop, wait `grace` seconds, cancel it, wait `KILL_SECONDS`. False if it still runs."""
        self.inbox.close(final=final)
        if grace > 0:
            with trio.move_on_after(grace):
                await self.done.wait()
                return True
        return await self.kill()

    async def kill(self, *, failed: bool = False) -> bool:
        """Cancel it and wait `KILL_SECONDS`. False if it still runs. `failed`: see `Inbox.failed`."""
        self.inbox.close(final=self.inbox.final, failed=failed)
        self._killed = True
        self.inbox.scope.cancel(reason="its supervisor stops it")
        with trio.move_on_after(KILL_SECONDS):
            await self.done.wait()
            return True
        return False
