"""How many attempts a request took: one count, of calls, wherever it is told."""

from __future__ import annotations

import logging

import pytest
from trio.testing import MockClock

from llm_actors.orchestrator.log_line import LogFields
from llm_actors.request_log.record import logged
from llm_runtime.cli.trace import timeline
from llm_runtime.server.run_response import fact_headers
from llm_runtime.telemetry.spans import spans_of
from support.attempts import Asked, answer, status, world


def fields_of(caplog: pytest.LogCaptureFixture) -> LogFields:
    """Of the last request."""
    (*_, last) = [each for record in caplog.records if isinstance(each := getattr(record, "fields", None), LogFields)]
    return last


def traced(asked: Asked) -> list[str]:
    """What ``trace`` says of attempts, up to the first comma."""
    line = logged(asked.run, redacted=False, wall=0.0)
    assert line is not None
    lines = [each.strip().partition(",")[0] for each in timeline(line)]
    return [each for each in lines if each.startswith(("attempt", "not called"))]


def spans(asked: Asked) -> int:
    """Those of calls in the trace that is exported."""
    span = spans_of(asked.run, str)
    assert span is not None
    return len(span.inner)


async def test_who_is_not_called_is_no_attempt(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with world(a=[status(401)], b=[status(500)]) as w:
        await w.ask()
        asked = await w.ask()

    assert asked.outcomes() == ["b:server_error", "b:server_error", "a:auth"]
    fields = fields_of(caplog)
    assert (fields.attempts, fields.not_called, fields.deployment) == (2, 1, "a/m-a")
    assert any("by a/m-a" in each and "2 attempts, 1 candidate not called" in each for each in caplog.messages)
    assert dict(fact_headers(asked.response))["x-llm-runtime-attempts"] == "2"
    assert traced(asked) == ["attempt 1: b/m-b", "attempt 2: b/m-b", "not called: a/m-a"]
    assert spans(asked) == 2


async def test_one_call_is_one_attempt(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with world(a=[answer]) as w:
        asked = await w.ask()
    fields = fields_of(caplog)
    assert (fields.attempts, fields.not_called) == (1, 0)
    assert "not called" not in caplog.text
    assert (traced(asked), spans(asked)) == (["attempt 1: a/m-a"], 1)
