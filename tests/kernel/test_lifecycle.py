"""What is told about actors: events on a bounded bus, statistics, the tree."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.kernel import (
    Bus,
    ChildSpec,
    ChildStatus,
    GaveUp,
    Inbox,
    Intensity,
    Lagged,
    MailboxFull,
    MailboxSpec,
    NotRunning,
    Overflow,
    Subscription,
    Supervisor,
    running,
)
from llm_actors.kernel.lifecycle import (
    CallAbandoned,
    CallTimedOut,
    ChildCrashed,
    ChildExited,
    ChildrenParked,
    ChildRestarted,
    ChildStarted,
    DeadLetter,
    LifecycleEvent,
    MailboxFilled,
    Observed,
    SupervisorGaveUp,
)
from support.actors import NO_WAIT, Ask, CrashCast, Sleep, member


def drain(subscription: Subscription) -> list[Observed]:
    seen: list[Observed] = []
    while True:
        try:
            seen.append(subscription.receive_nowait())
        except trio.WouldBlock:
            return seen


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ChildCrashed(name="a/b", error="ValueError at x.py:3"), "a/b crashed: ValueError at x.py:3"),
        (ChildRestarted(name="a/b", restarts=2, delay=0.123456), "a/b is up again after 0.123 s, restart 2"),
        (
            ChildrenParked(name="a", seconds=1.0, causes=("a: GaveUp", "a/b: ActorCrashed", "ValueError")),
            "a is parked for 1 s after too many restarts: a: GaveUp, from a/b: ActorCrashed, from ValueError",
        ),
        (SupervisorGaveUp(name="a", causes=("a: GaveUp",)), "a gave up after too many restarts: a: GaveUp"),
        (MailboxFilled(name="{a}", capacity=4), "{a} has a full mailbox: 4 messages wait"),
        (ChildExited(name="a", reason="{killed}"), "a has ended: {killed}"),
    ],
)
def test_an_event_is_one_line_for_people(event: LifecycleEvent, line: str) -> None:
    assert event.line() == line


def test_every_event_has_words() -> None:
    assert all(kind.template for kind in LifecycleEvent.__subclasses__())


async def test_a_life_is_told_from_start_to_end(autojump_clock: MockClock) -> None:
    root = Supervisor([member("a")], backoff=NO_WAIT)
    with root.bus.subscribe() as events:
        async with running(root):
            root.ref("a").cast(CrashCast())
            await wait_all_tasks_blocked()
        seen = drain(events)
    assert [type(event) for event in seen] == [
        ChildStarted,
        ChildExited,
        ChildCrashed,
        ChildStarted,
        ChildRestarted,
        ChildExited,
    ]
    crashed, restarted, last = seen[2], seen[4], seen[5]
    assert isinstance(crashed, ChildCrashed)
    assert crashed.error.startswith("ValueError at actors.py:")
    assert restarted == ChildRestarted(name="root/a", restarts=1, delay=0.0)
    assert last == ChildExited(name="root/a", reason="stopped")


async def test_giving_up_is_told_with_its_causes(autojump_clock: MockClock) -> None:
    root = Supervisor([member("a")], intensity=Intensity(0, 1.0))
    events = root.bus.subscribe()
    with pytest.RaisesGroup(GaveUp):
        async with running(root):
            root.ref("a").cast(CrashCast())
            await trio.sleep_forever()
    told = [event for event in drain(events) if isinstance(event, SupervisorGaveUp)]
    assert told == [SupervisorGaveUp(name="root", causes=("root: GaveUp", "ValueError"))]


async def test_troubles_of_callers_are_told(autojump_clock: MockClock) -> None:
    """Full mailboxes (once until there is room again), expired and abandoned calls, dead letters."""
    root = Supervisor([member("a", mailbox=MailboxSpec(1, Overflow.REFUSE))])
    events = root.bus.subscribe()
    async with running(root):
        ref = root.ref("a")
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ref.call, Sleep(9.0))
                await wait_all_tasks_blocked()
                nursery.start_soon(ref.call, Sleep(9.0))
                await wait_all_tasks_blocked()
                for _ in range(3):
                    with pytest.raises(MailboxFull):
                        await ref.call(Ask())
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ref.call, Sleep(9.0))
                await wait_all_tasks_blocked()
                scope.cancel()
    with pytest.raises(NotRunning):
        await ref.call(Ask())
    kinds = [type(event) for event in drain(events)]
    assert kinds.count(MailboxFilled) == 1
    assert kinds.count(CallTimedOut) == 2
    assert kinds.count(CallAbandoned) == 1
    assert kinds.count(DeadLetter) == 1


async def test_a_slow_subscriber_hurts_nobody_and_is_told(autojump_clock: MockClock) -> None:
    """Its queue stays bounded, the publisher goes on, and it learns how much it missed."""
    bus = Bus()
    slow, quick = bus.subscribe(capacity=10), bus.subscribe(capacity=1000)
    for number in range(500):
        bus.publish(ChildStarted(name=str(number)))
    assert drain(slow) == [Lagged(490), *(ChildStarted(name=str(number)) for number in range(490, 500))]
    assert len(drain(quick)) == 500
    assert bus.statistics().missed == 490


async def test_a_subscriber_waits_for_events_and_can_leave(autojump_clock: MockClock) -> None:
    bus = Bus()
    seen: list[Observed] = []

    async def listen() -> None:
        with bus.subscribe() as events:
            async for event in events:
                seen.append(event)
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        bus.publish(ChildStarted(name="a"))
    assert seen == [ChildStarted(name="a")]
    assert bus.statistics().subscribers == 0


async def test_the_tree_shows_every_child(autojump_clock: MockClock) -> None:
    low = Supervisor([member("leaf")], name="low", backoff=NO_WAIT)
    root = Supervisor([member("a"), low.as_child()])
    async with running(root), trio.open_nursery() as nursery:
        low.ref("leaf").cast(CrashCast())
        await trio.sleep(2.5)
        for _ in range(3):
            nursery.start_soon(low.ref("leaf").call, Sleep(1.0))
        await wait_all_tasks_blocked()
        tree = root.tree()
        (leaf,) = tree.children[1].children
        assert [child.name for child in tree.children] == ["a", "low"]
        assert (leaf.status, leaf.restarts, leaf.uptime) == (ChildStatus.RUNNING, 1, 2.5)
        assert (leaf.mailbox.depth, leaf.mailbox.in_hand) == (2, 1)
        assert leaf.last_crash.startswith("ValueError at actors.py:")
    assert root.tree().status is ChildStatus.ENDED


async def test_no_text_of_a_message_or_exception_reaches_events_or_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What an exception says may hold a prompt or a key; only its type and place are told."""

    class Telling:
        async def run(self, inbox: Inbox[Ask], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            async for delivery in inbox:
                raise ValueError(delivery.message.payload)

    root = Supervisor([ChildSpec("a", lambda _: Telling())], intensity=Intensity(0, 1.0))
    events = root.bus.subscribe()
    with pytest.RaisesGroup(GaveUp) as caught:
        async with running(root):
            with pytest.raises(Exception, match="crashed") as failed:
                await root.ref("a").call(Ask("canary"))
            await trio.sleep_forever()
    told = " ".join([*map(repr, drain(events)), caplog.text, str(caught.value.exceptions[0]), str(failed.value)])
    assert "ValueError" in told
    assert "canary" not in told
