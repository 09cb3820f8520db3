"""What is handed to OpenTelemetry's SDK, and how it ends: with exporters in the place of the network."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

import msgspec
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.requests import ChatRequest
from llm_runtime.config import OtelConfig
from llm_runtime.telemetry import export
from llm_runtime.telemetry.export import OtelWriter
from support.server import add_text, begin_text, end_text


class Spans(SpanExporter):
    """Takes spans; while it ``hangs``, until it is shut down."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.taken: list[ReadableSpan] = []
        self.freed: list[bool] = []
        self._hangs = hangs
        self._ended = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._hangs:
            self.freed.append(self._ended.wait(10))
        self.taken += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._ended.set()


class Metrics(MetricExporter):
    """Counts what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        self.taken += 1
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        return


async def test_the_end_is_not_held_up_by_a_collector_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "FLUSH_MILLISECONDS", 300)
    before = {name: list(logging.getLogger(name).filters) for name in export._LOGGERS}
    spans, metrics = Spans(hangs=True), Metrics()
    writer = OtelWriter(OtelConfig(), str, spans=spans, metrics=metrics)
    writer.write([run_of("one")])
    writer.close()
    assert spans.freed == [True], "it was shut down when its time was over"
    assert metrics.taken
    assert {name: logging.getLogger(name).filters for name in export._LOGGERS} == before


def written(config: OtelConfig, *runs: Run) -> list[ReadableSpan]:
    """The spans that are sent of these."""
    spans = Spans()
    writer = OtelWriter(config, str, spans=spans, metrics=Metrics())
    writer.write(runs)
    writer.close()
    return spans.taken


def run_of(text: str) -> Run:
    run = Run(ChatRequest(model="m", messages=(Message.of("user", text),)), stream=False)
    begin_text(run)
    add_text(run, text)
    end_text(run)
    return run


async def test_of_long_texts_a_span_has_the_beginning() -> None:
    long = run_of("x" * (export.CONTENT_CHARACTERS + 1))
    (span,) = written(OtelConfig(content=True), long)
    assert span.attributes is not None
    for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
        assert len(str(span.attributes[name])) == export.CONTENT_CHARACTERS


async def test_a_lone_surrogate_does_not_lose_the_other_spans() -> None:
    odd = run_of("hi")
    odd.request = msgspec.structs.replace(odd.request, model="m\ud800")
    taken = written(OtelConfig(), odd, run_of("hi"))
    assert [span.name for span in taken] == ["run m?", "run m"]
    assert encode_spans(taken).ByteSize()


async def test_the_thread_sleeps_whenever_it_has_worked_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = count(step=0.5)
    monkeypatch.setattr(export, "WORK_SECONDS", 1.0)
    monkeypatch.setattr(time, "thread_time", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", slept.append)
    assert len(written(OtelConfig(), *[run_of("hi")] * 8)) == 8
    assert slept == [export.YIELD_SECONDS] * 4


@pytest.mark.parametrize(
    ("said", "environment", "expected"),
    [
        ("", {}, "llm-runtime"),
        ("", {"OTEL_SERVICE_NAME": "theirs"}, "theirs"),
        ("", {"OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs"}, "theirs"),
        ("ours", {"OTEL_SERVICE_NAME": "theirs"}, "ours"),
    ],
)
async def test_the_configuration_names_the_service_or_else_the_environment(
    said: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (span,) = written(OtelConfig(service_name=said), run_of("hello"))
    assert span.resource.attributes["service.name"] == expected
