"""The SSE decoder: the WHATWG rules, any split, and bounds in memory."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.codec.json import WireError
from llm_protocol.codec.sse import MAX_EVENT_BYTES, STRAY_LIMIT, ServerSentEvent, SseDecoder, encode_sse
from llm_protocol.dialect import Frame

CHUNK = 64 * 1024

SAMPLE = (
    "\ufeffevent: one\r\ndata: first\ndata:second\r\n\r\n: comment\n\ndata\n\n"
    "id: 7\rretry: 10\rdata:  two spaces\r\revent: named\n\ndata: é🙂\u2028\u2029\u0085\x0b\x0c\x00 kept\n\n"
    "event: last\r\ndata: [DONE]\r\n\r\n"
).encode()
EXPECTED = [
    ServerSentEvent("one", "first\nsecond"),
    ServerSentEvent("", " two spaces"),
    ServerSentEvent("", "é🙂\u2028\u2029\u0085\x0b\x0c\x00 kept"),
    ServerSentEvent("last", "[DONE]"),
]


def decode(*pieces: bytes) -> list[ServerSentEvent]:
    decoder = SseDecoder()
    found = [event for piece in pieces for event in decoder.feed(piece)]
    return found + decoder.end()


def test_the_rules_in_one_stream() -> None:
    """LF, CR and CRLF end lines, mixed; the Unicode separators, VT, FF and NUL do not."""
    assert decode(SAMPLE) == EXPECTED


@pytest.mark.parametrize("at", range(len(SAMPLE) + 1))
def test_every_cut_gives_the_same_events(at: int) -> None:
    """A cut inside a character, a CRLF or the BOM changes nothing."""
    assert decode(SAMPLE[:at], SAMPLE[at:]) == EXPECTED


def test_byte_by_byte() -> None:
    """The finest split."""
    assert decode(*(SAMPLE[i : i + 1] for i in range(len(SAMPLE)))) == EXPECTED


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\xff", "\ufffd"),
        (b"\xc3", "\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),  # overlong "/"
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # a surrogate
        (b"a\xf0\x9f\x99b", "a\ufffdb"),
    ],
)
def test_invalid_utf8_becomes_replacement_characters(raw: bytes, text: str) -> None:
    """One documented behaviour for bytes that are not UTF-8, overlong forms included."""
    assert decode(b"data: " + raw + b"\n\n") == [ServerSentEvent("", text)]


def test_bom_is_dropped_only_at_the_start() -> None:
    """A BOM in the middle is text."""
    assert decode(b"\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbfb\n\n") == [
        ServerSentEvent("", "a"),
        ServerSentEvent("", "\ufeffb"),
    ]
    assert decode(b"\n\xef\xbb\xbfdata: a\n\n") == []


def test_an_event_name_does_not_outlive_its_event() -> None:
    """A name without data is dropped at the blank line."""
    assert decode(b"event: x\n\ndata: a\n\n") == [ServerSentEvent("", "a")]


def test_an_event_without_data_is_not_dispatched() -> None:
    """As the standard has it; servers send such events as keep-alives."""
    assert decode(b"data:\n\nevent: ping\ndata: \n\ndata\n\ndata: a\n\ndata:\n") == [ServerSentEvent("", "a")]


def test_the_last_event_may_lack_its_blank_line() -> None:
    """Some servers leave the last blank line away."""
    assert decode(b"data: a\n\ndata: b\n") == [ServerSentEvent("", "a"), ServerSentEvent("", "b")]


def test_a_line_cut_at_the_end_is_dropped() -> None:
    """Half a line is never handed out as a whole one."""
    assert decode(b"data: a\n\ndata: {}") == [ServerSentEvent("", "a")]


def test_what_is_no_sse_is_kept_as_stray() -> None:
    """An error told in JSON where a stream was promised can still be read."""
    decoder = SseDecoder()
    assert decoder.feed(b'{\r\n "error": {\n  "message": "no"\n') == []
    assert decoder.feed(b" }\n}") + decoder.end() == []
    assert decoder.surplus == b'{\n "error": {\n  "message": "no"\n }\n}\n'


@pytest.mark.parametrize("cut", [b"d", b"dat", b"data: {", b"ev", b"i", b"retry: 1", b"\xef\xbb\xbfdata: {"])
def test_a_field_cut_at_the_end_is_not_stray(cut: bytes) -> None:
    """The beginning of a field is a cut stream, not something else than one."""
    decoder = SseDecoder()
    assert decoder.feed(cut) + decoder.end() == []
    assert decoder.surplus == b""


def test_stray_is_bounded() -> None:
    """Of a long wrong body only the beginning is kept."""
    decoder = SseDecoder()
    for _ in range(100):
        decoder.feed(b"<p>" * 1000 + b"\n")
    assert len(decoder.surplus) == STRAY_LIMIT


def fed_until_overflow(piece: bytes, total: int) -> tuple[int, int]:
    """How many bytes were taken before the cap, and the peak of memory meanwhile."""
    decoder = SseDecoder()
    tracemalloc.start()
    try:
        for fed in range(0, total, len(piece)):
            try:
                decoder.feed(piece)
            except WireError:
                return fed, tracemalloc.get_traced_memory()[1]
        return total, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_line_without_end_stops_at_the_cap() -> None:
    """200 MiB without a newline end at the cap, in little memory."""
    fed, peak = fed_until_overflow(b"x" * CHUNK, 200 * 1024 * 1024)
    assert fed == MAX_EVENT_BYTES
    assert peak < 8 * 1024 * 1024


def test_an_event_of_too_many_data_lines_stops_at_the_cap() -> None:
    """10^5 data lines in one event are refused, although they hold few bytes."""
    fed, peak = fed_until_overflow(b"data:\n" * 1000, 6 * 10**5)
    assert fed < 6 * 10**5
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize("line", [b"\n", b": hi\n", b"\r", b"\r\n"])
def test_a_million_empty_lines_or_comments_cost_nothing(line: bytes) -> None:
    """They are skipped, in linear time and constant memory."""
    decoder = SseDecoder()
    for _ in range(1000):
        assert decoder.feed(line * 1000) == []
    assert decoder.feed(b"data: a\n\n") == [ServerSentEvent("", "a")]


def test_the_cap_is_for_one_event_not_for_the_stream() -> None:
    """Long streams of small events pass."""
    decoder = SseDecoder(max_event_bytes=1000)
    assert sum(len(decoder.feed(b"data: 0123456789\n\n")) for _ in range(1000)) == 1000


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))
FRAMES = st.lists(st.tuples(st.none() | st.from_regex(r"[a-z._]{1,9}", fullmatch=True), TEXT), max_size=8)


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 400), max_size=6))
def test_what_is_encoded_decodes_under_any_split(frames: list[tuple[str | None, str]], cuts: list[int]) -> None:
    """``decode(split(encode(x))) == x``."""
    raw = encode_sse(Frame(event, data.encode()) for event, data in frames)
    bounds = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [raw[a:b] for a, b in itertools.pairwise(bounds)]
    assert decode(*pieces) == [ServerSentEvent(event or "", data) for event, data in frames if data]


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_at_all_are_survived(pieces: list[bytes]) -> None:
    """Noise gives events or nothing, the same for every split."""
    assert decode(*pieces) == decode(b"".join(pieces))
