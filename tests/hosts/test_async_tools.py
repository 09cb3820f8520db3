"""Tools that wait, on the two hosts that can."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

import llm_runtime
from hosts.adapters import on_asyncio, on_trio
from hosts.conftest import Upstream
from llm_runtime import tool

both = pytest.mark.parametrize(
    ("host", "sleep"), [(on_trio, trio.sleep), (on_asyncio, asyncio.sleep)], ids=["trio", "asyncio"]
)
Host = Callable[[Any, llm_runtime.Config], None]
Sleep = Callable[[float], Awaitable[None]]


@both
def test_tools_of_one_turn_run_at_the_same_time_and_not_for_ever(host: Host, sleep: Sleep, upstream: Upstream) -> None:
    running: list[int] = [0, 0]

    async def weather(city: str) -> str:
        running[0] += 1
        running[1] = max(running)
        await sleep(0.05)
        running[0] -= 1
        return city

    async def clock() -> str:
        await weather("")
        await sleep(60)
        return "never"

    async def scenario(rt: Any) -> None:
        began = time.monotonic()
        run = await rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], tool_deadline_s=0.2)
        assert [part.text for part in run.messages[2].content] == [
            "Oslo",
            "The tool took longer than 0.2 s and was stopped.",
        ]
        assert running == [0, 2]
        assert time.monotonic() - began < 10
        running[:] = [0, 0]
        await rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], tool_deadline_s=0.2, parallel=1)
        assert running == [0, 1]

    host(scenario, upstream.config)


@both
def test_what_a_function_returns_is_awaited(host: Host, sleep: Sleep, upstream: Upstream) -> None:
    """An async function behind a decorator that is not async itself looks like a function that is not async."""

    async def forecast(text: str) -> str:
        await sleep(0)
        return text

    def weather(city: str) -> Awaitable[str]:
        return forecast(city)

    def clock() -> Awaitable[str]:
        async def hang() -> str:
            await sleep(60)
            return "never"

        return hang()

    async def scenario(rt: Any) -> None:
        run = await rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], tool_deadline_s=0.2)
        assert [part.text for part in run.messages[2].content] == [
            "Oslo",
            "The tool took longer than 0.2 s. It may still be running.",
        ]

    host(scenario, upstream.config)


@both
def test_a_tool_that_blocks_runs_in_a_thread(host: Host, sleep: Sleep, upstream: Upstream) -> None:
    beats = []

    @tool
    def weather(city: str) -> str:
        time.sleep(0.3)
        return city

    async def scenario(rt: Any) -> None:
        async def beat() -> None:
            while True:
                await sleep(0.02)
                beats.append(1)

        async def run() -> None:
            await rt.run_tools("The weather?", model="fake/m", tools=[weather])

        if host is on_trio:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(beat)
                await run()
                nursery.cancel_scope.cancel()
        else:
            task = asyncio.ensure_future(beat())
            await run()
            task.cancel()

    host(scenario, upstream.config)
    assert len(beats) > 5


@both
def test_an_approval_may_be_awaited(host: Host, sleep: Sleep, upstream: Upstream) -> None:
    async def approve(call: Any) -> str:
        await sleep(0)
        return "Not today."

    def weather(city: str) -> str:
        raise AssertionError

    async def scenario(rt: Any) -> None:
        run = await rt.run_tools("The weather?", model="fake/m", tools=[weather], approve=approve)
        assert run.messages[2].content[0].text == "Not today."

    host(scenario, upstream.config)


@both
def test_a_cancelled_loop_cancels_its_tools(host: Host, sleep: Sleep, upstream: Upstream) -> None:
    ended = []

    async def weather(city: str) -> str:
        try:
            await sleep(60)
        finally:
            ended.append(city)
        return ""

    async def scenario(rt: Any) -> None:
        if host is on_trio:
            with trio.move_on_after(0.5):
                await rt.run_tools("The weather?", model="fake/m", tools=[weather])
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(rt.run_tools("The weather?", model="fake/m", tools=[weather]), 0.5)
        assert ended == ["Oslo"]

    host(scenario, upstream.config)


@both
def test_tools_that_hang_take_no_threads_of_the_program(host: Host, sleep: Sleep, upstream: Upstream) -> None:
    """Trio's own threads read certificates and keys; asyncio's resolve names, and the interpreter's end waits for
    them.
    """
    may_end = threading.Event()

    def weather(city: str) -> str:
        may_end.wait(60)
        return city

    async def scenario(rt: Any) -> None:
        if host is on_trio:
            trio.to_thread.current_default_thread_limiter().total_tokens = 1
        else:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        run = await rt.run_tools("The weather?", model="fake/m", tools=[weather], tool_deadline_s=0.1)
        assert run.messages[2].content[0].text == "The tool took longer than 0.1 s. It may still be running."
        if host is on_trio:
            with trio.fail_after(5):
                assert await trio.to_thread.run_sync(lambda: "free") == "free"
        else:
            async with asyncio.timeout(5):
                assert await asyncio.to_thread(lambda: "free") == "free"

    def all_may_end() -> None:
        may_end.set()
        for thread in threading.enumerate():
            if thread.name.startswith("llm-runtime tool"):
                thread.join(10)

    timer = threading.Timer(30, may_end.set)  # not even then
    timer.start()
    try:
        host(scenario, upstream.config)
    finally:
        timer.cancel()
        all_may_end()
