"""What is handed to OpenTelemetry's SDK, and how it ends: with exporters in the place of the network."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from llm_runtime.config import OtelConfig
from llm_runtime.telemetry import export
from llm_runtime.telemetry.export import OtelWriter


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


def test_the_end_is_not_held_up_by_a_collector_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "FLUSH_MILLISECONDS", 300)
    before = {name: list(logging.getLogger(name).filters) for name in export._LOGGERS}
    spans, metrics = Spans(hangs=True), Metrics()
    writer = OtelWriter(OtelConfig(), str, spans=spans, metrics=metrics)
    writer._tracer.start_span("one").end()
    writer._requests.record(1.0)
    writer.close()
    assert spans.freed == [True], "it was shut down when its time was over"
    assert metrics.taken
    assert {name: logging.getLogger(name).filters for name in export._LOGGERS} == before
