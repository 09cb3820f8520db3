"""A stop or a cancellation in the same scheduler pass as the event it competes with.

Trio delivers a cancellation at the next checkpoint of a task that waits. A task that has already been scheduled to go
on runs its step first, and finds a world in which it was told to stop.
"""

from __future__ import annotations

from typing import Never

import pytest
import trio
from trio.testing import MockClock

from llm_actors.kernel import ActorCrashed, ActorMessage, ChildSpec, Inbox, Supervisor, running
from support.actors import NO_WAIT, Crash, Journal, member


async def test_a_stop_in_the_same_pass_as_a_crash_is_no_failure_of_the_tree(autojump_clock: MockClock) -> None:
    """The supervisor was already scheduled to restart the child when it was asked to stop."""
    root: Supervisor

    def draw() -> float:  # called while the restart is planned
        root.stop()
        return 0.5

    journal: Journal = []
    root = Supervisor([member("a", journal)], backoff=NO_WAIT, draw=draw)
    async with running(root):
        with pytest.raises(ActorCrashed):
            await root.ref("a").call(Crash())
        await trio.sleep(1)
    assert journal == ["up a", "down a"]


class StopsTheTree:
    """Asks for a stop in the very step in which it is up."""

    def __init__(self, root: list[Supervisor]) -> None:
        self._root = root

    async def run(self, inbox: Inbox[ActorMessage], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        self._root[0].stop()
        async for _ in inbox:
            pass


@pytest.mark.parametrize("nested", [False, True])
async def test_a_stop_in_the_same_pass_as_a_start_is_no_failure_of_the_tree(
    nested: bool, autojump_clock: MockClock
) -> None:
    journal: Journal = []
    top: list[Supervisor] = []
    children: list[ChildSpec[Never]] = [ChildSpec("a", lambda _: StopsTheTree(top)), member("b", journal)]
    inner = Supervisor(children, name="inner")
    top.append(Supervisor([inner.as_child(), member("c", journal)]) if nested else inner)
    async with running(top[0]):
        pass
    assert "up c" not in journal  # b is below another supervisor, which hears of it one pass later
