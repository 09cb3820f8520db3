"""A call that has ended is gone: nothing of it waits for the garbage collector, which may come by minutes later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio

from llm_protocol.errors import LLMClientError
from llm_runtime import Runtime
from runtime.test_runtime import running
from support.circles import circles
from support.peer import Script, sse, stall
from support.upstream import END, HELLO

CALLS = 5


async def plain(rt: Runtime) -> None:
    async with rt.stream("Say hello.") as answer:
        assert [text async for text in answer.text()]


async def cancelled(rt: Runtime) -> None:
    with trio.move_on_after(0.05):
        await plain(rt)


async def late(rt: Runtime) -> None:
    with suppress(LLMClientError):
        async with rt.stream("Say hello.", deadline_s=0.05) as answer:
            async for _ in answer.text():
                pass


BROKEN = [sse(*HELLO, end=False), stall()]


@pytest.mark.parametrize(("script", "call"), [(sse(*HELLO, *END), plain), (BROKEN, cancelled), (BROKEN, late)])
async def test_nothing_of_a_stream_waits_for_the_collector(
    script: Script, call: Callable[[Runtime], Awaitable[None]]
) -> None:
    async with running(*[script] * (CALLS + 1)) as (rt, _):
        await call(rt)
        with circles() as found:
            for _ in range(CALLS):
                await call(rt)
            await trio.sleep(0.1)
    assert not found
