"""Mailboxes: bounded, with a declared policy, each loss counted; control ahead of data; order per pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import TypeAlias

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.kernel import (
    ActorCrashed,
    Backoff,
    Call,
    Cast,
    ChildSpec,
    ChildStatus,
    Delivery,
    Inbox,
    Intensity,
    MailboxFull,
    MailboxSpec,
    NotRunning,
    Overflow,
    PoisonRefused,
    Ref,
    Restart,
    Supervisor,
    running,
    serve,
    serve_concurrently,
)
from llm_actors.kernel.inbox import MESSAGES_PER_PASS
from llm_actors.kernel.lifecycle import ChildCrashed
from llm_actors.kernel.poison import POISON_ENTRIES, POISON_SECONDS, Poison
from llm_actors.testing import alone, run_virtual
from support.actors import NO_WAIT, Ask, CrashCast, Sleep, member

CAPACITY = 4


class Say(Cast, frozen=True):
    sender: int
    number: int


class Told(Call[None], frozen=True):
    sender: int
    number: int


class Unread:
    """Reads nothing until it is let."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.read: list[int] = []

    async def run(self, inbox: Inbox[Say | Told], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self.gate.wait()
        await serve(inbox, self._handle)

    async def _handle(self, delivery: Delivery[Say | Told]) -> None:
        self.read.append(delivery.message.number)
        if isinstance(delivery.message, Told):
            delivery.reply(delivery.message, None)


@pytest.mark.parametrize("overflow", Overflow)
async def test_casts_into_a_full_mailbox(overflow: Overflow, autojump_clock: MockClock) -> None:
    """Ten times the capacity: memory stays flat, and each loss is told or counted, as declared."""
    actor = Unread()
    refused = 0
    async with alone(actor, mailbox=MailboxSpec(CAPACITY, overflow)) as lone:
        for number in range(10 * CAPACITY):
            try:
                lone.ref.cast(Say(0, number))
            except MailboxFull:
                refused += 1
        statistics = lone.ref.statistics()
        actor.gate.set()
        await wait_all_tasks_blocked()
    lost = 9 * CAPACITY
    assert statistics.depth == CAPACITY
    assert statistics.full == lost
    if overflow in {Overflow.WAIT, Overflow.REFUSE}:
        assert (refused, statistics.dropped) == (lost, 0)
    else:
        assert (refused, statistics.dropped) == (0, lost)
    expected = range(lost, 10 * CAPACITY) if overflow is Overflow.DROP_OLDEST else range(CAPACITY)
    assert actor.read == list(expected)


@pytest.mark.parametrize("overflow", Overflow)
async def test_calls_into_a_full_mailbox(overflow: Overflow, autojump_clock: MockClock) -> None:
    """A call waits for room where that is declared; otherwise somebody gets `MailboxFull`, and nobody hangs."""
    actor = Unread()
    outcomes: list[str] = []

    async def call(number: int) -> None:
        try:
            await lone.ref.call(Told(0, number))
            outcomes.append("answered")
        except MailboxFull:
            outcomes.append("full")

    async with alone(actor, mailbox=MailboxSpec(CAPACITY, overflow)) as lone, trio.open_nursery() as nursery:
        for number in range(10 * CAPACITY):
            nursery.start_soon(call, number)
        await wait_all_tasks_blocked()
        assert lone.ref.statistics().depth == CAPACITY
        actor.gate.set()
    answered = 10 * CAPACITY if overflow is Overflow.WAIT else CAPACITY
    assert outcomes.count("answered") == answered
    assert outcomes.count("full") == 10 * CAPACITY - answered


async def test_a_sender_that_gives_up_waiting_for_room_has_sent_nothing(autojump_clock: MockClock) -> None:
    actor = Unread()
    async with alone(actor, mailbox=MailboxSpec(1)) as lone:
        lone.ref.cast(Say(0, 0))
        with trio.move_on_after(1):
            await lone.ref.call(Told(0, 1))
        actor.gate.set()
        await wait_all_tasks_blocked()
    assert actor.read == [0]


async def test_a_message_to_a_restarting_actor_waits_for_it(autojump_clock: MockClock) -> None:
    """During the pause before a restart messages queue, and are handled after it."""
    root = Supervisor([member("a")], backoff=Backoff(first=3.0))
    async with running(root):
        root.ref("a").cast(CrashCast())
        await wait_all_tasks_blocked()
        assert root.tree().children[0].status is ChildStatus.RESTARTING
        assert await root.ref("a").call(Ask()) == 1
        assert trio.current_time() == 3.0


async def test_a_message_to_an_ended_actor_is_refused_and_counted(autojump_clock: MockClock) -> None:
    """A call raises; a cast cannot be told, so it is counted. Neither is lost in silence."""
    root = Supervisor([member("a", restart=Restart.TEMPORARY)])
    async with running(root):
        ref = root.ref("a")
        ref.cast(CrashCast())
        await wait_all_tasks_blocked()
        with pytest.raises(NotRunning):
            await ref.call(Ask())
        ref.cast(CrashCast())
        assert ref.statistics().dead_letters == 2


async def test_a_stop_is_not_behind_data(autojump_clock: MockClock) -> None:
    """With full mailboxes and work in hand in every actor, each takes no longer to stop than one piece of work."""
    root = Supervisor([member(name, mailbox=MailboxSpec(CAPACITY)) for name in "abc"])
    async with trio.open_nursery() as nursery:
        async with running(root):
            for name in "abc":
                for _ in range(2 * CAPACITY):
                    nursery.start_soon(_expect_not_running, root, name)
            await wait_all_tasks_blocked()
            begun = trio.current_time()
            assert root.tree().children[0].mailbox.depth == CAPACITY  # health is a plain read, never queued
    assert trio.current_time() - begun == pytest.approx(3 * 0.05)


async def _expect_not_running(root: Supervisor, name: str) -> None:
    try:
        assert await root.ref(name).call(Sleep(0.05)) == name
    except NotRunning:
        return


async def test_cancelling_a_call_is_not_behind_data(autojump_clock: MockClock) -> None:
    """The caller of the work in hand leaves: its work ends at once although the mailbox is full."""
    root = Supervisor([member("a", mailbox=MailboxSpec(1))])
    async with running(root), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as caller:
                caller.start_soon(root.ref("a").call, Sleep(20.0))
                await wait_all_tasks_blocked()
                nursery.start_soon(root.ref("a").call, Sleep(0.0))
                nursery.start_soon(root.ref("a").call, Sleep(0.0))
                await wait_all_tasks_blocked()
                scope.cancel()
    assert trio.current_time() == 0.0


class Feed(Call[int], frozen=True):
    """Carries a payload."""

    payload: str

    def fingerprint(self) -> Hashable:
        return type(self), self.payload


class Measured(Call[int], frozen=True):
    """Carries none, only a size."""

    size: int


FeedMessage: TypeAlias = "Feed | Measured"


class Poisonable:
    """Crashes on the payloads `bad`, `odd` (at alternating places), `slow` (after a second), `once` (but not again) and
    on every size.
    """

    def __init__(self, slots: int, crashes: Counter[str]) -> None:
        self._slots = slots
        self._crashes = crashes

    async def run(self, inbox: Inbox[FeedMessage], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        if self._slots > 1:
            await serve_concurrently(inbox, self._handle, slots=self._slots, crashes=Intensity(100, 1.0))
        else:
            await serve(inbox, self._handle)

    async def _handle(self, delivery: Delivery[FeedMessage]) -> None:
        message = delivery.message
        if isinstance(message, Measured):
            raise ValueError
        self._crashes[message.payload] += 1
        match message.payload, self._crashes[message.payload] % 2:
            case ("bad", _):
                raise ValueError
            case ("odd", 0):
                raise ValueError
            case ("odd" | "once", 1):
                raise ValueError
            case ("slow", _):
                with trio.CancelScope(shield=True):  # it does not notice that its caller leaves
                    await trio.sleep(1.0)
                raise ValueError
            case _:
                delivery.reply(message, 1)


@asynccontextmanager
async def poisonable(slots: int) -> AsyncIterator[Ref[FeedMessage]]:
    crashes: Counter[str] = Counter()
    spec = ChildSpec("a", lambda _: Poisonable(slots, crashes))
    root = Supervisor([spec], intensity=Intensity(100, 1.0), backoff=Backoff.none())
    async with running(root):
        yield root.ref(spec)


@pytest.mark.parametrize("slots", [1, 4])
async def test_a_poison_payload_is_refused_the_third_time(slots: int, autojump_clock: MockClock) -> None:
    """Its sender gets an error each time; after two crashes it never reaches the actor. Others are served."""
    async with poisonable(slots) as ref:
        for expected in (ActorCrashed, ActorCrashed, PoisonRefused, PoisonRefused):
            with pytest.raises(expected):
                await ref.call(Feed("bad"))
            assert await ref.call(Feed("good")) == 1
        assert (ref.statistics().crashes, ref.statistics().poisoned) == (2, 2)


@pytest.mark.parametrize("slots", [1, 4])
async def test_crashes_at_different_places_are_no_evidence_against_a_payload(
    slots: int, autojump_clock: MockClock
) -> None:
    async with poisonable(slots) as ref:
        for _ in range(6):
            with pytest.raises(ActorCrashed):
                await ref.call(Feed("odd"))
        assert (ref.statistics().crashes, ref.statistics().poisoned) == (6, 0)


@pytest.mark.parametrize("slots", [1, 4])
async def test_a_payload_that_was_handled_in_between_is_not_poison(slots: int, autojump_clock: MockClock) -> None:
    async with poisonable(slots) as ref:
        for _ in range(3):
            with pytest.raises(ActorCrashed):
                await ref.call(Feed("once"))
            assert await ref.call(Feed("once")) == 1


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_a_crash_after_the_caller_has_left_is_no_evidence_against_its_payload(
    how: str, slots: int, autojump_clock: MockClock
) -> None:
    """The crash counts, for it is a bug, but others who send the same payload are not refused for it."""
    async with poisonable(slots) as ref:
        for _ in range(4):
            with trio.CancelScope() as scope:
                scope.deadline = trio.current_time() + (0.5 if how == "expired" else inf)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ref.call, Feed("slow"))
                    await wait_all_tasks_blocked()
                    if how == "cancelled":
                        scope.cancel()
            await trio.sleep(2.0)
        assert (ref.statistics().crashes, ref.statistics().poisoned) == (4, 0)


@pytest.mark.parametrize("slots", [1, 4])
async def test_messages_without_a_payload_are_never_poison(slots: int, autojump_clock: MockClock) -> None:
    """Equal sizes of other callers have nothing to do with the crash."""
    async with poisonable(slots) as ref:
        for _ in range(4):
            with pytest.raises(ActorCrashed):
                await ref.call(Measured(10))
        assert (ref.statistics().crashes, ref.statistics().poisoned) == (4, 0)


async def test_a_poison_payload_has_another_chance_later(autojump_clock: MockClock) -> None:
    async with poisonable(1) as ref:
        for expected in (ActorCrashed, ActorCrashed, PoisonRefused):
            with pytest.raises(expected):
                await ref.call(Feed("bad"))
        await trio.sleep(POISON_SECONDS)
        for expected in (ActorCrashed, PoisonRefused):
            with pytest.raises(expected):
                await ref.call(Feed("bad"))


def test_the_memory_for_poison_is_bounded() -> None:
    poison = Poison()
    for number in range(3 * POISON_ENTRIES):
        poison.crashed(number, "here", 0.0)
        poison.crashed(number, "here", 0.0)
    assert len(poison.suspects) == POISON_ENTRIES
    assert poison.refuses(3 * POISON_ENTRIES - 1, 0.0)
    assert not poison.refuses(0, 0.0)


SENDERS = 10
PER_SENDER = 200  # 10 senders x 200 messages x 50 seeds = 10^5


@pytest.mark.parametrize("seeds", [range(start, start + 10) for start in range(0, 50, 10)], ids=str)
def test_each_pair_keeps_its_order(seeds: range) -> None:
    """Calls and casts of one sender arrive as they were sent, under fifty orders of the scheduler."""
    for seed in seeds:
        received = run_virtual(partial(_ten_senders, PER_SENDER), seed=seed)
        assert all(received[sender] == list(range(PER_SENDER)) for sender in range(SENDERS))


def test_a_hundred_thousand_messages_keep_their_order() -> None:
    received = run_virtual(partial(_ten_senders, 50 * PER_SENDER))
    assert all(received[sender] == list(range(50 * PER_SENDER)) for sender in range(SENDERS))


async def _ten_senders(each: int) -> dict[int, list[int]]:
    received: dict[int, list[int]] = {sender: [] for sender in range(SENDERS)}

    class Reader:
        async def run(self, inbox: Inbox[Say | Told], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await serve(inbox, self._handle)

        async def _handle(self, delivery: Delivery[Say | Told]) -> None:
            received[delivery.message.sender].append(delivery.message.number)
            if isinstance(delivery.message, Told):
                delivery.reply(delivery.message, None)

    async def send(sender: int) -> None:
        for number in range(each):
            if number % 4 == 3:
                await lone.ref.call(Told(sender, number))
            else:
                lone.ref.cast(Say(sender, number))

    async with alone(Reader(), mailbox=MailboxSpec(SENDERS * each)) as lone, trio.open_nursery() as nursery:
        for sender in range(SENDERS):
            nursery.start_soon(send, sender)
    return received


async def test_order_survives_waiting_for_room(autojump_clock: MockClock) -> None:
    actor = Unread()
    async with alone(actor, mailbox=MailboxSpec(2)) as lone, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(lone.ref.call, Told(0, number))
            await wait_all_tasks_blocked()
        actor.gate.set()
    assert actor.read == list(range(20))


def test_a_mailbox_holds_at_least_one_message() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MailboxSpec(0)


async def test_a_supervisor_takes_no_messages(autojump_clock: MockClock) -> None:
    low = Supervisor([member("leaf")], name="low")
    root = Supervisor([low.as_child()])
    async with running(root):
        with pytest.raises(NotRunning, match="takes no messages"):
            await root.ref("low").call(Ask())


class Look(Call[int], frozen=True):
    """How much was added."""


class Broken(Call[int], frozen=True):
    """A read with a bug."""


class Grow(Cast, frozen=True):
    """Add one, or crash."""

    crash: bool = False


class Growing:
    """Counts, and lets its count be read."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self, inbox: Inbox[Look | Broken | Grow], *, task_status: trio.TaskStatus[None]) -> None:
        inbox.answer_reads(Look, lambda _: self.count)
        inbox.answer_reads(Broken, self._broken)
        task_status.started()
        await serve(inbox, self._handle)

    def _broken(self, _: Broken) -> int:
        raise ZeroDivisionError

    async def _handle(self, delivery: Delivery[Look | Broken | Grow]) -> None:
        match delivery.message:
            case Look() | Broken() as message:
                delivery.reply(message, self.count)
            case Grow(crash):
                if crash:
                    raise ValueError
                self.count += 1


async def test_a_read_is_answered_from_the_state_as_it_is_and_not_behind_the_queue(autojump_clock: MockClock) -> None:
    growing = ChildSpec("growing", lambda _: Growing())
    async with running(Supervisor([growing], backoff=NO_WAIT)) as root:
        ref = root.ref(growing)
        ref.cast(Grow())
        assert ref.read(Look()) == 0
        assert await ref.call(Look()) == 1
        assert ref.read(Look()) == 1
    assert ref.read(Look()) is None


async def test_nobody_reads_from_an_actor_that_has_crashed(autojump_clock: MockClock) -> None:
    growing = ChildSpec("growing", lambda _: Growing())
    async with running(Supervisor([growing], backoff=Backoff(first=1.0, base=1.0))) as root:
        ref = root.ref(growing)
        ref.cast(Grow(crash=True))
        await trio.sleep(0.5)
        assert ref.read(Look()) is None
        assert await ref.call(Look()) == 0
        assert ref.read(Look()) == 0


async def test_a_read_with_a_bug_is_published_and_left_to_the_call(autojump_clock: MockClock) -> None:
    async with alone(Growing()) as growing:
        with growing.bus.subscribe() as events:
            assert growing.ref.read(Broken()) is None
            event = await anext(events)
        assert isinstance(event, ChildCrashed)
        assert event.error.startswith("ZeroDivisionError")
        assert await growing.ref.call(Broken()) == 0


async def test_what_is_queued_is_taken_in_one_pass_within_a_bound(autojump_clock: MockClock) -> None:
    """And then others get their turn, however much is left."""
    seen_at: list[int] = []
    passes = 0

    class Noting:
        async def run(self, inbox: Inbox[Grow], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await serve(inbox, self._handle)

        async def _handle(self, delivery: Delivery[Grow]) -> None:
            seen_at.append(passes)

    async with alone(Noting(), mailbox=MailboxSpec(1_000)) as noting:
        for _ in range(4 * MESSAGES_PER_PASS):
            noting.ref.cast(Grow())
        while len(seen_at) < 4 * MESSAGES_PER_PASS:
            passes += 1
            await trio.lowlevel.cancel_shielded_checkpoint()
    # Tasks run in any order within a pass: the actor may have had two turns between two of ours.
    assert 2 <= passes <= 6
    assert max(seen_at.count(each) for each in set(seen_at)) <= 2 * MESSAGES_PER_PASS


async def test_a_caller_has_left_from_the_moment_it_is_cancelled(autojump_clock: MockClock) -> None:
    """And not when its task notices: the actor may run first, and would answer somebody who no longer listens."""
    kept: list[Delivery[Look]] = []

    class Keeping:
        async def run(self, inbox: Inbox[Look], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await serve(inbox, self._handle)

        async def _handle(self, delivery: Delivery[Look]) -> None:
            delivery.defer()
            kept.append(delivery)

    async with alone(Keeping()) as keeping, trio.open_nursery() as nursery:
        nursery.start_soon(keeping.ref.call, Look())
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        [delivery] = kept
        assert delivery.abandoned
        assert not delivery.reply(delivery.message, 1)
    assert keeping.ref.statistics().late_replies == 1
