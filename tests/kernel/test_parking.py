"""Parking: our rule for what must not take its supervisor along. OTP has nothing like it."""

from __future__ import annotations

import logging
import time
from itertools import pairwise
from typing import Never

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.kernel import (
    ActorMessage,
    Backoff,
    ChildSpec,
    ChildStatus,
    Inbox,
    Intensity,
    NotRunning,
    Parked,
    Supervisor,
    running,
)
from support.actors import NO_WAIT, Ask, CrashCast, Journal, flaky, member

ONCE = Intensity(1, 30.0)


def parking(journal: Journal, starts: object = True) -> Supervisor:
    spec = flaky("a", journal, lambda: starts is True)
    return Supervisor([spec], name="provider", intensity=ONCE, backoff=NO_WAIT, park=True, draw=lambda: 1.0)


async def test_a_parked_actor_refuses_at_once_and_is_tried_again(autojump_clock: MockClock) -> None:
    """Queued and new calls get `Parked` without waiting; after the first pause of a second it serves again."""
    provider = parking([])
    root = Supervisor([provider.as_child()])
    queued: list[type[Exception]] = []

    async def wait_in_the_queue() -> None:
        try:
            await provider.ref("a").call(Ask())
        except NotRunning as exc:
            queued.append(type(exc))

    async with running(root), trio.open_nursery() as nursery:
        ref = provider.ref("a")
        ref.cast(CrashCast())
        ref.cast(CrashCast())
        nursery.start_soon(wait_in_the_queue)
        await wait_all_tasks_blocked()
        assert queued == [Parked]
        with pytest.raises(Parked):
            await ref.call(Ask())
        assert trio.current_time() == 0.0
        assert provider.statistics().parked
        assert root.tree().children[0].children[0].status is ChildStatus.PARKED
        await trio.sleep(1.001)
        assert await ref.call(Ask()) == 1
        assert root.statistics().restarts == 0


async def test_a_crash_loop_backs_off_then_parks_with_growing_pauses(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A child that never starts: pauses from 1 s to 60 s, little CPU, one log line a minute and kind."""
    journal: Journal = []
    pauses: list[float] = []
    with caplog.at_level(logging.INFO):
        async with running(parking(journal, starts=False)) as provider:
            events = provider.bus.subscribe()
            cpu = time.thread_time()
            await trio.sleep(600)
            cpu = time.thread_time() - cpu
            while True:
                try:
                    event = events.receive_nowait()
                except trio.WouldBlock:
                    break
                pauses.append(getattr(event, "seconds", 0.0))
    grown = [pause for pause in pauses if pause]
    assert grown[:7] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]  # the first, of 1 s, came before the subscription
    assert cpu < 0.05 * 600
    kinds = {" ".join(record.message.split()[1:3]) for record in caplog.records}
    assert {kind.split(":")[0] for kind in kinds} == {"crashed", "is parked"}
    assert len(caplog.records) <= 2 * (600 / 60 + 1)


async def test_restarts_before_that_wait_with_jitter(autojump_clock: MockClock) -> None:
    """The first restart is immediate, each further one waits about twice as long."""
    starts: list[float] = []
    journal: Journal = []
    draws = iter([0.0, 1.0, 0.0, 1.0, 0.5])

    def note() -> bool:
        starts.append(trio.current_time())
        return len(starts) in {1, 6}

    backoff = Backoff(base=1.0, factor=2.0, cap=30.0)
    root = Supervisor([flaky("a", journal, note)], backoff=backoff, draw=lambda: next(draws))
    async with running(root):
        root.ref("a").cast(CrashCast())
        assert await root.ref("a").call(Ask()) == 1
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert waits == [0.0, 1.0, 1.0, 4.0, 6.0]


async def test_a_quiet_time_shortens_the_next_pause_again(autojump_clock: MockClock) -> None:
    provider = parking([])
    async with running(provider):
        events = provider.bus.subscribe()
        for _ in range(2):
            for _ in range(2):
                provider.ref("a").cast(CrashCast())
                await wait_all_tasks_blocked()
            await trio.sleep(400)
        pauses = []
        while True:
            try:
                event = events.receive_nowait()
            except trio.WouldBlock:
                break
            if hasattr(event, "seconds"):
                pauses.append(event.seconds)
    assert pauses == [1.0, 1.0]


async def test_the_supervisor_of_parked_children_is_shown_as_parked(autojump_clock: MockClock) -> None:
    deployment = parking([])
    root = Supervisor([deployment.as_child()])
    async with running(root):
        seen = [root.tree().children[0].status]
        for _ in range(2):
            deployment.ref("a").cast(CrashCast())
        await wait_all_tasks_blocked()
        seen.append(root.tree().children[0].status)
        await trio.sleep(1.001)
        seen.append(root.tree().children[0].status)
    assert seen == [ChildStatus.RUNNING, ChildStatus.PARKED, ChildStatus.RUNNING]


async def test_after_a_pause_the_first_restart_is_immediate_again(autojump_clock: MockClock) -> None:
    """Else the backoff outgrows the pauses: callers would wait for a restart instead of being refused."""
    deployment = Supervisor([member("a")], intensity=Intensity(5, 30.0), park=True, draw=lambda: 1.0)
    async with running(deployment):
        for pause in (1.0, 2.0):
            parked_at = trio.current_time()
            while not deployment.parked:
                deployment.ref("a").cast(CrashCast())
                await trio.sleep(0.05)
            assert trio.current_time() - parked_at < 2.0
            await trio.sleep(pause)
            assert await deployment.ref("a").call(Ask()) == 1


async def test_a_parked_tree_stops_at_once(autojump_clock: MockClock) -> None:
    async with running(parking([], starts=False)) as provider:
        assert provider.statistics().parked
    assert trio.current_time() == 0.0


class Stuck:
    """Ignores its stop and its cancellation for ``seconds``, and crashes then."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def run(self, inbox: Inbox[ActorMessage], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self._seconds)
            raise ValueError


async def test_a_child_that_crashes_long_after_it_was_parked_is_no_failure_of_its_supervisor(
    autojump_clock: MockClock,
) -> None:
    starts = [Stuck(50.0), Stuck(0.0)]
    stuck: ChildSpec[ActorMessage] = ChildSpec("stuck", lambda _: starts.pop(0), shutdown=1.0)
    specs: list[ChildSpec[Never]] = [flaky("a", [], lambda: True), stuck]
    provider = Supervisor(specs, name="provider", intensity=ONCE, backoff=NO_WAIT, park=True, draw=lambda: 1.0)
    root = Supervisor([provider.as_child()])
    async with running(root):
        ref = provider.ref("a")
        ref.cast(CrashCast())
        ref.cast(CrashCast())
        await trio.sleep(150)
        assert root.statistics().restarts == 0
        assert await ref.call(Ask()) == 1
