"""One incarnation of a child, from the call of its factory to its end.

An exception of the child never reaches the nursery, where it would cancel the siblings. If the start fails, `start`
raises the exception; a later crash is reported to the supervisor. The child's cancel scope is inside the `try`, so that
the cancellation of a kill is not mistaken for a crash. The scope is shielded: when the tree ends, supervisors stop
their children in order, instead of the nursery cancelling all of them together. `nursery.start` is not used, because it
would wait forever for a child that ignores the cancellation of its start.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import final

import msgspec
import trio

from llm_actors.kernel.delivery import ActorMessage, Reply
from llm_actors.kernel.errors import KernelError, NotRunning, SupervisorFailed, crashed
from llm_actors.kernel.inbox import Inbox, acting
from llm_actors.kernel.mailbox import Mailbox
from llm_actors.kernel.spec import Actor, Previous

KILL_SECONDS = 1.0
"""Seconds that a cancelled child has to end. After that, its supervisor continues without it."""


class EndReason(Enum):
    """How an incarnation ended."""

    NORMAL = "normal"
    STOPPED = "stopped"
    KILLED = "killed"
    CRASHED = "crashed"
    INTERRUPTED = "interrupted"
    """Ended by KeyboardInterrupt or SystemExit, which are not caught here: the whole tree ends."""


@final
class ChildRun:
    """A running actor and its inbox. `done` is set when the actor has ended; `reason` and `error` say why."""

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
        """Called by the actor when it is initialised: this object is the `task_status` of the actor's `run`."""
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
        """Start the child in `nursery` and wait until its start has succeeded.

        Raises the exception that prevented the start, or `trio.TooSlowError` after `timeout` seconds. By then the
        child has ended, unless it ignores its cancellation. Cancelling the caller cancels the child.
        """
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
            raise self.error or RuntimeError("the actor returned without calling task_status.started()")

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
            self.inbox.end(self._error_for_open_calls)
            self.done.set()
            self._settled.send(None)
            if self.up and self.reason is not EndReason.INTERRUPTED:
                self._ended(self)

    def _clean_reason(self) -> EndReason:
        if self._killed and self.inbox.scope.cancelled_caught:
            return EndReason.KILLED
        return EndReason.STOPPED if self.inbox.stopping else EndReason.NORMAL

    def _error_for_open_calls(self) -> KernelError:
        name = self.inbox.name
        if self.error is not None:
            return crashed(name, self.error, bystander=True)  # the call that it crashed on has failed already
        if self.inbox.failed:
            return SupervisorFailed(name, "was cancelled: its supervisor gave up after too many crashes")
        return NotRunning(name, "ended before it replied")

    async def stop(self, grace: float, *, final: bool) -> bool:
        """Ask the actor to stop, wait up to `grace` seconds, then `kill` it. Return False if it still runs. `final`: no
        other incarnation follows.
        """
        self.inbox.close(final=final)
        if grace > 0:
            with trio.move_on_after(grace):
                await self.done.wait()
                return True
        return await self.kill()

    async def kill(self, *, failed: bool = False) -> bool:
        """Cancel the actor and wait up to `KILL_SECONDS`. Return False if it still runs. `failed`: whether
        its supervisor gives up after too many crashes.
        """
        self.inbox.close(final=self.inbox.final, failed=failed)
        self._killed = True
        self.inbox.scope.cancel(reason="its supervisor stops the actor")
        with trio.move_on_after(KILL_SECONDS):
            await self.done.wait()
            return True
        return False
