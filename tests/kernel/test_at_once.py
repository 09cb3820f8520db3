"""What needs no waiting is done in the task that sends it, with all the guarantees of what goes through the queue."""

from __future__ import annotations

from contextvars import ContextVar

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.kernel import (
    ActorCrashed,
    Call,
    CallCycle,
    CallExpired,
    Cast,
    ChildSpec,
    Delivery,
    Inbox,
    MailboxSpec,
    NotRunning,
    Previous,
    Ref,
    ShuttingDown,
    Supervisor,
    running,
    serve_at_once,
    serve_concurrently,
)
from llm_actors.testing import alone
from support.actors import NO_WAIT

WHO: ContextVar[str] = ContextVar("who", default="nobody")


class Add(Call[int], frozen=True):
    number: int


class Note(Cast, frozen=True):
    number: int


class Defer(Call[int], frozen=True):
    pass


class Fail(Call[int], frozen=True):
    pass


class Adder:
    """Keeps what it was sent, in order. Crashes on `Fail`."""

    def __init__(self, seen: list[int]) -> None:
        self.seen = seen
        self.deferred: list[Delivery[Defer]] = []
        self.me: Ref[Note] | None = None

    async def run(self, inbox: Inbox[Add | Note | Defer | Fail], *, task_status: trio.TaskStatus[None]) -> None:
        WHO.set("adder")
        task_status.started()
        await serve_at_once(inbox, self._handle)

    def _handle(self, delivery: Delivery[Add | Note | Defer | Fail]) -> None:
        assert WHO.get() == "adder", "a handler has its own actor's context"
        match delivery.message:
            case Add(number) as message:
                self.seen.append(number)
                delivery.reply(message, sum(self.seen))
            case Note(number):
                if self.me is not None and number > 0:
                    self.me.cast(Note(-number))
                    assert -number not in self.seen, "a message to oneself waits for the end of the one in hand"
                self.seen.append(number)
            case Defer():
                delivery.defer()
                self.deferred.append(delivery)  # type: ignore[arg-type]
            case Fail():
                raise ValueError


async def test_a_call_and_a_cast_are_handled_before_the_sender_goes_on(autojump_clock: MockClock) -> None:
    actor = Adder([])
    async with alone(actor) as lone:
        await wait_all_tasks_blocked()
        passes = trio.lowlevel.current_statistics()
        lone.ref.cast(Note(1))
        assert actor.seen == [1]
        assert await lone.ref.call(Add(2)) == 3
        assert trio.lowlevel.current_statistics().tasks_runnable == passes.tasks_runnable
        lone.ref.cast(Note(3))
        assert actor.seen == [1, 2, 3]
        assert lone.ref.statistics().accepted == 3


async def test_a_call_that_is_answered_at_once_can_be_cancelled(autojump_clock: MockClock) -> None:
    async with alone(Adder([])) as lone:
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await lone.ref.call(Add(2))
        assert scope.cancelled_caught


async def test_nothing_overtakes_what_is_queued(autojump_clock: MockClock) -> None:
    seen: list[int] = []
    spec = ChildSpec("adder", lambda _: Adder(seen))
    root = Supervisor([spec])
    ref = root.ref(spec)
    for number in range(5):
        ref.cast(Note(number))  # nobody runs yet
    async with running(root):
        ref.cast(Note(5))
        await wait_all_tasks_blocked()
        ref.cast(Note(6))
    assert seen == [0, 1, 2, 3, 4, 5, 6]


async def test_a_message_of_a_handler_to_its_own_actor_waits(autojump_clock: MockClock) -> None:
    actor = Adder([])
    async with alone(actor) as lone:
        await wait_all_tasks_blocked()
        actor.me = lone.ref
        lone.ref.cast(Note(7))
        await wait_all_tasks_blocked()
        assert actor.seen == [7, -7]


async def test_a_message_of_a_queued_messages_handler_to_its_own_actor_waits_too(autojump_clock: MockClock) -> None:
    actor = Adder([])
    spec = ChildSpec("adder", lambda _: actor)
    root = Supervisor([spec])
    actor.me = root.ref(spec)
    actor.me.cast(Note(7))  # nobody runs yet
    async with running(root):
        await wait_all_tasks_blocked()
        assert actor.seen == [7, -7]


async def test_a_crash_at_once_costs_the_message_and_restarts_the_actor(autojump_clock: MockClock) -> None:
    seen: list[int] = []
    spec = ChildSpec("adder", lambda _: Adder(seen))
    root = Supervisor([spec], backoff=NO_WAIT)
    async with running(root):
        await wait_all_tasks_blocked()
        ref = root.ref(spec)
        with pytest.raises(ActorCrashed):
            await ref.call(Fail())
        ref.cast(Note(1))  # it is restarting: the message waits for it
        assert seen == []
        await wait_all_tasks_blocked()
        assert seen == [1]
        assert root.tree().children[0].restarts == 1
        assert ref.statistics().crashes == 1


async def test_an_actor_that_stops_takes_nothing_at_once(autojump_clock: MockClock) -> None:
    spec = ChildSpec("adder", lambda _: Adder([]))
    root = Supervisor([spec])
    async with running(root):
        await wait_all_tasks_blocked()
        assert await root.ref(spec).call(Add(1)) == 1
    with pytest.raises((ShuttingDown, NotRunning)):
        await root.ref(spec).call(Add(1))


async def test_a_call_ends_by_a_deadline_of_its_own(autojump_clock: MockClock) -> None:
    async with alone(Adder([])) as lone:
        await wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(CallExpired):
            await lone.ref.call(Defer(), deadline=began + 2.0)
        assert trio.current_time() == began + 2.0
        assert lone.ref.statistics().expired == 1
        with trio.move_on_after(1.0) as scope:
            await lone.ref.call(Defer(), deadline=trio.current_time() + 2.0)
        assert scope.cancelled_caught, "the caller's own deadline is its own matter"


class Wait(Call[str], frozen=True):
    seconds: float = 1.0
    ask: bool = False


class Worker:
    """Answers with the context variable of its caller, after a while."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.at_work = 0
        self.most = 0
        self.me: Ref[Wait] | None = None

    async def run(self, inbox: Inbox[Wait], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await serve_concurrently(inbox, self._handle, slots=self.slots)

    async def _handle(self, delivery: Delivery[Wait]) -> None:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            if delivery.message.ask and self.me is not None:
                await self.me.call(Wait())
            await trio.sleep(delivery.message.seconds)
        finally:
            self.at_work -= 1
        delivery.reply(delivery.message, WHO.get())


async def test_a_free_slot_is_taken_without_the_actors_own_task(autojump_clock: MockClock) -> None:
    worker = Worker(4)
    async with alone(worker, mailbox=MailboxSpec(2)) as lone, trio.open_nursery() as nursery:
        await wait_all_tasks_blocked()
        answers: list[str] = []

        async def ask(who: str) -> None:
            WHO.set(who)
            answers.append(await lone.ref.call(Wait()))

        for who in "abcdef":
            nursery.start_soon(ask, who)
        await wait_all_tasks_blocked()
        assert worker.at_work == 4
        assert lone.ref.statistics().in_hand == 4
        assert lone.ref.statistics().depth == 2
        await trio.sleep(5.0)
        assert sorted(answers) == list("abcdef"), "each worker has its caller's context variables"
        assert worker.most == 4


async def test_a_worker_that_was_started_at_once_belongs_to_its_actor(autojump_clock: MockClock) -> None:
    """A circle is seen, an abandoned call cancels its work, and a stop lets it finish."""
    worker = Worker(4)
    spec: ChildSpec[Wait] = ChildSpec("worker", lambda _: worker, shutdown=10.0)
    root = Supervisor([spec])
    async with trio.open_nursery() as nursery:
        async with running(root):
            await wait_all_tasks_blocked()
            worker.me = root.ref(spec)
            with pytest.raises(ActorCrashed) as caught:
                await root.ref(spec).call(Wait(ask=True))
            assert isinstance(caught.value.__cause__, CallCycle)
            with trio.move_on_after(0.5):
                await root.ref(spec).call(Wait())
            await wait_all_tasks_blocked()
            assert worker.at_work == 0
            done: list[str] = []

            async def ask() -> None:
                done.append(await root.ref(spec).call(Wait(3.0)))

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
        assert done == ["nobody"]


class Restarted:
    """A worker whose second life is told from its first."""

    def __init__(self, previous: Previous, lives: list[int]) -> None:
        lives.append(len(lives))
        self.life = len(lives)

    async def run(self, inbox: Inbox[Wait], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        if self.life == 1:
            with trio.move_on_after(1.0):
                await serve_concurrently(inbox, self._handle, slots=4)
            raise ValueError
        await serve_concurrently(inbox, self._handle, slots=4)

    async def _handle(self, delivery: Delivery[Wait]) -> None:
        await trio.sleep(delivery.message.seconds)
        delivery.reply(delivery.message, str(self.life))


async def test_a_crashed_actor_starts_nothing_at_once(autojump_clock: MockClock) -> None:
    lives: list[int] = []
    spec: ChildSpec[Wait] = ChildSpec("worker", lambda previous: Restarted(previous, lives))
    root = Supervisor([spec], backoff=NO_WAIT)
    async with running(root):
        await wait_all_tasks_blocked()
        with pytest.raises(ActorCrashed):
            await root.ref(spec).call(Wait(5.0))
        assert await root.ref(spec).call(Wait()) == "2"
