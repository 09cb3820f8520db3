"""What the runtime tells of itself as one value, and that the page's endpoint tells it."""

from __future__ import annotations

import msgspec
import pytest
import trio

import llm_runtime
from llm_actors.cache import CacheStatistics
from llm_actors.kernel import ChildStatus, TreeNode
from llm_actors.kernel.mailbox import MailboxStatistics
from llm_actors.limiter import LimiterStatistics
from llm_actors.orchestrator import Metrics
from llm_actors.orchestrator.decision_record import AttemptRecord
from llm_actors.redis import RedisServer
from llm_actors.selector import CircuitState
from llm_protocol.errors import BadRequestError, ModelNotFoundError
from llm_protocol.policy import CachePolicy, Policy
from llm_protocol.requests import LLMProvider
from llm_protocol.response import Usage
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Limits, Provider, Server
from llm_runtime.metrics import MetricsSnapshot
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from llm_runtime.statistics import SharedLimitsStatistics, Statistics, statistics
from support.peer import Peer, reply, sse
from support.server import HttpClient
from support.upstream import CANARY, END, HELLO, JSON, whole


def config(peer: Peer) -> Config:
    limits = Limits(max_concurrency=4)
    kind = LLMProvider.OPENAI_COMPATIBLE
    limited = Provider(
        kind=kind, base_url=f"{peer.url}/v1", api_key=Secret(CANARY), models=("m",), limits=limits, enabled=True
    )
    free = Provider(kind=kind, base_url=f"{peer.url}/v1", models=("n",))
    off = Provider(kind=kind, base_url=f"{peer.url}/v1", models=("o",), enabled=False)
    return Config(providers={"fake": limited, "free": free, "off": off}, cache=CachePolicy(enabled=True))


async def test_every_request_and_every_call_is_told_by_provider_and_caller() -> None:
    """A whole answer, one from the cache, a streamed one, one that fails for good, and one that is not taken on."""
    secret = "PROMPT-CANARY"
    refused = reply(b'{"error":{"message":"no","type":"invalid_request_error"}}', 400, JSON)
    async with Peer(reply(whole(), headers=JSON), sse(*HELLO, *END), refused) as peer:
        async with llm_runtime.open_runtime(config(peer)) as rt:
            await rt.chat(secret, model="fake/m")
            await rt.chat(secret, model="fake/m")
            async with rt.stream("another", model="fake/m", policy=Policy(cache="off")) as answer:
                assert [text async for text in answer.text()]
            with pytest.raises(BadRequestError):
                await rt.embed("a third", model="fake/m")
            with pytest.raises(ModelNotFoundError):
                await rt.chat("a fourth", model="nobody/has-it")
            told = await rt.statistics()

    text = msgspec.json.encode(told)
    assert secret.encode() not in text
    assert CANARY.encode() not in text
    assert told == msgspec.json.decode(text, type=Statistics)
    assert told.running == 0
    assert told.connections is None
    assert told.requests == {"chat": {"ok": 3}, "embedding": {"bad_request": 1}}
    assert told.refused == {"model_not_found": 1}
    assert told.cache_requests == {"miss": 2, "hit": 1, "off": 1}
    assert told.cache is not None
    assert told.cache.memory.hits == 1
    assert told.sharing is SharedLimitsStatistics.OFF
    assert list(told.providers) == ["fake", "free"]
    fake, free = told.providers.values()
    assert (fake.kind, fake.breaker) == (LLMProvider.OPENAI_COMPATIBLE, CircuitState.CLOSED)
    assert fake.attempts == {"ok": 2, "bad_request": 1}
    assert fake.attempt_seconds is not None
    assert sum(fake.attempt_seconds.counts) == 2
    assert fake.first_token_seconds is not None
    assert sum(fake.first_token_seconds.counts) == 1
    assert len(fake.first_token_seconds.counts) == len(fake.first_token_seconds.bounds) + 1
    assert fake.models["m"].input_tokens >= 3
    assert fake.models["m"].cost is None
    assert fake.unpriced >= 1
    assert fake.limits is not None
    assert fake.limits.in_flight == 0
    assert (free.attempts, free.models, free.attempt_seconds, free.limits) == ({}, {}, None, None)
    assert told.callers[""].requests == 4
    assert told.callers[""].tokens == sum(use.input_tokens + use.output_tokens for use in fake.models.values())
    assert told.uptime_s == told.tree.uptime > 0
    assert [child.name for child in told.tree.children] == ["core"]


async def test_the_server_tells_it_and_counts_connections_without_naming_them() -> None:
    addresses: list[ListenAddress] = []
    settings = Server(host="127.0.0.1", port=0, drain_s=1)
    async with Peer() as peer:
        runtime = Runtime(config(peer), servers=lambda rt: server_child(settings, rt, addresses.append))
        async with runtime.running():
            first, second = [await trio.open_tcp_stream(addresses[0].host, addresses[0].port) for _ in range(2)]
            as_client = HttpClient(first)
            other = HttpClient(second)
            assert (await other.request("GET", "/livez")).status == 200
            answer = await as_client.request("GET", "/v1/runtime/statistics")
            as_client.close()
            other.close()
    told = msgspec.json.decode(answer.body, type=Statistics)
    assert told.connections == 2
    [sessions] = [child for child in told.tree.children if child.name == "sessions"]
    assert sessions.children == ()


async def test_an_actor_that_does_not_run_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for actor in ("limiter", "cache"):
        monkeypatch.setattr(f"llm_runtime.metrics.{actor}_snapshot", lambda _: None)
    async with Peer() as peer, llm_runtime.open_runtime(config(peer)) as rt:
        told = await rt.statistics()
    assert told.cache is None
    assert told.providers["fake"].limits is None
    assert told.tree.status is ChildStatus.RUNNING


TREE = TreeNode(
    name="llm-runtime", status=ChildStatus.RUNNING, restarts=0, uptime=1.0, last_crash="", mailbox=MailboxStatistics()
)


def limiter(*, shared: bool) -> LimiterStatistics:
    return LimiterStatistics(
        providers={}, waiting=0, leases=0, callers={}, shared=shared, granted=0, refused=0, expired=0
    )


@pytest.mark.parametrize(
    ("known", "sharing"),
    [
        (limiter(shared=True), SharedLimitsStatistics.ON),
        (limiter(shared=False), SharedLimitsStatistics.LOST),
        (None, None),
    ],
)
def test_limits_that_should_be_shared_are_told_to_be_or_not(
    known: LimiterStatistics | None, sharing: SharedLimitsStatistics | None
) -> None:
    cache: CacheStatistics | None = None
    settings = Config(redis=RedisServer(url=Secret("redis://127.0.0.1:6379/0")))
    assert statistics(MetricsSnapshot(Metrics(), TREE, {}, {}, known, cache), settings).sharing is sharing
    assert (
        statistics(MetricsSnapshot(Metrics(), TREE, {}, {}, known, cache), Config()).sharing
        is SharedLimitsStatistics.OFF
    )


def test_what_is_priced_and_what_is_not_are_told_apart() -> None:
    metrics = Metrics()
    usage = Usage(input_tokens=2, output_tokens=1)
    for model, cost in (("dear", 0.5), ("unknown", None)):
        made = AttemptRecord(provider="p", model=model, outcome="ok", duration_ms=1.0, usage=usage, cost=cost)
        metrics.attempt(made, "me", stream=False)
    providers = {"p": Provider(kind=LLMProvider.OPENAI_COMPATIBLE, base_url="http://127.0.0.1:9/v1")}
    snapshot = MetricsSnapshot(
        metrics, TREE, {"p": CircuitState.OPEN}, {("p", "dear"): CircuitState.HALF_OPEN}, None, None
    )
    told = statistics(snapshot, Config(providers=providers))
    found = told.providers["p"]
    assert found.circuits == {"dear": CircuitState.HALF_OPEN}
    assert (found.breaker, found.unpriced) == (CircuitState.OPEN, 1)
    assert {name: use.cost for name, use in found.models.items()} == {"dear": 0.5, "unknown": None}
    assert (told.callers["me"].tokens, told.callers["me"].cost) == (6, 0.5)
