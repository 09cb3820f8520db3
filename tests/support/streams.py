"""Driving stream decoders in tests: whole, split anywhere, cut anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from llm_protocol.codec.sse import encode_sse
from llm_protocol.dialect import Frame, ResponseEncoder, StreamDecoder
from llm_protocol.events import DELTAS, TERMINAL, Event, Failed, Finished
from llm_protocol.fold import Fold, unfold
from llm_protocol.response import LLMResponse

MakeDecoder = Callable[[], StreamDecoder]


def decode(make: MakeDecoder, *pieces: bytes) -> list[Event]:
    """All events of a body that comes in ``pieces`` and then ends."""
    decoder = make()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()


def check_order(events: list[Event]) -> None:
    """The promises about order: one terminal event, the last; deltas and ends only of items that have begun."""
    assert isinstance(events[-1], TERMINAL)
    assert sum(isinstance(event, TERMINAL) for event in events) == 1
    begun: set[int] = set()
    for event in events:
        match event.__class__.__name__:
            case "ItemStarted":
                assert event.index not in begun  # type: ignore[union-attr]
                begun.add(event.index)  # type: ignore[union-attr]
            case "ItemDone":
                assert event.index in begun  # type: ignore[union-attr]
        if isinstance(event, DELTAS):
            assert event.index in begun


def check_all_splits(make: MakeDecoder, body: bytes) -> None:
    """Cut in two anywhere, and byte by byte, the events are the same."""
    whole = decode(make, body)
    check_order(whole)
    for at in range(len(body) + 1):
        assert decode(make, body[:at], body[at:]) == whole
    assert decode(make, *(body[at : at + 1] for at in range(len(body)))) == whole


def check_truncation(make: MakeDecoder, body: bytes, complete_at: int) -> None:
    """Cut before ``complete_at`` bytes at any event boundary, a stream is never a success."""
    at = 0
    while (at := body.find(b"\n\n", at) + 2) > 1 and at < complete_at:
        events = decode(make, body[:at])
        assert isinstance(events[-1], Failed), body[:at][-120:]
        assert not any(isinstance(event, Finished) for event in events)


def fold(events: Iterable[Event]) -> LLMResponse:
    """The answer that ``events`` tell."""
    return Fold().add_all(events).response(request_id="r", response_id="id", provider="p", model="m")


def encode(encoder: ResponseEncoder, response: LLMResponse, *, piece: int | None = None) -> bytes:
    """The SSE bytes of ``response``, one event at a time."""
    frames: list[Frame] = encoder.start()
    for event in unfold(response, piece=piece):
        frames += encoder.encode([event])
    return encode_sse(frames)


def same_answer(one: LLMResponse, other: LLMResponse) -> bool:
    """Whether two answers say the same, apart from times and ids of ours."""
    ours = {"timestamp": 0.0, "request_id": "", "response_id": "", "provider": "", "processing_time_ms": 0.0}
    return msgspec.structs.replace(one, **ours) == msgspec.structs.replace(other, **ours)
