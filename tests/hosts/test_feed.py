"""The host's end of a stream."""

from __future__ import annotations

from llm_protocol.errors import ShuttingDownError
from llm_protocol.events import Started, TextDelta
from llm_protocol.requests import ChatRequest
from llm_runtime.hosts.feed import Received


def test_what_has_come_can_be_read_after_the_runtime_has_ended() -> None:
    def take() -> None:
        raise ShuttingDownError("the runtime is not running")

    received = Received(ChatRequest(model="m", messages=()), take)
    started, text = Started(), TextDelta(0, "Hello")
    received.add([started])
    received.add([text])
    assert [received.next(), received.next(), received.next()] == [started, text, None]
    assert not received.has_ended
