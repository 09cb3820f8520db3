"""The log lines of requests: several wait for each other, and none is lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from llm_actors.orchestrator.log_line import LINES_AT_ONCE, WAIT_SECONDS, LogFields, WaitingLines, log_end
from llm_actors.run import Run
from llm_protocol.budgets import Budget
from llm_protocol.content import Message
from llm_protocol.errors import BudgetError
from llm_protocol.requests import ChatRequest
from llm_runtime import open_runtime
from llm_runtime.config import Config, Provider
from support.server import begin_text, end_text


def ended() -> str:
    """End a request, have it logged, and return its id."""
    run = Run(ChatRequest(model="m", messages=(Message.of("user", "hello"),)), stream=False)
    begin_text(run)
    end_text(run)
    assert log_end(run) is not None
    return run.request.request_id


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The ids in the log."""
    return [record.getMessage().split()[1] for record in caplog.records]


async def test_a_line_is_written_at_once_unless_lines_wait(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = ended()
    assert logged(caplog) == [first]
    assert caplog.records[0].created == pytest.approx(time.time(), abs=5)
    await trio.lowlevel.checkpoint()


async def test_lines_wait_a_moment_and_have_the_time_of_their_end(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level("INFO")
    async with trio.open_nursery() as nursery:
        await nursery.start(WaitingLines().run)
        for _ in range(2):
            caplog.clear()
            before = time.time()
            both = [ended(), ended()]
            after = time.time()
            assert logged(caplog) == []
            await trio.sleep(2 * WAIT_SECONDS)
            assert logged(caplog) == both
            assert all(before <= record.created <= after for record in caplog.records)
        nursery.cancel_scope.cancel()


async def test_no_line_is_lost_at_the_end_and_not_too_many_wait(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with trio.open_nursery() as nursery:
        await nursery.start(WaitingLines().run)
        many = [ended() for _ in range(LINES_AT_ONCE)]
        assert logged(caplog) == many
        last = ended()
        nursery.cancel_scope.cancel()
    assert logged(caplog) == [*many, last]
    late = ended()
    assert logged(caplog)[-1] == late, "nobody waits any longer"


async def test_a_handler_that_can_takes_all_lines_at_once(caplog: pytest.LogCaptureFixture) -> None:
    taken = list[list[str]]()

    class Handler(logging.Handler):
        def emit_requests(self, lines: Sequence[tuple[LogFields, float]]) -> None:
            taken.append([fields.id for fields, _ in lines])

    root = logging.getLogger()
    caplog.set_level("INFO")
    before, root.handlers[:] = root.handlers[:], [Handler()]
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(WaitingLines().run)
            both = [ended(), ended()]
            nursery.cancel_scope.cancel()
    finally:
        root.handlers[:] = before
    assert taken == [both]


async def test_no_line_waits_that_nobody_wants(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    async with trio.open_nursery() as nursery:
        await nursery.start(WaitingLines().run)
        ended()
        caplog.set_level("INFO")
        nursery.cancel_scope.cancel()
    assert logged(caplog) == []


async def test_who_was_never_called_has_the_reason_beside_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    provider = Provider(kind="openai_compatible", base_url="http://127.0.0.1:9/v1", models=("m",))
    config = Config(providers={"a": provider}, budgets={"all": Budget(usd=1.0)})
    async with open_runtime(config) as runtime:
        with pytest.raises(BudgetError):
            await runtime.chat("hello CANARY-word", model="a/m")
    (line,) = [each.getMessage() for each in caplog.records if " failed (budget) " in each.getMessage()]
    assert 'budget "all": the price of a/m is not known; the configuration needs ' in line
    assert "by no provider" in line
    assert "CANARY" not in line
