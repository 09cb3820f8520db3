"""Put spans that are already encoded into the SDK's queue, and send them with the SDK's exporter."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from random import getrandbits
from typing import Any, Final, final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.trace import SpanContext, TraceFlags, Tracer

from llm_protocol.client_headers import TraceContext, trace_context
from llm_runtime.telemetry import otlp
from llm_runtime.telemetry.otlp import field
from llm_runtime.telemetry.spans import SpanData

_VARIABLES: Final = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED",
    "OTEL_SDK_DISABLED",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
)
"""Environment variables that change what the SDK does with spans. With one of them, the SDK makes all spans."""

_SPANS: Final = 2
"""The number of the field of a message ``ScopeSpans`` that has a span, and of ``ResourceSpans`` that has a scope."""


@final
class EncodedSpan(ReadableSpan):
    """A span that is encoded. The SDK's queue reads nothing but its context, and that only for "is it sampled?"."""

    __slots__ = ("data",)

    _context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def __init__(self, data: bytes) -> None:
        self.data = data


@final
class EncodedSpanExporter(SpanExporter):
    """Sends `EncodedSpan` objects with ``exporter``: to its address, with its header fields, compression and retries.
    ``like`` is a span of the SDK, for the resource and the scope.
    """

    def __init__(self, exporter: SpanExporter, send: Callable[[bytes], Any], like: ReadableSpan) -> None:
        self._exporter = exporter
        self._send = send
        self._is_shut_down = False
        (resource,) = encode_spans([like]).resource_spans
        (scope,) = resource.scope_spans
        del scope.spans[:], resource.scope_spans[:]
        self._resource, self._scope = resource.SerializeToString(), scope.SerializeToString()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter`."""
        if self._is_shut_down:
            return SpanExportResult.FAILURE
        encoded = (field(_SPANS, each.data) for each in spans if isinstance(each, EncodedSpan))
        scope = field(_SPANS, b"".join([self._scope, *encoded]))
        is_sent = self._send(field(1, self._resource + scope)).success
        return SpanExportResult.SUCCESS if is_sent else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """See `SpanExporter`."""
        self._is_shut_down = True
        self._exporter.shutdown()


@final
class EncodedSpans:
    """Puts spans into the queue of ``processor``, encoded. Used in one thread."""

    def __init__(self, processor: SpanProcessor, longest: int) -> None:
        """``longest``: the most characters of an attribute."""
        self._processor = processor
        self._longest = longest

    def add(self, span: SpanData, trace: TraceContext | None) -> None:
        """Add ``span`` and the spans in it, unless the client does not want the trace sampled."""
        if trace is None:
            trace = trace_context(None, getrandbits)
        if trace.parent_id and not trace.flags & TraceFlags.SAMPLED:
            return
        parts = otlp.encode_spans(span, trace.trace_id, trace.span_id, trace.parent_id, getrandbits, self._longest)
        for each in parts:
            self._processor.on_end(EncodedSpan(each))


def encoded_exporter(exporter: SpanExporter, traces: TracerProvider, tracer: Tracer) -> EncodedSpanExporter | None:
    """Return an exporter of encoded spans that sends with ``exporter``; ``None`` if the SDK has to make the spans:
    with a sampler or with limits that the environment sets, and if ``exporter`` has no function that sends bytes.
    """
    send = getattr(getattr(exporter, "_client", None), "export", None)  # versions before 1.45 do not have it
    if not isinstance(exporter, OTLPSpanExporter) or send is None:
        return None
    if traces.sampler is not DEFAULT_ON or any(name in os.environ for name in _VARIABLES):
        return None
    like = tracer.start_span("like")
    return EncodedSpanExporter(exporter, send, like) if isinstance(like, ReadableSpan) else None
