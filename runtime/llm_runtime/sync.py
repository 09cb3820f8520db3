"""The runtime for programs without an event loop: scripts, threads, notebooks. The same methods, types and errors.

    from llm_runtime import sync

    with sync.open_runtime() as rt:
        print(rt.chat("Say hello.").content)

In a notebook, keep it open over several cells: ``rt = sync.open_runtime()``, and ``rt.close()`` at the end; otherwise
it is closed when the program exits. Any number of threads may use one runtime at the same time. The runtime itself runs
on Trio, in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict, TypeVar, Unpack, cast, final, overload

import trio

import llm_runtime.runtime as trio_host
from llm_actors.cache import CacheStore
from llm_actors.kernel import TreeNode
from llm_actors.orchestrator import StrategyFunction, Team
from llm_actors.run import Judge
from llm_actors.selector import OrderingFunction, Ranking
from llm_protocol.content import Image
from llm_protocol.dialect import ModelInfo
from llm_protocol.events import Event, TextDelta
from llm_protocol.policy import Policy
from llm_protocol.requests import AUTO, AnyRequest
from llm_protocol.response import LLMResponse, TokenCount
from llm_protocol.secret import Secret
from llm_protocol.vendor import Vendor
from llm_runtime.config import Config
from llm_runtime.ensemble import answers, collaboration
from llm_runtime.hooks import Middleware, Next, Observer, RunEvent
from llm_runtime.hosts.feed import Feed, Received
from llm_runtime.hosts.portal import Portal, PortalCall
from llm_runtime.options import ChatOptions, Messages, Options, ToolOptions, as_messages
from llm_runtime.requesting import (
    chat_request,
    code_request,
    completion_request,
    embedding_request,
    image_request,
)
from llm_runtime.runtime import ConfigSource, Reloaded
from llm_runtime.runtime import Runtime as TrioRuntime
from llm_runtime.stream import wanted
from llm_runtime.tools import AnyTool, Approve, FunctionTool, ToolLoop, ToolRun, run_call
from llm_runtime.typed import ParsedResponse, ResponseType, ResponseTypeError

if TYPE_CHECKING:
    from llm_runtime.remote.runtime import RemoteRuntime
    from llm_runtime.statistics import Statistics

__all__ = ["SyncRuntime", "SyncStream", "SyncTeam", "connect", "open_runtime"]

T = TypeVar("T")

SyncMiddleware: TypeAlias = Callable[[AnyRequest, Callable[[AnyRequest], LLMResponse]], LLMResponse]
"""``def middleware(request, next)``, called in a thread of its own; see `llm_runtime.Middleware`."""


@final
class SyncTeam:
    """`llm_runtime.Team` for a strategy that is a plain function, ``def strategy(team)``."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self.request = team.request
        self.policy = team.policy
        self.candidates = team.candidates
        self.about = team.about
        self.note = team.note

    def ask(
        self,
        models: Sequence[str] | None = None,
        request: AnyRequest | None = None,
        *,
        enough: int | None = None,
        seconds: float | None = None,
        later: int = 0,
    ) -> list[LLMResponse]:
        """See `llm_runtime.Team.ask`."""
        call = partial(self._team.ask, models, request, enough=enough, seconds=seconds, later=later)
        found: list[LLMResponse] = trio.from_thread.run(call)
        return found

    def stream(self, model: str, request: AnyRequest | None = None) -> LLMResponse:
        """See `llm_runtime.Team.stream`."""
        response: LLMResponse = trio.from_thread.run(self._team.stream, model, request)
        return response


SyncStrategy: TypeAlias = Callable[[SyncTeam], LLMResponse | str]
"""``def strategy(team)``, called in a thread of its own; see `llm_runtime.StrategyFunction`."""

CANCEL_SECONDS: Final = 1.0
"""How long an interrupted call waits for its end in the other thread."""


class _Ended:
    """The end of a call, as its thread receives it."""

    def __init__(self, result: Any, error: BaseException | None) -> None:
        self.result = result
        self.error = error


_Box: TypeAlias = "SimpleQueue[_Ended | Callable[[], object]]"
"""The queue of a thread that waits for a call: functions to run meanwhile, then the end."""


@final
class _Call:
    """One call into the runtime's thread, whose end is awaited here."""

    def __init__(self, portal: Portal[Any], box: _Box, fn: Callable[[Any], Awaitable[Any]]) -> None:
        self._box = box
        self._call: PortalCall[Any, Any] = portal.submit(fn, lambda result, error: box.put(_Ended(result, error)))
        self.end: _Ended | None = None

    def wait(self) -> None:
        """Run one function, or take the end. An interruption (Ctrl-C) cancels the call."""
        try:
            self._take(self._box.get())
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Cancel the call; returns when it has ended, after `CANCEL_SECONDS` at most."""
        if self.end is None:
            self._call.cancel()
        with suppress(Empty):
            while self.end is None:
                self._take(self._box.get(timeout=CANCEL_SECONDS))

    def _take(self, thing: _Ended | Callable[[], object]) -> None:
        if isinstance(thing, _Ended):
            self.end = thing
        else:
            thing()

    def result(self) -> Any:
        """Wait for the end."""
        while self.end is None:
            self.wait()
        if self.end.error is not None:
            raise self.end.error
        return self.end.result


@final
class SyncStream:
    """One streamed response: `llm_runtime.ResponseStream` for threads.

    with rt.stream("Tell me a story") as answer:
        for text in answer.text():
            print(text, end="")
    print(answer.response.usage)
    """

    def __init__(self, portal: Portal[Any], request: AnyRequest) -> None:
        box: _Box = SimpleQueue()
        self._portal = portal
        self._box = box
        self._request = request
        self._feed = Feed(
            request, lambda: box.put(self._accept), lambda batch: box.put(lambda: self._received.add(batch))
        )
        self._received = Received(request, lambda: portal.post(self._feed.take))
        self._accepted = False
        self._call: _Call | None = None
        self.response_type: ResponseType[Any] | None = None

    def __enter__(self) -> SyncStream:
        self._call = call = _Call(self._portal, self._box, self._feed.run)
        while not self._accepted and call.end is None:
            call.wait()
        if not self._accepted:
            call.result()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._entered().cancel()

    @property
    def request_id(self) -> str:
        """The request's id."""
        return self._request.request_id

    @property
    def response(self) -> LLMResponse:
        """The complete response once the iteration is over; before that, the part received so far."""
        self._entered()
        return self._received.response

    def cancel(self) -> None:
        """End the response now; the iteration then raises `RequestCancelledError` with the partial response."""
        self._entered()
        self._portal.post(self._feed.cancel)

    def __iter__(self) -> SyncStream:
        return self

    def __next__(self) -> Event:
        call = self._entered()
        while True:
            if (event := self._received.next()) is not None:
                return event
            if self._received.has_ended:
                raise StopIteration
            if call.end is not None and call.end.error is not None:
                raise call.end.error
            call.wait()

    def text(self) -> Iterator[str]:
        """The text alone, piece by piece as it arrives."""
        return (event.text for event in self if isinstance(event, TextDelta))

    def partials(self) -> Iterator[Any]:
        """See `llm_runtime.ResponseStream.partials`."""
        partial, text, last = wanted(self.response_type).partial, "", None
        for piece in self.text():
            text += piece
            value = partial(text)
            if value != last:
                last = value
                yield value

    @property
    def parsed(self) -> Any:
        """See `llm_runtime.ResponseStream.parsed`."""
        return wanted(self.response_type).parse(self.response).parsed

    def _accept(self) -> None:
        self._accepted = True

    def _entered(self) -> _Call:
        if self._call is None:
            raise RuntimeError("use it as: with rt.stream(...) as answer")
        return self._call


@final
class SyncRuntime:
    """One running system, made by `open_runtime`, or one in a daemon, by `connect`. A block around it closes it; so
    does `close`.
    """

    def __init__(
        self, portal: Portal[Any], runtime: TrioRuntime | RemoteRuntime, closed: SimpleQueue[BaseException | None]
    ) -> None:
        self._runtime = runtime
        self._portal = portal
        self._closed = closed

    def __enter__(self) -> SyncRuntime:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._close(at_once=exc is not None)

    def close(self) -> None:
        """Give running requests ``server.drain_s`` to finish, and stop. Raises the error that ended the runtime before,
        if any.
        """
        self._close(at_once=False)

    @property
    def config(self) -> Config:
        """The configuration. Raises `UnsupportedError` where it is a daemon's own."""
        config: Config = self._runtime.config
        return config

    @property
    def routes(self) -> Mapping[str, Policy]:
        """The configured routes, by name."""
        return self._runtime.routes

    @overload
    def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> LLMResponse: ...
    @overload
    def chat(
        self, messages: Messages, *, response_type: type[T], repair: bool = False, **options: Unpack[ChatOptions]
    ) -> ParsedResponse[T]: ...
    def chat(
        self,
        messages: Messages,
        *,
        response_type: type[Any] | None = None,
        repair: bool = False,
        **options: Unpack[ChatOptions],
    ) -> LLMResponse:
        """The next turn of a conversation, as a complete response; see `llm_runtime.Runtime.chat`."""
        if response_type is None:
            return self.send(chat_request(messages, options))
        typed = ResponseType(response_type)
        request = chat_request(messages, {**options, "response_format": typed.format})
        try:
            return typed.parse(self.send(request))
        except ResponseTypeError as exc:
            if not repair:
                raise
            error = exc
        return typed.parse(self.send(typed.repair(request, error)))

    def complete(self, prompt: str, *, suffix: str | None = None, **options: Unpack[Options]) -> LLMResponse:
        """Continue a text; with ``suffix``, fill the gap before it."""
        return self.send(completion_request(prompt, suffix, options))

    def generate_code(
        self,
        instruction: str,
        *,
        language: str | None = None,
        prefix: str | None = None,
        suffix: str | None = None,
        files: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> LLMResponse:
        """Write code for an instruction; see `llm_runtime.Runtime.generate_code`."""
        return self.send(code_request(instruction, language, prefix, suffix, files, options))

    def embed(
        self,
        inputs: str | Sequence[str],
        *,
        dimensions: int | None = None,
        input_type: str | None = None,
        **options: Unpack[Options],
    ) -> LLMResponse:
        """An embedding of each input, in order, as ``response.embeddings``."""
        return self.send(embedding_request(inputs, dimensions, input_type, options))

    def generate_image(
        self,
        prompt: str,
        *,
        n: int = 1,
        size: str | None = None,
        quality: str | None = None,
        output_format: str | None = None,
        background: str | None = None,
        images: Sequence[Image] = (),
        mask: Image | None = None,
        **options: Unpack[Options],
    ) -> LLMResponse:
        """``n`` images of a description, as ``response.images``. ``size`` is ``"WxH"`` or ``"auto"``. With ``images``,
        these changed as described; with ``mask``, where that is transparent.
        """
        return self.send(image_request(prompt, n, size, quality, output_format, background, images, mask, options))

    def collaborate(
        self,
        messages: Messages,
        *,
        members: Sequence[str] | int | None = None,
        judge: Judge | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[LLMResponse]:
        """Send a prompt to several models; see `llm_runtime.Runtime.collaborate`. ``judge`` is called in
        this thread.
        """
        request = collaboration(messages, members, options, self.routes.get(options.get("model", "")))
        return answers(self.send(request, judge=judge))

    def stream(
        self, messages: Messages, *, response_type: type[Any] | None = None, **options: Unpack[ChatOptions]
    ) -> SyncStream:
        """The next turn of a conversation, streamed; see `llm_runtime.Runtime.stream`."""
        if response_type is None:
            return self.stream_request(chat_request(messages, options))
        typed = ResponseType(response_type)
        stream = self.stream_request(chat_request(messages, {**options, "response_format": typed.format}))
        stream.response_type = typed
        return stream

    def run_tools(
        self,
        messages: Messages,
        *,
        tools: Sequence[AnyTool],
        max_rounds: int = 16,
        parallel: int = 8,  # noqa: ARG002 - the same signature on every host
        tool_deadline_s: float = 60.0,
        approve: Approve | None = None,
        until: Callable[[LLMResponse], bool] | None = None,
        on_event: Callable[[Any], object] | None = None,
        **options: Unpack[ToolOptions],
    ) -> ToolRun:
        """Send a request, run the tools that the model calls, and repeat; see `llm_runtime.Runtime.run_tools`.

        Here the tools run one after another, in this thread, and cannot be stopped: ``parallel`` and
        ``tool_deadline_s`` have no effect. Async tools are refused.
        """
        loop, tell = ToolLoop(as_messages(messages), tools, max_rounds), on_event or (lambda _: None)

        async def run(function: FunctionTool[..., Any], arguments: dict[str, Any]) -> object:
            if function.is_async:
                raise TypeError("this tool is async, which llm_runtime.sync cannot await")
            return function(**arguments)

        while True:
            request = chat_request(loop.messages, cast("ChatOptions", {**options, "tools": loop.tools}))
            response = self.send(request) if on_event is None else self._told(request, tell)
            calls = loop.next_calls(response, stop=until is not None and until(response))
            if not calls:
                return loop.ended()
            loop.answer([_finished(run_call(loop, call, run, approve, tell, tool_deadline_s)) for call in calls])

    def _told(self, request: AnyRequest, tell: Callable[[Any], object]) -> LLMResponse:
        with self.stream_request(request) as stream:
            for event in stream:
                tell(event)
        return stream.response

    def stream_request(self, request: AnyRequest) -> SyncStream:
        """Stream the response to any request."""
        return SyncStream(self._portal, request)

    def send(self, request: AnyRequest, *, judge: Judge | None = None) -> LLMResponse:
        """The complete response to ``request``. Raises `LLMClientError`."""
        box: _Box = SimpleQueue()
        here = None if judge is None else _judge_here(judge, self._portal, box)
        result: LLMResponse = _Call(self._portal, box, lambda rt: rt.send(request, judge=here)).result()
        return result

    def forget(self, conversation: str | None = None, *, caller: str = "") -> int:
        """See `llm_runtime.Runtime.forget`."""
        return self._look(lambda rt: rt.forget(conversation, caller=caller))

    def models(self) -> dict[str, list[str]]:
        """See `llm_runtime.Runtime.models`."""
        return self._ask(lambda rt: rt.models())

    def model_list(self, caller: str = "") -> list[ModelInfo]:
        """See `llm_runtime.Runtime.model_list`."""
        return self._look(lambda rt: rt.model_list(caller))

    def explain(self, model: str = AUTO, *, caller: str = "") -> Ranking:
        """See `llm_runtime.Runtime.explain`."""
        return self._ask(lambda rt: rt.explain(model, caller=caller))

    def count_tokens(self, request: AnyRequest) -> TokenCount:
        """See `llm_runtime.Runtime.count_tokens`."""
        return self._ask(lambda rt: rt.count_tokens(request))

    def is_ready(self) -> bool:
        """See `llm_runtime.Runtime.is_ready`."""
        return self._look(lambda rt: rt.is_ready())

    def parked_services(self) -> Sequence[str]:
        """See `llm_runtime.Runtime.parked_services`."""
        return self._look(lambda rt: rt.parked_services())

    def tree(self) -> TreeNode:
        """See `llm_runtime.Runtime.tree`."""
        return self._look(lambda rt: rt.tree())

    def metrics(self) -> bytes:
        """See `llm_runtime.Runtime.metrics`."""
        return self._ask(lambda rt: rt.metrics())

    def reload(self, config: Config) -> Reloaded:
        """See `llm_runtime.Runtime.reload`."""
        return self._ask(lambda rt: rt.reload(config))

    def statistics(self, caller: str | None = None) -> Statistics:
        """See `llm_runtime.Runtime.statistics`."""
        return self._ask(lambda rt: rt.statistics(caller))

    def _look(self, fn: Callable[[TrioRuntime], T]) -> T:
        """What ``fn`` returns at once where the runtime is in this process, and awaited where it is in a daemon."""

        async def look(rt: TrioRuntime) -> T:
            value: Any = fn(rt)
            found: T = await value if isawaitable(value) else value
            return found

        return self._ask(look)

    def _ask(self, fn: Callable[[TrioRuntime], Awaitable[T]]) -> T:
        result: T = _Call(self._portal, SimpleQueue(), fn).result()
        return result

    def _close(self, *, at_once: bool) -> None:
        self._portal.stop(at_once=at_once)
        try:
            self._portal.join()
        except BaseException:
            self._portal.stop(at_once=True)
            self._portal.join()
            raise
        with suppress(Empty):
            if (error := self._closed.get_nowait()) is not None:
                raise error


def _finished(job: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        job.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    job.close()
    raise TypeError("approve is async, which llm_runtime.sync cannot await")


def _judge_here(judge: Judge, portal: Portal[Any], box: _Box) -> Judge:
    """``judge``, called in the thread that waits for the call."""
    if iscoroutinefunction(judge):
        raise TypeError("judge must be a plain function: llm_runtime.sync cannot await it")

    async def ask(responses: Sequence[LLMResponse]) -> int:
        ended, results, errors = trio.Event(), list[int](), list[Exception]()

        def act() -> None:
            try:
                results.append(cast("int", judge(responses)))  # the caller reports a value that is no index
            except Exception as exc:
                errors.append(exc)
            finally:
                portal.post(ended.set)

        box.put(act)
        await ended.wait()
        if errors:
            raise errors[0]
        return results[0]

    return ask


def open_runtime(
    config: ConfigSource = None,
    *,
    vendors: Sequence[Vendor] = (),
    observers: Sequence[Observer] = (),
    middleware: Sequence[SyncMiddleware] = (),
    strategies: Mapping[str, SyncStrategy] | None = None,
    orderings: Mapping[str, OrderingFunction] | None = None,
    cache_store: CacheStore | None = None,
) -> SyncRuntime:
    """Start a runtime; see `llm_runtime.open_runtime`. Strategies are called in threads of their own, orderings in the
    thread of the runtime. Returns when it is running; raises `ConfigError`.
    """
    hooks, own = _hooks(observers, middleware), strategies or {}
    _refuse_async(own.values(), "strategies")
    there = {name: _strategy_in_thread(each) for name, each in own.items()}
    return _started(
        lambda: trio_host.open_runtime(
            config, vendors=vendors, strategies=there, orderings=orderings, cache_store=cache_store, **hooks
        )
    )


def connect(
    url: str,
    *,
    key: str | Secret | None = None,
    ca_file: str | None = None,
    observers: Sequence[Observer] = (),
    middleware: Sequence[SyncMiddleware] = (),
) -> SyncRuntime:
    """Use the runtime of a daemon; see `llm_runtime.connect`. Returns when it has answered; raises `LLMClientError`."""
    from llm_runtime.remote.runtime import connect as trio_connect

    hooks = _hooks(observers, middleware)
    return _started(lambda: trio_connect(url, key=key, ca_file=ca_file, **hooks))


class _Hooks(TypedDict):
    observers: list[Observer]
    middleware: list[Middleware]


def _hooks(observers: Sequence[Observer], middleware: Sequence[SyncMiddleware]) -> _Hooks:
    """Both, called in worker threads. Raises `TypeError` for async functions: nobody here could await them."""
    _refuse_async((*observers, *middleware), "observers and middleware")
    return {
        "observers": [_in_thread(each) for each in observers],
        "middleware": [_blocking(each) for each in middleware],
    }


def _refuse_async(functions: Iterable[Callable[..., object]], what: str) -> None:
    if any(iscoroutinefunction(each) for each in functions):
        raise TypeError(f"{what} must be plain functions: llm_runtime.sync cannot await them")


def _strategy_in_thread(strategy: SyncStrategy) -> StrategyFunction:
    async def carry_out(team: Team) -> LLMResponse | str:
        return await trio.to_thread.run_sync(strategy, SyncTeam(team))

    return carry_out


def _in_thread(observer: Observer) -> Observer:
    async def call(event: RunEvent) -> None:
        await trio.to_thread.run_sync(observer, event)

    return call


def _blocking(middleware: SyncMiddleware) -> Middleware:
    async def around(request: AnyRequest, proceed: Next) -> LLMResponse:
        def answered(request: AnyRequest) -> LLMResponse:
            response: LLMResponse = trio.from_thread.run(proceed, request)
            return response

        return await trio.to_thread.run_sync(middleware, request, answered)

    return around


def _started(open_runtime: Callable[[], AbstractAsyncContextManager[Any]]) -> SyncRuntime:
    opened: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    closed: SimpleQueue[BaseException | None] = SimpleQueue()
    portal: Portal[Any] = Portal(open_runtime)
    portal.start(lambda runtime, error: opened.put((runtime, error)), closed.put)
    try:
        runtime, error = opened.get()
    except BaseException:
        portal.stop(at_once=True)
        raise
    if runtime is None:
        assert error is not None
        raise error
    return SyncRuntime(portal, runtime, closed)
