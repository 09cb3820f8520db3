"""What is undone on the way back: names, custom tools, stop sequences, JSON."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.content import HostedTool, Message, Opaque, Text, Tool, ToolCall, ToolChoice, ToolResult
from llm_protocol.errors import UnsupportedError
from llm_protocol.events import Event, Failed, Finished, ItemDone, ItemStarted, TextDelta, UsageReported
from llm_protocol.failures import FailureKind
from llm_protocol.fold import Fold, item_events
from llm_protocol.model_facts import ModelRule
from llm_protocol.parameters.adapt import adapt, refuse_lossy
from llm_protocol.parameters.names import accepted, is_accepted
from llm_protocol.parameters.restore import EventFilter, JsonKeeper, StopCutter, ToolRestorer
from llm_protocol.parameters.targets import TARGETS, NameLimit
from llm_protocol.requests import ChatRequest, Parameters
from llm_protocol.response import FinishReason, Usage

HI = (Message.of("user", "hi"),)
DONE = Finished(reason=FinishReason.STOP)


def through(made: EventFilter, *events: Event) -> list[Event]:
    """The events, fed one by one, up to the first end."""
    out: list[Event] = []
    for event in events:
        out += made.feed([event])
        if out and isinstance(out[-1], Finished | Failed):
            break
    return out


def text(events: list[Event]) -> str:
    return "".join(part.text for part in Fold().add_all(events).parts() if isinstance(part, Text))


@given(
    st.text(alphabet="abE ND", max_size=40),
    st.lists(st.text(alphabet="abEND", min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(1, 9),
)
def test_an_answer_is_cut_where_the_stop_sequence_begins_that_is_complete_first(
    said: str, stops: list[str], piece: int
) -> None:
    """However the text was cut into deltas; nothing of the sequence is told, and no delta is ever taken back."""
    events = [*item_events(0, Text(said), piece=piece), UsageReported(Usage(output_tokens=3)), DONE]
    told = through(StopCutter(stops), *events)
    ends = [(at + len(stop), at) for stop in stops if (at := said.find(stop)) >= 0]
    expected = said[: min(ends)[1]] if ends else said
    assert text(told) == expected
    assert "".join(event.text for event in told if isinstance(event, TextDelta)) == expected
    assert isinstance(told[-1], Finished)


def test_what_the_vendor_counted_of_a_whole_answer_is_told_behind_the_cut() -> None:
    usage = UsageReported(Usage(output_tokens=9))
    told = StopCutter(["END"]).feed([*item_events(0, Text("aENDb")), usage, DONE])
    assert told[-2:] == [usage, Finished(reason=FinishReason.STOP, raw_reason="stop_sequence")]


def test_tools_come_back_under_their_own_names() -> None:
    tool = Tool(name="github.com/x.get")
    request = ChatRequest(model="m", messages=HI, tools=(tool,), tool_choice=ToolChoice("named", tool.name))
    adapted = adapt(request, TARGETS["anthropic"], ModelRule())
    assert isinstance(adapted.request, ChatRequest)
    [sent] = adapted.request.tools
    assert isinstance(sent, Tool)
    assert sent.name == "github_com_x_get"
    assert adapted.request.tool_choice == ToolChoice("named", sent.name)
    [make] = adapted.filters
    told = through(make(), *item_events(0, ToolCall(id="c", name=sent.name)), DONE)
    assert [event.name for event in told if isinstance(event, ItemStarted)] == [tool.name]
    assert [event.part for event in told if isinstance(event, ItemDone)] == [ToolCall(id="c", name=tool.name)]
    refuse_lossy(adapted)  # a name that comes back as it was is no loss


def test_a_custom_tool_comes_back_as_a_custom_call() -> None:
    """Over both of OpenAI's wires; its history goes out as a function's."""
    tool = HostedTool(dialect="openai_responses", value={"type": "custom", "name": "patch"})
    call = {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** x"}
    result = {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"}
    messages = (
        *HI,
        Message("assistant", (Opaque(dialect="openai_responses", value=call),)),
        Message("tool", (Opaque(dialect="openai_responses", value=result),)),
    )
    request = ChatRequest(model="m", messages=messages, tools=(tool,), parameters=Parameters(wire="openai_responses"))
    adapted = adapt(request, TARGETS["gemini"], ModelRule())
    assert isinstance(adapted.request, ChatRequest)
    assert adapted.request.messages[1].content == (ToolCall(id="c", name="patch", arguments='{"input":"*** x"}'),)
    assert adapted.request.messages[2].content == (ToolResult(call_id="c", content=(Text("ok"),)),)
    [make] = adapted.filters
    called = ToolCall(id="d", name="patch", arguments='{"input":"*** y"}')
    told = through(make(), *item_events(0, called, piece=3), DONE)
    [done] = [event.part for event in told if isinstance(event, ItemDone)]
    assert isinstance(done, Opaque)
    assert (done.value["type"], done.value["input"], done.value["call_id"]) == ("custom_tool_call", "*** y", "d")


def test_arguments_that_are_not_the_form_are_the_input() -> None:
    made = ToolRestorer({}, frozenset(("patch",)), "openai_chat")
    told = through(made, *item_events(0, ToolCall(id="d", name="patch", arguments="{}")), DONE)
    [done] = [event.part for event in told if isinstance(event, ItemDone)]
    assert isinstance(done, Opaque)
    assert done.value["custom"] == {"name": "patch", "input": "{}"}


@pytest.mark.parametrize(("said", "kept"), [('```json\n{"a": 1}\n```', '{"a": 1}'), ('{"a": 1}', '{"a": 1}')])
def test_json_loses_its_fence(said: str, kept: str) -> None:
    told = through(JsonKeeper(), *item_events(0, Text(said), piece=4), DONE)
    assert text(told) == kept
    assert told[-1] == DONE


def test_an_answer_that_is_no_json_is_a_failed_attempt() -> None:
    told = through(JsonKeeper(), *item_events(0, Text("Sure! Here it is")), DONE)
    assert isinstance(told[-1], Failed)
    assert told[-1].failure.kind is FailureKind.PROTOCOL


@given(st.lists(st.text(min_size=1, max_size=90), max_size=6), st.integers(12, 64))
def test_names_are_told_apart_after_they_were_rewritten(names: list[str], length: int) -> None:
    limit = NameLimit(length)
    found = accepted(names, limit)
    sent = [found.get(name, name) for name in dict.fromkeys(names)]
    assert len(set(sent)) == len(sent)
    assert all(is_accepted(name, limit) for name in sent)


def test_strict_refuses_what_would_be_lost() -> None:
    request = ChatRequest(model="m", messages=HI, parameters=Parameters(seed=1))
    with pytest.raises(UnsupportedError, match="seed") as caught:
        refuse_lossy(adapt(request, TARGETS["anthropic"], ModelRule()))
    assert caught.value.failure.param == "seed"
