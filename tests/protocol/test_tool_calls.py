"""Tool calls put together from pieces, as real servers send them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.codec.tool_calls import CallPiece, InvalidToolCall, PendingCall, ToolCalls
from llm_protocol.content import Opaque, ToolCall
from llm_protocol.events import Event, ItemDone, ItemKind, ItemStarted, ToolCallDelta


def piece(
    index: int | None = None, id_: str = "", name: str = "", text: str = "", *, is_alone: bool = True
) -> CallPiece:
    return CallPiece(index=index, id=id_, name=name, text=text, is_alone=is_alone)


def events_of(*pieces: CallPiece, cut: bool = False, drop_last: bool = False) -> list[Event]:
    out: list[Event] = []
    items = iter(range(1_000))

    def begin(kind: ItemKind, call: PendingCall) -> int:
        index = next(items)
        out.append(ItemStarted(index=index, kind=kind, id=call.id, name=call.name))
        return index

    def part(call: PendingCall, text: str) -> ToolCall | Opaque:
        return ToolCall(id=call.id, name=call.name, arguments=text)

    calls = ToolCalls("made", "wire", begin, out.append)
    for each in pieces:
        calls.add(each)
    calls.close(part, cut=cut, drop_last=drop_last)
    return out


def calls_of(*pieces: CallPiece, cut: bool = False, drop_last: bool = False) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call; what followers were told adds up to the same."""
    events = events_of(*pieces, cut=cut, drop_last=drop_last)
    done = {event.index: event.part for event in events if isinstance(event, ItemDone)}
    found = []
    for event in events:
        if isinstance(event, ItemStarted) and event.index in done:
            call = done[event.index]
            assert isinstance(call, ToolCall)
            told = "".join(e.text for e in events if isinstance(e, ToolCallDelta) and e.index == event.index)
            assert (event.id, event.name, told) == (call.id, call.name, call.arguments)
            found.append((call.id, call.name, call.arguments))
    return found


OSLO, ROME = '{"city":"Oslo"}', '{"city":"Rome"}'
ONE = [("a", "f", OSLO)]
TWO = [("a", "f", OSLO), ("b", "f", ROME)]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([piece(0, "a", "f"), piece(0, text='{"city":'), piece(0, text='"Oslo"}')], id="as documented"),
        pytest.param([piece(0, "a", "f"), piece(0, "b", text='{"city":'), piece(0, "b", text='"Oslo"}')], id="two ids"),
        pytest.param([piece(0, "a", "f", '{"city"'), piece(0, "b", "f", ':"Oslo"}')], id="id and name in every piece"),
        pytest.param([piece(0, "a", text='{"city":'), piece(0, "a", "f", '"Oslo"}')], id="name after arguments"),
        pytest.param([piece(None, "a", text='{"city":'), piece(None, "a", "f", '"Oslo"}')], id="the same, no index"),
        pytest.param([piece(None, "a", "f"), piece(text='{"city":'), piece(text='"Oslo"}')], id="no index"),
        pytest.param([piece(0, "a", "f"), piece(text='{"city":'), piece(text='"Oslo"}')], id="index only at first"),
        pytest.param(
            [piece(None, "a", "f"), piece(0, text='{"city":'), piece(0, text='"Oslo"}')], id="index only later"
        ),
        pytest.param(
            [piece(0, "a", "f", '{"city"'), piece(0, text='{"city":"Os'), piece(0, text=OSLO)], id="cumulative"
        ),
        pytest.param(
            [piece(0, "a", "f"), piece(0, "a", text=OSLO), piece(0, "a", "f", OSLO)], id="the whole call again"
        ),
        pytest.param([piece(0, "a", "f", OSLO), piece(0, "", "f", OSLO)], id="the whole call again, without id"),
        pytest.param([piece(0, "a", "f", '{"ci'), piece(0, text='ty":"Oslo"}'), piece(0, text="")], id="an empty end"),
        pytest.param([piece(0, "a", "f", OSLO), piece(1, "a", "f", OSLO)], id="the same id under another index"),
        pytest.param([piece(0, "a", "f", "{"), piece(0, "a", "f", '"city":"Oslo"}')], id="name repeated"),
    ],
)
def test_one_call(pieces: list[CallPiece]) -> None:
    assert calls_of(*pieces) == ONE


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            [piece(0, "a", "f"), piece(0, text=OSLO), piece(1, "b", "f"), piece(1, text=ROME)], id="as documented"
        ),
        pytest.param(
            [piece(0, "a", "f"), piece(1, "b", "f"), piece(0, text=OSLO), piece(1, text=ROME)], id="interleaved"
        ),
        pytest.param(
            [piece(0, "a", "f"), piece(0, text=OSLO), piece(0, "b", "f"), piece(0, text=ROME)], id="all index 0"
        ),
        pytest.param([piece(None, "a", "f"), piece(text=OSLO), piece(None, "b", "f"), piece(text=ROME)], id="no index"),
        pytest.param(
            [piece(None, "a", "f", OSLO, is_alone=False), piece(None, "b", "f", ROME, is_alone=False)], id="in one list"
        ),
    ],
)
def test_two_calls(pieces: list[CallPiece]) -> None:
    assert calls_of(*pieces) == TWO


def test_equal_calls_without_any_mark_are_two() -> None:
    """None is ever lost; with the same index the second would be a repetition."""
    assert calls_of(piece(None, "", "f", OSLO), piece(None, "", "f", OSLO)) == [
        ("made_0", "f", OSLO),
        ("made_1", "f", OSLO),
    ]


def test_a_name_in_pieces_is_joined() -> None:
    assert calls_of(
        piece(0, "a", "get_"), piece(0, "", "weather"), piece(0, "", "get_weather"), piece(0, text=OSLO)
    ) == [("a", "get_weather", OSLO)]


@pytest.mark.parametrize("text", ["", "null", " null ", "{}"])
def test_no_arguments(text: str) -> None:
    """Left out, null, an empty text and an empty object are all a call without arguments."""
    assert calls_of(piece(0, "a", "f", text)) == [("a", "f", "{}")]
    assert calls_of(piece(0, "a", "f"), *(piece(0, text=each) for each in text)) == [("a", "f", "{}")]


def test_a_call_is_announced_with_its_name_at_its_first_arguments() -> None:
    [started, *rest] = events_of(piece(0, "a", "f"), piece(0, text=OSLO))
    assert started == ItemStarted(index=0, kind="tool_call", id="a", name="f")
    assert rest[0] == ToolCallDelta(0, OSLO)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([piece(0, "a", "f", '{"city":')], id="half"),
        pytest.param([piece(0, "a", "f", OSLO), piece(0, text=ROME)], id="two objects glued together"),
        pytest.param([piece(0, "a", "", OSLO)], id="no name"),
        pytest.param([piece(0, "a", "f", OSLO + "x")], id="surplus text"),
        pytest.param([piece(0, "a", "f", "[" * 5_000)], id="nested without end"),
    ],
)
def test_a_call_that_cannot_be_made_is_an_error(pieces: list[CallPiece]) -> None:
    with pytest.raises(InvalidToolCall):
        events_of(*pieces)
    assert calls_of(*pieces, cut=True) == []


def test_of_an_answer_that_was_cut_whole_calls_remain() -> None:
    pieces = (piece(0, "a", "f", OSLO), piece(1, "b", "f", ROME), piece(2, "c", "f", '{"ci'))
    assert calls_of(*pieces, cut=True) == TWO
    assert calls_of(*pieces[:2], cut=True, drop_last=True) == ONE


arguments = st.dictionaries(
    st.text(max_size=5), st.text(max_size=8) | st.integers() | st.lists(st.booleans()), max_size=4
)


@given(st.data(), st.lists(st.tuples(st.sampled_from(["f", "g", "get_weather"]), arguments), min_size=1, max_size=4))
def test_any_way_to_send_them_gives_the_calls(data: Any, wanted: list[tuple[str, dict[str, Any]]]) -> None:
    """Whatever marks a server uses, and however it cuts and repeats: the calls that the model made, in order."""
    style = data.draw(st.sampled_from(["index and id", "index", "id", "all index 0"]))
    cumulative = data.draw(st.booleans())
    pieces: list[CallPiece] = []
    for number, (name, value) in enumerate(wanted):
        text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
        index = {"id": None, "all index 0": 0}.get(style, number)
        id_ = "" if style == "index" else f"id_{number}"
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
        begin = piece(index, id_, name, text[: cuts[0]] if cuts else text)
        pieces.append(begin)
        for at, cut in enumerate(cuts):
            end = cuts[at + 1] if at + 1 < len(cuts) else len(text)
            later = text[:end] if cumulative else text[cut:end]
            pieces.append(piece(index, id_ if data.draw(st.booleans()) else "", "", later))
    expected = [(name, value) for name, value in wanted]
    assert [(name, json.loads(text)) for _, name, text in calls_of(*pieces)] == expected
