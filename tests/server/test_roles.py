"""What a key is for: asking, metrics, everything; and who sees whose cost."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from llm_protocol.budgets import Budget
from llm_protocol.content import Message
from llm_protocol.requests import ChatRequest
from llm_protocol.secret import Secret
from llm_runtime import open_runtime
from llm_runtime.config import Config, ConfigError, Key, Provider, parse
from support.peer import Peer, reply
from support.server import OpenServer, open_server
from support.upstream import JSON, whole

KEYS = {"app": "k-app", "prom": "k-prom", "boss": "k-boss"}
ROLES = {"prom": "metrics_only", "boss": "admin"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def statuses(server: OpenServer, method: str, target: str, body: object = None) -> dict[str, int]:
    """By caller; "" without a key."""
    found = {}
    for name, key in {**KEYS, "": ""}.items():
        headers = {"authorization": f"Bearer {key}"} if key else {}
        found[name] = (await server.request(method, target, body, **headers)).status
    return found


async def test_a_key_opens_what_it_is_for() -> None:
    async with open_server(keys=KEYS, roles=ROLES) as server:
        assert await statuses(server, "GET", "/metrics") == {"app": 403, "prom": 200, "boss": 200, "": 401}
        asked = await statuses(server, "POST", "/v1/chat/completions", CHAT)
        assert asked == {"app": 200, "prom": 403, "boss": 200, "": 401}
        assert await statuses(server, "GET", "/v1/models") == {"app": 200, "prom": 403, "boss": 200, "": 401}
        assert await statuses(server, "GET", "/readyz") == {"app": 200, "prom": 200, "boss": 200, "": 200}
        refused = await server.request("GET", "/metrics", authorization="Bearer k-app")
        assert refused.json["error"]["message"] == "This endpoint needs a key with metrics_only = true or admin = true."


async def test_without_keys_everybody_sees_all() -> None:
    async with open_server() as server:
        assert (await server.request("GET", "/metrics")).status == 200


async def test_a_caller_sees_its_own_use_and_cost_alone() -> None:
    async with Peer(reply(whole(), headers=JSON)) as peer:
        provider = Provider(kind="openai_compatible", base_url=f"{peer.url}/v1", models=("m",))
        keys = {name: Key(secret=Secret(key)) for name, key in KEYS.items()}
        async with open_runtime(Config(providers={"p": provider}, keys=keys)) as runtime:
            for caller in ("app", "app", "boss"):
                await runtime.send(ChatRequest(model="p/m", messages=(Message.of("user", "Hi."),), caller=caller))
            everything = await runtime.statistics()
            assert {name: each.requests for name, each in everything.callers.items()} == {"app": 2, "boss": 1}
            assert everything.providers["p"].models["m"].input_tokens > 0
            own = await runtime.statistics("app")
            assert own.callers == {"app": everything.callers["app"]}
            assert (own.requests, own.refused, own.limited, own.cache_requests) == ({}, {}, {}, {})
            assert (own.providers["p"].models, own.providers["p"].attempts) == ({}, {})
            assert own.providers["p"].breaker == everything.providers["p"].breaker
            assert (await runtime.statistics("nobody")).callers == {}


async def test_a_caller_sees_the_budgets_that_pay_for_it() -> None:
    async with Peer(reply(whole(), headers=JSON)) as peer:
        provider = Provider(kind="openai_compatible", base_url=f"{peer.url}/v1", models=("m",))
        config = Config(
            providers={"p": provider},
            keys={
                "app": Key(secret=Secret(KEYS["app"]), team="red"),
                "boss": Key(secret=Secret(KEYS["boss"]), team="red"),
            },
            budgets={
                "all": Budget(tokens=100_000),
                "reds": Budget(teams=("red",), tokens=50_000, per="day", soft=0.5),
                "his": Budget(keys=("boss",), tokens=10_000),
            },
        )
        async with open_runtime(config) as runtime:
            await runtime.send(ChatRequest(model="p/m", messages=(Message.of("user", "Hi."),), caller="app"))
            everything = (await runtime.statistics()).budgets
            assert {name: each.callers for name, each in everything.items()} == {
                "all": None, "reds": ("app", "boss"), "his": ("boss",)
            }  # fmt: skip
            assert everything["reds"].tokens == everything["all"].tokens > everything["his"].tokens == 0
            assert (everything["reds"].tokens_limit, everything["reds"].per) == (50_000, "day")
            own = (await runtime.statistics("app")).budgets
            assert {name: each.callers for name, each in own.items()} == {"all": None, "reds": ("app",)}


async def test_the_server_asks_for_the_callers_own() -> None:
    async with open_server(keys=KEYS, roles=ROLES) as server:
        asked: list[str | None] = []

        async def statistics(caller: str | None = None) -> object:
            await trio.lowlevel.checkpoint()
            asked.append(caller)
            return {}

        server.engine.statistics = statistics  # type: ignore[method-assign]
        await statuses(server, "GET", "/v1/runtime/statistics")
        assert asked == ["app", None]


def test_a_key_is_for_one_of_them() -> None:
    source = '[providers.a]\nkind = "ollama"\n[keys.x]\nsecret = "env:K"\nadmin = true\nmetrics_only = true'
    with pytest.raises(ConfigError, match=r"keys\.x: admin and metrics_only cannot both be set"):
        parse(source.encode(), {"K": "k" * 32})


async def test_a_server_that_is_about_to_close_says_so_first_and_goes_on(jumping_clock: MockClock) -> None:
    async with open_server(ready_delay_s=30, drain_s=5) as server, await server.connect() as kept:
        assert (await kept.request("GET", "/readyz")).status == 200
        server.root.stop()
        begun = trio.current_time()
        await trio.sleep(20)
        assert (await kept.request("GET", "/readyz")).status == 503
        assert (await server.request("POST", "/v1/chat/completions", CHAT)).status == 200, "a new connection, too"
        await kept.until_closed()
        assert trio.current_time() - begun >= 30
