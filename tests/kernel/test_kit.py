"""The test kit itself: each of its checks must be able to fail."""

from __future__ import annotations

import os
import socket
import sys
import threading

import pytest
import trio
from trio.testing import MockClock

from llm_actors.kernel import (
    ActorCrashed,
    Call,
    Delivery,
    Inbox,
    Ref,
    Supervisor,
    running,
    serve,
)
from llm_actors.testing import Crash as CrashHere
from llm_actors.testing import (
    Delay,
    Drop,
    Fuse,
    InjectedCrash,
    Injector,
    LeakError,
    Order,
    ScenarioHangs,
    ScriptedPeer,
    alone,
    cancel_at_every_checkpoint,
    no_open_ends,
    nothing_left,
    raise_at_every_await,
    run_virtual,
    with_faults,
)
from support.actors import NO_WAIT, Ask, Crash, member


async def test_a_task_left_behind_is_named(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(LeakError, match="the straggler"):
            async with nothing_left():
                nursery.start_soon(trio.sleep_forever, name="the straggler")
        nursery.cancel_scope.cancel()


async def test_what_ends_within_a_second_is_no_leak(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery, nothing_left():
        nursery.start_soon(trio.sleep, 0.5)


def test_an_open_file_is_named() -> None:
    file = os.open("/dev/zero", os.O_RDONLY)
    with pytest.raises(LeakError, match="/dev/full"), no_open_ends():
        other = os.open("/dev/full", os.O_RDONLY)
    os.close(file)
    os.close(other)


def test_an_open_socket_is_seen() -> None:
    made: list[socket.socket] = []
    with pytest.raises(LeakError, match="socket"), no_open_ends():
        made.append(socket.socket())
    made[0].close()


def test_a_thread_that_ends_within_a_second_is_no_leak() -> None:
    with no_open_ends():
        thread = threading.Timer(0.05, threading.Event().set)
        thread.start()
        assert thread.is_alive()
    assert not thread.is_alive()


def test_a_thread_is_named() -> None:
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, name="the loose thread")
    with pytest.raises(LeakError, match="the loose thread"), no_open_ends():
        thread.start()
    gate.set()
    thread.join()


def test_a_lost_exception_is_seen() -> None:
    class Bad:
        def __del__(self) -> None:
            raise ValueError

    hook = sys.unraisablehook
    with pytest.raises(LeakError, match="ValueError"), no_open_ends():
        Bad()
    assert sys.unraisablehook is hook


async def test_faults_come_at_the_message_they_are_for(autojump_clock: MockClock) -> None:
    """Counted from 1 over all incarnations: the second crashes, the third is late, the fourth is lost."""
    spec = with_faults(member("a"), {2: CrashHere(), 3: Delay(5.0), 4: Drop()})
    root = Supervisor([spec], backoff=NO_WAIT)
    async with running(root):
        ref = root.ref(spec)
        assert await ref.call(Ask()) == 1
        with pytest.raises(ActorCrashed) as caught:
            await ref.call(Ask())
        assert isinstance(caught.value.__cause__, InjectedCrash)
        assert await ref.call(Ask()) == 1
        assert trio.current_time() == 5.0
        with trio.move_on_after(1) as lost:
            await ref.call(Ask())
        assert lost.cancelled_caught
        assert await ref.call(Ask()) == 2


class Lookup(Call[str], frozen=True):
    key: str


class Shouting:
    """Asks its neighbour and answers in capitals."""

    def __init__(self, neighbour: Ref[Lookup]) -> None:
        self._neighbour = neighbour

    async def run(self, inbox: Inbox[Lookup], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await serve(inbox, self._handle)

    async def _handle(self, delivery: Delivery[Lookup]) -> None:
        found = await self._neighbour.call(delivery.message)
        delivery.reply(delivery.message, found.upper())


async def test_an_actor_alone_with_a_scripted_neighbour(autojump_clock: MockClock) -> None:
    neighbour: ScriptedPeer[Lookup] = ScriptedPeer("neighbour")
    answers: list[str] = []

    async def ask(ref: Ref[Lookup]) -> None:
        answers.append(await ref.call(Lookup("k")))

    async with alone(Shouting(neighbour.ref)) as lone, trio.open_nursery() as nursery:
        nursery.start_soon(ask, lone.ref)
        asked = await neighbour.expect(Lookup)
        assert asked.message == Lookup("k")
        asked.reply(asked.message, "value")
        neighbour.assert_quiet()
    assert answers == ["VALUE"]


async def test_a_script_notices_the_wrong_message_and_a_waiting_one(autojump_clock: MockClock) -> None:
    neighbour: ScriptedPeer[Lookup | Ask] = ScriptedPeer("neighbour")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(neighbour.ref.call, Lookup("k"))
        with pytest.raises(AssertionError, match="expected Ask, got Lookup"):
            await neighbour.expect(Ask)
        nursery.start_soon(neighbour.ref.call, Lookup("k"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(AssertionError, match="1 messages wait"):
            neighbour.assert_quiet()
        nursery.cancel_scope.cancel()


async def test_a_script_can_answer_by_itself(autojump_clock: MockClock) -> None:
    neighbour: ScriptedPeer[Lookup] = ScriptedPeer("neighbour")
    async with trio.open_nursery() as nursery, alone(Shouting(neighbour.ref)) as lone:
        nursery.start_soon(neighbour.serve, lambda delivery: delivery.reply(delivery.message, delivery.message.key))
        assert await lone.ref.call(Lookup("a")) == "A"
        nursery.cancel_scope.cancel()


async def test_a_crash_alone_is_the_tests_own_unless_it_is_taken(autojump_clock: MockClock) -> None:
    spec = member("a")
    with pytest.RaisesGroup(ValueError):
        async with alone(spec.factory(None)) as lone:
            with pytest.raises(ActorCrashed):
                await lone.ref.call(Crash())
    async with alone(spec.factory(None)) as lone:
        with pytest.raises(ActorCrashed):
            await lone.ref.call(Crash())
        assert isinstance(await lone.crash(), ValueError)


async def test_a_failing_test_ends_the_actor_all_the_same(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(AssertionError):
        async with alone(member("a").factory(None)):
            raise AssertionError


def test_one_seed_is_one_order() -> None:
    """The same seed gives the same order of tasks; some other seed gives another."""

    async def order() -> tuple[int, ...]:
        seen: list[int] = []

        async def note(number: int) -> None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                seen.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(note, number)
        return tuple(seen)

    orders = {seed: run_virtual(order, seed=seed) for seed in range(10)}
    assert orders == {seed: run_virtual(order, seed=seed) for seed in range(10)}
    assert len(set(orders.values())) > 1


def test_the_exhaustive_runs_find_a_hang_and_a_leak() -> None:
    async def hangs(scope: trio.CancelScope) -> None:
        with scope:
            await trio.lowlevel.checkpoint()
        if scope.cancelled_caught:
            await trio.sleep_forever()

    async def leaks(fuse: Fuse) -> None:
        try:
            await fuse(trio.lowlevel.checkpoint())  # noqa: ASYNC105  (awaited by the fuse)
        except OSError:
            trio.lowlevel.spawn_system_task(trio.sleep_forever, name="left")

    with pytest.raises(ScenarioHangs):
        cancel_at_every_checkpoint(hangs)
    with pytest.raises(LeakError, match="left"):
        raise_at_every_await(leaks, [OSError])


def test_an_injector_reaches_the_moment_between_data_and_its_reader() -> None:
    """The reader is scheduled with the data, and has not run, when the action is called."""
    injector = Injector()
    seen: set[tuple[bool, bool]] = set()

    async def scenario() -> None:
        send, receive = trio.open_memory_channel[int](0)
        for at in injector.every_point():
            state = {"sent": False, "read": False}

            async def read(state: dict[str, bool] = state) -> None:
                await receive.receive()
                state["read"] = True

            with injector.at(at, lambda state=state: seen.add((state["sent"], state["read"]))):  # type: ignore[misc]
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read)
                    await trio.testing.wait_all_tasks_blocked()
                    state["sent"] = True
                    send.send_nowait(1)
        send.close()
        receive.close()

    run_virtual(scenario, instruments=[injector])
    assert seen == {(False, False), (True, False), (True, True)}


def test_what_an_injected_action_raises_comes_out_of_its_block() -> None:
    injector = Injector()

    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError), injector.at(1, lambda: 1 / 0):
            await trio.lowlevel.checkpoint()
        with injector.at(2, lambda: None):
            injector.point()
        assert injector.points == 1

    run_virtual(scenario, instruments=[injector])


@pytest.mark.parametrize(("order", "said"), [(Order.OLDEST_FIRST, [0, 1, 2]), (Order.NEWEST_FIRST, [2, 1, 0])])
def test_the_order_of_tasks_that_are_scheduled_together_can_be_chosen(order: Order, said: list[int]) -> None:
    ran: list[int] = []

    async def scenario() -> None:
        gate = trio.Event()

        async def note(number: int) -> None:
            await gate.wait()
            ran.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(note, number)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()

    run_virtual(scenario, seed=order)
    assert ran == said
