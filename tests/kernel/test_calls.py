"""Calls: typed answers, inherited deadlines, abandonment, refused circles."""

from __future__ import annotations

from contextvars import ContextVar
from itertools import pairwise
from typing import assert_type

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.kernel import (
    DEFAULT_CALL_SECONDS,
    ActorCrashed,
    Call,
    CallCycle,
    CallExpired,
    ChildSpec,
    Delivery,
    Inbox,
    MailboxSpec,
    NoReply,
    NotRunning,
    Ref,
    Supervisor,
    running,
    serve,
    serve_concurrently,
)
from llm_actors.testing import alone
from support.actors import Ask, Crash, CrashCast, Leave, Sleep, member


class Concurrent:
    """Sleeps in up to `slots` tasks, and notes who started and who was cancelled."""

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self.working = 0
        self.peak = 0
        self.cancelled = 0

    async def run(self, inbox: Inbox[Sleep | Crash], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await serve_concurrently(inbox, self._handle, slots=self.slots)

    async def _handle(self, delivery: Delivery[Sleep | Crash]) -> None:
        self.working += 1
        self.peak = max(self.peak, self.working)
        try:
            match delivery.message:
                case Sleep() as message:
                    await trio.sleep(message.seconds)
                    delivery.reply(message, "slept")
                case Crash(error):
                    raise error
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.working -= 1


async def test_a_late_reply_is_dropped_and_counted(autojump_clock: MockClock) -> None:
    """The asker has gone; its answer goes nowhere, and the next asker gets its own."""

    class Deaf:
        """Works on, shielded, after the caller has gone."""

        async def run(self, inbox: Inbox[Sleep], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await serve(inbox, self._handle)

        async def _handle(self, delivery: Delivery[Sleep]) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(delivery.message.seconds)
            delivery.reply(delivery.message, str(delivery.message.seconds))

    async with alone(Deaf()) as lone:
        with trio.move_on_after(1) as scope:
            await lone.ref.call(Sleep(3.0))
        assert scope.cancelled_caught
        assert trio.current_time() == 1.0
        assert await lone.ref.call(Sleep(0.5)) == "0.5"
        statistics = lone.ref.statistics()
        assert (statistics.late_replies, statistics.expired) == (1, 1)


async def test_the_callers_deadline_is_the_workers(autojump_clock: MockClock) -> None:
    """The work ends at the caller's deadline, and the caller's own scope says so."""
    actor = Concurrent()
    async with alone(actor) as lone:
        with pytest.raises(trio.TooSlowError), trio.fail_after(2):
            await lone.ref.call(Sleep(10.0))
        assert trio.current_time() == 2.0
        await wait_all_tasks_blocked()
        assert actor.cancelled == 1
        assert lone.ref.statistics().expired == 1


async def test_a_call_without_a_deadline_has_a_default_one(autojump_clock: MockClock) -> None:
    async with alone(Concurrent()) as lone:
        with pytest.raises(CallExpired):
            await lone.ref.call(Sleep(1e6))
        assert trio.current_time() == DEFAULT_CALL_SECONDS


async def test_an_unlimited_call_has_no_default_deadline(autojump_clock: MockClock) -> None:
    async with alone(Concurrent()) as lone:
        await lone.ref.call(Sleep(1e6), unlimited=True)
        assert trio.current_time() == 1e6


async def test_cancelling_the_caller_cancels_the_work_and_waits_for_nobody(autojump_clock: MockClock) -> None:
    """`call` raises in the same instant, even when the worker takes its time to clean up."""

    class Tidy:
        done = False

        async def run(self, inbox: Inbox[Sleep], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await serve_concurrently(inbox, self._handle, slots=1)

        async def _handle(self, delivery: Delivery[Sleep]) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(5, shield=True):
                    await trio.sleep(1)
                self.done = True

    actor = Tidy()
    async with alone(actor) as lone:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lone.ref.call, Sleep(1.0))
                await wait_all_tasks_blocked()
                scope.cancel()
        assert trio.current_time() == 0.0
        assert not actor.done
        await trio.sleep(2)
        assert actor.done
        assert lone.ref.statistics().abandoned == 1


async def test_a_call_that_was_given_up_in_the_queue_is_skipped(autojump_clock: MockClock) -> None:
    actor = Concurrent(slots=1)
    async with alone(actor) as lone, trio.open_nursery() as nursery:
        nursery.start_soon(lone.ref.call, Sleep(5.0))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await lone.ref.call(Sleep(1.0))
        await trio.sleep(5)
        assert lone.ref.statistics().skipped == 1
        assert actor.cancelled == 0


async def test_a_caller_cancelled_before_it_calls_sends_nothing(autojump_clock: MockClock) -> None:
    async with alone(Concurrent()) as lone:
        with trio.CancelScope() as scope:
            scope.cancel()
            await lone.ref.call(Sleep(1.0))
        assert lone.ref.statistics().accepted == 0


async def test_no_more_tasks_than_slots_and_the_rest_waits_in_the_mailbox(autojump_clock: MockClock) -> None:
    """The slot comes before the message: 10 calls, 2 slots, a mailbox of 4: 4 senders wait outside."""
    actor = Concurrent(slots=2)
    async with alone(actor, mailbox=MailboxSpec(4)) as lone, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(lone.ref.call, Sleep(1.0))
        await wait_all_tasks_blocked()
        statistics = lone.ref.statistics()
        assert (statistics.in_hand, statistics.depth, statistics.waiting) == (2, 4, 4)
    assert actor.peak == 2
    assert trio.current_time() == 5.0


async def test_a_crashed_worker_fails_its_own_call_only(autojump_clock: MockClock) -> None:
    async with alone(Concurrent(slots=2)) as lone, trio.open_nursery() as nursery:
        nursery.start_soon(lone.ref.call, Sleep(1.0))
        with pytest.raises(ActorCrashed) as caught:
            await lone.ref.call(Crash())
        assert isinstance(caught.value.__cause__, ValueError)
        assert await lone.ref.call(Sleep(2.0)) == "slept"
        assert lone.ref.statistics().crashes == 1


async def test_workers_that_keep_crashing_take_the_actor_with_them(autojump_clock: MockClock) -> None:
    """Six in thirty seconds: the fault is in what they share, so the actor restarts and the others are told."""
    root = Supervisor([ChildSpec("a", lambda _: Concurrent(slots=10))])
    failed: list[type[Exception]] = []

    async def victim() -> None:
        with pytest.raises(ActorCrashed) as caught:
            await root.ref("a").call(Sleep(20.0))
        failed.append(type(caught.value))

    async with running(root), trio.open_nursery() as nursery:
        nursery.start_soon(victim)
        for _ in range(6):
            assert root.statistics().restarts == 0
            with pytest.raises(ActorCrashed):
                await root.ref("a").call(Crash())
        assert await root.ref("a").call(Sleep(1.0)) == "slept"
        assert root.statistics().restarts == 1
    assert failed == [ActorCrashed]


request_id: ContextVar[str] = ContextVar("request_id", default="none")


async def test_a_worker_sees_its_callers_context_variables(autojump_clock: MockClock) -> None:
    class Name(Call[str], frozen=True):
        pass

    class Named:
        async def run(self, inbox: Inbox[Name], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await serve_concurrently(inbox, self._handle, slots=2)

        async def _handle(self, delivery: Delivery[Name]) -> None:
            delivery.reply(delivery.message, request_id.get())

    async with alone(Named()) as lone:
        request_id.set("r-17")
        assert await lone.ref.call(Name()) == "r-17"


class Patient:
    """Has an answer of its own for when its time is over."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def run(self, inbox: Inbox[Ask | Sleep], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await serve_concurrently(inbox, self._handle, slots=2, own_scope=True)

    async def _handle(self, delivery: Delivery[Ask | Sleep]) -> None:
        if isinstance(delivery.message, Ask):
            return
        with delivery.scope() as scope:
            scope.deadline = min(scope.deadline, trio.current_time() + 1)
            await trio.sleep(delivery.message.seconds)
        self.ended.append("left" if delivery.abandoned else "late")
        if not delivery.abandoned:
            delivery.reply(delivery.message, "late")


async def test_a_handler_may_end_by_the_calls_scope_in_its_own_way(autojump_clock: MockClock) -> None:
    patient = Patient()
    async with alone(patient) as lone:
        assert await lone.ref.call(Sleep(5)) == "late"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lone.ref.call, Sleep(5))
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel(reason="lost interest")
        await wait_all_tasks_blocked()
        assert (patient.ended, trio.current_time()) == (["late", "left"], 1.5)
        with pytest.raises(NoReply):
            await lone.ref.call(Ask())
        assert lone.ref.statistics().late_replies == 0


class Careless:
    """Never answers; or answers later, when it says so."""

    def __init__(self, *, defer: bool = False) -> None:
        self.defer = defer
        self.kept: list[Delivery[Ask | Leave]] = []

    async def run(self, inbox: Inbox[Ask | Leave], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await serve(inbox, self._handle)

    async def _handle(self, delivery: Delivery[Ask | Leave]) -> None:
        if isinstance(delivery.message, Leave):
            raise ValueError
        if self.defer:
            delivery.defer()
            self.kept.append(delivery)


async def test_a_forgotten_answer_is_an_error_at_once() -> None:
    async with alone(Careless()) as lone:
        with pytest.raises(NoReply):
            await lone.ref.call(Ask())


async def test_a_deferred_call_is_answered_later_or_when_the_actor_dies(autojump_clock: MockClock) -> None:
    actor = Careless(defer=True)
    results: list[object] = []

    async def ask(lone_ref: Ref[Ask | Leave]) -> None:
        try:
            results.append(await lone_ref.call(Ask()))
        except ActorCrashed as exc:
            results.append(type(exc))

    async with alone(actor) as lone, trio.open_nursery() as nursery:
        nursery.start_soon(ask, lone.ref)
        nursery.start_soon(ask, lone.ref)
        await wait_all_tasks_blocked()
        first = actor.kept[0]
        assert isinstance(first.message, Ask)
        assert first.reply(first.message, 7)
        await wait_all_tasks_blocked()
        assert results == [7]
        lone.ref.cast(Leave())
        await lone.crash()
    assert results == [7, ActorCrashed]


async def test_answering_twice_or_the_wrong_message_is_a_bug(autojump_clock: MockClock) -> None:
    actor = Careless(defer=True)
    async with alone(actor) as lone, trio.open_nursery() as nursery:
        nursery.start_soon(lone.ref.call, Ask())
        await wait_all_tasks_blocked()
        (delivery,) = actor.kept
        assert isinstance(delivery.message, Ask)
        with pytest.raises(ValueError, match="a message other than"):
            delivery.reply(Ask("other"), 1)
        delivery.reply(delivery.message, 1)
        with pytest.raises(RuntimeError, match="already been answered"):
            delivery.reply(delivery.message, 2)


async def test_the_type_of_an_answer_is_known_from_the_message(autojump_clock: MockClock) -> None:
    """For the type checker: a `Call[str]` gives a `str`, and takes nothing else as its answer."""

    class Wrong:
        async def run(self, inbox: Inbox[Sleep], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            async for delivery in inbox:
                delivery.reply(delivery.message, 7)  # type: ignore[misc]

    async with alone(Wrong()) as lone:
        answer = await lone.ref.call(Sleep(1.0))
        assert_type(answer, str)
        wider: str | None = await lone.ref.call(Sleep(1.0))
        assert wider == answer


# Circles


class Pass(Call[int], frozen=True):
    """Passed on along `route`, a tuple of names."""

    route: tuple[str, ...]


class Relay:
    def __init__(self, refs: dict[str, Ref[Pass]], *, slots: int) -> None:
        self._refs = refs
        self._slots = slots

    async def run(self, inbox: Inbox[Pass], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        if self._slots > 1:
            await serve_concurrently(inbox, self._handle, slots=self._slots)
        else:
            await serve(inbox, self._handle)

    async def _handle(self, delivery: Delivery[Pass]) -> None:
        route = delivery.message.route
        if not route:
            delivery.reply(delivery.message, 0)
            return
        await trio.sleep(0.01)
        try:
            delivery.reply(delivery.message, 1 + await self._refs[route[0]].call(Pass(route[1:])))
        except CallCycle as exc:
            delivery.fail(exc)


def relays(names: str, *, slots: int = 1) -> tuple[Supervisor, dict[str, Ref[Pass]]]:
    refs: dict[str, Ref[Pass]] = {}
    specs = [ChildSpec(name, lambda _: Relay(refs, slots=slots), mailbox=MailboxSpec(1)) for name in names]
    root = Supervisor(specs)
    refs.update({spec.name: root.ref(spec) for spec in specs})
    return root, refs


@pytest.mark.parametrize("slots", [1, 4])
async def test_an_actor_that_asks_itself_is_refused_at_once(slots: int, autojump_clock: MockClock) -> None:
    root, refs = relays("a", slots=slots)
    async with running(root):
        with pytest.raises(CallCycle, match="root/a -> root/a"):
            await refs["a"].call(Pass(("a",)))
    assert trio.current_time() < 0.1


@pytest.mark.parametrize("names", ["ab", "abc", "abcde"])
async def test_a_circle_of_calls_is_refused_and_named(names: str, autojump_clock: MockClock) -> None:
    """The caller that would have closed the circle is told at once; nobody hangs."""
    root, refs = relays(names)
    async with running(root):
        with pytest.raises(CallCycle) as caught:
            await refs[names[0]].call(Pass((*names[1:], names[0])))
        last, circle = f"root/{names[-1]}", [f"root/{name}" for name in names]
        assert caught.value.cycle == (last, *circle)
        assert await refs["a"].call(Pass(tuple(names[1:]))) == len(names) - 1
    assert trio.current_time() < 1


@pytest.mark.parametrize("names", ["ab", "abc", "abcde"])
async def test_a_circle_of_independent_calls_is_refused_too(names: str, autojump_clock: MockClock) -> None:
    """Each actor, in hand with a message of its own, asks the next: one is refused, all end."""
    root, refs = relays(names)
    refused = 0

    async def start(name: str, then: str) -> None:
        nonlocal refused
        try:
            await refs[name].call(Pass((then,)))
        except CallCycle:
            refused += 1

    async with running(root), trio.open_nursery() as nursery:
        for name, then in pairwise((*names, names[0])):
            nursery.start_soon(start, name, then)
    assert refused >= 1
    assert trio.current_time() < 3600


async def test_a_call_from_outside_may_meet_any_actor_twice(autojump_clock: MockClock) -> None:
    """What is refused is a circle of actors that wait, not a second visit."""
    root, refs = relays("ab")
    async with running(root):
        for _ in range(3):
            assert await refs["a"].call(Pass(("b",))) == 1
            assert await refs["b"].call(Pass(("a",))) == 1


async def test_who_dies_answers_those_who_wait(autojump_clock: MockClock) -> None:
    """A crash answers the call in hand; the end of the tree answers the queued one and the one without room."""
    root = Supervisor([member("a", mailbox=MailboxSpec(1), shutdown=0.5)])
    errors: list[type[Exception]] = []

    async def call() -> None:
        try:
            await root.ref("a").call(Sleep(25.0))
        except NotRunning as exc:
            errors.append(type(exc))

    async with trio.open_nursery() as nursery:
        async with running(root):
            for _ in range(3):
                nursery.start_soon(call)
            await wait_all_tasks_blocked()
    assert len(errors) == 3
    assert trio.current_time() == 0.5


async def test_casts_are_not_answered(autojump_clock: MockClock) -> None:
    failures: list[type[Exception]] = []

    class Answering:
        async def run(self, inbox: Inbox[CrashCast], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            async for delivery in inbox:
                try:
                    delivery.fail(ValueError())
                except TypeError as exc:
                    failures.append(type(exc))

    async with alone(Answering()) as lone:
        lone.ref.cast(CrashCast())
        await wait_all_tasks_blocked()
    assert failures == [TypeError]
