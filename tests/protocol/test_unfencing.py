"""Taking the fence off streamed code: the same text however it was cut."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.codec.code_fences import HOLD_LIMIT, CodeFenceStripper
from llm_protocol.content import Reasoning, Text
from llm_protocol.events import (
    Event,
    Failed,
    Finished,
    ItemDone,
    ItemStarted,
    ReasoningDelta,
    Started,
    TextDelta,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.response import FinishReason, Usage
from support.streams import check_order


def events_of(pieces: list[str]) -> list[Event]:
    """An answer of one text."""
    deltas = [TextDelta(0, piece) for piece in pieces if piece]
    whole = ItemDone(index=0, part=Text("".join(pieces), signature="s"))
    return [Started(), ItemStarted(index=0, kind="text"), *deltas, whole, Finished(reason=FinishReason.STOP)]


def unfenced(*pieces: str) -> str:
    """The text that comes out; the deltas and the whole item must agree."""
    unfencer = CodeFenceStripper()
    out = [event for given_ in events_of(list(pieces)) for event in unfencer.feed([given_])]
    check_order(out)
    [done] = [event.part for event in out if isinstance(event, ItemDone)]
    assert isinstance(done, Text)
    assert done.signature == "s"
    assert "".join(event.text for event in out if isinstance(event, TextDelta)) == done.text
    return done.text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1\n", "x = 1\n"),
        ("```python\nx = 1\n```", "x = 1"),
        ("```python\nx = 1\n```\n", "x = 1"),
        ("\n\n```\nx = 1\n\n```  \n\n", "x = 1\n"),
        ("~~~py\nx\n~~~", "x"),
        ("````md\n```py\nx\n```\n````", "```py\nx\n```"),
        ("```\n```", ""),
        ("```c++ title=a\nx", "x"),
        ("```python\nx\n``", "x\n``"),
        ("```python\nx```", "x```"),
        ("```python\nx\n  ```", "x"),
        ("```python\nx\n~~~", "x\n~~~"),
        ("```python\nx\n```\nThat is all.", "x\n```\nThat is all."),
        ("```a\nx\n```\n\n```b\ny\n```", "x\n```\n\n```b\ny"),
        ("```python", "```python"),
        ("```x``` is code", "```x``` is code"),
        ("    return 1\n", "    return 1\n"),
        ("`", "`"),
        ("", ""),
        (" \n ", " \n "),
        ("Here:\n```\nx\n```", "Here:\n```\nx\n```"),
        ("```" + "i" * HOLD_LIMIT + "\nx\n```", "```" + "i" * HOLD_LIMIT + "\nx\n```"),
        (" " * HOLD_LIMIT + "```\nx\n```", " " * HOLD_LIMIT + "```\nx\n```"),
        ("```\nx\n```" + " " * HOLD_LIMIT, "x\n```" + " " * HOLD_LIMIT),
    ],
)
def test_what_is_a_fence(text: str, code: str) -> None:
    """Only the line that begins the text, and the line that ends it; whole and letter by letter."""
    assert unfenced(text) == code
    assert unfenced(*text) == code


def reference(text: str) -> str:
    """The rule in two regular expressions, on the whole text."""
    head = re.match(r"\s*(`{3,}|~{3,})[^\n`]*\n", text)
    if not head or head.end() > HOLD_LIMIT:
        return text
    body = "\n" + text[head.end() :]
    tail = re.compile(rf"\n[ \t]*{head[1][0]}{{{len(head[1])},}}\s*\Z")
    found: Any = tail.search(body)
    while found and len(body) - found.start() > HOLD_LIMIT:
        found = tail.search(body, found.start() + 1)
    return body[1 : found.start()] if found else body[1:]


alphabet = st.text("`~\n py", max_size=30)
pad = st.sampled_from(["", " " * (HOLD_LIMIT - 4), "\n" * (HOLD_LIMIT - 3), "\n" * 300, "```"])
fenced = st.tuples(
    st.sampled_from(["", "\n", " "]), st.sampled_from(["```\n", "````py\n", "~~~\n", ""]), alphabet, pad, alphabet, pad,
    st.sampled_from(["\n```", "\n````", "\n~~~\n", ""]),
).map("".join)  # fmt: skip


@given(fenced | alphabet, st.lists(st.integers(0, 700), max_size=20))
def test_cuts_make_no_difference(text: str, cuts: list[int]) -> None:
    """Any split of any text gives what the rule says of the whole."""
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert unfenced(*(text[a:b] for a, b in itertools.pairwise(bounds))) == reference(text)
    assert unfenced(*text) == reference(text)


def test_code_flows_while_it_comes() -> None:
    """Nothing is held that cannot be a fence."""
    unfencer = CodeFenceStripper()
    unfencer.feed([Started(), ItemStarted(index=0, kind="text")])
    told = [unfencer.feed([TextDelta(0, piece)]) for piece in ("```py", "\n", "a = 1", "\n", "b = 2\n``", "`\n", "c")]
    assert told == [[], [], [TextDelta(0, "a = 1")], [], [TextDelta(0, "\nb = 2")], [], [TextDelta(0, "\n```\nc")]]


def test_a_broken_answer_gives_what_was_held() -> None:
    """The partial text is whole: held characters come before the failure."""
    unfencer = CodeFenceStripper()
    unfencer.feed([Started(), ItemStarted(index=0, kind="text"), TextDelta(0, "```\nx\n``")])
    failed = Failed(failure=Failure(kind=FailureKind.TRUNCATED, message="cut"))
    assert unfencer.feed([failed]) == [TextDelta(0, "\n``"), failed]


def test_items_without_deltas_and_other_items() -> None:
    """A whole text is unfenced too; reasoning and usage pass untouched."""
    others: list[Event] = [
        ItemStarted(index=0, kind="reasoning"),
        ReasoningDelta(0, "```\n"),
        ItemDone(index=0, part=Reasoning(text="```\n")),
        UsageReported(Usage()),
    ]
    whole: list[Event] = [ItemStarted(index=1, kind="text"), ItemDone(index=1, part=Text("```\nx\n```"))]
    assert CodeFenceStripper().feed([*others, *whole]) == [
        *others,
        whole[0],
        TextDelta(1, "x"),
        ItemDone(index=1, part=Text("x")),
    ]


def test_time_is_linear_in_hostile_texts() -> None:
    """Long runs of what could be fences are held at most `HOLD_LIMIT` characters each."""
    unfencer = CodeFenceStripper()
    unfencer.feed([ItemStarted(index=0, kind="text"), TextDelta(0, "```\n")])
    for piece in ("\n", "`", " ", "\n```"):
        for _ in range(3000):
            held = unfencer.feed([TextDelta(0, piece)])
            assert sum(len(event.text) for event in held if isinstance(event, TextDelta)) <= HOLD_LIMIT + len(piece)
