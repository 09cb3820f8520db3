"""Nothing of a call that has ended waits for the garbage collector, on any host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import llm_runtime
from hosts.adapters import HOSTS, Scenario
from hosts.conftest import Upstream
from llm_protocol.errors import LLMTimeoutError
from support.circles import circles

CALLS = 3

Host = Callable[[Scenario, llm_runtime.Config], None]


async def chat(rt: Any) -> None:
    await rt.chat("Say hello.", model="fake/m")


async def stream(rt: Any) -> None:
    async with rt.stream("Say hello.", model="fake/m") as stream:
        async for _ in stream:
            pass
    assert stream.response.content


async def left(rt: Any) -> None:
    async with rt.stream("Go.", model="fake/slow") as stream:
        async for _ in stream.text():
            break


async def failed(rt: Any) -> None:
    async with rt.stream("Go.", model="fake/silent", deadline_s=0.1) as stream:
        with pytest.raises(LLMTimeoutError):
            [_ async for _ in stream]


@pytest.mark.parametrize("call", [chat, stream, left, failed])
@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_nothing_of_a_call_waits_for_the_collector(
    host: Host, call: Callable[[Any], Awaitable[None]], upstream: Upstream
) -> None:
    async def scenario(rt: Any) -> None:
        await call(rt)
        with circles() as found:
            for _ in range(CALLS):
                await call(rt)
        assert not found

    host(scenario, upstream.config)
