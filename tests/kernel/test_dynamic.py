"""Children that come and go: one per connection, say."""

from __future__ import annotations

from typing import Never

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.kernel import (
    ActorMessage,
    Backoff,
    ChildSpec,
    Inbox,
    Intensity,
    NameTaken,
    NotRunning,
    Restart,
    StartFailed,
    Strategy,
    Supervisor,
    TooManyChildren,
    running,
    task_child,
)
from support.actors import NO_WAIT, Ask, CrashCast, Sleep, flaky, member


async def forever(task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep_forever()


async def test_a_task_child_lives_until_it_ends(autojump_clock: MockClock) -> None:
    """It needs no inbox; when it has ended its name and its place are free."""

    async def brief(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)

    async with running(Supervisor(max_children=1)) as sessions:
        for _ in range(3):
            await sessions.start_child(task_child("c", brief))
            assert sessions.statistics().dynamic == 1
            await trio.sleep(1.01)
            assert sessions.statistics().dynamic == 0


async def test_an_actor_may_cancel_itself(autojump_clock: MockClock) -> None:
    """That is an end like a return: nobody killed it, and nothing has crashed."""

    class Brief:
        async def run(self, inbox: Inbox[ActorMessage], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await trio.sleep(0.5)
            inbox.scope.cancel(reason="had enough")
            await trio.sleep_forever()

    root = Supervisor(max_children=1)
    events = root.bus.subscribe()
    async with running(root):
        await root.start_child(ChildSpec("c", lambda _: Brief(), Restart.TRANSIENT, mailbox=None))
        await trio.sleep(1)
        assert root.statistics().children == 0
    seen = [events.receive_nowait() for _ in range(2)]
    assert [type(event).__name__ for event in seen] == ["ChildStarted", "ChildExited"]
    assert getattr(seen[1], "reason", "") == "normal"


async def test_a_task_child_is_cancelled_when_it_is_asked_to_stop(autojump_clock: MockClock) -> None:
    """It does not sit out its grace, which bounds its cleanup instead."""
    ended: list[float] = []

    async def tidy(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(3, shield=True):
                await trio.sleep(1)
            ended.append(trio.current_time())

    async with running(Supervisor(max_children=2)) as sessions:
        await sessions.start_child(task_child("a", tidy))
        await sessions.start_child(task_child("b", tidy))
        await sessions.stop_child("a")
        assert ended == [1.0]
    assert ended == [1.0, 2.0]


async def test_more_than_the_maximum_are_refused(autojump_clock: MockClock) -> None:
    async with running(Supervisor(max_children=2)) as sessions:
        for name in "ab":
            await sessions.start_child(task_child(name, forever))
        with pytest.raises(TooManyChildren):
            await sessions.start_child(task_child("c", forever))
        await sessions.stop_child("a")
        await sessions.start_child(task_child("c", forever))
        with pytest.raises(NameTaken):
            await sessions.start_child(task_child("c", forever))


async def test_a_child_that_does_not_start_is_not_kept(autojump_clock: MockClock) -> None:
    """Its error goes to the starter; the supervisor counts nothing."""
    async with running(Supervisor(max_children=1, intensity=Intensity(0, 1.0))) as sessions:
        for _ in range(3):
            with pytest.raises(StartFailed) as caught:
                await sessions.start_child(flaky("a", [], lambda: False))
            assert isinstance(caught.value.__cause__, OSError)
        assert sessions.statistics().children == 0


async def test_cancelling_the_starter_cancels_the_start(autojump_clock: MockClock) -> None:
    async def slow(task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    async with running(Supervisor(max_children=1)) as sessions:
        with trio.move_on_after(1):
            await sessions.start_child(task_child("a", slow))
        assert trio.current_time() == 1.0
        assert sessions.statistics().children == 0


async def test_a_thousand_children_stop_together(autojump_clock: MockClock) -> None:
    """Each cleans up for a second; all of them take one, not a thousand."""

    async def tidy(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(3, shield=True):
                await trio.sleep(1)

    async with running(Supervisor(max_children=1000)) as sessions:
        for number in range(1000):
            await sessions.start_child(task_child(str(number), tidy))
    assert trio.current_time() == 1.0


async def test_a_permanent_dynamic_child_is_restarted(autojump_clock: MockClock) -> None:
    async with running(Supervisor(max_children=1, backoff=NO_WAIT)) as root:
        ref = await root.start_child(member("a"))
        ref.cast(CrashCast())
        assert await ref.call(Ask()) == 1
        assert root.statistics().restarts == 1


async def test_dynamic_children_are_lost_when_their_supervisor_restarts(autojump_clock: MockClock) -> None:
    """As in OTP. Their callers are told."""
    sessions = Supervisor([member("fixed")], name="sessions", max_children=5, intensity=Intensity(0, 1.0))
    root = Supervisor([sessions.as_child()])
    async with running(root):
        ref = await sessions.start_child(member("guest"))
        sessions.ref("fixed").cast(CrashCast())
        assert await sessions.ref("fixed").call(Ask()) == 1
        with pytest.raises(NotRunning):
            await ref.call(Ask())
        assert sessions.statistics().children == 1


async def test_stopping_a_child_is_final(autojump_clock: MockClock) -> None:
    """A child that was stopped on request is not restarted, whatever its restart says."""
    root = Supervisor([member("a", restart=Restart.PERMANENT)])
    async with running(root):
        await root.stop_child("a")
        await wait_all_tasks_blocked()
        with pytest.raises(NotRunning):
            await root.ref("a").call(Ask())
        with pytest.raises(KeyError):
            await root.stop_child("a")


@pytest.mark.parametrize(("pause", "wait"), [(0.0, 1.0), (5.0, 3.0)])
async def test_a_child_stopped_during_a_group_restart_leaves_the_others_to_it(
    pause: float, wait: float, autojump_clock: MockClock
) -> None:
    """Stopped on request while a slow sibling ends, or during the pause before the restart: the others come back."""
    specs = [member("a"), member("b"), member("slow")]
    root = Supervisor(specs, strategy=Strategy.ONE_FOR_ALL, backoff=Backoff(first=pause))
    async with running(root), trio.open_nursery() as nursery:
        nursery.start_soon(root.ref("slow").call, Sleep(2.0))
        await wait_all_tasks_blocked()
        root.ref("a").cast(CrashCast())
        await trio.sleep(wait)
        await root.stop_child("a")
        await root.stop_child("b")
        assert await root.ref("slow").call(Ask()) == 1
        assert [child.name for child in root.tree().children] == ["slow"]


async def test_a_supervisor_that_is_not_running_starts_no_child() -> None:
    sessions = Supervisor(max_children=1)
    with pytest.raises(NotRunning):
        await sessions.start_child(task_child("a", forever))
    async with running(sessions):
        sessions.stop()
        with pytest.raises(NotRunning):
            await sessions.start_child(task_child("a", forever))


def test_dynamic_children_have_no_order() -> None:
    with pytest.raises(ValueError, match="one_for_one"):
        Supervisor(strategy=Strategy.ONE_FOR_ALL, max_children=1)


async def test_a_name_that_is_free_again_is_the_new_childs_alone(autojump_clock: MockClock) -> None:
    """Its supervisor and whoever stopped the old one both note its end, and a new one may come in between."""
    for _ in range(100):
        async with running(Supervisor(max_children=4)) as root:
            await root.start_child(task_child("c", forever))

            async def again() -> None:
                while True:
                    try:
                        await root.start_child(task_child("c", forever))
                    except NameTaken:
                        await trio.lowlevel.checkpoint()
                    else:
                        return

            async with trio.open_nursery() as nursery:
                nursery.start_soon(root.stop_child, "c")
                nursery.start_soon(again)
            await wait_all_tasks_blocked()
            assert [each.name for each in root.nodes()] == ["c"]


async def test_an_added_child_is_there_after_a_restart_of_its_supervisor(autojump_clock: MockClock) -> None:
    """And a removed one is not; with a dynamic one it is the other way round."""
    family = Supervisor(
        [task_child("given", forever)], name="family", max_children=1, backoff=NO_WAIT, intensity=Intensity(0, 1.0)
    )
    crash = trio.Event()

    async def brief(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        nonlocal crash
        await crash.wait()
        crash = trio.Event()
        raise ValueError

    root = Supervisor([family.as_child()], backoff=NO_WAIT)
    async with running(root):
        await family.add_child(task_child("added", forever))
        await family.start_child(task_child("dynamic", forever))
        await family.remove_child("given")
        with pytest.raises(KeyError):
            await family.remove_child("given")
        with pytest.raises(NameTaken):
            await family.add_child(task_child("added", forever))
        await family.add_child(task_child("crashes", brief, restart=Restart.PERMANENT))
        crash.set()
        await trio.sleep(1)
        assert sorted(each.name for each in family.nodes()) == ["added", "crashes"]


@pytest.mark.parametrize("strategy", Strategy)
async def test_a_child_that_is_stopped_during_its_restart_has_not_failed(
    strategy: Strategy, autojump_clock: MockClock
) -> None:
    """One failure is allowed, and there was one: the crash before the restart."""
    starts, crash = 0, trio.Event()

    async def slow(task_status: trio.TaskStatus[None]) -> None:
        nonlocal starts
        starts += 1
        await trio.sleep(0 if starts == 1 else 5)
        task_status.started()
        await crash.wait()
        raise ValueError

    specs: list[ChildSpec[Never]] = [member("a"), task_child("b", slow, restart=Restart.PERMANENT)]
    root = Supervisor(specs, strategy=strategy, intensity=Intensity(1, 30.0), backoff=NO_WAIT)
    async with running(root):
        crash.set()
        await trio.sleep(1)
        await root.remove_child("b")
        await trio.sleep(1)
        assert await root.ref("a").call(Ask()) == 1
        assert root.statistics().children == 1
    assert starts == 2
