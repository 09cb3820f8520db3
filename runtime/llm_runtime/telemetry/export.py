"""Pass spans and measurements to OpenTelemetry's SDK, which has its own threads to send them.

The SDK's queues are bounded: if a collector is unreachable, the queued data is lost. Imported when a runtime with
`[otel]` starts.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from math import inf
from random import getrandbits
from typing import Final, final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from llm_actors.run import Run
from llm_protocol.client_headers import TraceContext
from llm_protocol.version import VERSION
from llm_runtime.config import OtelConfig
from llm_runtime.telemetry.encoded import EncodedSpans, encoded_exporter
from llm_runtime.telemetry.spans import NameOf, SpanData, Value, calls_of, spans_of

FLUSH_MILLISECONDS: Final = 1_500
"""Milliseconds that the end of the runtime waits for the SDK's queues; less than the request log's `FLUSH_SECONDS`."""

SEND_SECONDS: Final = 5
"""The most seconds of one attempt to send, in a thread of the SDK."""

_KINDS: Final = {"server": SpanKind.SERVER, "internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = tuple(4**power for power in range(14))

WORK_SECONDS: Final = 0.001
"""The most seconds of work between two sleeps of the thread that writes spans. Meanwhile, the thread that serves
requests waits for the interpreter's lock. Without the sleeps, Python would let it wait 5 ms. With shorter pieces of
work, the lock would change hands more often, which costs more than the waiting.
"""

YIELD_SECONDS: Final = 0.0002
"""Seconds of each of these sleeps, so that the thread that serves requests gets the interpreter's lock."""

BATCH_SPANS: Final = 128
"""The most spans that the SDK encodes in one batch, so that the interpreter's lock is not held for long."""

CONTENT_CHARACTERS: Final = 100_000
"""The longest attribute of a span, in characters. The rest is cut off."""

CONTENT_BATCH_SPANS: Final = 32
"""The most spans that are sent in one batch if they contain the texts of requests and responses."""

CONTENT_QUEUE_SPANS: Final = 512
"""The most spans with texts that wait to be sent. Further ones are dropped. So the texts take about 100 MB at most."""

SERVICE_NAME: Final = "llm-runtime"
"""The default service name."""

QUIET_SECONDS: Final = 60.0

_LENGTH_LIMIT: Final = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"
_QUEUE_SIZE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
_BATCH_SIZE: Final = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"

_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.metrics._internal.export",
)

log = logging.getLogger(__name__)


@final
class _Ids(IdGenerator):
    """Gives the next root span the ids of its run, which may have been sent to clients or vendors. Used in one
    thread.
    """

    def __init__(self) -> None:
        self.trace: TraceContext | None = None

    def generate_trace_id(self) -> int:
        """See `IdGenerator`."""
        return self.trace.trace_id if self.trace is not None else getrandbits(128) or 1

    def generate_span_id(self) -> int:
        """See `IdGenerator`."""
        trace, self.trace = self.trace, None
        return trace.span_id if trace is not None else getrandbits(64) or 1


@final
class _SdkSpans:
    """Lets the SDK make the spans, as its samplers and limits require. Used in one thread."""

    def __init__(self, tracer: Tracer, ids: _Ids) -> None:
        self._tracer = tracer
        self._ids = ids

    def add(self, span: SpanData, trace: TraceContext | None) -> None:
        """Make ``span`` and the spans in it, and end them."""
        parent = None
        if trace is not None and trace.parent_id:
            parent = SpanContext(trace.trace_id, trace.parent_id, is_remote=True, trace_flags=TraceFlags(trace.flags))
        self._ids.trace = trace
        self._nest(span, parent)
        self._ids.trace = None

    def _nest(self, span: SpanData, parent: SpanContext | None) -> None:
        context = None if parent is None else set_span_in_context(NonRecordingSpan(parent))
        made = self._tracer.start_span(
            span.name, context, _KINDS[span.kind], span.attributes, start_time=round(span.began_at * 1e9)
        )
        if span.error:
            made.set_attribute("error.type", span.error)
            made.set_status(Status(StatusCode.ERROR, span.error))
        for each in span.inner:
            self._nest(each, made.get_span_context())
        made.end(round(span.ended_at * 1e9))


@final
class OtelWriter:
    """Passes runs that have ended to OpenTelemetry's SDK. ``spans`` and ``metrics`` replace the exporters of
    ``config``, for tests.
    """

    def __init__(
        self,
        config: OtelConfig,
        name_of: NameOf,
        *,
        spans: SpanExporter | None = None,
        metrics: MetricExporter | None = None,
    ) -> None:
        self._name_of = name_of
        self._content = config.content
        self._quiet = {name: _Quiet() for name in _LOGGERS}
        for name, quiet in self._quiet.items():
            logging.getLogger(name).addFilter(quiet)
        resource = _resource(config)
        headers = {name: value.reveal() for name, value in config.headers.items()}
        base = config.endpoint.rstrip("/")
        self._exporters: list[SpanExporter | MetricExporter] = []
        ids = _Ids()
        self._traces = TracerProvider(
            resource=resource, id_generator=ids, shutdown_on_exit=False, span_limits=_limits()
        )
        self._spans: EncodedSpans | _SdkSpans | None = None
        if config.traces:
            to = f"{base}/v1/traces" if base else None
            spans = spans or OTLPSpanExporter(endpoint=to, headers=headers or None, timeout=SEND_SECONDS)
            self._spans = self._spans_to(spans, ids)
        readers = []
        if config.metrics:
            to = f"{base}/v1/metrics" if base else None
            metrics = metrics or OTLPMetricExporter(endpoint=to, headers=headers or None, timeout=SEND_SECONDS)
            self._exporters.append(metrics)
            readers.append(PeriodicExportingMetricReader(metrics))
        self._meters = MeterProvider(resource=resource, metric_readers=readers, shutdown_on_exit=False)
        meter = self._meters.get_meter("llm_runtime", VERSION)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "Duration of attempts.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._first = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Time from the start of an attempt to the first piece of its response.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of attempts.", explicit_bucket_boundaries_advisory=_TOKENS
        )
        self._requests = meter.create_histogram(
            "gen_ai.server.request.duration",
            "s",
            "Duration of requests to this runtime.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )

    def write(self, runs: Sequence[Run]) -> None:
        """Put the runs into the SDK's queues. If a queue is full, the data is dropped."""
        began = time.thread_time()
        for run in runs:
            span = spans_of(run, self._name_of, content=self._content)
            if span is not None:
                if self._spans is not None:
                    self._spans.add(span, run.trace)
                self._measure(span)
            if time.thread_time() - began >= WORK_SECONDS:
                time.sleep(YIELD_SECONDS)
                began = time.thread_time()

    def close(self) -> None:
        """Send the remaining data, for at most `FLUSH_MILLISECONDS`."""
        # The SDK's own flush of traces has no time limit.
        flushes = [threading.Thread(target=_flush, args=(each,), daemon=True) for each in (self._traces, self._meters)]
        for flush in flushes:
            flush.start()
        deadline = time.monotonic() + FLUSH_MILLISECONDS / 1000
        for flush in flushes:
            flush.join(max(0.0, deadline - time.monotonic()))
        for exporter in self._exporters:
            exporter.shutdown()  # stops further tries
        self._traces.shutdown()
        self._meters.shutdown(FLUSH_MILLISECONDS)
        for name, quiet in self._quiet.items():
            logging.getLogger(name).removeFilter(quiet)

    def _spans_to(self, exporter: SpanExporter, ids: _Ids) -> EncodedSpans | _SdkSpans:
        tracer = self._traces.get_tracer("llm_runtime", VERSION)
        encoded = encoded_exporter(exporter, self._traces, tracer)
        self._exporters.append(encoded or exporter)
        waiting, at_once = _sizes(self._content, is_encoded=encoded is not None)
        processor = BatchSpanProcessor(encoded or exporter, max_queue_size=waiting, max_export_batch_size=at_once)
        self._traces.add_span_processor(processor)
        return _SdkSpans(tracer, ids) if encoded is None else EncodedSpans(processor, CONTENT_CHARACTERS)

    def _measure(self, span: SpanData) -> None:
        failed = {"error.type": span.error} if span.error else {}
        self._requests.record(span.ended_at - span.began_at, failed)
        for call in calls_of(span):
            names = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model")
            about: dict[str, Value] = {name: call.attributes[name] for name in names if name in call.attributes}
            failed_about: dict[str, Value] = about | ({"error.type": call.error} if call.error else {})
            self._duration.record(call.ended_at - call.began_at, failed_about)
            first = call.attributes.get("gen_ai.response.time_to_first_chunk")
            if isinstance(first, float):
                self._first.record(first, about)
            for name in ("input", "output"):
                count = call.attributes.get(f"gen_ai.usage.{name}_tokens")
                if isinstance(count, int):
                    self._tokens.record(count, about | {"gen_ai.token.type": name})


def _flush(provider: TracerProvider | MeterProvider) -> None:
    try:
        provider.force_flush(FLUSH_MILLISECONDS)
    except Exception as exc:  # raised by the SDK; its text may contain anything
        log.debug("the remaining telemetry was not sent: %s", type(exc).__name__)


def _resource(config: OtelConfig) -> Resource:
    said = {"service.name": config.service_name} if config.service_name else {}
    found = Resource.create({**said, "service.version": VERSION})
    if str(found.attributes["service.name"]).startswith("unknown_service"):  # the SDK's default name
        return found.merge(Resource({"service.name": SERVICE_NAME}))
    return found


def _limits() -> SpanLimits:
    return SpanLimits(max_attribute_length=None if _LENGTH_LIMIT in os.environ else CONTENT_CHARACTERS)


def _sizes(content: bool, *, is_encoded: bool) -> tuple[int | None, int | None]:
    """Return how many spans wait at most, and how many are sent in one batch; ``None``: the SDK's default, or what the
    environment says.
    """
    is_said = _QUEUE_SIZE in os.environ or _BATCH_SIZE in os.environ
    waiting = CONTENT_QUEUE_SPANS if content and not is_said else None
    at_once = CONTENT_BATCH_SPANS if content else None if is_encoded else BATCH_SPANS
    return waiting, None if _BATCH_SIZE in os.environ else at_once


class _Quiet(logging.Filter):
    """Lets the SDK's messages about an unreachable collector pass once a minute, without a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        record.exc_info = record.exc_text = None
        if record.getMessage().startswith("Exporter already shutdown"):
            return False  # `close` does it before the SDK does
        now = time.monotonic()
        if now < self._said.get(record.funcName, -inf) + QUIET_SECONDS:
            return False
        self._said[record.funcName] = now
        return True
