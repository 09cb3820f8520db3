"""The supervisor: keeps a set of children running.

A supervisor can itself be restarted by the supervisor above it. The `Supervisor` object stays, and with it the
children's mailboxes, so that the same refs lead to the new children. Each run of a supervisor is a `SupervisorRun`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import random
from typing import Never, TypeVar, final, overload

import msgspec
import trio

from llm_actors.kernel.child_run import KILL_SECONDS
from llm_actors.kernel.child_state import ChildState, ChildStatus, TreeNode
from llm_actors.kernel.delivery import ActorMessage
from llm_actors.kernel.errors import NameTaken, NotRunning, ShuttingDown, TooManyChildren
from llm_actors.kernel.inbox import Inbox
from llm_actors.kernel.lifecycle import Bus
from llm_actors.kernel.mailbox import MailboxStatistics
from llm_actors.kernel.ref import Ref
from llm_actors.kernel.spec import DEFAULT_SHUTDOWN, DEFAULT_START_TIMEOUT, ChildSpec, Restart, Strategy
from llm_actors.kernel.supervisor_run import RestartPolicy, SupervisorRun
from llm_actors.kernel.window import Backoff, Intensity

DEFAULT_INTENSITY = Intensity(5, 30.0)
"""The default limit of restarts: 5 within 30 s."""

DEFAULT_BACKOFF = Backoff()

M = TypeVar("M", bound=ActorMessage)


class SupervisorStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one supervisor. `restarts` counts the restarts since the supervisor's last start;
    `waiting_restart` is the number of children that wait for a restart.
    """

    children: int
    dynamic: int
    max_children: int
    restarts: int
    waiting_restart: int
    parked: bool


@final
class Supervisor:
    """Starts the children in the order of `specs`, restarts those that fail, and stops them in reverse order.

    A supervisor is itself an actor, so that supervisors can be nested.
    """

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
        """Create a supervisor; nothing runs until `run`.

        `park`: after too many restarts, pause and try again instead of giving up. `max_children`: the most children
        that `start_child` may add. `draw` returns the jitter of the waits before restarts, in [0, 1).
        """
        if max_children and strategy is not Strategy.ONE_FOR_ONE:
            raise ValueError(f"{name}: max_children needs the strategy one_for_one: dynamic children have no order")
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
        self._current_run: SupervisorRun | None = None

    def as_child(self, *, restart: Restart = Restart.PERMANENT, shutdown: float | None = None) -> ChildSpec[Never]:
        """Return the spec that puts this supervisor under another one.

        `shutdown` is in seconds. By default, the time to stop and the time to start are the sums of the times of its
        children.
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
        """Return the address of a child, before or after it is started. Raises `KeyError` if there is no such child."""
        name = child if isinstance(child, str) else child.name
        found = self._children.get(name) or self._specified[name]
        return found.ref

    async def run(
        self,
        inbox: Inbox[ActorMessage] | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start the children, keep them running until the supervisor is asked to stop, then stop them.

        Raises `StartFailed` or `GaveUp` after all children have ended; the chain of causes leads to the first crash.
        Cancelling this cancels the children one by one, last first. Without `inbox` the supervisor is the root of its
        tree.
        """
        if inbox is not None:
            self._path = inbox.name
            self.bus = inbox.mailbox.bus or self.bus
        self._children = dict(self._specified)
        for child in self._children.values():
            child.attach(f"{self._path}/{child.name}", self.bus)
        current = self._current_run = SupervisorRun(
            self._path, self._children, self._policy, self.bus, final=inbox is None
        )
        if inbox is not None:
            inbox.when_stopping(lambda: current.stop(final=inbox.final, failed=inbox.failed))
        try:
            await current.run(task_status)
        finally:
            self._current_run = None

    def stop(self) -> None:
        """Ask the tree to stop for good. `run` returns when it has stopped."""
        if self._current_run is not None:
            self._current_run.stop(final=True)

    async def start_child(self, spec: ChildSpec[M]) -> Ref[M]:
        """Add a child and wait until its start has succeeded.

        Raises `TooManyChildren`, `NameTaken`, `NotRunning` or `StartFailed`, with the exception of the start as its
        cause. Then the child is not added. Cancelling the caller cancels the start.
        """
        return await self._start_new(spec, dynamic=True)

    async def add_child(self, spec: ChildSpec[M]) -> Ref[M]:
        """Add a child and wait until its start has succeeded, as `start_child` does. When the supervisor is
        restarted, the child is restarted, too, as if it were one of `specs`.
        """
        ref = await self._start_new(spec, dynamic=False)
        self._specified[spec.name] = self._children[spec.name]
        return ref

    def release_child(self, name: str) -> None:
        """Let the child run, but do not start it again when this supervisor is restarted. Raises `KeyError` if there is
        no such child.
        """
        del self._specified[name]

    async def remove_child(self, name: str) -> None:
        """Stop a child within its grace period and remove it for good. Raises `KeyError` if there is no such child."""
        if name not in self._children:
            raise KeyError(name)
        self._specified.pop(name, None)  # before the wait: from then on, the name may be used again
        await self.stop_child(name)

    async def _start_new(self, spec: ChildSpec[M], *, dynamic: bool) -> Ref[M]:
        if self._current_run is None:
            raise NotRunning(self._path, "is not running")
        if spec.name in self._children or spec.name in self._specified:
            raise NameTaken(self._path, f"already has a child called {spec.name}")
        if dynamic and self._dynamic() >= self._max_children:
            raise TooManyChildren(self._path, f"already has its maximum of {self._max_children} dynamic children")
        child = ChildState(spec, f"{self._path}/{spec.name}", self._policy.backoff, dynamic=dynamic)
        child.attach(child.mailbox.name, self.bus)
        self._children[spec.name] = child
        current = self._current_run
        try:
            await current.start(child)
        except BaseException:
            current.retire(child, NotRunning, "did not start")
            raise
        return Ref(child.mailbox)

    async def stop_child(self, name: str) -> None:
        """Stop a child within its grace period and remove it. A child of `specs` is started again when this
        supervisor is restarted.

        Raises `KeyError` if there is no such child. If the caller is cancelled, the child still stops, and is not
        restarted.
        """
        child = self._children[name]
        child.leaving = True
        await child.stop(final=True)
        if self._current_run is not None and child.incarnation is None:
            self._current_run.retire(child, ShuttingDown, "was stopped")

    @property
    def parked(self) -> bool:
        """Whether the children are parked after too many crashes."""
        return self._current_run is not None and self._current_run.parked

    def close_all(self, kind: type[NotRunning], problem: str) -> None:
        """Close the mailboxes of all children, at any depth; see `Mailbox.close`. The supervisor above calls this."""
        for child in {**self._specified, **self._children}.values():
            child.close(kind, problem)

    def statistics(self) -> SupervisorStatistics:
        """Return the counters and gauges of this supervisor."""
        current = self._current_run
        return SupervisorStatistics(
            children=len(self._children),
            dynamic=self._dynamic(),
            max_children=self._max_children,
            restarts=current.restarts if current else 0,
            waiting_restart=len(current.due) if current else 0,
            parked=self.parked,
        )

    def nodes(self) -> tuple[TreeNode, ...]:
        """Return a snapshot of each child."""
        return tuple(child.node() for child in self._children.values())

    def tree(self) -> TreeNode:
        """Return a snapshot of the tree from this supervisor down."""
        current = self._current_run
        running = ChildStatus.PARKED if self.parked else ChildStatus.RUNNING
        return TreeNode(
            name=self.name,
            status=running if current else ChildStatus.ENDED,
            restarts=current.restarts if current else 0,
            uptime=trio.current_time() - current.since if current else 0.0,
            last_crash="",
            mailbox=MailboxStatistics(),
            children=self.nodes(),
        )

    def _dynamic(self) -> int:
        return len(self._children) - sum(name in self._children for name in self._specified)


@asynccontextmanager
async def running(root: Supervisor) -> AsyncIterator[Supervisor]:
    """Run the tree below `root` while a block runs: start it before the block, stop it afterwards.

    An exception of the block, even `KeyboardInterrupt`, propagates unchanged. If the tree gives up, the block is
    cancelled and `GaveUp` is raised in an exception group.
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
    raise raised  # outside the handler, so that the group does not become its __context__
