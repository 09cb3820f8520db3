"""What supervisors promise, on a virtual clock. The ids are rows of the test matrix."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.kernel import (
    ActorCrashed,
    ActorMessage,
    Backoff,
    Call,
    ChildSpec,
    ChildStatus,
    Delivery,
    GaveUp,
    Inbox,
    Intensity,
    KernelError,
    NameTaken,
    NotRunning,
    Ref,
    Restart,
    ShuttingDown,
    StartFailed,
    Strategy,
    Supervisor,
    SupervisorFailed,
    lineage,
    running,
    serve,
)
from support.actors import NO_WAIT, Ask, Crash, CrashCast, Journal, Leave, Sleep, flaky, member


async def test_a_crash_costs_one_message_and_no_time(autojump_clock: MockClock) -> None:
    """The crashed actor is back within 100 ms at the same address; only the message in hand failed."""
    root = Supervisor([member("a")])
    async with running(root):
        ref = root.ref("a")
        assert await ref.call(Ask()) == 1
        begun = trio.current_time()
        with pytest.raises(ActorCrashed) as caught:
            await ref.call(Crash())
        assert isinstance(caught.value.__cause__, ValueError)
        assert await ref.call(Ask()) == 1
        assert trio.current_time() - begun < 0.1


async def test_queued_messages_survive_the_crash(autojump_clock: MockClock) -> None:
    root = Supervisor([member("a")])
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await root.ref("a").call(Ask()))

    async with running(root):
        root.ref("a").cast(CrashCast())
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
    assert sorted(answers) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy.ONE_FOR_ONE, ["down b", "up b"]),
        (Strategy.REST_FOR_ONE, ["down b", "down c", "up b", "up c"]),
        (Strategy.ONE_FOR_ALL, ["down b", "down c", "down a", "up a", "up b", "up c"]),
    ],
)
async def test_strategies_replace_the_right_children(
    strategy: Strategy, expected: Journal, autojump_clock: MockClock
) -> None:
    """Stopped in reverse, started in order. `test_erlang.py` holds the same against OTP itself."""
    journal: Journal = []
    root = Supervisor([member(name, journal) for name in "abc"], strategy=strategy, backoff=NO_WAIT)
    async with running(root):
        journal.clear()
        root.ref("b").cast(CrashCast())
        await wait_all_tasks_blocked()
        assert journal == expected


async def test_others_do_not_notice_a_crash(autojump_clock: MockClock) -> None:
    """Twenty calls in other actors end on time while their neighbour crashes."""
    root = Supervisor([member("bad"), *(member(f"good{n}") for n in range(20))], intensity=Intensity(100, 1.0))

    async def crash() -> None:
        for _ in range(10):
            await trio.sleep(0.1)
            root.ref("bad").cast(CrashCast())

    async def work(name: str) -> None:
        begun = trio.current_time()
        assert await root.ref(name).call(Sleep(1.0)) == name
        assert trio.current_time() == pytest.approx(begun + 1.0)

    async with running(root), trio.open_nursery() as nursery:
        nursery.start_soon(crash)
        for number in range(20):
            nursery.start_soon(work, f"good{number}")


async def test_too_many_crashes_stop_all_in_reverse_and_fail_upward(autojump_clock: MockClock) -> None:
    """One more than the intensity: the children go down last first, and the cause chain leads to the leaf."""
    journal: Journal = []
    root = Supervisor([member(name, journal) for name in "abc"], intensity=Intensity(3, 30.0), backoff=NO_WAIT)
    with pytest.RaisesGroup(GaveUp) as caught:
        async with running(root):
            for _ in range(4):
                journal.clear()
                root.ref("b").cast(CrashCast())
                await wait_all_tasks_blocked()
            await trio.sleep_forever()
    gave_up = caught.value.exceptions[0]
    assert journal == ["down b", "down c", "down a"]
    assert isinstance(gave_up.__cause__, ValueError)
    with pytest.raises(NotRunning):
        await root.ref("a").call(Ask())


async def test_who_gives_up_cancels_the_others_at_once_and_says_so(autojump_clock: MockClock) -> None:
    """No grace over three levels: calls in hand raise `SupervisorFailed`, and so do those that come later."""
    deep = Supervisor([member("worker", shutdown=30.0)], name="deep")
    root = Supervisor(
        [member("a"), deep.as_child(), member("late", shutdown=30.0)], intensity=Intensity(0, 30.0), backoff=NO_WAIT
    )
    raised: list[type[Exception]] = []

    async def work(ref: Ref[ActorMessage]) -> None:
        try:
            await ref.call(Sleep(20.0))
        except KernelError as exc:
            raised.append(type(exc))

    async with trio.open_nursery() as clients:
        with pytest.RaisesGroup(GaveUp):
            async with running(root):
                clients.start_soon(work, deep.ref("worker"))
                clients.start_soon(work, root.ref("late"))
                await wait_all_tasks_blocked()
                root.ref("a").cast(CrashCast())
                await trio.sleep_forever()
    assert trio.current_time() == 0.0
    assert raised == [SupervisorFailed, SupervisorFailed]
    for ref in (root.ref("a"), deep.ref("worker")):
        with pytest.raises(SupervisorFailed):
            await ref.call(Ask())


async def test_after_an_escalation_the_first_restart_is_immediate_again(autojump_clock: MockClock) -> None:
    """The backoff of those below begins anew with their supervisor."""
    low = Supervisor([member("a")], name="low", intensity=Intensity(2, 30.0), draw=lambda: 1.0)
    async with running(Supervisor([low.as_child()], backoff=NO_WAIT)) as root:
        while root.tree().children[0].restarts == 0:
            low.ref("a").cast(CrashCast())
            await trio.sleep(0.5)
        begun = trio.current_time()
        low.ref("a").cast(CrashCast())
        assert await low.ref("a").call(Ask()) == 1
        assert trio.current_time() == begun


async def test_an_actor_can_tell_that_it_is_cancelled_because_others_keep_crashing(autojump_clock: MockClock) -> None:
    told: list[tuple[bool, bool]] = []

    class Careful:
        async def run(self, inbox: Inbox[ActorMessage], *, task_status: trio.TaskStatus[None]) -> None:
            inbox.when_stopping(lambda: told.append((inbox.failed, inbox.final)))
            task_status.started()
            await inbox.receive()

    low = Supervisor([ChildSpec("careful", lambda _: Careful()), member("a")], name="low", intensity=Intensity(0, 30.0))
    async with running(Supervisor([low.as_child()], backoff=NO_WAIT)):
        low.ref("a").cast(CrashCast())
        await wait_all_tasks_blocked()
        assert told == [(True, False)]
    assert told == [(True, False), (False, True)]


async def test_a_call_that_waited_when_another_message_crashed_the_actor_is_told_apart(
    autojump_clock: MockClock,
) -> None:
    """To send it again does no harm."""
    raised: dict[str, bool] = {}

    class Waiting:
        async def run(self, inbox: Inbox[ActorMessage], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await serve(inbox, self._handle)

        async def _handle(self, delivery: Delivery[ActorMessage]) -> None:
            if isinstance(delivery.message, Crash):
                raise delivery.message.error
            delivery.defer()

    async def ask(message: Call[str] | Call[None]) -> None:
        with pytest.raises(ActorCrashed) as caught:
            await root.ref("a").call(message)
        raised[type(message).__name__] = caught.value.bystander

    root = Supervisor([ChildSpec("a", lambda _: Waiting())])
    async with running(root), trio.open_nursery() as nursery:
        nursery.start_soon(ask, Sleep(1.0))
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, Crash())
    assert raised == {"Sleep": True, "Crash": False}


async def test_crashes_within_the_intensity_go_on_for_ever(autojump_clock: MockClock) -> None:
    """Five crashes in any thirty seconds, a thousand times."""
    root = Supervisor([member("a")], intensity=Intensity(5, 30.0), backoff=NO_WAIT)
    async with running(root):
        for _ in range(1000):
            root.ref("a").cast(CrashCast())
            await trio.sleep(6.01)
        assert await root.ref("a").call(Ask()) == 1
        assert root.statistics().restarts == 1000


async def test_restarts_multiply_over_three_levels(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """With one restart allowed per level, three levels take (1+1)^3 crashes; the last log line has the chain."""
    journal: Journal = []
    once = Intensity(1, 3600.0)
    low = Supervisor([member("leaf", journal)], name="low", intensity=once, backoff=NO_WAIT)
    middle = Supervisor([low.as_child()], name="middle", intensity=once, backoff=NO_WAIT)
    root = Supervisor([middle.as_child()], name="root", intensity=once, backoff=NO_WAIT)
    begun = trio.current_time()
    with caplog.at_level(logging.INFO), pytest.RaisesGroup(GaveUp) as caught:
        async with running(root):
            while True:
                low.ref("leaf").cast(CrashCast())
                await wait_all_tasks_blocked()
    assert journal.count("down leaf") == 8
    assert trio.current_time() - begun < 5.0
    assert lineage(caught.value.exceptions[0]) == (
        "root: GaveUp",
        "root/middle: GaveUp",
        "root/middle/low: GaveUp",
        "ValueError",
    )
    assert "root/middle/low: GaveUp" in caplog.records[-1].message
    assert "ValueError" in caplog.records[-1].message


async def test_transient_and_temporary_children(autojump_clock: MockClock) -> None:
    """A transient child comes back after a crash, not after a normal end; a temporary one never does."""
    root = Supervisor([member("brief", restart=Restart.TRANSIENT), member("once", restart=Restart.TEMPORARY)])
    async with running(root):
        brief, once = root.ref("brief"), root.ref("once")
        brief.cast(CrashCast())
        assert await brief.call(Ask()) == 1
        brief.cast(Leave())
        once.cast(CrashCast())
        await wait_all_tasks_blocked()
        for ref in (brief, once):
            with pytest.raises(NotRunning):
                await ref.call(Ask())
        assert [child.status for child in root.tree().children] == [ChildStatus.ENDED]


async def test_permanent_children_come_back_even_from_a_normal_end(autojump_clock: MockClock) -> None:
    root = Supervisor([member("a")])
    async with running(root):
        root.ref("a").cast(Leave())
        assert await root.ref("a").call(Ask()) == 1
        assert root.statistics().restarts == 1


class Stubborn:
    """Ignores both the request to stop and its cancellation for a minute."""

    async def run(self, inbox: Inbox[Ask], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with trio.CancelScope(shield=True):
            await trio.sleep(60)


async def test_who_ignores_stop_and_cancel_is_named_and_left(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The siblings stop after the stubborn child's limit, although the tree cannot end before it does."""
    journal: Journal = []
    ended: list[float] = []

    class Sibling:
        async def run(self, inbox: Inbox[Ask], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            async for _ in inbox:
                raise AssertionError
            ended.append(trio.current_time())

    stubborn = ChildSpec("stubborn", lambda _: Stubborn(), shutdown=2.0)
    root = Supervisor([member("first", journal), ChildSpec("sibling", lambda _: Sibling()), stubborn])
    begun = trio.current_time()
    async with running(root):
        pass
    assert ended == [pytest.approx(begun + 3.0)]  # its grace, and the second a cancelled child has
    assert journal == ["up first", "down first"]
    assert trio.current_time() == pytest.approx(begun + 60.0)
    assert any("root/stubborn was left behind" in record.message for record in caplog.records)


async def test_a_stubborn_start_does_not_hold_its_supervisor(autojump_clock: MockClock) -> None:
    """A child that shields its initialisation is given up on after its start timeout."""

    class Never(Stubborn):
        async def run(self, inbox: Inbox[Ask], *, task_status: trio.TaskStatus[None]) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(60)

    root = Supervisor([member("a"), ChildSpec("never", lambda _: Never(), start_timeout=1.0)])
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        with pytest.raises(StartFailed) as caught:
            await nursery.start(root.run)
    assert isinstance(caught.value.__cause__, trio.TooSlowError)
    assert trio.current_time() == pytest.approx(begun + 60.0)


async def test_a_crash_in_cleanup_counts_once(autojump_clock: MockClock) -> None:
    """A second exception while the first unwinds is the same failure; both are in the group that is kept."""
    errors: list[BaseException | None] = []

    class Messy:
        async def run(self, inbox: Inbox[Crash], *, task_status: trio.TaskStatus[None]) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._clean_up_badly)
                task_status.started()
                async for _ in inbox:
                    raise ValueError

        async def _clean_up_badly(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError

    root = Supervisor([ChildSpec("messy", lambda _: Messy())], backoff=NO_WAIT)
    async with running(root):
        for _ in range(2):
            with pytest.raises(ActorCrashed) as caught:
                await root.ref("messy").call(Crash())
            errors.append(caught.value.__cause__)
        await wait_all_tasks_blocked()
        assert root.statistics().restarts == 2
    for error in errors:
        assert isinstance(error, ExceptionGroup)
        assert {type(inner) for inner in error.exceptions} == {ValueError, KeyError}


async def test_a_failed_restart_is_one_more_failure(autojump_clock: MockClock) -> None:
    """A factory that raises is counted and tried again from the loop, not raised."""
    journal: Journal = []
    starts = iter([True, False, False, True])
    root = Supervisor([flaky("a", journal, lambda: next(starts))], intensity=Intensity(3, 30.0), backoff=NO_WAIT)
    async with running(root):
        root.ref("a").cast(CrashCast())
        assert await root.ref("a").call(Ask()) == 1
    assert journal == ["up a", "down a", "fail a", "fail a", "up a", "down a"]


async def test_failed_restarts_exhaust_the_intensity(autojump_clock: MockClock) -> None:
    journal: Journal = []
    starts = iter([True])
    root = Supervisor([flaky("a", journal, lambda: next(starts, False))], intensity=Intensity(3, 30.0))
    with pytest.RaisesGroup(GaveUp) as caught:
        async with running(root):
            root.ref("a").cast(CrashCast())
            await trio.sleep_forever()
    assert journal == ["up a", "down a", "fail a", "fail a", "fail a"]
    assert lineage(caught.value.exceptions[0]) == ("root: GaveUp", "root/a: StartFailed", "OSError")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_interrupts_stop_the_tree_cleanly(error: type[BaseException], autojump_clock: MockClock) -> None:
    """They are not crashes: all children go down in order, and the interrupt comes out."""
    journal: Journal = []
    root = Supervisor([member(name, journal) for name in "abc"])
    with pytest.RaisesGroup(error, flatten_subgroups=True):
        async with running(root):
            journal.clear()
            with pytest.raises(NotRunning):
                await root.ref("b").call(Crash(error))
            await trio.sleep_forever()
    assert journal == ["down b", "down c", "down a"]


async def test_no_memory_escalates_to_the_top(autojump_clock: MockClock) -> None:
    """Restarting needs memory; no level tries, not even one that parks."""
    low = Supervisor([member("leaf")], name="low", park=True)
    root = Supervisor([low.as_child()])
    with pytest.RaisesGroup(GaveUp) as caught:
        async with running(root):
            with pytest.raises(ActorCrashed):
                await low.ref("leaf").call(Crash(MemoryError))
            await trio.sleep_forever()
    assert lineage(caught.value.exceptions[0])[-1] == "MemoryError"


async def test_cancellation_is_never_a_crash(autojump_clock: MockClock) -> None:
    """A child killed after its grace, with a nursery of its own, ends as killed; a bug beside it is still seen."""

    class Nested:
        async def run(self, inbox: Inbox[Ask], *, task_status: trio.TaskStatus[None]) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)
                task_status.started()

    root = Supervisor([ChildSpec("nested", lambda _: Nested(), shutdown=0.5)])
    events = root.bus.subscribe()
    async with running(root):
        pass
    seen = [events.receive_nowait() for _ in range(2)]
    assert [type(event).__name__ for event in seen] == ["ChildStarted", "ChildExited"]
    assert getattr(seen[1], "reason", "") == "killed"


async def test_children_start_in_order_and_stop_in_reverse(autojump_clock: MockClock) -> None:
    journal: Journal = []
    async with running(Supervisor([member(name, journal) for name in "abc"])):
        assert journal == ["up a", "up b", "up c"]
    assert journal[3:] == ["down c", "down b", "down a"]


async def test_cancelling_a_tree_takes_it_down_last_first(autojump_clock: MockClock) -> None:
    """Cancellation reaches the children through their supervisors, one by one, also over two levels."""
    journal: Journal = []
    low = Supervisor([member("c", journal), member("d", journal)], name="low")
    root = Supervisor([member("a", journal), member("b", journal), low.as_child()])
    with trio.move_on_after(1):
        await root.run()
    assert journal[4:] == ["down d", "down c", "down b", "down a"]


async def test_a_failed_start_takes_the_others_down_and_is_raised(autojump_clock: MockClock) -> None:
    journal: Journal = []
    root = Supervisor([member("a", journal), flaky("b", journal, lambda: False)])
    async with trio.open_nursery() as nursery:
        with pytest.raises(StartFailed) as caught:
            await nursery.start(root.run)
    assert isinstance(caught.value.__cause__, OSError)
    assert journal == ["up a", "fail b", "down a"]


async def test_stop_does_not_wait_for_a_backoff_or_a_start(autojump_clock: MockClock) -> None:
    """A stop asked for during a long pause, or a long initialisation, is served at once."""

    class Slow:
        async def run(self, inbox: Inbox[Ask], *, task_status: trio.TaskStatus[None]) -> None:
            await trio.sleep(9)
            task_status.started()

    waiting = Supervisor([member("a")], backoff=Backoff(first=25.0))
    begun = trio.current_time()
    async with running(waiting):
        waiting.ref("a").cast(CrashCast())
        await wait_all_tasks_blocked()
        assert waiting.tree().children[0].status is ChildStatus.RESTARTING
    starting = Supervisor([ChildSpec("slow", lambda _: Slow())])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(starting.run)
        await wait_all_tasks_blocked()
        starting.stop()
    assert trio.current_time() == begun


async def test_a_tree_stopped_before_it_is_up_ends_without_an_error(autojump_clock: MockClock) -> None:
    """A SIGTERM during the start, say."""

    class Stopping:
        async def run(self, inbox: Inbox[Ask], *, task_status: trio.TaskStatus[None]) -> None:
            root.stop()
            await trio.sleep_forever()

    root = Supervisor([member("a"), ChildSpec("stopping", lambda _: Stopping())])
    async with running(root):
        assert root.tree().status is ChildStatus.ENDED


async def test_a_stubborn_sibling_is_waited_for_and_not_doubled(autojump_clock: MockClock) -> None:
    """In a group restart it outlives its cancellation: there is no second one beside it, and it comes back once."""
    alive = peak = starts = 0

    class Twin:
        async def run(self, inbox: Inbox[Ask], *, task_status: trio.TaskStatus[None]) -> None:
            nonlocal alive, peak, starts
            alive += 1
            starts += 1
            peak = max(peak, alive)
            task_status.started()
            try:
                with trio.CancelScope(shield=starts == 1):
                    await trio.sleep(10)
                await trio.sleep_forever()
            finally:
                alive -= 1

    twin = ChildSpec("twin", lambda _: Twin(), shutdown=1.0)
    backoff = Backoff(base=4.0, cap=4.0)
    root = Supervisor([member("a"), twin], strategy=Strategy.ONE_FOR_ALL, backoff=backoff)
    async with running(root):
        root.ref("a").cast(CrashCast())
        await trio.sleep(20)
        assert (peak, starts, alive) == (1, 2, 1)
        assert await root.ref("a").call(Ask()) == 1


async def test_work_in_hand_is_finished_within_the_grace_and_the_rest_is_refused(autojump_clock: MockClock) -> None:
    """After a stop: the call in hand is answered, the queued one and a new one get `ShuttingDown`."""
    root = Supervisor([member("a")])
    results: dict[str, object] = {}

    async def call(key: str) -> None:
        try:
            results[key] = await root.ref("a").call(Sleep(1.0))
        except KernelError as exc:
            results[key] = type(exc)

    async with trio.open_nursery() as nursery:
        async with running(root):
            nursery.start_soon(call, "in hand")
            await wait_all_tasks_blocked()
            nursery.start_soon(call, "queued")
            await wait_all_tasks_blocked()
            root.stop()
            await wait_all_tasks_blocked()
            assert results == {"queued": ShuttingDown}
            nursery.start_soon(call, "late")
    assert results == {"in hand": "a", "queued": ShuttingDown, "late": ShuttingDown}


async def test_refs_below_a_restarted_supervisor_stay_good(autojump_clock: MockClock) -> None:
    """The supervisor object outlives its runs, and with it the mailboxes and what is queued in them."""
    low = Supervisor([member("leaf")], name="low", intensity=Intensity(0, 1.0))
    root = Supervisor([low.as_child()])
    async with running(root):
        leaf = low.ref("leaf")
        leaf.cast(CrashCast())
        assert await leaf.call(Ask()) == 1
        assert leaf.name == "root/low/leaf"


async def test_one_grace_per_child_then_cancel(autojump_clock: MockClock) -> None:
    """A child that keeps working after it is asked to stop is cancelled when its own grace is over."""
    root = Supervisor([member("a", shutdown=2.0)])
    async with trio.open_nursery() as nursery:
        async with running(root):
            begun = trio.current_time()

            async def call() -> None:
                with pytest.raises(NotRunning):
                    await root.ref("a").call(Sleep(29.0))

            nursery.start_soon(call)
            await wait_all_tasks_blocked()
    assert trio.current_time() == begun + 2.0


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": ""}, "must not be empty"),
        ({"name": "a/b"}, "contain '/'"),
        ({"factory": 3}, "callable"),
        ({"restart": "always"}, "Restart"),
        ({"shutdown": -1.0}, "shutdown"),
        ({"start_timeout": 0.0}, "start_timeout"),
    ],
)
def test_specs_are_checked_where_they_are_written(fields: dict[str, object], problem: str) -> None:
    values: dict[str, object] = {"name": "a", "factory": lambda _: None, **fields}
    with pytest.raises((ValueError, TypeError), match=problem):
        ChildSpec(**values)  # type: ignore[arg-type]


def test_two_children_of_one_name_are_refused() -> None:
    with pytest.raises(NameTaken):
        Supervisor([member("a"), member("a")])


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt, SystemExit])
async def test_what_the_block_raises_comes_out_as_itself(kind: type[BaseException], autojump_clock: MockClock) -> None:
    """Around a running tree a program catches its own errors as it would without one: no group, no strange context."""
    journal: Journal = []
    with pytest.raises(kind) as caught:
        async with running(Supervisor([member("a", journal)])):
            raise kind("mine")
    assert caught.value.__context__ is None
    assert journal[-1] == "down a"


async def test_a_block_that_fails_while_its_tree_gives_up_loses_neither_error(autojump_clock: MockClock) -> None:
    root = Supervisor([member("a")], intensity=Intensity(0, 1))

    async def block() -> None:
        try:
            root.ref("a").cast(CrashCast())
            await trio.sleep_forever()
        finally:
            raise KeyError("mine")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with running(root):
            await block()
    assert caught.group_contains(KeyError)
    assert caught.group_contains(GaveUp)
