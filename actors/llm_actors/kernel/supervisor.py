"""The supervisor: keeps a set of children running.

The object outlives its runs. It holds the children's mailboxes, so that after a restart by its own supervisor the same
refs lead to the new children. Each run is a `SupervisorRun`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import random
from typing import Never, TypeVar, final, overload

import msgspec
import trio

from llm_actors.kernel.child_run import KILL_SECONDS
from llm_actors.kernel.child_state import ChildState
from llm_actors.kernel.errors import NameTaken, NotRunning, ShuttingDown, TooManyChildren
from llm_actors.kernel.inbox import Inbox
from llm_actors.kernel.lifecycle import Bus
from llm_actors.kernel.mailbox import MailboxStatistics
from llm_actors.kernel.message import ActorMessage
from llm_actors.kernel.ref import Ref
from llm_actors.kernel.spec import DEFAULT_SHUTDOWN, DEFAULT_START_TIMEOUT, ChildSpec
from llm_actors.kernel.strategy import Restart, Strategy
from llm_actors.kernel.supervisor_run import RestartPolicy, SupervisorRun
from llm_actors.kernel.tree import ChildStatus, TreeNode
from llm_actors.kernel.window import Backoff, Intensity

DEFAULT_INTENSITY = Intensity(5, 30.0)
"""OTP's own example: more than 5 restarts in 30 s are too many."""

DEFAULT_BACKOFF = Backoff()

M = TypeVar("M", bound=ActorMessage)


class SupervisorStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one supervisor. `restarts` and `waiting_restart` are of the current run."""

    children: int
    dynamic: int
    max_children: int
    restarts: int
    waiting_restart: int
    parked: bool


@final
class Supervisor:
    """Starts `specs` in order, restarts what fails, stops in reverse. An actor itself, so that supervisors nest."""

    def __init__(
        self,
        specs: Sequence[ChildSpec[Never]] = (),
        *,
        name: str = "root",
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = DEFAULT_INTENSITY,
        backoff: Backoff = DEFAULT_BACKOFF,
        park: bool = False,
        max_children: int = 0,
        bus: Bus | None = None,
        draw: Callable[[], float] = random,
    ) -> None:
        """`park`: pause and try again instead of giving up. `max_children`: how many `start_child` may add.

        `draw` returns the jitter, in [0, 1).
        """
        if max_children and strategy is not Strategy.ONE_FOR_ONE:
            raise ValueError(f"{name}: dynamic children need the strategy one_for_one, because they have no order")
        self.name = name
        self.bus = bus or Bus()
        self._path = name
        self._policy = RestartPolicy(strategy=strategy, intensity=intensity, backoff=backoff, park=park, draw=draw)
        self._max_children = max_children
        self._specified: dict[str, ChildState] = {}
        for spec in specs:
            if spec.name in self._specified:
                raise NameTaken(name, f"has two children called {spec.name}")
            self._specified[spec.name] = ChildState(spec, f"{name}/{spec.name}", backoff, dynamic=False)
        self._children = dict(self._specified)
        self._watch: SupervisorRun | None = None

    def as_child(self, *, restart: Restart = Restart.PERMANENT, shutdown: float | None = None) -> ChildSpec[Never]:
        """Return the spec that puts this supervisor under another one.

        Its grace is by default the sum of what its own children may take, and so is its time to start.
        """
        specs = [child.spec for child in self._specified.values()]
        grace = sum(spec.shutdown + KILL_SECONDS for spec in specs)
        if self._max_children:
            grace += DEFAULT_SHUTDOWN + KILL_SECONDS
        return ChildSpec(
            self.name,
            lambda _: self,
            restart,
            grace if shutdown is None else shutdown,
            sum(spec.start_timeout for spec in specs) or DEFAULT_START_TIMEOUT,
            None,
        )

    @overload
    def ref(self, child: str) -> Ref[ActorMessage]: ...
    @overload
    def ref(self, child: ChildSpec[M]) -> Ref[M]: ...
    def ref(self, child: str | ChildSpec[M]) -> Ref[ActorMessage] | Ref[M]:
        """Return the stable address of a child, before or after it is started. `KeyError` if there is none."""
        name = child if isinstance(child, str) else child.name
        found = self._children.get(name) or self._specified[name]
        return found.ref

    async def run(
        self,
        inbox: Inbox[ActorMessage] | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start the children, keep them running until a stop is asked for, stop them.

        Raises `StartFailed` or `GaveUp`, with the cause chain, after all children are down. Cancelling it
        cancels the children one by one, last first. Without an inbox it is the root of its tree.
        """
        if inbox is not None:
            self._path = inbox.name
            self.bus = inbox.mailbox.bus or self.bus
        self._children = dict(self._specified)
        for child in self._children.values():
            child.settle(f"{self._path}/{child.name}", self.bus)
        watch = self._watch = SupervisorRun(self._path, self._children, self._policy, self.bus, final=inbox is None)
        if inbox is not None:
            inbox.when_stopping(lambda: watch.stop(final=inbox.final, failed=inbox.failed))
        try:
            await watch.run(task_status)
        finally:
            self._watch = None

    def stop(self) -> None:
        """Ask the tree to stop for good; `run` returns when it has."""
        if self._watch is not None:
            self._watch.stop(final=True)

    async def start_child(self, spec: ChildSpec[M]) -> Ref[M]:
        """Add a child and wait until it is up.

        Raises `TooManyChildren`, `NameTaken`, `NotRunning`, or `StartFailed` from what its start raised; it is
        not kept then. Cancelling the caller cancels the start.
        """
        return await self._start_new(spec, dynamic=True)

    async def add_child(self, spec: ChildSpec[M]) -> Ref[M]:
        """Add a child and wait until it is up, as `start_child` does, but for good: it is started again with its
        supervisor, as if it had been specified.
        """
        ref = await self._start_new(spec, dynamic=False)
        self._specified[spec.name] = self._children[spec.name]
        return ref

    async def remove_child(self, name: str) -> None:
        """Stop a child within its grace and forget it for good. `KeyError` if there is none."""
        if name not in self._children:
            raise KeyError(name)
        self._specified.pop(name, None)  # first: a name that is seen no more is free
        await self.stop_child(name)

    async def _start_new(self, spec: ChildSpec[M], *, dynamic: bool) -> Ref[M]:
        if self._watch is None:
            raise NotRunning(self._path, "is not running")
        if spec.name in self._children or spec.name in self._specified:
            raise NameTaken(self._path, f"already has a child called {spec.name}")
        if dynamic and self._dynamic() >= self._max_children:
            raise TooManyChildren(self._path, f"has its maximum of {self._max_children} dynamic children")
        child = ChildState(spec, f"{self._path}/{spec.name}", self._policy.backoff, dynamic=dynamic)
        child.settle(child.mailbox.name, self.bus)
        self._children[spec.name] = child
        watch = self._watch
        try:
            await watch.start(child)
        except BaseException:
            watch.retire(child, NotRunning, "did not start")
            raise
        return Ref(child.mailbox)

    async def stop_child(self, name: str) -> None:
        """Stop a child within its grace and forget it (one of `specs`: until this supervisor is restarted).

        `KeyError` if there is none. Cancelling the caller leaves the child asked to stop; it is not restarted.
        """
        child = self._children[name]
        child.leaving = True
        await child.stop(final=True)
        if self._watch is not None and child.incarnation is None:
            self._watch.retire(child, ShuttingDown, "was stopped")

    @property
    def parked(self) -> bool:
        """Whether the children are parked after too many crashes."""
        return self._watch is not None and self._watch.parked

    def close_all(self, kind: type[NotRunning], problem: str) -> None:
        """Close the mailboxes of everyone below; used by the supervisor above."""
        for child in {**self._specified, **self._children}.values():
            child.close(kind, problem)

    def statistics(self) -> SupervisorStatistics:
        """Return counters and gauges."""
        watch = self._watch
        return SupervisorStatistics(
            children=len(self._children),
            dynamic=self._dynamic(),
            max_children=self._max_children,
            restarts=watch.restarts if watch else 0,
            waiting_restart=len(watch.due) if watch else 0,
            parked=self.parked,
        )

    def nodes(self) -> tuple[TreeNode, ...]:
        """Return the picture of the children."""
        return tuple(child.node() for child in self._children.values())

    def tree(self) -> TreeNode:
        """Return the picture of the tree from here down."""
        watch = self._watch
        running = ChildStatus.PARKED if self.parked else ChildStatus.RUNNING
        return TreeNode(
            name=self.name,
            status=running if watch else ChildStatus.ENDED,
            restarts=watch.restarts if watch else 0,
            uptime=trio.current_time() - watch.since if watch else 0.0,
            last_crash="",
            mailbox=MailboxStatistics(),
            children=self.nodes(),
        )

    def _dynamic(self) -> int:
        return len(self._children) - sum(name in self._children for name in self._specified)


@asynccontextmanager
async def running(root: Supervisor) -> AsyncIterator[Supervisor]:
    """Run a tree around a block: started before it begins, asked to stop after it, ended when this returns.

    An exception of the block propagates unchanged, as if there were no tree, including requests to end the process. A
    tree that gives up cancels the block and raises its `GaveUp` in an exception group.
    """
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(root.run)
            try:
                yield root
            except BaseException as exc:
                raised = exc
                raise
            finally:
                root.stop()
    except BaseExceptionGroup as group:
        if raised is None or group.exceptions != (raised,):
            raise
    else:
        return
    raise raised  # here, not in the handler, where the group would become its context
