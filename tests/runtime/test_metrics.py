"""What the runtime tells Prometheus, read by prometheus-client's own parser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import llm_runtime
from llm_actors.orchestrator import Metrics
from llm_actors.orchestrator.decision_record import AttemptRecord
from llm_actors.orchestrator.metrics import MAX_MODELS, OTHER, REQUEST_SECONDS
from llm_protocol.errors import BadRequestError, ModelNotFoundError
from llm_protocol.policy import CachePolicy, Policy
from llm_protocol.requests import LLMProvider
from llm_protocol.response import Usage
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Limits, Provider
from support.peer import Peer, reply, sse
from support.upstream import CANARY, END, HELLO, JSON, whole

Numbers = dict[tuple[str, ...], float]


def read(text: bytes) -> dict[str, Numbers]:
    """Name -> values of the labels, in the order of their names -> value."""
    found: dict[str, Numbers] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name.removeprefix("llm_runtime_"), {})[tuple(sample.labels.values())] = sample.value
    return found


def config(peer: Peer) -> Config:
    provider = Provider(
        kind=LLMProvider.OPENAI_COMPATIBLE,
        base_url=f"{peer.url}/v1",
        api_key=Secret(CANARY),
        models=("m",),
        limits=Limits(max_concurrency=4, requests_per_minute=6_000),
    )
    return Config(providers={"fake": provider}, cache=CachePolicy(enabled=True))


async def test_every_request_and_every_call_is_counted_once() -> None:
    """A whole answer, one from the cache, a streamed one, one that fails for good, and one that is not taken on."""
    secret = "PROMPT-CANARY"
    refused = reply(b'{"error":{"message":"no","type":"invalid_request_error"}}', 400, JSON)
    async with Peer(reply(whole(), headers=JSON), sse(*HELLO, *END), refused) as peer:
        async with llm_runtime.open_runtime(config(peer)) as rt:
            await rt.chat(secret)
            await rt.chat(secret)
            async with rt.stream("another", policy=Policy(cache="off")) as answer:
                assert [text async for text in answer.text()]
                during = read(await rt.metrics())
            with pytest.raises(BadRequestError):
                await rt.embed("a third")
            with pytest.raises(ModelNotFoundError):
                await rt.chat("a fourth", model="nobody/has-it")
            text = await rt.metrics()

    assert secret.encode() not in text
    assert CANARY.encode() not in text
    assert during["requests_running"][()] in (0, 1)
    told = read(text)
    assert told["requests_running"] == {(): 0}
    assert list(told["info"].values()) == [1]
    assert told["requests_total"] == {("ok", "fake", "chat"): 3, ("bad_request", "fake", "embedding"): 1}
    assert told["requests_refused_total"] == {("model_not_found",): 1}
    assert told["attempts_total"] == {("ok", "fake"): 2, ("bad_request", "fake"): 1}
    assert told["request_seconds_count"] == {("fake", "chat"): 3}
    assert told["attempt_seconds_count"] == {("fake",): 2}
    assert told["first_token_seconds_count"] == {("fake",): 1}
    assert told["cache_requests_total"] == {("miss",): 2, ("hit",): 1, ("off",): 1}
    assert told["tokens_total"]["input", "m", "fake"] >= 5
    assert told["unpriced_attempts_total"][("fake",)] >= 1
    assert told["caller_requests_total"] == {("",): 4}
    assert told["breaker_state"]["fake", "closed"] == 1
    assert told["limited_in_flight"] == {("fake",): 0}
    assert "limits_shared" not in told, "there is no Redis"
    assert told["cache_bytes"][("memory",)] > 0
    assert told["actor_up"]["llm-runtime/core/limiter",] == 1
    assert set(told["actor_restarts_total"].values()) == {0}
    assert told["process_resident_memory_bytes"][()] > 1_000_000


async def test_an_actor_that_does_not_run_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for actor in ("limiter", "cache"):
        monkeypatch.setattr(f"llm_runtime.metrics.{actor}_snapshot", lambda _: None)
    async with Peer() as peer, llm_runtime.open_runtime(config(peer)) as rt:
        told = read(await rt.metrics())
    assert "limited_in_flight" not in told
    assert told["actor_up"]["llm-runtime/core/limiter",] == 1


def made(model: str, cost: float | None) -> AttemptRecord:
    usage = Usage(input_tokens=2, output_tokens=1)
    return AttemptRecord(provider="p", model=model, outcome="ok", duration_ms=1.0, usage=usage, cost=cost)


def test_a_flood_of_model_names_is_counted_together() -> None:
    metrics = Metrics()
    for number in range(100_000):
        metrics.attempt(made(f"m{number}", 0.5), "me", stream=False)
    assert len(metrics.cost) == MAX_MODELS + 1
    assert metrics.tokens["p", OTHER, "input"] == 2 * (100_000 - MAX_MODELS)
    assert metrics.caller_cost["me"] == 50_000


def test_what_has_no_price_costs_nothing_and_is_told() -> None:
    metrics = Metrics()
    metrics.attempt(made("m", None), "", stream=False)
    assert metrics.unpriced == {"p": 1}
    assert not metrics.cost


def test_a_histogram_counts_each_value_under_its_bound() -> None:
    metrics = Metrics()
    seconds = metrics.request_seconds["chat", "p"]
    for value in (0.0, REQUEST_SECONDS[0], 0.2, 10_000.0):
        seconds.add(value)
    assert (seconds.counts[0], seconds.counts[2], seconds.counts[-1]) == (2, 1, 1)
    assert sum(seconds.counts) == 4
    assert seconds.total == pytest.approx(10_000.25)


def test_every_metric_has_one_row_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    source = (Path(llm_runtime.__file__).parent / "metrics.py").read_text()
    made = re.findall(r'yield _(counter|gauge|histogram)\(\s*"(\w+)"', source)
    assert len(made) == len(re.findall(r"yield _(?:counter|gauge|histogram)\(", source))
    names = [f"llm_runtime_{name}_total" if kind == "counter" else f"llm_runtime_{name}" for kind, name in made]
    first_cells = " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    rows = re.findall(r"`(llm_runtime_\w+)`", first_cells)
    assert {"without a row in docs/metrics.md": set(names) - set(rows), "no such metric": set(rows) - set(names)} == {
        "without a row in docs/metrics.md": set(),
        "no such metric": set(),
    }
    assert sorted(rows) == sorted(names), "one row each"
