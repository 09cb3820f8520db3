"""Traces and metrics over OpenTelemetry: a receiver reads what a daemon sends, with the protocol's own decoder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from llm_protocol.client_headers import trace_context
from llm_runtime.config import ConfigError, parse
from support.commands import rest, running
from support.daemon import vendor
from support.peer import Peer, Seen, reply
from support.server import HttpClient, open_server

CONFIG = """
[server]
port = 0
[keys.alice]
secret = "env:ALICE"
[prices."fake/fake-1"]
input = 1000
output = 10000
[providers.fake]
kind = "openai_compatible"
base_url = "{url}/v1"
models = ["fake-1", "fake-2"]
[routes.team]
candidates = ["fake/fake-1", "fake/fake-2"]
strategy = "panel"
[otel]
endpoint = "{receiver}"
headers = {{ authorization = "env:RECEIVER" }}
"""
SECRETS = {"ALICE": "CANARY-secret-of-alice", "RECEIVER": "CANARY-secret-of-receiver"}
PROMPT = "say CANARY-prompt-42"
TRACE_ID, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def value(found: Any) -> Any:
    kind = found.WhichOneof("value")
    return [each.string_value for each in found.array_value.values] if kind == "array_value" else getattr(found, kind)


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: value(each.value) for each in of.attributes}


def spans(requests: list[Seen]) -> Iterator[Any]:
    for seen in requests:
        if seen.target == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(seen.body).resource_spans:
                assert attributes(resource.resource)["service.name"] == "llm-runtime"
                for scope in resource.scope_spans:
                    yield from scope.spans


def points(requests: list[Seen]) -> dict[str, list[Any]]:
    """The points of each histogram, as last sent."""
    found: dict[str, list[Any]] = {}
    for seen in requests:
        if seen.target == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(seen.body).resource_metrics:
                for scope in resource.scope_metrics:
                    found |= {each.name: list(each.histogram.data_points) for each in scope.metrics}
    return found


def chat(model: str = "fake-1", text: str = PROMPT, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 2, **more}


async def told(
    folder: Path,
    upstream: str,
    receiver: str,
    *bodies: dict[str, object],
    more: str = "",
    statuses: tuple[int, ...] = (),
) -> str:
    """Have a daemon answer requests with these bodies, and end. Return what it logged."""
    config = folder / "config.toml"
    config.write_text(CONFIG.format(url=upstream, receiver=receiver) + more)
    arguments = ("serve", "--config", str(config))
    async with running(*arguments, stdout=subprocess.PIPE, environ=SECRETS) as process:
        assert process.stdout is not None
        port = int((await process.stdout.receive_some()).decode().rsplit(":", 1)[1])
        sock = trio.socket.socket()
        await sock.connect(("127.0.0.1", port))
        async with HttpClient(trio.SocketStream(sock)) as client:
            headers = {"authorization": f"Bearer {SECRETS['ALICE']}"}
            headers["traceparent"] = f"00-{TRACE_ID}-{CLIENT_SPAN}-01"
            with trio.fail_after(20):
                answers = [await client.request("POST", "/v1/chat/completions", body, **headers) for body in bodies]
            assert tuple(each.status for each in answers) == (statuses or (200,) * len(bodies))
        process.terminate()
        said = await rest(process.stderr)
        await process.wait()
        return said


OK = reply(b"", headers={"content-type": "application/x-protobuf"})


async def test_a_trace_of_runs_members_and_calls_goes_on_from_the_client_to_the_vendor(tmp_path: Path) -> None:
    async with Peer(OK) as receiver, open_server(vendor) as upstream:
        said = await told(tmp_path, upstream.address.url, receiver.url, chat(), chat("team"))
        assert {each.headers["authorization"] for each in receiver.requests} == {SECRETS["RECEIVER"]}
        found = {each.span_id: each for each in spans(receiver.requests)}
        assert {each.trace_id.hex() for each in found.values()} == {TRACE_ID}
        runs = [each for each in found.values() if each.name.startswith("run ")]
        assert [(each.name, each.parent_span_id.hex()) for each in runs] == [
            ("run fake-1", CLIENT_SPAN),
            ("run team", CLIENT_SPAN),
        ]
        sent = upstream.engine.requests[0].forwarded["traceparent"]
        assert sent == f"00-{TRACE_ID}-{runs[0].span_id.hex()}-01", "the vendor goes on from the run"
        assert attributes(runs[0])["llm_runtime.caller"] == "alice"

        (call,) = [each for each in found.values() if each.parent_span_id == runs[0].span_id]
        about = attributes(call)
        expected = {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai_compatible",
            "gen_ai.request.model": "fake-1", "gen_ai.response.model": "fake-1", "gen_ai.request.max_tokens": 2,
            "gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 2,
            "gen_ai.response.finish_reasons": ["stop"], "llm_runtime.provider": "fake",
        }  # fmt: skip
        assert call.name == "chat fake-1"
        assert {name: about.get(name) for name in expected} == expected
        assert runs[0].start_time_unix_nano <= call.start_time_unix_nano < call.end_time_unix_nano
        assert call.end_time_unix_nano <= runs[0].end_time_unix_nano + 2_000_000

        members = [each for each in found.values() if each.name.startswith("member ")]
        assert {each.parent_span_id for each in members} == {runs[1].span_id}
        inner = [each for each in found.values() if each.parent_span_id in {member.span_id for member in members}]
        assert {each.name for each in inner} == {"chat fake-1", "chat fake-2"}

        known = {each for each in vars(gen_ai_attributes).values() if isinstance(each, str)} | {"error.type"}
        for each in found.values():
            used = {name for name in attributes(each) if not name.startswith("llm_runtime.")}
            assert used <= known, "names of the conventions"
        measured = points(receiver.requests)
        assert set(measured) <= {each for each in vars(gen_ai_metrics).values() if isinstance(each, str)}
        calls = sum(each.count for each in measured["gen_ai.client.operation.duration"])
        assert calls == len(upstream.engine.requests)
        tokens = {attributes(each)["gen_ai.token.type"] for each in measured["gen_ai.client.token.usage"]}
        assert tokens == {"input", "output"}
        everything = b"".join(each.body for each in receiver.requests).decode("utf-8", "replace")
        assert "CANARY" not in everything
        assert "CANARY" not in said
        assert "already shutdown" not in said


async def test_runs_that_fail_that_stream_and_that_the_cache_answers_are_told_apart(tmp_path: Path) -> None:
    async with Peer(OK) as receiver, open_server(vendor) as upstream:
        bodies = (
            chat("nobody"), chat(text="fail bad_request"), chat(text="say more", stream=True),
            chat(text="say it"), chat(text="say it"),
        )  # fmt: skip
        cache = "[cache]\nenabled = true\n"
        await told(
            tmp_path, upstream.address.url, receiver.url, *bodies, more=cache, statuses=(404, 400, 200, 200, 200)
        )
        found = list(spans(receiver.requests))
        runs = sorted(
            (each for each in found if each.name.startswith("run ")), key=lambda each: each.start_time_unix_nano
        )
        failed, streamed, first, cached = runs  # none of the model that is not there
        calls = [[each for each in found if each.parent_span_id == run.span_id] for run in runs]
        assert [len(each) for each in calls] == [1, 1, 1, 0], "what the cache answers is no call"
        for each in failed, calls[0][0]:
            assert (each.status.code, attributes(each)["error.type"]) == (2, "bad_request")
        assert "gen_ai.response.model" not in attributes(calls[0][0])
        assert [attributes(each)["llm_runtime.stream"] for each in runs] == [False, True, False, False]
        assert attributes(calls[1][0])["gen_ai.response.time_to_first_chunk"] > 0
        assert attributes(calls[1][0])["gen_ai.response.finish_reasons"] == ["stop"]
        assert attributes(cached)["llm_runtime.cache"] == "hit"
        assert {each.status.code for each in (streamed, first, cached)} == {0}
        durations = points(receiver.requests)["gen_ai.client.operation.duration"]
        assert {attributes(each).get("error.type"): each.count for each in durations} == {None: 2, "bad_request": 1}


async def test_content_is_told_to_who_opted_in(tmp_path: Path) -> None:
    async with Peer(OK) as receiver, open_server(vendor) as upstream:
        await told(tmp_path, upstream.address.url, receiver.url, chat(), more="content = true\n")
        (run,) = [each for each in spans(receiver.requests) if each.name.startswith("run ")]
        about = attributes(run)
        assert about["gen_ai.input.messages"] == (
            f'[{{"role":"user","parts":[{{"type":"text","content":"{PROMPT}"}}]}}]'
        )
        assert '"content":"CANARY-prompt-42' in about["gen_ai.output.messages"]
        assert "secret" not in str(about)


async def test_a_collector_that_is_away_costs_nobody_a_request_and_a_few_lines(tmp_path: Path) -> None:
    async with open_server(vendor) as upstream:
        with trio.fail_after(30):
            said = await told(tmp_path, upstream.address.url, "http://127.0.0.1:9", *[chat()] * 10)
        assert len(upstream.engine.requests) == 10
        assert "Traceback" not in said
        assert 1 <= said.count("opentelemetry") + said.count("export") <= 8, said
        assert "CANARY" not in said


HEX = "0123456789abcdef"


@given(st.text(HEX, min_size=32, max_size=32), st.text(HEX, min_size=16, max_size=16), st.sampled_from(["00", "01"]))
def test_a_trace_goes_on_or_begins(trace_id: str, parent_id: str, flags: str) -> None:
    found = trace_context(f"00-{trace_id}-{parent_id}-{flags}", lambda bits: 2**bits - 1)
    assert found.span_id == 2**64 - 1
    if int(trace_id, 16) and int(parent_id, 16):
        assert found.traceparent == f"00-{trace_id}-{'f' * 16}-{flags}"
        assert f"{found.parent_id:016x}" == parent_id
    else:
        assert (found.parent_id, found.trace_id) == (0, 2**128 - 1)


@given(st.none() | st.text(HEX + "-", max_size=60))
def test_what_is_no_traceparent_begins_a_trace(header: str | None) -> None:
    found = trace_context(header, lambda bits: 7)
    assert found.span_id == 7


def test_a_key_in_a_header_is_refused_and_other_values_are_not() -> None:
    written = parse(b'[otel]\nheaders = { dd-otlp-source = "llmobs", dd-api-key = "env:K" }\n', {"K": "CANARY"})
    assert written.otel is not None
    assert {name: each.reveal() for name, each in written.otel.headers.items()} == {
        "dd-otlp-source": "llmobs",
        "dd-api-key": "CANARY",
    }
    with pytest.raises(ConfigError, match=r"otel\.headers\.Authorization: a key must not be written here") as told:
        parse(b'[otel]\nheaders = { Authorization = "Basic CANARY" }\n', {})
    assert "CANARY" not in str(told.value)


def test_a_key_in_the_address_is_refused() -> None:
    for endpoint in ("https://user:CANARY@x.example", "https://x.example?key=CANARY", "x.example", "ftp://x"):
        with pytest.raises(ConfigError, match=r"otel\.endpoint") as told:
            parse(f'[otel]\nendpoint = "{endpoint}"\n'.encode(), {})
        assert "CANARY" not in str(told.value)
