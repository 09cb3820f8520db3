"""The state that a supervisor keeps about one child across its restarts, and the part of it that the tree of actors
shows (`TreeNode`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Never, Protocol, cast, final, runtime_checkable

import msgspec
import trio

from llm_actors.kernel.child_run import ChildRun
from llm_actors.kernel.delivery import ActorMessage
from llm_actors.kernel.errors import NotRunning, ShuttingDown, StartFailed, StillRunning, exception_site
from llm_actors.kernel.lifecycle import Bus, ChildCrashed, ChildExited, ChildStarted, LeftBehind, LifecycleEvent
from llm_actors.kernel.mailbox import Mailbox, MailboxStatistics
from llm_actors.kernel.ref import Ref
from llm_actors.kernel.spec import Actor, ChildSpec, Previous
from llm_actors.kernel.window import Backoff, Streak


class ChildStatus(Enum):
    """The state of a child."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    PARKED = "parked"
    ENDED = "ended"


class TreeNode(msgspec.Struct, frozen=True, kw_only=True):
    """One child, and its children if it is a supervisor. `uptime` is in seconds since its last start."""

    name: str
    status: ChildStatus
    restarts: int
    uptime: float
    last_crash: str
    mailbox: MailboxStatistics
    children: tuple[TreeNode, ...] = ()


@runtime_checkable
class Subtree(Protocol):
    """The interface of a child that is itself a supervisor, for the supervisor above it."""

    @property
    def parked(self) -> bool:
        """Whether all children below are parked after too many crashes."""
        ...

    def close_all(self, kind: type[NotRunning], problem: str) -> None:
        """Close the mailboxes of all children of this supervisor, at any depth, with an error of class `kind` and the
        text `problem`.
        """

    def nodes(self) -> tuple[TreeNode, ...]:
        """Return a snapshot of each child of this supervisor."""
        ...


@final
class ChildState:
    """One child of one supervisor."""

    __slots__ = (
        "_handed",
        "_saved",
        "_subtree",
        "dynamic",
        "incarnation",
        "last_crash",
        "leaving",
        "mailbox",
        "ref",
        "restarts",
        "spec",
        "status",
        "streak",
    )  # fmt: skip

    def __init__(self, spec: ChildSpec[Never], path: str, backoff: Backoff, *, dynamic: bool) -> None:
        self.spec = spec
        self.dynamic = dynamic
        self.mailbox = Mailbox(path, spec.mailbox)
        self.ref: Ref[ActorMessage] = Ref(self.mailbox)
        self.status = ChildStatus.NEW
        self.restarts = 0
        self.streak = Streak(backoff)
        self.last_crash = ""
        self.leaving = False
        self.incarnation: ChildRun | None = None
        self._subtree: Subtree | None = None
        self._handed: Previous = None
        self._saved: Previous = None

    @property
    def name(self) -> str:
        """The name of the child, unique among its siblings."""
        return self.spec.name

    @property
    def path(self) -> str:
        """The path of the child in the tree."""
        return self.mailbox.name

    def attach(self, path: str, bus: Bus) -> None:
        """Give the child its path and event bus, at the start of a run of its supervisor. The child's earlier
        failures are forgotten, because the supervisor may have caused them.
        """
        self.streak.clear()
        self.mailbox.name = path
        self.mailbox.bus = bus

    def publish(self, event: LifecycleEvent) -> None:
        """Publish an event."""
        if self.mailbox.bus is not None:
            self.mailbox.bus.publish(event)

    async def start(self, nursery: trio.Nursery, ended: Callable[[ChildRun], None]) -> None:
        """Start an incarnation in `nursery` and wait until the start has succeeded. `ended` is called with the
        incarnation when it ends. Raises `StartFailed`, with the exception that prevented the start as its cause.
        """
        if self.incarnation is not None and not self.incarnation.done.is_set():
            raise StartFailed(self.mailbox.name, "is still running") from StillRunning(
                self.mailbox.name, "ignored its cancellation"
            )
        if self.spec.mailbox is not None:
            self.mailbox.reopen()
        self.leaving = False
        self.status = ChildStatus.STARTING
        self.incarnation = incarnation = ChildRun(self.mailbox, ended)
        factory = cast("Callable[[Previous], Actor[ActorMessage]]", self.spec.factory)
        previous = self._handed if self._handed is not None else self._saved
        try:
            await incarnation.start(nursery, factory, previous, self.spec.start_timeout)
        except Exception as exc:
            self._note_crash(exc)
            raise StartFailed(self.mailbox.name, f"did not start: {type(exc).__name__}") from exc
        else:
            self.status = ChildStatus.RUNNING
            self._handed = None
            self.publish(ChildStarted(name=self.path))
        finally:
            self._note_subtree(incarnation.actor)
            if self.status is ChildStatus.STARTING and incarnation.done.is_set():
                self.incarnation = None

    def _note_subtree(self, actor: object) -> None:
        """If the child is a supervisor and its new incarnation is another object, fail the calls that wait below the
        old object.
        """
        subtree = actor if isinstance(actor, Subtree) else None
        if self._subtree is not None and self._subtree is not subtree:
            self._subtree.close_all(NotRunning, "its supervisor was replaced")
        self._subtree = subtree

    def note_end(self, incarnation: ChildRun) -> None:
        """Record how an incarnation ended and which state the next one inherits."""
        if incarnation.inbox.saved is not None:
            self._saved = incarnation.inbox.saved
        self._handed = incarnation.state
        self.publish(ChildExited(name=self.path, reason=incarnation.reason.value))
        if incarnation.error is not None:
            self._note_crash(incarnation.error)

    def _note_crash(self, exc: Exception) -> None:
        self.last_crash = exception_site(exc)
        self.publish(ChildCrashed(name=self.path, error=self.last_crash))

    async def stop(self, *, final: bool) -> None:
        """Stop the incarnation within the child's grace period. If it does not end, publish `LeftBehind` and
        continue. `final`: no other incarnation follows, so calls that wait fail with `ShuttingDown`.
        """
        if final:
            self.mailbox.close(ShuttingDown, "is shutting down")
        if self.incarnation is None:
            return
        if not self.incarnation.done.is_set():
            self.status = ChildStatus.STOPPING
        self._leave_if_stuck(ended=await self.incarnation.stop(self.spec.shutdown, final=final))

    async def kill(self, *, failed: bool = False) -> None:
        """Cancel the incarnation. If it does not end, publish `LeftBehind` and continue. `failed`: see
        `Inbox.failed`.
        """
        if self.incarnation is not None:
            self._leave_if_stuck(ended=await self.incarnation.kill(failed=failed))

    def _leave_if_stuck(self, *, ended: bool) -> None:
        if ended:
            self.incarnation = None
            self.status = ChildStatus.ENDED
        else:
            self.publish(LeftBehind(name=self.path))

    def retire(self, kind: type[NotRunning], problem: str) -> None:
        """Mark the child as ended for good, and fail all calls that wait for it or for a child below it."""
        self.status = ChildStatus.ENDED
        self.close(kind, problem)

    def close(self, kind: type[NotRunning], problem: str) -> None:
        """Close the mailbox of the child, and of all children below it, at any depth. See `Mailbox.close`."""
        if self.spec.mailbox is not None:
            self.mailbox.close(kind, problem)
        if self._subtree is not None:
            self._subtree.close_all(kind, problem)

    def node(self) -> TreeNode:
        """Return a snapshot of the child and of the children below it."""
        up = self.incarnation is not None and self.status is ChildStatus.RUNNING
        parked = up and self._subtree is not None and self._subtree.parked
        return TreeNode(
            name=self.name,
            status=ChildStatus.PARKED if parked else self.status,
            restarts=self.restarts,
            uptime=trio.current_time() - self.incarnation.started_at if up and self.incarnation is not None else 0.0,
            last_crash=self.last_crash,
            mailbox=self.mailbox.statistics(),
            children=self._subtree.nodes() if self._subtree is not None else (),
        )
