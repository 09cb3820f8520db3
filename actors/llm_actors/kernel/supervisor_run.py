"""One run of a supervisor, from the start of its children to their stop.

The loop wakes up when a child ends and when a restart is due. A request to stop cancels the loop, so the loop never
waits for a start or a backoff. The decisions are in the pure modules `spec` and `window`. A restart that fails
counts as one more failure. The children run in the nursery of this object, and only this object stops them, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import final

import msgspec
import trio

from llm_actors.kernel.child_run import KILL_SECONDS, ChildRun, EndReason
from llm_actors.kernel.child_state import ChildState, ChildStatus
from llm_actors.kernel.errors import (
    GaveUp,
    NotRunning,
    Parked,
    ShuttingDown,
    StartFailed,
    SupervisorFailed,
    is_fatal,
    lineage,
)
from llm_actors.kernel.lifecycle import Bus, ChildrenParked, ChildRestarted, SupervisorGaveUp
from llm_actors.kernel.spec import Restart, Strategy, affected, wants_restart
from llm_actors.kernel.window import Backoff, Intensity, RestartWindow, Streak

PARK_PAUSES = Backoff(first=1.0, base=2.0, cap=60.0, quiet=300.0)
"""How long children stay parked: 1 s the first time, then longer, up to 60 s. After 300 s without a failure, the
sequence begins again at 1 s.
"""


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How one supervisor responds to failures."""

    strategy: Strategy
    intensity: Intensity
    backoff: Backoff
    park: bool
    draw: Callable[[], float]


class Due(msgspec.Struct, frozen=True):
    """A planned restart: its time on Trio's clock, and its delay in seconds after the failure."""

    at: float
    delay: float


@final
class SupervisorRun:
    """Keeps `children` running until it is asked to stop or gives up. `children` is the supervisor's own dict, in start
    order.
    """

    def __init__(
        self, path: str, children: dict[str, ChildState], policy: RestartPolicy, bus: Bus, *, final: bool
    ) -> None:
        self.since = trio.current_time()
        self.parked_until = inf
        self.restarts = 0
        self.due: dict[str, Due] = {}
        self._path = path
        self._children = children
        self._policy = policy
        self._bus = bus
        self._final = final
        self._stopping = False
        self._giving_up = False
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._window = RestartWindow(policy.intensity)
        self._pauses = Streak(PARK_PAUSES)
        self._exits: deque[tuple[ChildState, ChildRun]] = deque()
        self._wake = trio.Event()

    @property
    def parked(self) -> bool:
        """Whether the children are parked after too many crashes."""
        return self.parked_until < inf

    def stop(self, *, final: bool, failed: bool = False) -> None:
        """Ask the supervisor to stop. `final`: no other run follows, so calls that wait for a reply fail.

        `failed`: the supervisor above gives up, so the children are cancelled at once, without a grace period.
        """
        self._stopping = True
        self._giving_up = self._giving_up or failed
        self._final = self._final or final
        self._scope.cancel(reason=f"{self._path} was asked to stop")

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """See `Supervisor.run`."""
        failure: StartFailed | GaveUp | None = None
        up = False
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                with self._scope:
                    await self._start_all()
                    task_status.started()
                    up = True
                    await self._loop()
            except (StartFailed, GaveUp) as exc:
                failure = exc
                self._giving_up = True
            finally:
                self._stopping = True
                await self._go_down()
        if failure is not None:
            raise failure
        if not up:
            task_status.started()  # it was stopped before it had started, which is not an error

    # Starting

    async def start(self, child: ChildState) -> None:
        """Start one child and wait until its start has succeeded. Raises `StartFailed`, `ShuttingDown` or `Parked`."""
        if self._stopping or self._nursery is None:
            raise ShuttingDown(self._path, "is shutting down and starts no children")
        if self.parked:
            raise Parked(self._path, "is parked after too many crashes")
        await child.start(self._nursery, partial(self._note_end, child))

    async def _give_way_to_stop(self) -> None:
        """Let the cancellation by `stop` take effect before a child is started.

        If `stop` is called when this task is already scheduled, the task is not cancelled yet. The start would be
        refused, which would look like a failure of the child.
        """
        if self._stopping:
            await trio.lowlevel.checkpoint()  # raises Cancelled: `stop` has cancelled the scope

    def _note_end(self, child: ChildState, incarnation: ChildRun) -> None:
        child.note_end(incarnation)
        self._exits.append((child, incarnation))
        self._wake.set()

    async def _start_all(self) -> None:
        try:
            for child in tuple(self._children.values()):
                await self._give_way_to_stop()
                await self._start_unless_leaving(child)
        except StartFailed as exc:
            if not self._policy.park:
                raise
            await self._park(exc)

    async def _start_unless_leaving(self, child: ChildState) -> bool:
        """Start one child, and return whether it is up. A child that is stopped on request during its start does not
        fail. Raises as `start` does.
        """
        try:
            await self.start(child)
        except StartFailed:
            if not child.leaving:
                raise
            return False
        return True

    # The loop

    async def _loop(self) -> None:
        while True:
            try:
                await self._step()
            except GaveUp as exc:
                if not self._policy.park or is_fatal(exc):
                    self._bus.publish(SupervisorGaveUp(name=self._path, causes=lineage(exc)))
                    raise
                await self._park(exc)

    async def _step(self) -> None:
        """Handle one thing that is due: the end of a pause, a restart or an exit. Wait if nothing is due."""
        await self._give_way_to_stop()
        now = trio.current_time()
        if self.parked_until <= now:
            await self._unpark()
        elif name := next((name for name, due in self.due.items() if due.at <= now), None):
            await self._restart(self._children[name], self.due.pop(name).delay)
        elif self._exits:
            await self._exited(*self._exits.popleft())
        else:
            self._wake = trio.Event()
            with trio.move_on_at(min([self.parked_until, *(due.at for due in self.due.values())])):
                await self._wake.wait()

    async def _exited(self, child: ChildState, incarnation: ChildRun) -> None:
        if child.incarnation is not incarnation:
            return  # stopped by us, or together with a sibling
        child.incarnation = None
        was_cancelled = self.parked or incarnation.reason in {EndReason.STOPPED, EndReason.KILLED}
        if was_cancelled and not child.leaving:
            return  # it ended long after that; the code that cancelled it starts it again
        crashed = incarnation.reason is EndReason.CRASHED
        if not child.leaving and wants_restart(child.spec.restart, crashed=crashed):
            await self._failed(
                child, incarnation.error or NotRunning(child.path, "ended, although its restart is permanent")
            )
        elif child.leaving or child.dynamic or child.spec.restart is Restart.TEMPORARY:
            self.retire(child, NotRunning, "has ended")
        else:
            child.retire(
                NotRunning, "has ended"
            )  # it stays in the list, because a restart of its group starts it again

    async def _failed(self, child: ChildState, error: Exception) -> None:
        """Count one failure, stop the siblings that are restarted together with the child, and plan the restart."""
        now = trio.current_time()
        child.status = ChildStatus.RESTARTING
        if is_fatal(error) or not self._window.admit(now):
            raise GaveUp(self._path, f"gave up after {child.name} failed with {type(error).__name__}") from error
        delay = child.streak.next_delay(now, self._policy.draw())
        group = affected(self._policy.strategy, tuple(self._children), child.name)
        for name in reversed(group):
            self.due.pop(name, None)
            if name in self._children:  # otherwise it was stopped on request while we waited for another
                await self._stop_for_group(self._children[name])
        self._plan(child, Due(now + delay, delay))

    def _plan(self, child: ChildState, due: Due) -> None:
        """Plan the restart of `child`. If it was removed in the meantime, plan the restart of the first child of its
        group.
        """
        down = (
            c.name for c in self._children.values() if c.status is ChildStatus.RESTARTING and c.name not in self.due
        )
        name = child.name if child.name in self._children else next(down, None)
        if name is not None:
            self.due[name] = due

    async def _stop_for_group(self, child: ChildState) -> None:
        if child.incarnation is None:
            return
        await child.stop(final=False)
        child.status = ChildStatus.RESTARTING
        if child.spec.restart is Restart.TEMPORARY:
            self.retire(child, NotRunning, "ended with its siblings and is not restarted")

    async def _restart(self, failed: ChildState, delay: float) -> None:
        for name in affected(self._policy.strategy, tuple(self._children), failed.name):
            child = self._children.get(name)
            if child is None or child.status is ChildStatus.RUNNING:
                continue
            await self._give_way_to_stop()
            try:
                if not await self._start_unless_leaving(child):
                    continue
            except StartFailed as exc:
                await self._failed(child, exc)
                return
            self.restarts += 1
            child.restarts += 1
            child.publish(ChildRestarted(name=child.path, restarts=child.restarts, delay=delay))

    # Parking

    async def _park(self, error: StartFailed | GaveUp) -> None:
        pause = self._pauses.next_delay(trio.current_time(), self._policy.draw())
        self.parked_until = trio.current_time() + pause
        self.due.clear()
        self._bus.publish(ChildrenParked(name=self._path, seconds=pause, causes=lineage(error)))
        children = tuple(self._children.values())
        for child in children:
            child.close(Parked, "is parked after too many crashes")
        for child in reversed(children):
            await child.stop(final=False)
            child.status = ChildStatus.PARKED

    async def _unpark(self) -> None:
        self.parked_until = inf
        self._window.clear()
        for child in self._children.values():
            # Otherwise its backoff would be added to the pause.
            child.streak.clear()
        await self._start_all()

    # Stopping

    async def _go_down(self) -> None:
        """Stop the children, last first. If the supervisor gives up or is cancelled, cancel them instead, last
        first.
        """
        children = tuple(self._children.values())
        try:
            if not self._giving_up:
                await self._stop_all(children)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_SECONDS * (len(children) + 1)):
                for child in reversed(children):
                    await child.kill(failed=self._giving_up)
            self._answer_all(children)

    async def _stop_all(self, children: tuple[ChildState, ...]) -> None:
        for child in children:
            if child.dynamic and child.incarnation is not None:
                child.incarnation.inbox.close(final=True)  # dynamic children have no order, so they stop together
        for child in reversed(children):
            await child.stop(final=self._final or child.dynamic)

    def _answer_all(self, children: tuple[ChildState, ...]) -> None:
        kind = SupervisorFailed if self._giving_up else NotRunning
        for child in children:
            if self._final or child.dynamic:
                self.retire(child, kind, "has ended with its supervisor")

    def retire(self, child: ChildState, kind: type[NotRunning], problem: str) -> None:
        """Remove a child and fail the calls that wait for it. Both the loop and `Supervisor.stop_child` call this for
        the same child. At the second call, another child may already have its name.
        """
        is_listed = self._children.get(child.name) is child
        if is_listed:
            del self._children[child.name]
        child.retire(kind, problem)
        if is_listed and (due := self.due.pop(child.name, None)):
            self._plan(child, due)
