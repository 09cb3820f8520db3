"""One behaviour on every host: answers, streams, errors, deadlines, judges, looking around."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import pytest
import trio

import llm_runtime
from hosts.adapters import HOSTS, REMOTE, Scenario, called
from hosts.conftest import Upstream
from llm_protocol.errors import (
    LLMTimeoutError,
    ModelNotFoundError,
    RateLimitError,
    RequestCancelledError,
    UnsupportedError,
)
from llm_protocol.events import Finished, TextDelta
from llm_runtime import ChatRequest, LLMClientError, LLMResponse, Message, Policy, RemoteRuntime, Runtime, aio, sync

pytestmark = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)

CONTEXT: ContextVar[str] = ContextVar("CONTEXT", default="")

Host = Callable[[Scenario, llm_runtime.Config], None]


async def pause(host: Host, seconds: float) -> None:
    """Wait as the host does."""
    if "asyncio" in host.__name__:
        await asyncio.sleep(seconds)
    elif "thread" in host.__name__:
        time.sleep(seconds)  # noqa: ASYNC251 - nothing else runs there
    else:
        await trio.sleep(seconds)


async def read(stream: Any, pieces: list[str]) -> None:
    async for piece in stream.text():
        pieces += [piece]


def test_whole_answers_of_every_kind(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        response = await rt.chat("Say hello.", model="fake/m")
        assert response.content == "You said: Say hello."
        assert response.usage.output_tokens > 0
        assert (await rt.complete("Once", model="fake/m")).content == "You wrote: Once"
        assert (await rt.generate_code("Add.", model="fake/m", files={"a.py": "x"})).content
        vectors = (await rt.embed(["one", "two"], model="fake/m")).embeddings
        assert [len(vector) for vector in vectors] == [16, 16]
        assert len((await rt.generate_image("A cat.", model="fake/m")).images) == 1

    host(scenario, upstream.config)


def test_a_stream_gives_every_event_and_the_whole_answer(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        async with rt.stream("Say hello.", model="fake/m") as stream:
            assert stream.request_id
            events = [event async for event in stream]
        assert isinstance(events[-1], Finished)
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert text == stream.response.content == "You said: Say hello."
        assert stream.response.usage.output_tokens > 0
        async with rt.stream("Say hello.", model="fake/m") as stream:
            assert "".join([piece async for piece in stream.text()]) == text

    host(scenario, upstream.config)


def test_a_broken_stream_raises_with_what_there_was(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        pieces: list[str] = []
        async with rt.stream("Say hello to me.", model="fake/broken") as stream:
            with pytest.raises(LLMClientError) as caught:
                await read(stream, pieces)
        text = "".join(pieces)
        assert caught.value.partial is not None
        assert caught.value.partial.content == text != ""
        with pytest.raises(LLMClientError):
            _ = stream.response

    host(scenario, upstream.config)


def test_errors_are_the_same_types(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        with pytest.raises(RateLimitError):
            await rt.chat("Hi.", model="fake/busy", policy=Policy(attempts=llm_runtime.AttemptsPatch(max=1)))
        with pytest.raises(ModelNotFoundError):
            async with rt.stream("Hi.", model="nobody/m"):
                pass
        with pytest.raises(TypeError, match="there is no option 'temprature'; did you mean"):
            await rt.chat("Hi.", temprature=1)

    host(scenario, upstream.config)


def test_a_deadline_ends_a_call_and_a_stream(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        with pytest.raises(LLMTimeoutError):
            await rt.chat("Hi.", model="fake/silent", deadline_s=0.3)
        async with rt.stream("Hi.", model="fake/silent", deadline_s=0.3) as stream:
            with pytest.raises(LLMTimeoutError):
                await read(stream, [])

    host(scenario, upstream.config)
    assert upstream.is_left()


def test_leaving_a_stream_ends_the_call_at_the_vendor(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        for _ in range(3):
            async with rt.stream("Hi.", model="fake/slow") as stream:
                async for _ in stream.text():
                    break
                assert stream.response.content.startswith("o")
        assert upstream.is_left()

    host(scenario, upstream.config)


def test_a_stream_that_was_left_without_reading_has_no_response(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        async with rt.stream("Hi.", model="fake/slow") as stream:
            pass
        with pytest.raises(RequestCancelledError):
            _ = stream.response

    host(scenario, upstream.config)


def test_a_stream_can_be_cancelled_and_tells_what_there_was(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        async with rt.stream("Hi.", model="fake/slow") as stream:
            await anext(stream)
            await called(stream.cancel())
            with pytest.raises(RequestCancelledError) as caught:
                await read(stream, [])
        assert caught.value.partial is not None

    host(scenario, upstream.config)
    assert upstream.is_left()


def test_a_judge_runs_in_the_thread_and_context_it_was_given_in(host: Host, upstream: Upstream) -> None:
    if host in REMOTE.values():
        return  # below
    seen = []

    def judge(responses: Sequence[LLMResponse]) -> int:
        seen.append((threading.current_thread(), CONTEXT.get(), len(responses)))
        return 1

    async def scenario(rt: Any) -> None:
        CONTEXT.set("mine")
        policy = Policy(strategy="best_of", samples=2)
        [best] = await rt.collaborate("Hi.", members=["fake/m"], judge=judge, policy=policy)
        assert best.content == "You said: Hi."

    host(scenario, upstream.config)
    context = "" if host is HOSTS["trio"] else "mine"
    assert seen == [(threading.main_thread(), context, 2)]


def test_what_a_judge_raises_costs_no_answers(host: Host, upstream: Upstream) -> None:
    if host in REMOTE.values():
        return  # below

    def judge(responses: Sequence[LLMResponse]) -> int:
        raise ValueError("no idea")

    async def scenario(rt: Any) -> None:
        policy = Policy(strategy="best_of", samples=2)
        [best] = await rt.collaborate("Hi.", members=["fake/m"], judge=judge, policy=policy)
        assert best.content == "You said: Hi."

    host(scenario, upstream.config)


def test_a_daemon_calls_no_judge_of_ours_and_says_so(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        if host in REMOTE.values():
            with pytest.raises(UnsupportedError, match="cannot call a judge in this program"):
                await rt.collaborate("Hi.", members=["fake/m"], judge=lambda _: 0)
            with pytest.raises(UnsupportedError, match="configuration is the daemon's"):
                _ = rt.config
        else:
            assert rt.config.providers.keys() == {"fake"}

    host(scenario, upstream.config)


def test_several_models_are_asked_and_told_of(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        first, second, made = await rt.collaborate("Hi.", members=["fake/m", "fake/slow"])
        assert (first.content, first.model) == ("You said: Hi.", "m")
        assert second.content.startswith("one two")
        assert made.members == (first, second)
        assert made.decision["strategy"] == "panel"

    host(scenario, upstream.config)


def test_cancelling_a_call_ends_it_at_the_vendor_at_once(host: Host, upstream: Upstream) -> None:
    """Within 0.2 s; the whole answer would take 0.6 s."""

    async def scenario(rt: Any) -> None:
        async with rt.stream("Hi.", model="fake/slow") as stream:
            await anext(stream)
            assert upstream.journal()["open"] == 1
        await pause(host, 0.2)
        assert upstream.journal()["open"] == 0

    host(scenario, upstream.config)


def test_looking_around(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        assert await called(rt.is_ready())
        assert (await called(rt.tree())).children
        assert {info.id for info in await called(rt.model_list())} >= {"fake/m"}
        assert "m" in (await rt.models())["fake"]
        assert (await rt.explain("fake/m")).lines()
        assert b"llm_runtime_" in await rt.metrics()
        assert await rt.statistics()
        assert await called(rt.parked_services()) in ((), [])
        assert await called(rt.forget()) == 0
        request = ChatRequest(messages=(Message.of("user", "Hi."),), model="fake/m")
        assert (await rt.count_tokens(request)).tokens > 0

    host(scenario, upstream.config)


def test_a_runtime_that_is_closed_says_so(host: Host, upstream: Upstream) -> None:
    kept: list[Any] = []

    async def scenario(rt: Any) -> None:
        kept.append(rt)

    host(scenario, upstream.config)
    if host is not HOSTS["sync"]:
        return
    with pytest.raises(LLMClientError, match="the runtime is not open"):
        kept[0].chat("Hi.")


CLASSES: dict[Host, type] = {
    HOSTS["trio"]: Runtime,
    HOSTS["asyncio"]: aio.AsyncioRuntime,
    HOSTS["sync"]: sync.SyncRuntime,
    HOSTS["remote"]: RemoteRuntime,
    HOSTS["remote-asyncio"]: aio.AsyncioRemoteRuntime,
    HOSTS["remote-sync"]: sync.SyncRuntime,
}


def test_signatures_are_the_same(host: Host) -> None:
    other = CLASSES[host]
    # The server's, the end of a block, and what is set in a constructor in some and a property in others.
    own = {"running", "submit", "submit_stream", "deadline_s", "refused", "route_names", "close", "config", "on_reload"}
    own |= {"gives_choices", "recent_requests", "pass_through", "upstream_base", "store", "hook"}
    names = {name for name in dir(Runtime) if not name.startswith("_")} - own
    assert names == {name for name in dir(other) if not name.startswith("_")} - own
    for name in sorted(names - {"routes"}):
        expected, found = (inspect.signature(getattr(each, name)).parameters for each in (Runtime, other))
        assert [str(each) for each in expected.values()] == [str(each) for each in found.values()], name
