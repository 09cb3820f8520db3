"""One life of a child: from its factory to its end, guarded.

An exception never leaves the guard once the actor has started, since in a nursery it would take the siblings along;
before that it belongs to whoever starts the child. The scope is inside the `try`, so that the cancellation of a kill
is absorbed first and not mistaken for a crash. Once started, the scope is shielded: the end of the tree reaches a
child through its supervisor, in order, and not through the nursery, all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf
from typing import final

import msgspec
import trio

from llm_actors.kernel.errors import KernelError, NotRunning, crashed
from llm_actors.kernel.inbox import Inbox, acting
from llm_actors.kernel.mailbox import Mailbox
from llm_actors.kernel.message import Message
from llm_actors.kernel.spec import Actor, Previous

KILL_SECONDS = 1.0
"""How long a cancelled child may take before it is left behind."""


class Reason(Enum):
    """How an incarnation ended."""

    NORMAL = "normal"
    STOPPED = "stopped"
    KILLED = "killed"
    CRASHED = "crashed"
    FAILED = "failed to start"


@final
class _Started:
    """Remembers whether `started()` was reached, and shields the incarnation from then on."""

    def __init__(self, scope: trio.CancelScope, inner: trio.TaskStatus[None]) -> None:
        self.reached = False
        self._scope = scope
        self._inner = inner

    def started(self, value: None = None) -> None:
        """Hand the task over to the supervisor."""
        self._inner.started(value)
        self.reached = True
        # A start that was cancelled meanwhile is not handed over; shielded, it would never end.
        self._scope.shield = trio.current_effective_deadline() > -inf


@final
class Incarnation:
    """A running actor, its inbox and its scope. `done` is set when it has ended, for `reason` and `error`."""

    def __init__(self, mailbox: Mailbox, ended: Callable[[Incarnation], None]) -> None:
        self.inbox: Inbox[Message] = Inbox(mailbox)
        self.done = trio.Event()
        self.actor: Actor[Message] | None = None
        self.reason = Reason.FAILED
        self.error: Exception | None = None
        self.state: Previous = None
        self.started_at = trio.current_time()
        self._scope = trio.CancelScope()
        self._ended = ended

    async def live(
        self,
        factory: Callable[[Previous], Actor[Message]],
        previous: Previous,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run one incarnation. Raises only what prevented it from starting."""
        acting.set(self.inbox.mailbox)
        status = _Started(self._scope, task_status)
        try:
            with self._scope:
                self.actor = factory(previous)
                result = await self.actor.run(self.inbox, task_status=status)
                self.state = result if isinstance(result, msgspec.Struct) else None
            self.reason = self._clean_reason()
        except Exception as exc:
            self.error = exc
            if not status.reached:
                raise
            self.reason = Reason.CRASHED
        finally:
            self.inbox.end(self._obituary)
            self.done.set()
            if status.reached:
                self._ended(self)

    def _clean_reason(self) -> Reason:
        if self._scope.cancelled_caught:
            return Reason.KILLED
        return Reason.STOPPED if self.inbox.stopping else Reason.NORMAL

    def _obituary(self) -> KernelError:
        name = self.inbox.name
        if self.error is not None:
            return crashed(name, self.error)
        return NotRunning(name, "ended before it answered")

    @property
    def legacy(self) -> Previous:
        """What the next incarnation inherits."""
        return self.state if self.state is not None else self.inbox.saved

    async def stop(self, grace: float, *, final: bool) -> bool:
        """Ask it to stop, wait `grace` seconds, cancel it, wait `KILL_SECONDS`. False if it still runs."""
        self.inbox.close(final=final)
        if grace > 0:
            with trio.move_on_after(grace):
                await self.done.wait()
                return True
        return await self.kill()

    async def kill(self) -> bool:
        """Cancel it and wait `KILL_SECONDS`. False if it still runs."""
        self.inbox.close(final=self.inbox.final)
        self._scope.cancel(reason="its supervisor stops it")
        with trio.move_on_after(KILL_SECONDS):
            await self.done.wait()
            return True
        return False
