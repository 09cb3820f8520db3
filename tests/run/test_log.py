"""The run log: many followers, one writer, one end."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.run import Follower, LogLimitExceeded, Run, RunLog
from llm_protocol.content import Message, Text
from llm_protocol.events import Event, Failed, Finished, ItemDone, ItemStarted, Started, TextDelta, count_pieces, merged
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import Fold
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason

ANSWER: list[Event] = [
    Started(model="m"),
    ItemStarted(index=0, kind="text"),
    TextDelta(0, "one "),
    TextDelta(0, "two"),
    ItemDone(index=0, part=Text("one two")),
    Finished(reason=FinishReason.STOP),
]
REQUEST = ChatRequest(messages=(Message.of("user", "hi"),))


async def read(follower: Follower) -> list[Event]:
    found: list[Event] = []
    with follower:
        while events := await follower.next():
            found.extend(events)
    return found


async def test_every_follower_sees_every_event_however_late_it_comes() -> None:
    log = RunLog()
    seen: list[list[Event]] = []

    async def follow() -> None:
        seen.append(await read(log.follow()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        for event in ANSWER[:3]:
            log.append(event)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(follow)
        for event in ANSWER[3:]:
            log.append(event)
    seen.append(await read(log.follow()))

    assert seen == [ANSWER, ANSWER, ANSWER]
    assert log.followers == 0


@given(st.integers(0, len(ANSWER)))
def test_a_follower_that_starts_later_in_the_log_sees_the_rest(start: int) -> None:
    async def main() -> list[Event]:
        log = RunLog()
        for event in ANSWER:
            log.append(event)
        return await read(log.follow(start))

    assert trio.run(main) == ANSWER[start:]


async def test_a_full_log_refuses_the_next_event_but_never_the_end() -> None:
    log = RunLog(limit_bytes=1000)
    log.append(Started())

    with pytest.raises(LogLimitExceeded):
        log.append(TextDelta(0, "x" * 1000))
    log.append(Failed(failure=Failure(kind=FailureKind.LOG_LIMIT, message="too long")))

    assert log.end is not None


async def test_what_comes_after_the_end_is_dropped_and_reported() -> None:
    """A cancelled run is closed at once, and a writer that was scheduled with data in the same pass still appends."""
    log = RunLog()
    late: list[int] = []
    log.on_late = lambda: late.append(1)
    with log.follow() as follower:
        for event in ANSWER:
            log.append(event)
        size = log.size
        for event in (TextDelta(0, "late"), ANSWER[-1], Failed(failure=Failure(kind=FailureKind.NETWORK, message=""))):
            log.append(event)

        assert await read(follower) == ANSWER
    assert (log.end, log.size, len(late)) == (ANSWER[-1], size, 3)


async def test_the_writer_is_never_made_to_wait_by_a_follower_that_does_not_read() -> None:
    """A slow follower costs the log, nothing else."""
    log = RunLog()
    with log.follow() as slow:
        for _ in range(10_000):
            log.append(TextDelta(0, "x"))
        assert sum(map(count_pieces, slow.take())) == 10_000


async def test_wake_is_called_at_each_append_and_no_more_after_closing() -> None:
    log = RunLog()
    woken: list[int] = []
    follower = log.follow(wake=lambda: woken.append(1))
    log.append(Started())
    follower.close()
    follower.close()
    log.append(TextDelta(0, "x"))

    assert woken == [1]


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    log = RunLog()
    with log.follow() as follower:
        with trio.move_on_after(0):
            await follower.next()
        log.append(Started())
        assert await follower.next() == [Started()]


async def test_several_followers_wait_at_once() -> None:
    log, seen = RunLog(), []

    async def read(follower: Follower) -> None:
        seen.append(await follower.next())

    with log.follow() as one, log.follow() as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, one)
            nursery.start_soon(read, other)
            await trio.testing.wait_all_tasks_blocked()
            log.append(Started(model="m"))
    assert [len(each) for each in seen] == [1, 1]


async def test_the_last_follower_to_leave_cancels_the_run() -> None:
    run = Run(REQUEST, stream=True)
    first, second = run.follow(), run.follow()
    first.close()
    assert run.cancelled_because is None

    second.close()

    assert run.cancelled_because is not None
    assert run.scope.cancel_called


async def test_a_background_run_outlives_its_followers() -> None:
    run = Run(REQUEST, stream=True, background=True)
    run.follow().close()

    assert not run.scope.cancel_called


async def test_leaving_after_the_end_cancels_nothing() -> None:
    run = Run(REQUEST, stream=True)
    with run.follow():
        run.log.append(Finished(reason=FinishReason.STOP))

    assert not run.scope.cancel_called


async def test_closing_a_run_gives_its_log_an_end_that_says_why() -> None:
    cancelled, late, stopped = (Run(REQUEST, stream=True) for _ in range(3))
    cancelled.cancel("the client said so")
    late.scope.deadline = trio.current_time() - 1
    for run in (cancelled, late, stopped):
        run.log.append(TextDelta(0, "x"))
        run.close()
        run.close()

    kinds = [run.log.end.failure.kind for run in (cancelled, late, stopped) if isinstance(run.log.end, Failed)]
    assert kinds == [FailureKind.CANCELLED, FailureKind.DEADLINE, FailureKind.SHUTTING_DOWN]
    assert isinstance(cancelled.log.end, Failed)
    assert cancelled.log.end.failure.partial


def test_merging_joins_adjacent_deltas_of_one_item_only() -> None:
    events = [*ANSWER[:4], TextDelta(1, "a"), TextDelta(1, "b"), TextDelta(0, "c"), *ANSWER[4:]]

    found = list(merged(events))

    assert sum(count for _, count in found) == len(events)
    assert [event.text for event, _ in found if isinstance(event, TextDelta)] == ["one two", "ab", "c"]


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=3)), max_size=30))
def test_merging_changes_no_answer(pieces: list[tuple[int, str]]) -> None:
    starts: list[Event] = [ItemStarted(index=index, kind="text") for index in range(3)]
    events = [*starts, *(TextDelta(index, text) for index, text in pieces)]

    assert Fold().add_all(event for event, _ in merged(events)).parts() == Fold().add_all(events).parts()
