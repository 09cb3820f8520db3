"""An answer that is too large was made, and is billed: it is asked for once, whoever else could be asked."""

from __future__ import annotations

import trio.testing

from llm_protocol.events import Failed
from llm_protocol.failures import FailureKind
from support.attempts import answering, world
from support.peer import reply, sse

TOO_LARGE = reply(b"{" + b" " * (3 * 1024 * 1024), headers={"content-type": "application/json"})
ENDLESS_EVENT = sse("x" * (4 * 1024 * 1024))


async def test_a_whole_answer_that_is_too_large_is_asked_for_once(autojump_clock: trio.testing.MockClock) -> None:
    async with world(a=[TOO_LARGE] * 3, b=[answering()] * 3) as running:
        for stream in (False, True):
            asked = await running.ask(stream=stream)
            assert asked.outcomes() == ["a:answer_too_large"]
            assert asked.failure is not None
            assert "max_answer_mb" in asked.failure.message
        await running.settled()

    assert running["a"].calls == 2
    assert running["b"].calls == 0


async def test_it_is_charged_as_far_as_it_can_be_known(autojump_clock: trio.testing.MockClock) -> None:
    async with world(a=[TOO_LARGE]) as running:
        asked = await running.ask(stream=False)

    assert asked.attempts[0]["usage"]["input_tokens"] > 0
    assert asked.attempts[0]["usage"]["estimated"] is True


async def test_an_event_that_is_too_large_is_asked_for_once(autojump_clock: trio.testing.MockClock) -> None:
    async with world(a=[ENDLESS_EVENT] * 3, b=[answering()] * 3) as running:
        asked = await running.ask()

    assert asked.outcomes() == ["a:answer_too_large"]
    assert isinstance(asked.events[-1], Failed)
    assert asked.events[-1].failure.kind is FailureKind.ANSWER_TOO_LARGE
