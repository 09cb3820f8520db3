"""What followers see when attempts break."""

from __future__ import annotations

import pytest

from llm_actors.orchestrator.stream_recovery import StreamRecovery
from llm_actors.run import LogLimitExceeded, RunLog, weigh
from llm_protocol.content import Message, Reasoning, Text, ToolCall
from llm_protocol.events import (
    Event,
    FieldsAdded,
    ItemDone,
    ItemStarted,
    ReasoningDelta,
    Restarted,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.fold import Fold, item_events
from llm_protocol.policy import OnBrokenStream
from llm_protocol.requests import ChatRequest, CodeRequest, CompletionRequest
from llm_protocol.response import Usage

CHAT = ChatRequest(messages=(Message.of("user", "hi"),))
BEGUN: list[Event] = [
    Started(model="a"),
    ItemStarted(index=0, kind="text"),
    TextDelta(0, "one, "),
    TextDelta(0, "two "),
]


def rescue(mode: OnBrokenStream, events: list[Event]) -> tuple[StreamRecovery, RunLog]:
    log = RunLog()
    made = StreamRecovery(log, mode)
    for event in events:
        made.sink(event)
    return made, log


@pytest.mark.parametrize("mode", ["error", "continue", "restart"])
def test_only_events_after_the_first_content_go_to_the_log_directly(mode: OnBrokenStream) -> None:
    made, log = rescue(mode, BEGUN[:2])
    assert made.direct is None
    made.sink(BEGUN[2])
    assert made.direct is not None
    made.direct(BEGUN[3])
    assert log.events == BEGUN
    made.resume(CHAT)
    assert made.direct is None

    for event in [Started(model="b"), ItemStarted(index=0, kind="text"), TextDelta(0, "three")]:
        made.sink(event)
    assert (made.direct is None) is (mode == "continue"), "a continuation renumbers its events"


def test_a_buffered_response_goes_nowhere_directly() -> None:
    made, _ = rescue("buffer", BEGUN)
    assert made.direct is None


def text(log: RunLog) -> str:
    return "".join(part.text for part in Fold().add_all(log.events).parts() if isinstance(part, Text))


@pytest.mark.parametrize("mode", ["error", "buffer", "continue", "restart"])
def test_an_attempt_that_failed_before_its_first_content_leaves_no_trace(mode: OnBrokenStream) -> None:
    announced = ItemStarted(index=0, kind="tool_call", id="c1", name="look")
    made, log = rescue(mode, [Started(model="a"), UsageReported(Usage(input_tokens=7)), announced])

    assert (made.delivered, made.resume(CHAT)) == (False, CHAT)
    for event in [Started(model="b"), *item_events(0, Text("whole"))]:
        made.sink(event)
    made.commit()

    assert [type(event) for event in log.events] == [Started, ItemStarted, TextDelta, ItemDone]
    assert [event.model for event in log.events if isinstance(event, Started)] == ["b"]
    assert text(log) == "whole"


def test_a_continuation_that_says_nothing_leaves_no_trace() -> None:
    """Else the answer would be said to be of a model that had no part in it."""
    made, log = rescue("continue", BEGUN)
    made.resume(CHAT)
    made.sink(Started(model="b"))
    made.sink(UsageReported(Usage(input_tokens=7)))
    made.sink(ItemStarted(index=0, kind="text"))

    assert made.resume(CHAT) is not None
    assert log.events == BEGUN


def test_error_gives_up_after_content_was_delivered() -> None:
    made, log = rescue("error", BEGUN)

    assert made.resume(CHAT) is None
    assert text(log) == "one, two "


def test_buffer_delivers_nothing_until_the_answer_is_whole_and_then_another_one() -> None:
    made, log = rescue("buffer", BEGUN)
    assert not log.events

    assert made.resume(CHAT) is CHAT
    for event in [Started(model="b"), *item_events(0, Text("whole"))]:
        made.sink(event)
    assert not log.events
    made.commit()

    assert text(log) == "whole"


def test_buffer_is_bounded_as_the_log_is() -> None:
    made = StreamRecovery(RunLog(limit_bytes=1_000), "buffer")
    made.sink(TextDelta(0, "x" * 800))
    with pytest.raises(LogLimitExceeded):
        made.sink(TextDelta(0, "x" * 800))


def test_restart_tells_the_followers_to_forget() -> None:
    made, log = rescue("restart", BEGUN)

    assert made.resume(CHAT) is CHAT
    assert log.events[-1] == Restarted()
    for event in [Started(model="b"), *item_events(0, Text("whole"))]:
        made.sink(event)

    assert text(log) == "whole"


def test_continue_asks_another_to_go_on_and_joins_the_text() -> None:
    made, log = rescue("continue", BEGUN)

    request = made.resume(CHAT)
    assert isinstance(request, ChatRequest)
    assert request.messages[-1] == Message.of("assistant", "one, two")
    assert made.continuing
    more: list[Event] = [
        Started(model="b"),
        ItemStarted(index=0, kind="text"),
        TextDelta(0, " three"),
        ItemDone(index=0, part=Text(" three")),
    ]
    for event in more:
        made.sink(event)

    assert text(log) == "one, two three"
    assert [event for event in log.events if isinstance(event, ItemStarted)] == [BEGUN[1]]
    assert log.events[-1] == ItemDone(index=0, part=Text("one, two three"))


def test_continue_keeps_the_numbers_of_further_items_apart() -> None:
    thought = [*item_events(0, Reasoning(text="hm")), ItemStarted(index=1, kind="text"), TextDelta(1, "one")]
    made, log = rescue("continue", thought)
    assert made.resume(CHAT) is not None
    call = ToolCall(id="c", name="f", arguments="{}")
    more = [*item_events(0, Reasoning(text="again")), *item_events(1, Text(" two")), *item_events(2, call)]
    for event in more:
        made.sink(event)

    parts = Fold().add_all(log.events).parts()
    assert parts == (Reasoning(text="hm"), Text("one two"), Reasoning(text="again"), call)


def test_a_second_break_is_continued_from_all_the_text_so_far() -> None:
    made, _ = rescue("continue", BEGUN)
    made.resume(CHAT)
    made.sink(ItemStarted(index=0, kind="text"))
    made.sink(TextDelta(0, "three,"))

    again = made.resume(CHAT)

    assert isinstance(again, ChatRequest)
    assert again.messages[1:] == (Message.of("assistant", "one, two three,"),)


def test_a_completion_is_continued_in_its_prompt() -> None:
    made, _ = rescue("continue", BEGUN)
    request = made.resume(CompletionRequest(prompt="zero, "))
    assert isinstance(request, CompletionRequest)
    assert request.prompt == "zero, one, two"


@pytest.mark.parametrize(
    "events",
    [
        [ItemStarted(index=0, kind="tool_call", id="c", name="f"), ToolCallDelta(0, "{")],
        [*item_events(0, ToolCall(id="c", name="f")), ItemStarted(index=1, kind="text"), TextDelta(1, "x")],
        [ItemStarted(index=0, kind="reasoning"), ReasoningDelta(0, "hm")],
        [*item_events(0, Text("done"))],
    ],
)
def test_what_cannot_be_continued_is_an_error(events: list[Event]) -> None:
    made, _ = rescue("continue", events)
    assert made.resume(CHAT) is None


def test_code_is_not_continued() -> None:
    made, _ = rescue("continue", BEGUN)
    assert made.resume(CodeRequest(instruction="x")) is None


def test_what_is_held_back_until_there_is_content_fits_the_log() -> None:
    """A response without content ends well, so what was held must be deliverable then."""
    log = RunLog(limit_bytes=10_000)
    made = StreamRecovery(log, "error")
    fields = FieldsAdded(dialect="openai_chat", fields={"": {"note": "x" * 3_000}})
    for _ in range(3):
        made.sink(fields)
    with pytest.raises(LogLimitExceeded):
        made.sink(fields)
    made.commit()
    assert len(log) == 3
    assert made.resume(CHAT) == CHAT


@pytest.mark.parametrize("text", ["x" * 1_000, "é" * 1_000, "x" * 999 + "😀"])
@pytest.mark.parametrize("mode", ["error", "buffer"])
def test_a_response_that_is_held_back_may_be_as_large_as_another(mode: OnBrokenStream, text: str) -> None:
    """The complete part repeats its deltas, and does not count again."""
    pieces = [text] * 200
    log = RunLog(limit_bytes=sum(map(weigh, (TextDelta(0, each) for each in pieces))) * 11 // 10)
    made = StreamRecovery(log, mode)
    made.sink(ItemStarted(index=0, kind="text"))
    for each in pieces:
        made.sink(TextDelta(0, each))
    made.sink(ItemDone(index=0, part=Text("".join(pieces))))
    made.commit()
    assert Fold().add_all(log.events).parts() == (Text("".join(pieces)),)
    assert log.size <= log.limit_bytes


def test_what_is_held_back_after_a_break_has_what_is_left_of_the_log() -> None:
    log = RunLog(limit_bytes=10_000)
    log.append(TextDelta(0, "x" * 5_000))
    made = StreamRecovery(log, "buffer")
    made.sink(TextDelta(1, "y" * 4_000))
    assert made.resume(CHAT) is CHAT
    made.sink(TextDelta(1, "y" * 4_000))
    with pytest.raises(LogLimitExceeded):
        made.sink(TextDelta(1, "z" * 1_000))


@pytest.mark.parametrize("blank", ["", "\n\n"])
def test_after_nothing_but_space_any_model_may_answer(blank: str) -> None:
    """There is no text to continue, and vendors refuse an empty turn of the assistant."""
    made, log = rescue("continue", [Started(model="a"), ItemStarted(index=0, kind="text"), TextDelta(0, blank)])

    assert made.resume(CHAT) is CHAT
    assert not made.needs_prefill
    for event in [Started(model="b"), *item_events(0, Text("\nwhole"))]:
        made.sink(event)
    assert Fold().add_all(log.events).parts() == (Text(blank + ("whole" if blank else "\nwhole")),)


def test_after_a_text_only_a_model_that_continues_it_may_answer() -> None:
    made, _ = rescue("continue", BEGUN)
    assert not made.needs_prefill
    assert made.resume(CHAT) is not CHAT
    assert made.needs_prefill
