"""The bytes of traces: the same as the SDK makes of the same spans, and sent as the SDK's exporter is configured."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any
from unittest import mock

import msgspec
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_with_sdk
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from llm_actors.run import Run
from llm_protocol.client_headers import TraceContext
from llm_protocol.content import Message
from llm_protocol.failures import FailureKind
from llm_protocol.requests import ChatRequest, Parameters
from llm_runtime.config import OtelConfig
from llm_runtime.telemetry import encoded, export
from llm_runtime.telemetry.encoded import EncodedSpans
from llm_runtime.telemetry.export import OtelWriter
from llm_runtime.telemetry.otlp import encode_spans
from llm_runtime.telemetry.spans import SpanData, Value
from support.peer import Peer, Seen, reply
from support.server import add_text, begin_text, end_text

LONGEST = 100
OK = reply(b"", headers={"content-type": "application/x-protobuf"})
TRACE = TraceContext(2**127 + 1, 0, 2**63 + 3)


class Spans(SpanExporter):
    """Keeps the spans."""

    def __init__(self) -> None:
        self.taken: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += spans
        return SpanExportResult.SUCCESS


def counting() -> Callable[[int], int]:
    """Return a function in the place of `getrandbits` that counts."""
    numbers = count(1)
    return lambda bits: next(numbers)


def of_sdk(span: SpanData, trace: TraceContext) -> list[Any]:
    """The messages that the SDK makes of ``span``."""
    spans, ids = Spans(), export._Ids()
    limits = SpanLimits(max_attribute_length=LONGEST)
    traces = TracerProvider(id_generator=ids, span_limits=limits, shutdown_on_exit=False)
    traces.add_span_processor(SimpleSpanProcessor(spans))
    with mock.patch.object(export, "getrandbits", counting()):
        export._SdkSpans(traces.get_tracer("test"), ids).add(span, trace)
    return list(encode_with_sdk(spans.taken).resource_spans[0].scope_spans[0].spans)


text = st.text(st.characters(codec="utf-8"), max_size=2 * LONGEST)
values: st.SearchStrategy[Value] = st.one_of(
    text,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(text.filter(lambda found: len(found) <= LONGEST), max_size=3).map(tuple),
)
moments = st.floats(0, 2e9)


def spans(inner: st.SearchStrategy[SpanData] | None) -> st.SearchStrategy[SpanData]:
    return st.builds(
        SpanData,
        text,
        st.sampled_from(("server", "internal", "client")),
        moments,
        moments,
        st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), values, max_size=8),
        st.sampled_from(("", "bad_request", "timeout")),
        st.just(()) if inner is None else st.lists(inner, max_size=3).map(tuple),
    )


@given(spans(spans(spans(None))), st.integers(1, 2**128 - 1), st.integers(0, 2**64 - 1), st.integers(1, 2**64 - 1))
@example(
    SpanData("run m", "server", 0.0, 0.0, {"one": True}, "", (SpanData("m", "client", 0, 1, {"one": 1}, ""),)), 1, 0, 1
)
def test_the_encoding_is_that_of_the_sdk(span: SpanData, trace_id: int, parent_id: int, span_id: int) -> None:
    found = encode_spans(span, trace_id, span_id, parent_id, counting(), LONGEST)
    assert [Span.FromString(each) for each in found] == of_sdk(span, TraceContext(trace_id, parent_id, span_id))


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_that_the_protocol_does_not_have_is_left_out(number: int) -> None:
    span = SpanData("run m", "server", 1.0, 2.0, {"before": 1, "seed": number, "after": 2}, "")
    (found,) = encode_spans(span, 1, 2, 0, counting(), LONGEST)
    assert [Span.FromString(found)] == of_sdk(span, TraceContext(1, 0, 2))


ATTEMPT = {
    "provider": "fake", "model": "m", "outcome": "ok", "began_at": 1_796_086_287.41, "duration_ms": 0.248,
    "waited_ms": 1.5, "first_token_ms": 0.212, "usage": {"input_tokens": 5, "output_tokens": 6}, "cost": 0.001,
}  # fmt: skip
FAILED = ATTEMPT | {"outcome": "timeout", "usage": None, "cost": None, "hedge": True}
MEMBER = {"member": "a", "round": 1, "outcome": "ok", "began_at": 1_796_086_287.4, "duration_ms": 2.0}
DECISIONS: tuple[dict[str, Any], ...] = (
    {"strategy": "fallback", "cache": "off", "attempts": [FAILED, ATTEMPT]},
    {"strategy": "panel", "members": [MEMBER | {"attempts": [ATTEMPT]}, MEMBER | {"attempts": [FAILED]}]},
    {"strategy": "single", "cache": "hit", "attempts": [ATTEMPT]},
)


def run_of(decision: dict[str, Any], trace: TraceContext | None = TRACE) -> Run:
    """A run that has ended, with this decision record."""
    request = ChatRequest(
        model="m", messages=(Message.of("user", "hé"),), caller="alice", parameters=Parameters(temperature=0.5, seed=-3)
    )
    run = Run(request, stream=True)
    begin_text(run)
    add_text(run, "hello")
    end_text(run)
    end = run.log.end
    assert end is not None
    assert end.response is not None
    response = msgspec.structs.replace(end.response, decision=decision)
    run.log.end = msgspec.structs.replace(end, response=response)
    run.timed, run.trace = (1_796_086_288.0, 1.0), trace
    return run


async def received(*runs: Run, content: bool = False, failing: bool = False) -> list[Seen]:
    """What a receiver of traces gets for ``runs``."""
    steps = [reply(b"", status=400), OK] if failing else [OK]
    async with Peer(*steps) as receiver:
        config = OtelConfig(endpoint=receiver.url, metrics=False, content=content)

        def write() -> None:
            writer = OtelWriter(config, str)
            writer.write(runs)
            writer.close()

        with (
            mock.patch.object(export, "getrandbits", counting()),
            mock.patch.object(encoded, "getrandbits", counting()),
        ):
            await trio.to_thread.run_sync(write)
        return list(receiver.requests)


def messages(requests: list[Seen]) -> list[ExportTraceServiceRequest]:
    assert {seen.target for seen in requests} <= {"/v1/traces"}
    return [ExportTraceServiceRequest.FromString(seen.body) for seen in requests]


def names(requests: list[Seen]) -> list[str]:
    return [
        span.name
        for each in messages(requests)
        for resource in each.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@pytest.mark.parametrize("content", [False, True])
async def test_a_receiver_gets_the_same_as_from_the_sdk(content: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    remote = run_of(DECISIONS[0], TRACE._replace(parent_id=7))
    failed = Run(ChatRequest(model="m", messages=(Message.of("user", "hi"),)), stream=False)
    failed.cancel("test", FailureKind.DEADLINE)
    failed.close()
    failed.timed, failed.trace = (1_796_086_288.0, 1.0), TRACE
    runs = [remote, failed, *map(run_of, DECISIONS)]
    ours = await received(*runs, content=content)
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "128")  # the SDK's default, but now the SDK makes the spans
    assert messages(ours) == messages(await received(*runs, content=content))
    assert len(names(ours)) == 13


@pytest.mark.parametrize("limit", ["", "128"])
async def test_a_trace_that_the_client_does_not_want_sampled_is_not_sent(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit:
        monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", limit)
    unwanted = TraceContext(1, 2, 3, flags=0)
    assert names(await received(run_of(DECISIONS[2], unwanted), run_of(DECISIONS[2]))) == ["run m"]


async def test_a_run_without_a_place_in_a_trace_gets_ids() -> None:
    (message,) = messages(await received(run_of(DECISIONS[2], None)))
    (span,) = message.resource_spans[0].scope_spans[0].spans
    assert (span.trace_id.hex(), span.span_id.hex()) == (f"{2:032x}", f"{1:016x}")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OTEL_TRACES_SAMPLER", "always_off", []),
        ("OTEL_TRACES_SAMPLER", "always_on", ["run m"]),
        ("OTEL_SDK_DISABLED", "true", []),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3", ["run m"]),
    ],
)
async def test_the_sdk_makes_the_spans_if_the_environment_has_a_sampler_or_limits(
    name: str, value: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with mock.patch.object(EncodedSpans, "add", side_effect=AssertionError):
        assert names(await received(run_of(DECISIONS[2]))) == expected


async def test_the_exporter_is_configured_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-tenant=one")
    (seen,) = await received(run_of(DECISIONS[2]))
    assert (seen.headers["content-encoding"], seen.headers["x-tenant"]) == ("gzip", "one")
    assert ExportTraceServiceRequest.FromString(gzip.decompress(seen.body)).resource_spans


async def test_batches_are_as_large_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    found = messages(await received(*[run_of(DECISIONS[2])] * 4))
    assert [len(each.resource_spans[0].scope_spans[0].spans) for each in found] == [2, 2]


async def test_a_batch_that_the_receiver_refuses_does_not_lose_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    runs = [run_of(DECISIONS[2])] * 2
    assert names(await received(*runs, failing=True)) == ["run m"] * 2
    assert [each.getMessage()[:27] for each in caplog.records] == ["Failed to export spans batc"]
