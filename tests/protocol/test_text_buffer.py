"""A text that grows by pieces."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.codec.items import TextBuffer


@given(st.lists(st.text(max_size=4), max_size=192))
def test_it_holds_what_was_added(pieces: list[str]) -> None:
    buffer = TextBuffer()
    for piece in pieces:
        buffer.append(piece)

    assert buffer.text() == "".join(pieces)
    assert bool(buffer) == any(pieces)

    buffer.clear()
    assert not buffer
    assert buffer.text() == ""


def test_lone_surrogates_stay_as_they_were_added() -> None:
    """A text of the program that embeds the runtime may contain them. Halves in two pieces do not become a pair."""
    buffer = TextBuffer()
    for piece in ("é\ud83d", "\ude00", "\U0001f600"):
        buffer.append(piece)

    assert buffer.text() == "é\ud83d\ude00\U0001f600"


def test_a_long_text_costs_what_it_is_long() -> None:
    buffer = TextBuffer()
    tracemalloc.start()
    try:
        for number in range(100_000):
            buffer.append(f"{number:04d}"[:4])
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(buffer.text()) == 400_000
    assert taken < 450_000
