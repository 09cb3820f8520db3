r"""Surrogate pairs that are split over two pieces of a stream are joined, on every wire."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.transcripts import REQUEST, WIRES
from llm_protocol.codec.sse import ServerSentEvent, encode_sse
from llm_protocol.codec.surrogates import HELD_PIECES, PairJoiner
from llm_protocol.content import Part, Reasoning, Text, ToolCall
from llm_protocol.dialect import ClientRequest
from llm_protocol.events import DELTAS, ItemDone
from llm_protocol.fold import Fold, unfold
from llm_protocol.response import FinishReason, LLMResponse

EMOJI = "\N{GRINNING FACE}"
FIRST, SECOND = b"\\ud83d", b"\\ude00"


def piece(text: str) -> ServerSentEvent:
    return ServerSentEvent("", f'{{"text":"{text}"}}')


def joined(*texts: str) -> list[str]:
    joiner = PairJoiner()
    found = [each for text in texts for each in joiner.feed(piece(text))] + joiner.end()
    return [json.loads(each.data)["text"] for each in found]


def streamed(wire: str, *parts: Part) -> bytes:
    """The stream of an answer whose texts say ``<`` and ``>`` where the halves of a pair are, two letters a piece."""
    reason = FinishReason.TOOL_CALLS if isinstance(parts[-1], ToolCall) else FinishReason.STOP
    answer = LLMResponse(request_id="r", provider="p", model="m", output=parts, finish_reason=reason)
    encoder = WIRES[wire].server.response_encoder(ClientRequest(REQUEST, stream=True), "resp_1")
    frames = encoder.start()
    for event in unfold(answer, piece=2):
        frames += encoder.encode([event])
    body = encode_sse(frames)
    return body.replace(b"<>", FIRST + SECOND).replace(b"<", FIRST).replace(b">", SECOND)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("step", [1, 7, 1_000_000])
def test_a_pair_that_is_split_over_two_pieces_is_one_character(wire: str, step: int) -> None:
    body = streamed(wire, Text("a<>b<>ab<>c"))
    assert FIRST + b'"' in body
    decoder = WIRES[wire].client.stream_decoder(REQUEST)
    events = [event for at in range(0, len(body), step) for event in decoder.feed(body[at : at + step])]
    fold = Fold().add_all(events + decoder.end())
    assert fold.parts() == (Text(f"a{EMOJI}b{EMOJI}ab{EMOJI}c"),)
    assert "".join(event.text for event in events if isinstance(event, DELTAS)) == f"a{EMOJI}b{EMOJI}ab{EMOJI}c"


@pytest.mark.parametrize("wire", ["openai_chat", "anthropic", "openai_responses", "cohere"])
def test_in_arguments_too(wire: str) -> None:
    body = streamed(wire, ToolCall(id="c", name="weather", arguments='{"city":"<>ab<>"}'))
    decoder = WIRES[wire].client.stream_decoder(REQUEST)
    [done] = [event for event in decoder.feed(body) + decoder.end() if isinstance(event, ItemDone)]
    assert isinstance(done.part, ToolCall)
    assert json.loads(done.part.arguments) == {"city": f"{EMOJI}ab{EMOJI}"}


@pytest.mark.parametrize("wire", ["openai_chat", "anthropic", "gemini"])
def test_in_reasoning_too(wire: str) -> None:
    body = streamed(wire, Reasoning(text="a<>b"), Text("ok"))
    decoder = WIRES[wire].client.stream_decoder(REQUEST)
    parts = Fold().add_all(decoder.feed(body) + decoder.end()).parts()
    assert [part.text for part in parts if isinstance(part, Reasoning)] == [f"a{EMOJI}b"]


def test_a_ping_may_stand_between() -> None:
    assert joined("a\\ud83d", "", "\\ude00b") == ["a", "", f"{EMOJI}b"]


def test_what_does_not_fit_together_is_left_alone() -> None:
    for texts in (["a\\ud83d", "b"], ["\\ud83d"], ["a", "\\ude00"], ["\\ud83d", "x\\ude00"], ["\\\\ud83d", "\\ude00"]):
        assert joined(*texts) == [json.loads(f'"{text}"') for text in texts]


def test_no_more_is_held_back_than_said() -> None:
    joiner = PairJoiner()
    assert joiner.feed(piece("\\ud83d")) == []
    assert [joiner.feed(piece(str(at))) for at in range(HELD_PIECES - 1)] == [[]] * (HELD_PIECES - 1)
    assert len(joiner.feed(piece("x"))) == HELD_PIECES + 1
    assert joiner.feed(piece("\\ud83d")) == []
    end = ServerSentEvent("", "[DONE]")
    assert joiner.feed(end) == [piece("\\ud83d"), end], "a server that leaves its connection open"


@given(
    st.lists(st.text(alphabet='a"\\/\u20ac\U0001f600\U0001f9d1', max_size=6), max_size=6),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_wherever_a_text_is_cut_it_comes_back(texts: list[str], cuts: list[int]) -> None:
    """JSON in ASCII, cut between any two UTF-16 units."""
    whole = "".join(texts)
    units = whole.encode("utf-16-le")
    places = sorted({min(2 * cut, len(units)) for cut in cuts} | {0, len(units)})
    pieces = [json.dumps(units[at:to].decode("utf-16-le", "surrogatepass"))[1:-1] for at, to in pairwise(places)]
    assert "".join(joined(*pieces)) == whole
