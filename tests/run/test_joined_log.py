"""What lies far behind in a run log is kept joined, and still read as if it were not."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.run import LogLimitExceeded, RunLog, weigh
from llm_actors.run.log import EVENT_BYTES, JOINED_CHARACTERS, NEWEST_EVENTS
from llm_protocol.content import Image, Text
from llm_protocol.events import (
    MAX_PIECE,
    AnyDelta,
    Event,
    ItemDone,
    ItemStarted,
    MemberDelta,
    ReasoningDelta,
    Restarted,
    TextDelta,
    count_pieces,
    cut,
)

TEXTS = st.text(max_size=3) | st.sampled_from(["x" * MAX_PIECE, "x" * (MAX_PIECE + 1), "\N{GRINNING FACE}" * 9, ""])
DELTAS = st.one_of(
    st.builds(TextDelta, st.integers(0, 1), TEXTS),
    st.builds(ReasoningDelta, st.integers(0, 1), TEXTS),
    st.builds(MemberDelta, st.sampled_from(["a", "b"]), TEXTS),
)
EVENTS = st.one_of(DELTAS, st.builds(ItemStarted, index=st.integers(0, 1), kind=st.just("text")))


def apart(events: list[Event]) -> list[Event]:
    """The events with what is joined taken apart."""
    found: list[Event] = []
    for event in events:
        count = count_pieces(event)
        while count > 1:
            assert not isinstance(event, ItemStarted)
            first, event = cut(event, 1)  # type: ignore[arg-type]
            found.append(_plain(first))
            count -= 1
        found.append(_plain(event))
    return found


def _plain(event: Event) -> Event:
    if not isinstance(event, TextDelta | ReasoningDelta | MemberDelta):
        return event
    place = event.member if isinstance(event, MemberDelta) else event.index
    return type(event)(place, event.text)  # type: ignore[arg-type]


@given(st.lists(st.tuples(EVENTS, st.integers(1, 90)), max_size=12), st.data())
def test_any_position_leads_to_exactly_the_rest(runs: list[tuple[Event, int]], data: st.DataObject) -> None:
    events = [event for event, times in runs for _ in range(times)]
    log = RunLog()
    for event in events:
        log.append(event)
    start = data.draw(st.integers(0, len(events)))

    assert len(log) == len(events)
    assert apart(log.read(start)) == events[start:]
    assert apart(log.events) == events


async def test_a_follower_in_the_middle_of_what_is_joined_goes_on_there() -> None:
    log = RunLog()
    pieces = [f"{number} " for number in range(1_000)]
    for piece in pieces[:5]:
        log.append(TextDelta(0, piece))
    with log.follow() as follower:
        follower.take()
        for piece in pieces[5:]:
            log.append(TextDelta(0, piece))
        rest = follower.take()

    assert "".join(event.text for event in rest if isinstance(event, TextDelta)) == "".join(pieces[5:])
    assert follower.position == 1_000
    assert len(rest) < 2 * NEWEST_EVENTS + 2


def test_the_newest_events_are_kept_as_they_came() -> None:
    log = RunLog()
    for number in range(5_000):
        log.append(TextDelta(0, "x"))
        assert all(count_pieces(event) == 1 for event in log.read(max(0, number - NEWEST_EVENTS)))


def test_an_answer_of_65000_tokens_fits_with_its_whole_part() -> None:
    """It failed at its very end, delivered and paid for, when each token cost 120 bytes."""
    log = RunLog()
    for _ in range(65_000):
        log.append(TextDelta(0, "word"))
    log.append(ItemDone(index=0, part=Text("word" * 65_000)))

    assert log.size < 400_000


@pytest.mark.parametrize("over", [0, 1])
def test_the_limit_is_exact(over: int) -> None:
    log = RunLog(limit_bytes=2 * EVENT_BYTES + 100)
    log.append(TextDelta(0, "x" * 40))
    event = TextDelta(0, "x" * (60 + over))
    if over:
        with pytest.raises(LogLimitExceeded):
            log.append(event)
        assert log.read() == [TextDelta(0, "x" * 40)]
    else:
        log.append(event)
        assert log.size == log.limit_bytes


def test_what_is_joined_is_counted_with_all_its_bytes() -> None:
    log = RunLog(limit_bytes=100_000)
    with suppress(LogLimitExceeded):
        while True:
            log.append(TextDelta(0, "x"))

    assert 30_000 < len(log) < 60_000  # a byte of text and one of length each, and the newest with their structs
    assert log.size == sum(map(weigh, log.events))


def test_a_whole_part_is_counted_only_as_far_as_it_repeats_nothing() -> None:
    log = RunLog(limit_bytes=10_000)
    log.append(TextDelta(0, "x" * 5_000))
    log.append(ItemDone(index=0, part=Text("x" * 5_000)))
    assert log.size == 2 * EVENT_BYTES + 5_000

    with pytest.raises(LogLimitExceeded):
        log.append(ItemDone(index=1, part=Text("x" * 5_000)))
    with pytest.raises(LogLimitExceeded):
        log.append(ItemDone(index=1, part=Image(data=b"x" * 5_000)))


def test_after_a_restart_nothing_is_repeated() -> None:
    log = RunLog(limit_bytes=10_000)
    log.append(TextDelta(0, "x" * 5_000))
    log.append(Restarted())

    with pytest.raises(LogLimitExceeded):
        log.append(ItemDone(index=0, part=Text("x" * 5_000)))


def test_text_that_is_not_ascii_is_counted_by_its_memory() -> None:
    assert weigh(TextDelta(0, "\N{GRINNING FACE}" * 1_000)) >= 4_000


def test_a_joined_delta_of_another_log_is_one_event() -> None:
    first, second = RunLog(), RunLog()
    for _ in range(1_000):
        first.append(TextDelta(0, "x"))
    for event in first.read():
        second.append(event)

    assert len(second) == len(first.read())
    assert all(count_pieces(event) == 1 for event in second.events)


def test_a_joined_delta_does_not_grow_without_end() -> None:
    log = RunLog()
    for _ in range(100_000):
        log.append(TextDelta(0, "x"))
    longest = max(len(event.text) for event in log.events if isinstance(event, TextDelta))

    assert longest < 2 * JOINED_CHARACTERS


@pytest.mark.parametrize("delta", [TextDelta(0, ""), MemberDelta("a", "")])
def test_a_long_answer_takes_little_more_than_its_text(delta: AnyDelta) -> None:
    """A stalled follower keeps the log; 65,000 tokens cost at most 256 KiB beside their text."""
    log = RunLog()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(65_000):
            text = f"{number:04d}"[:4]
            log.append(MemberDelta("a", text) if isinstance(delta, MemberDelta) else TextDelta(0, text))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert taken < 4 * 65_000 + 256 * 1024
