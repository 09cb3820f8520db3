"""The runtime for programs without an event loop: scripts, threads, notebooks. The same methods, types and errors.

    from llm_runtime import sync

    with sync.open_runtime() as rt:
        print(rt.chat("Say hello.").content)

In a notebook, keep it open over several cells: ``rt = sync.open_runtime()``, and ``rt.close()`` at the end; otherwise
it is closed when the program exits. Any number of threads may use one runtime at the same time. The runtime itself runs
on Trio, in a separate thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from inspect import isawaitable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, final, overload

import llm_runtime.opening as trio_host
from llm_actors.cache import CacheStore
from llm_actors.kernel import TreeNode
from llm_actors.run import Judge
from llm_actors.selector import OrderingFunction, Ranking
from llm_protocol.content import Image
from llm_protocol.dialect import ModelInfo
from llm_protocol.policy import Policy
from llm_protocol.requests import AUTO, AnyRequest
from llm_protocol.response import LLMResponse, TokenCount
from llm_protocol.secret import Secret
from llm_protocol.vendor import Vendor
from llm_runtime.config import Config
from llm_runtime.hooks import Observer
from llm_runtime.hosts.portal import Portal
from llm_runtime.hosts.thread_functions import (
    SyncMiddleware,
    SyncStrategy,
    SyncTeam,
    hooks_in_threads,
    judge_in_thread,
    refuse_async,
    strategy_in_thread,
)
from llm_runtime.hosts.threads import Box, SyncStream, ThreadCall
from llm_runtime.hosts.tool_threads import refuse_async_tools, run_in_threads, run_tool
from llm_runtime.opening import ConfigSource
from llm_runtime.options import ChatOptions, Messages, Options, ToolOptions, as_messages
from llm_runtime.providers import Reloaded
from llm_runtime.requesting import (
    answers,
    chat_request,
    code_request,
    collaboration,
    completion_request,
    embedding_request,
    image_request,
)
from llm_runtime.runtime import Runtime as TrioRuntime
from llm_runtime.tools import AnyTool, Approve, ToolLoop, ToolRun, run_call
from llm_runtime.typed import ParsedResponse, ResponseType, ResponseTypeError

if TYPE_CHECKING:
    from llm_runtime.remote.runtime import RemoteRuntime
    from llm_runtime.statistics import Statistics

__all__ = ["SyncMiddleware", "SyncRuntime", "SyncStrategy", "SyncStream", "SyncTeam", "connect", "open_runtime"]

T = TypeVar("T")


@final
class SyncRuntime:
    """The runtime of a program without an event loop. `open_runtime` creates one in this process, `connect` one that
    uses a daemon. Leaving a ``with`` block around the runtime closes it, as `close` does.

    If the block raises an exception, requests in progress end at once.
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
        """Give requests in progress ``server.drain_s`` seconds to finish, and stop. If an error had ended the runtime
        before, raises it.
        """
        self._close(at_once=False)

    @property
    def config(self) -> Config:
        """The configuration. Raises `UnsupportedError` for the runtime of a daemon."""
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
        """Return the next turn of a conversation, as a complete response; see `llm_runtime.Runtime.chat`."""
        if response_type is None:
            return self.send(chat_request(messages, options))
        typed = ResponseType(response_type)
        request = chat_request(messages, {**options, "response_format": typed.format})
        try:
            return typed.parse(self.send(request))
        except ResponseTypeError as exc:
            if not (repair and exc.is_repairable):
                raise
            error = exc
        return typed.parse(self.send(typed.repair(request, error)))

    def complete(self, prompt: str, *, suffix: str | None = None, **options: Unpack[Options]) -> LLMResponse:
        """Continue a text. With ``suffix``, write the text between ``prompt`` and ``suffix``."""
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
        """Return an embedding of each input, in order, as ``response.embeddings``."""
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
        """Return ``n`` images for a description, as ``response.images``. ``size`` is ``"WxH"`` or ``"auto"``. With
        ``images``, these images are changed as described; with ``mask``, only where the mask is transparent.
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
        """Send a prompt to several models; see `llm_runtime.Runtime.collaborate`. ``judge`` is called in the calling
        thread.
        """
        request = collaboration(messages, members, options, self.routes.get(options.get("model", "")))
        return answers(self.send(request, judge=judge))

    def stream(
        self, messages: Messages, *, response_type: type[Any] | None = None, **options: Unpack[ChatOptions]
    ) -> SyncStream:
        """Stream the next turn of a conversation; see `llm_runtime.Runtime.stream`."""
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
        parallel: int = 8,
        tool_deadline_s: float = 60.0,
        approve: Approve | None = None,
        until: Callable[[LLMResponse], bool] | None = None,
        on_event: Callable[[Any], object] | None = None,
        **options: Unpack[ToolOptions],
    ) -> ToolRun:
        """Send a request, run the tools that the model calls, and repeat; see `llm_runtime.Runtime.run_tools`.

        The tools run in threads; ``approve``, ``until`` and ``on_event`` are called in the calling thread. A tool that
        takes too long is left behind in its thread. Raises `TypeError` for an async tool.
        """
        loop, tell = ToolLoop(as_messages(messages), tools, max_rounds, parallel), on_event or (lambda _: None)
        refuse_async_tools(loop)
        while True:
            request = chat_request(loop.messages, cast("ChatOptions", {**options, "tools": loop.tools}))
            response = self.send(request) if on_event is None else self._told(request, tell)
            calls = loop.take_response(response, stop=until is not None and until(response))
            if not calls:
                return loop.ended()
            jobs = [partial(run_call, loop, call, run_tool, approve, tell, tool_deadline_s) for call in calls]
            loop.answer(run_in_threads(jobs, parallel=parallel, seconds=tool_deadline_s))

    def _told(self, request: AnyRequest, tell: Callable[[Any], object]) -> LLMResponse:
        with self.stream_request(request) as stream:
            for event in stream:
                tell(event)
        return stream.response

    def stream_request(self, request: AnyRequest) -> SyncStream:
        """Stream the response to any request."""
        return SyncStream(self._portal, request)

    def send(self, request: AnyRequest, *, judge: Judge | None = None) -> LLMResponse:
        """Send ``request`` and return the complete response. Raises `LLMClientError`."""
        box: Box = SimpleQueue()
        here = None if judge is None else judge_in_thread(judge, self._portal, box)
        result: LLMResponse = ThreadCall(self._portal, box, lambda rt: rt.send(request, judge=here)).result()
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
        """Return the result of ``fn``. If the runtime is in this process, ``fn`` is called without waiting; the result
        from a daemon is awaited.
        """

        async def look(rt: TrioRuntime) -> T:
            value: Any = fn(rt)
            found: T = await value if isawaitable(value) else value
            return found

        return self._ask(look)

    def _ask(self, fn: Callable[[TrioRuntime], Awaitable[T]]) -> T:
        result: T = ThreadCall(self._portal, SimpleQueue(), fn).result()
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
    """Start a runtime; see `llm_runtime.open_runtime`. Each call of a strategy has a separate thread; orderings are
    called in the thread of the runtime. Returns when the runtime is running. Raises `ConfigError`.
    """
    hooks, own = hooks_in_threads(observers, middleware), strategies or {}
    refuse_async(own.values(), "strategies")
    there = {name: strategy_in_thread(each) for name, each in own.items()}
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
    """Use the runtime of a daemon; see `llm_runtime.connect`. Returns when the daemon has responded. Raises
    `LLMClientError`.
    """
    from llm_runtime.remote.runtime import connect as trio_connect

    hooks = hooks_in_threads(observers, middleware)
    return _started(lambda: trio_connect(url, key=key, ca_file=ca_file, **hooks))


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
