"""Tools where there is no event loop: in threads, bounded, and not for ever."""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from contextvars import ContextVar
from math import inf
from typing import Any

import pytest

from hosts.conftest import Upstream
from llm_runtime import sync
from llm_runtime.hosts import tool_threads

WHO: ContextVar[str] = ContextVar("WHO")


def texts(run: Any) -> list[str]:
    return [part.text for part in run.messages[2].content]


def test_tools_of_one_turn_run_at_the_same_time(upstream: Upstream) -> None:
    both = threading.Barrier(2)

    def weather(city: str) -> str:
        both.wait(10)
        return f"{WHO.get()} in {city}"

    def clock() -> str:
        both.wait(10)
        return WHO.get()

    WHO.set("me")
    with sync.open_runtime(upstream.config) as rt:
        run = rt.run_tools("The weather?", model="fake/m", tools=[weather, clock])
    assert texts(run) == ["me in Oslo", "me"], "in the context of the caller"


def test_at_most_parallel_at_a_time(upstream: Upstream) -> None:
    running, most, lock = 0, 0, threading.Lock()
    first_has_ended = threading.Event()

    def weather(city: str) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        first_has_ended.wait(0.05)
        with lock:
            running -= 1
        return city

    def clock() -> str:
        return weather("12")

    with sync.open_runtime(upstream.config) as rt:
        run = rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], parallel=1)
    assert (texts(run), most) == (["Oslo", "12"], 1)


def test_a_tool_that_takes_too_long_is_left_behind(upstream: Upstream) -> None:
    may_end = threading.Event()

    def weather(city: str) -> str:
        may_end.wait(60)
        return city

    def clock() -> str:
        return "12"

    try:
        with sync.open_runtime(upstream.config) as rt:
            run = rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], tool_deadline_s=0.1)
        assert texts(run) == ["The tool took longer than 0.1 s. It may still be running.", "12"]
    finally:
        may_end.set()
        for thread in threading.enumerate():
            if thread.name == "llm-runtime tool weather":
                thread.join(10)


def test_a_tool_may_have_no_time_limit(upstream: Upstream) -> None:
    def weather(city: str) -> str:
        return city

    def clock() -> str:
        return "12"

    with sync.open_runtime(upstream.config) as rt:
        run = rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], tool_deadline_s=inf)
    assert texts(run) == ["Oslo", "12"]


def test_approval_and_events_are_called_in_the_callers_thread(upstream: Upstream) -> None:
    threads, of_tool = set[int](), set[int]()

    def weather(city: str) -> str:
        of_tool.add(threading.get_ident())
        return city

    def clock() -> str:
        return "12"

    def approve(_: object) -> bool:
        threads.add(threading.get_ident())
        return True

    with sync.open_runtime(upstream.config) as rt:
        run = rt.run_tools(
            "The weather?",
            model="fake/m",
            tools=[weather, clock],
            approve=approve,
            on_event=lambda _: threads.add(threading.get_ident()),
        )
    assert threads == {threading.get_ident()}
    assert not threads & of_tool
    assert texts(run) == ["Oslo", "12"]


def test_an_async_tool_is_refused_at_once(upstream: Upstream) -> None:
    async def weather(city: str) -> str:
        return city

    asked = upstream.journal()["asked"]
    with (
        sync.open_runtime(upstream.config) as rt,
        pytest.raises(TypeError, match=r"the tool weather must be a plain function: llm_runtime\.sync cannot await it"),
    ):
        rt.run_tools("The weather?", model="fake/m", tools=[weather])
    assert upstream.journal()["asked"] == asked


def test_an_async_tool_behind_a_decorator_is_an_error_of_the_tool(upstream: Upstream) -> None:
    async def forecast(city: str) -> str:
        return city

    def weather(city: str) -> Awaitable[str]:
        return forecast(city)

    def clock() -> str:
        return "12"

    with sync.open_runtime(upstream.config) as rt:
        run = rt.run_tools("The weather?", model="fake/m", tools=[weather, clock])
    assert "the tool weather must be a plain function: llm_runtime.sync cannot await it" in texts(run)[0]
    assert texts(run)[1] == "12"


def test_an_error_of_approve_ends_the_others(upstream: Upstream) -> None:
    def weather(city: str) -> str:
        return city

    def clock() -> str:
        return "12"

    def approve(call: Any) -> bool:
        raise LookupError(call.name)

    with sync.open_runtime(upstream.config) as rt, pytest.raises(LookupError, match="weather"):
        rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], approve=approve)


def test_a_thread_that_cannot_be_started_takes_no_place(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    def weather(city: str) -> str:
        return city

    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name.startswith("llm-runtime tool"):
            raise RuntimeError("can't start new thread")
        real(self)

    before = tool_threads._room._value
    with sync.open_runtime(upstream.config) as rt:
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="start new thread"):
            rt.run_tools("The weather?", model="fake/m", tools=[weather])
        monkeypatch.undo()
    assert tool_threads._room._value == before
