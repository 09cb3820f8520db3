"""What is odd in a provider's answers is told once, in few lines, and costs the answer nothing."""

from __future__ import annotations

import logging

import pytest
import trio.testing

from llm_actors.provider.sanitize import MOST_ODDITIES, Oddities
from llm_protocol.events import Finished
from llm_protocol.response import FinishReason
from support.peer import Peer, reply, sse
from support.upstream import HELLO, JSON, chunk, upstream, whole

ODD = {"prompt_tokens": {"secret": "a prompt"}, "completion_tokens": "many"}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_field_of_another_type_is_told_once(
    stream: bool, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    if stream:
        script = sse(*HELLO, chunk(finish="stop", usage=ODD), "[DONE]")
    else:
        script = reply(whole().replace(b'"completion_tokens":2', b'"completion_tokens":{"x":1}'), headers=JSON)
    with caplog.at_level(logging.WARNING):
        async with Peer(script) as peer, upstream(peer) as provider:
            for _ in range(3):
                asked = await provider.ask(stream=stream)
                assert asked.text == "Hello there"
                assert isinstance(asked.outcome and asked.outcome.end, Finished)

    lines = [record.getMessage() for record in caplog.records]
    assert "fake: the field completion_tokens has an unexpected type and is ignored" in lines
    assert len(lines) == len(set(lines)) <= 2
    assert "a prompt" not in caplog.text


async def test_an_unknown_finish_reason_is_told_once(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    with caplog.at_level(logging.WARNING):
        async with Peer(sse(*HELLO, chunk(finish="brand_new"), "[DONE]")) as peer, upstream(peer) as provider:
            for _ in range(3):
                asked = await provider.ask()
                end = asked.outcome and asked.outcome.end
                assert isinstance(end, Finished)
                assert (end.reason, end.raw_reason) == (FinishReason.UNKNOWN, "brand_new")

    assert [record.getMessage() for record in caplog.records] == [
        "fake: unknown finish reason 'brand_new'; the response is used"
    ]


def test_a_provider_with_ever_new_words_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    oddities = Oddities("fake")
    with caplog.at_level(logging.WARNING):
        for number in range(2 * MOST_ODDITIES):
            oddities.note_reason(f"word {number}")
            oddities.note_fields([f"field {number}"])
    assert len(caplog.records) == MOST_ODDITIES
