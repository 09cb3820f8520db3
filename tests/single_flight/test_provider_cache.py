"""`[providers.NAME.cache]`: whose answers are kept, through the whole runtime, on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

import llm_runtime
from llm_protocol.content import Message
from llm_protocol.policy import CachePolicy, Policy
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_runtime.config import Config, Provider, ProviderCache
from support.peer import Peer, reply
from support.upstream import JSON, whole

ON, OFF = ProviderCache(enabled=True), ProviderCache(enabled=False)


@asynccontextmanager
async def runtime(
    *, cache: bool, routes: dict[str, Policy] | None = None, **providers: ProviderCache
) -> AsyncIterator[tuple[llm_runtime.Runtime, dict[str, Peer]]]:
    """One vendor for each of ``providers``, by name; each counts how often it is asked."""
    async with trio.open_nursery() as nursery:
        peers = {name: Peer(reply(whole(f"by {name}"), headers=JSON)) for name in providers}
        for peer in peers.values():
            await nursery.start(_serve, peer)
        config = Config(
            cache=CachePolicy(enabled=cache),
            providers={
                name: Provider(
                    kind=LLMProvider.OPENAI_COMPATIBLE, base_url=f"{peers[name].url}/v1", models=("m",), cache=own
                )
                for name, own in providers.items()
            },
            routes=routes or {},
        )
        async with llm_runtime.open_runtime(config) as rt:
            yield rt, peers
        nursery.cancel_scope.cancel()


async def _serve(peer: Peer, *, task_status: trio.TaskStatus[None]) -> None:
    async with peer:
        task_status.started()
        await trio.sleep_forever()


async def outcomes(rt: llm_runtime.Runtime, model: str, **policy: Any) -> list[str]:
    """What the cache did for two equal requests, one after the other."""
    made = msgspec.convert(policy, Policy) if policy else None
    request = ChatRequest(model=model, messages=(Message.of("user", "hi"),), policy=made)
    return [(await rt.send(request)).decision["cache"] for _ in range(2)]


@pytest.mark.parametrize(
    ("general", "own", "expected"),
    [
        (False, ON, ["miss", "hit"]),
        (True, OFF, ["off", "off"]),
        (True, ProviderCache(), ["miss", "hit"]),
        (False, ProviderCache(), ["off", "off"]),
    ],
)
async def test_what_a_provider_says_comes_before_the_general_section(
    general: bool, own: ProviderCache, expected: list[str]
) -> None:
    async with runtime(cache=general, a=own) as (rt, _):
        assert await outcomes(rt, "a/m") == expected


async def test_a_request_and_a_route_come_before_the_provider() -> None:
    routes = {"kept": Policy(candidates=("b/m",), cache="read"), "fresh": Policy(candidates=("a/m",), cache="off")}
    async with runtime(cache=False, routes=routes, a=ON, b=OFF) as (rt, _):
        assert await outcomes(rt, "a/m", cache="off") == ["off", "off"]
        assert await outcomes(rt, "fresh") == ["off", "off"]
        assert await outcomes(rt, "b/m", cache="read") == ["miss", "hit"]
        assert await outcomes(rt, "kept") == ["miss", "hit"]
        assert await outcomes(rt, "kept", cache="off") == ["off", "off"]
        assert await outcomes(rt, "fresh", cache="read") == ["miss", "hit"]


async def test_with_several_candidates_one_that_is_not_cached_is_enough() -> None:
    """Who will answer is not known when the cache is asked, and whose answers are never given twice must not be."""
    async with runtime(cache=True, a=ProviderCache(), b=OFF, c=ON) as (rt, peers):
        several = ("a/m", "b/m")
        assert await outcomes(rt, "auto", candidates=several, strategy="fallback") == ["off", "off"]
        assert len(peers["a"].requests) == 2
        assert await outcomes(rt, "auto", candidates=("a/m", "c/m"), strategy="fallback") == ["miss", "hit"]


async def test_an_answer_that_one_who_is_not_cached_had_a_part_in_is_not_kept() -> None:
    async with runtime(cache=True, a=ON, b=ON, c=OFF) as (rt, peers):
        how: dict[str, Any] = {"strategy": "panel", "members": ("a/m", "b/m")}
        assert await outcomes(rt, "auto", **how, synthesiser="c/m") == ["miss", "miss"]
        assert len(peers["c"].requests) == 2
        assert await outcomes(rt, "auto", **how, synthesiser="b/m") == ["miss", "hit"]


async def test_a_providers_time_to_live_is_that_of_its_answers(mock_clock: MockClock) -> None:
    short = ProviderCache(ttl_s=10)
    async with runtime(cache=True, a=short, b=ProviderCache()) as (rt, _):
        mock_clock.rate = 0
        for name in "ab":
            assert await outcomes(rt, f"{name}/m") == ["miss", "hit"]
        mock_clock.jump(10)
        assert await outcomes(rt, "a/m") == ["miss", "hit"]
        assert await outcomes(rt, "b/m") == ["hit", "hit"]
