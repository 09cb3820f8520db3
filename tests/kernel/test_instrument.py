"""The scheduler instrument, and what it shows: the kernel neither blocks the loop nor spins."""

from __future__ import annotations

import time

import trio
from trio.testing import MockClock

from llm_actors.kernel import Backoff, Intensity, SchedulerInstrument, Supervisor, running
from llm_actors.testing import run_virtual
from support.actors import Ask, CrashCast, Sleep, member


async def busy_hour() -> None:
    """An hour of virtual time with calls, crashes, backoff, parking and idling."""
    flapping = Supervisor([member("bad")], name="flapping", intensity=Intensity(1, 30.0), park=True)
    root = Supervisor([member("good"), flapping.as_child()], backoff=Backoff())
    async with running(root):
        for _ in range(360):
            await root.ref("good").call(Ask())
            await root.ref("good").call(Sleep(1.0))
            flapping.ref("bad").cast(CrashCast())
            await trio.sleep(9.0)


def test_no_step_of_the_kernel_blocks_the_loop() -> None:
    """No step over 50 ms of CPU time."""
    instrument = SchedulerInstrument()
    run_virtual(busy_hour, instruments=[instrument])
    assert instrument.statistics().slow_steps == ()


def test_no_task_of_the_kernel_spins() -> None:
    """No more than 1000 steps of one task in a virtual second."""
    instrument = SchedulerInstrument()
    run_virtual(busy_hour, instruments=[instrument])
    statistics = instrument.statistics()
    assert statistics.busy_tasks == ()
    assert statistics.steps > 1000


def test_a_slow_step_and_a_spinning_task_are_named() -> None:
    instrument = SchedulerInstrument(slow_step=0.005, busy_steps=100)

    async def slow() -> None:
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass

    async def spinning() -> None:
        for _ in range(200):
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow, name="the slow one")
            nursery.start_soon(spinning, name="the spinning one")

    trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[instrument])
    statistics = instrument.statistics()
    assert "the slow one" in {step.task for step in statistics.slow_steps}
    assert "the spinning one" in statistics.busy_tasks
    assert statistics.max_lag >= 0.01


def test_it_counts_the_tasks_that_live() -> None:
    instrument = SchedulerInstrument()
    counts: list[int] = []

    async def main() -> None:
        before = instrument.statistics().tasks
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            counts.append(instrument.statistics().tasks - before)
            nursery.cancel_scope.cancel()
        counts.append(instrument.statistics().tasks - before)

    trio.run(main, instruments=[instrument])
    assert counts == [5, 0]
