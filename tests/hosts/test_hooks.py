"""Observers and middleware, on every host."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock

import llm_runtime
from hosts.adapters import HOSTS, REMOTE
from hosts.conftest import Upstream
from llm_actors.run import Run
from llm_protocol.errors import (
    BadRequestError,
    InternalError,
    LLMClientError,
    ModelNotFoundError,
    ShuttingDownError,
)
from llm_protocol.events import Finished
from llm_protocol.response import FinishReason
from llm_runtime import (
    AttemptEnded,
    AttemptStarted,
    ChatRequest,
    EventsDropped,
    FirstToken,
    LLMResponse,
    Message,
    RunAccepted,
    RunFailed,
    RunFinished,
    Text,
    hooks,
    sync,
)
from llm_runtime.hooks import OBSERVED_EVENTS, Observers
from llm_runtime.stream import outcome
from support.server import add_text, begin_text, end_text

Host = Callable[..., None]
on_every_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)


def is_sync(host: Host) -> bool:
    return "thread" in host.__name__


class Log:
    """A middleware that says what passes, written once for hosts that wait and for those that do not."""

    def __init__(self, name: str, said: list[str], change: Callable[[ChatRequest], ChatRequest] = lambda r: r) -> None:
        self.name = name
        self.said = said
        self.change = change
        self.threads: list[str] = []

    async def waiting(self, request: ChatRequest, proceed: Any) -> LLMResponse:
        self.said.append(f"{self.name} in")
        self.threads.append(threading.current_thread().name)
        response: LLMResponse = await proceed(self.change(request))
        self.said.append(f"{self.name} out: {response.content}")
        return response

    def blocking(self, request: ChatRequest, proceed: Any) -> LLMResponse:
        self.said.append(f"{self.name} in")
        self.threads.append(threading.current_thread().name)
        response: LLMResponse = proceed(self.change(request))
        self.said.append(f"{self.name} out: {response.content}")
        return response

    def on(self, host: Host) -> Any:
        return self.blocking if is_sync(host) else self.waiting


def louder(request: ChatRequest) -> ChatRequest:
    return msgspec.structs.replace(request, messages=(Message.of("user", request.messages[-1].text.upper()),))


@on_every_host
def test_an_observer_is_told_of_every_run(host: Host, upstream: Upstream) -> None:
    events: list[Any] = []

    async def scenario(rt: Any) -> None:
        await rt.chat("Hi.", model="fake/m")
        async with rt.stream("Hi.", model="fake/m") as stream:
            async for _ in stream:
                pass
        with pytest.raises(ModelNotFoundError):
            await rt.chat("Hi.", model="nobody/m")
        with pytest.raises(LLMClientError):
            await rt.chat("Hi.", model="fake/broken")

    host(scenario, upstream.config, observers=[events.append])
    runs = [each for each in events if not isinstance(each, AttemptStarted | AttemptEnded)]
    whole = [RunAccepted, FirstToken, RunFinished]
    assert [type(each) for each in runs[:6]] == whole * 2
    assert [each.stream for each in runs if isinstance(each, RunAccepted)][:2] == [False, True]
    finished = runs[2]
    assert (finished.provider, finished.model, finished.finish_reason) == ("fake", "m", FinishReason.STOP)
    assert finished.usage.output_tokens > 0
    assert finished.request_id == runs[0].request_id
    failures = [each.failure.kind.value for each in runs if isinstance(each, RunFailed)]
    assert failures[0] == "model_not_found"
    assert len(failures) == 2
    ended = [each.outcome for each in events if isinstance(each, AttemptEnded)]
    assert ended[:2] == ["ok", "ok"]
    assert len(ended) >= 3
    if host not in REMOTE.values():
        assert len([each for each in events if isinstance(each, AttemptStarted)]) == len(ended)


@on_every_host
def test_middleware_is_around_every_run_in_order(host: Host, upstream: Upstream) -> None:
    said: list[str] = []
    outer, inner = Log("outer", said), Log("inner", said, louder)

    async def scenario(rt: Any) -> None:
        assert (await rt.chat("Hi.", model="fake/m")).content == "You said: HI."
        async with rt.stream("Yo.", model="fake/m") as stream:
            assert "".join([piece async for piece in stream.text()]) == "You said: YO."
        assert stream.response.content == "You said: YO."

    host(scenario, upstream.config, middleware=[outer.on(host), inner.on(host)])
    passed = ["outer in", "inner in", "inner out: You said: {}", "outer out: You said: {}"]
    assert said == [each.format(text) for text in ("HI.", "YO.") for each in passed]
    if not is_sync(host):
        assert set(outer.threads) == {"MainThread"}


@on_every_host
def test_middleware_may_answer_by_itself_or_refuse(host: Host, upstream: Upstream) -> None:
    def made(request: ChatRequest) -> LLMResponse:
        if request.messages[-1].text == "no":
            raise BadRequestError("not that")
        text = Text("from here")
        return LLMResponse(
            request_id=request.request_id, provider="mine", model="mine", content="from here", output=(text,),
            finish_reason=FinishReason.STOP,
        )  # fmt: skip

    async def waiting(request: ChatRequest, proceed: Any) -> LLMResponse:
        return made(request)

    def blocking(request: ChatRequest, proceed: Any) -> LLMResponse:
        return made(request)

    async def scenario(rt: Any) -> None:
        assert (await rt.chat("Hi.")).content == "from here"
        async with rt.stream("Hi.") as stream:
            events = [event async for event in stream]
        assert isinstance(events[-1], Finished)
        assert stream.response.content == "from here"
        with pytest.raises(BadRequestError, match="not that"):
            await rt.chat("no")
        with pytest.raises(BadRequestError, match="not that"):
            async with rt.stream("no"):
                pass

    before = upstream.journal()["asked"]
    host(scenario, upstream.config, middleware=[blocking if is_sync(host) else waiting])
    assert upstream.journal()["asked"] == before


@on_every_host
def test_leaving_a_stream_ends_the_middleware_and_the_call(host: Host, upstream: Upstream) -> None:
    said: list[str] = []

    async def scenario(rt: Any) -> None:
        async with rt.stream("Hi.", model="fake/slow") as stream:
            async for _ in stream.text():
                break

    host(scenario, upstream.config, middleware=[Log("it", said).on(host)])
    assert said == ["it in"]
    assert upstream.is_left()


@on_every_host
def test_what_observers_and_middleware_raise(host: Host, upstream: Upstream) -> None:
    def fails(event: object) -> None:
        raise RuntimeError("an observer's own")

    async def waiting(request: ChatRequest, proceed: Any) -> LLMResponse:
        raise ZeroDivisionError

    def blocking(request: ChatRequest, proceed: Any) -> LLMResponse:
        raise ZeroDivisionError

    async def observed(rt: Any) -> None:
        assert (await rt.chat("Hi.", model="fake/m")).content == "You said: Hi."

    async def scenario(rt: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            await rt.chat("Hi.", model="fake/m")
        with pytest.raises(ZeroDivisionError):
            async with rt.stream("Hi.", model="fake/m"):
                pass

    host(observed, upstream.config, observers=[fails])
    host(scenario, upstream.config, middleware=[blocking if is_sync(host) else waiting])


@on_every_host
def test_a_middleware_that_returns_no_response_fails_its_own_call_alone(host: Host, upstream: Upstream) -> None:
    async def waiting(request: ChatRequest, proceed: Any) -> LLMResponse:
        response: LLMResponse = await proceed(request)
        return response if "whole" in response.content else None  # type: ignore[return-value]

    def blocking(request: ChatRequest, proceed: Any) -> LLMResponse:
        response: LLMResponse = proceed(request)
        return response if "whole" in response.content else None  # type: ignore[return-value]

    async def scenario(rt: Any) -> None:
        with pytest.raises(TypeError, match="a middleware must return an LLMResponse, not NoneType"):
            await rt.chat("Hi.", model="fake/m")
        with pytest.raises(InternalError, match="a middleware raised TypeError"):
            await read(rt, "Hi.")
        assert await read(rt, "whole") == "You said: whole"

    async def read(rt: Any, text: str) -> str:
        async with rt.stream(text, model="fake/m") as stream:
            return "".join([piece async for piece in stream.text()])

    host(scenario, upstream.config, middleware=[blocking if is_sync(host) else waiting])


async def test_two_calls_at_the_same_time_do_not_mix_their_streams() -> None:
    errors: list[str] = []

    async def twice(request: Any, proceed: Any) -> LLMResponse:
        responses: list[LLMResponse] = []

        async def once(model: str) -> None:
            try:
                responses.append(await proceed(msgspec.structs.replace(request, model=model)))
            except RuntimeError as exc:
                errors.append(str(exc))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(once, "a")
            nursery.start_soon(once, "b")
        return responses[0]

    runs: dict[str, Run] = {}

    async def submit(request: Any) -> Run:
        run = runs[request.model] = Run(request, stream=True)
        return run

    asked = ChatRequest(model="m", messages=(Message.of("user", "Hi."),))
    async with hooks.hooked((), [twice]) as active:
        assert active is not None
        outer = await active.stream(asked, submit)
        await trio.testing.wait_all_tasks_blocked()
        for run in runs.values():
            begin_text(run)
            add_text(run, run.request.model)
        await trio.testing.wait_all_tasks_blocked()
        for run in runs.values():
            end_text(run)
        await outer.log.wait_ended()
    response = outcome(outer)
    assert response.content in ("a", "b")
    assert errors == ["another response is already being delivered: next cannot be called again"]


async def test_the_end_waits_for_the_event_that_is_being_passed_on(autojump_clock: MockClock) -> None:
    seen: list[Any] = []

    async def slow(event: Any) -> None:
        await trio.sleep(0.5)
        seen.append(event)

    event = FirstToken(request_id="r", seconds=0.0)
    async with hooks.hooked([slow, seen.append], ()) as active:
        assert active is not None
        assert active.observers is not None
        active.observers.tell(event)
        await trio.testing.wait_all_tasks_blocked()
    assert seen == [event, event]


async def test_observers_that_are_too_slow_lose_events_and_are_told_how_many() -> None:
    seen: list[Any] = []
    observers = Observers([seen.append])
    events = [FirstToken(request_id=str(at), seconds=0.0) for at in range(OBSERVED_EVENTS + 5)]
    for event in events:
        observers.tell(event)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(observers.run)
        await observers.flush()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [each for each in seen if isinstance(each, FirstToken)] == events[:OBSERVED_EVENTS]
    assert [each for each in seen if isinstance(each, EventsDropped)] == [EventsDropped(count=5)]


async def test_an_observer_may_wait_and_hooks_that_are_not_there_cost_no_task(upstream: Upstream) -> None:
    seen: list[Any] = []

    async def slow(event: Any) -> None:
        await trio.sleep(0.01)
        seen.append(event)

    async with llm_runtime.open_runtime(upstream.config, observers=[slow]) as rt:
        await rt.chat("Hi.", model="fake/m")
    assert isinstance(seen[-1], RunFinished)
    async with hooks.hooked((), ()) as nothing:
        assert nothing is None


def test_middleware_in_threads_does_not_wait_for_the_threads_of_the_middleware_around_it(upstream: Upstream) -> None:
    """As with more concurrent requests than Trio has threads: all are held by the outer ones, which wait."""
    said: list[str] = []
    middleware: list[Any] = [Log("outer", said).blocking, Log("inner", said).blocking]

    async def leave_one_thread(_: object) -> None:
        trio.to_thread.current_default_thread_limiter().total_tokens = 1

    with sync.open_runtime(upstream.config, middleware=middleware) as rt, ThreadPoolExecutor(1) as pool:
        rt._ask(leave_one_thread)
        try:
            assert pool.submit(rt.chat, "Hi.", model="fake/m").result(10).content == "You said: Hi."
        except BaseException:
            rt._close(at_once=True)
            raise
    assert said[:2] == ["outer in", "inner in"]


def test_observers_and_middleware_are_there_while_the_runtime_drains(upstream: Upstream) -> None:
    events: list[Any] = []
    has_begun = threading.Event()

    def observe(event: Any) -> None:
        events.append(event)
        if isinstance(event, FirstToken):
            has_begun.set()

    def read(rt: sync.SyncRuntime) -> str:
        with rt.stream("Hi.", model="fake/slow") as stream:
            return "".join(stream.text())

    middleware: list[Any] = [Log("it", []).blocking]
    with ThreadPoolExecutor(1) as pool:
        with sync.open_runtime(upstream.config, observers=[observe], middleware=middleware) as rt:
            reading = pool.submit(read, rt)
            assert has_begun.wait(10)
        assert reading.result(10).endswith("twelve")
    assert isinstance(events[-1], RunFinished)


@pytest.mark.parametrize(("host", "sleep"), [(HOSTS["trio"], trio.sleep), (HOSTS["asyncio"], asyncio.sleep)])
def test_an_observer_that_waits_is_told_of_one_event_after_the_other(
    host: Host, sleep: Callable[[float], Awaitable[None]], upstream: Upstream
) -> None:
    seen: list[Any] = []
    running = [0, 0]

    async def slow(event: Any) -> None:
        running[0] += 1
        running[1] = max(running)
        await sleep(0.01)
        running[0] -= 1
        seen.append(type(event))

    async def scenario(rt: Any) -> None:
        await rt.chat("Hi.", model="fake/m")

    host(scenario, upstream.config, observers=[slow])
    assert running == [0, 1]
    assert (seen[0], seen[-1]) == (RunAccepted, RunFinished)


@pytest.mark.parametrize("kind", ["middleware", "observer", "middleware in a stream"])
def test_a_hook_that_never_returns_does_not_hold_up_the_end(
    kind: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "FLUSH_SECONDS", 0.01)
    entered, free, ended = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        free.wait(10)
        ended.set()

    def middleware(request: llm_runtime.AnyRequest, proceed: Any) -> LLMResponse:
        hang()
        response: LLMResponse = proceed(request)
        return response

    def observe(event: object) -> None:
        hang()

    def ask(rt: sync.SyncRuntime) -> object:
        if kind.endswith("stream"):
            with rt.stream("hi") as answer:
                return list(answer)
        return rt.chat("hi")

    given: Any = {"observers": [observe]} if kind == "observer" else {"middleware": [middleware]}
    with ThreadPoolExecutor(1) as pool:
        with sync.open_runtime(upstream.config, **given) as rt:
            asked = pool.submit(ask, rt)
            assert entered.wait(10)
        assert not ended.is_set(), "nobody has waited for it"
        if kind != "observer":
            assert isinstance(asked.exception(), ShuttingDownError)
        free.set()
        assert ended.wait(10)
