"""The request methods that `llm_runtime.Runtime` (Trio) and `llm_runtime.aio.AsyncioRuntime` share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, Unpack, cast, overload

from llm_actors.run import Judge
from llm_protocol.content import Image
from llm_protocol.policy import Policy
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CodeFile,
    CodeRequest,
    CompletionRequest,
    EmbeddingRequest,
    ImageRequest,
)
from llm_protocol.response import LLMResponse
from llm_runtime.options import ChatOptions, Messages, Options, ToolOptions, as_messages, split
from llm_runtime.tools import AnyTool, Approve, FunctionTool, ToolLoop, ToolRun, run_call
from llm_runtime.typed import ParsedResponse, ResponseType, ResponseTypeError

T = TypeVar("T")

_NOTHING_SAID = Policy()


class AnyStream(Protocol):
    """The methods and attributes that the streams of all hosts have."""

    response_type: ResponseType[Any] | None


Stream = TypeVar("Stream", bound=AnyStream)


def chat_request(messages: Messages, options: ChatOptions) -> ChatRequest:
    """Return a chat request. Raises `BadRequestError` for invalid options, as do the other functions of this module."""
    return ChatRequest(messages=as_messages(messages), **split(options))


def completion_request(prompt: str, suffix: str | None, options: Options) -> CompletionRequest:
    """Return a completion request."""
    return CompletionRequest(prompt=prompt, suffix=suffix, **split(options))


def code_request(
    instruction: str,
    language: str | None,
    prefix: str | None,
    suffix: str | None,
    files: Mapping[str, str] | None,
    options: Options,
) -> CodeRequest:
    """Return a code request."""
    context = tuple(CodeFile(path, content) for path, content in (files or {}).items())
    return CodeRequest(
        instruction=instruction, language=language, prefix=prefix, suffix=suffix, files=context, **split(options)
    )


def embedding_request(
    inputs: str | Sequence[str], dimensions: int | None, input_type: str | None, options: Options
) -> EmbeddingRequest:
    """Return an embedding request."""
    texts = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    return EmbeddingRequest(inputs=texts, dimensions=dimensions, input_type=input_type, **split(options))


def image_request(
    prompt: str,
    n: int,
    size: str | None,
    quality: str | None,
    output_format: str | None,
    background: str | None,
    images: Sequence[Image],
    mask: Image | None,
    options: Options,
) -> ImageRequest:
    """Return a request to create or edit images."""
    return ImageRequest(
        prompt=prompt,
        n=n,
        size=size,
        quality=quality,
        output_format=output_format,
        background=background,
        images=tuple(images),
        mask=mask,
        **split(options),
    )


def collaboration(
    messages: Messages, members: Sequence[str] | int | None, options: ChatOptions, route: Policy | None
) -> ChatRequest:
    """Return the request. If neither the caller nor the route names a strategy, the strategy is a panel, whose members
    see the whole context.
    """
    given: Any = split(options)
    own = given.pop("policy", None) or _NOTHING_SAID
    if members is not None:
        if isinstance(members, str):  # type checkers let it pass as a sequence of texts
            members = (members,)
        own = Policy(members=members if isinstance(members, int) else tuple(members)).over(own)
    policy = own.over(route or _NOTHING_SAID)
    usual = Policy(
        strategy=None if policy.strategy else "panel", share_context=None if policy.share_context is not None else "all"
    )
    return ChatRequest(messages=as_messages(messages), policy=own.over(usual), **given)


def answers(response: LLMResponse) -> list[LLMResponse]:
    """Return the valid responses in the order of the members, followed by the response itself if a synthesiser, or a
    method other than ``none``, made or chose it.
    """
    made = response.decision.get("synthesis", {})
    valid = list(response.members) or [response]
    return [*valid, response] if made.get("outcome") == "ok" and made.get("by") != "none" else valid


class RequestMethods(ABC, Generic[Stream]):
    """The methods that send requests, which are the same on all hosts.

    Every request ends with a complete response or with one `LLMClientError`, by its deadline (``deadline_s``,
    default 600 s). Cancelling a call, or leaving a stream, cancels everything below it, including the vendor's
    connection.
    """

    @property
    @abstractmethod
    def routes(self) -> Mapping[str, Policy]:
        """The configured routes, by name."""

    @abstractmethod
    async def send(self, request: AnyRequest, *, judge: Judge | None = None) -> LLMResponse:
        """Send ``request`` and return the complete response. Raises `LLMClientError`."""

    @abstractmethod
    def stream_request(self, request: AnyRequest) -> Stream:
        """Return a stream of the response to ``request``, which is sent when the stream is entered."""

    @overload
    async def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> LLMResponse: ...
    @overload
    async def chat(
        self, messages: Messages, *, response_type: type[T], repair: bool = False, **options: Unpack[ChatOptions]
    ) -> ParsedResponse[T]: ...
    async def chat(
        self,
        messages: Messages,
        *,
        response_type: type[Any] | None = None,
        repair: bool = False,
        **options: Unpack[ChatOptions],
    ) -> LLMResponse:
        """Return the next turn of a conversation, as a complete response.

        With ``response_type`` (a msgspec Struct, dataclass, TypedDict, pydantic model, …) the model is given the
        type's schema, and ``response.parsed`` is the value. A response that does not fit raises `ResponseTypeError`.
        With ``repair``, the model is told once what is wrong, and only a second response that does not fit raises.
        """
        if response_type is None:
            return await self.send(chat_request(messages, options))
        wanted = ResponseType(response_type)
        request = chat_request(messages, {**options, "response_format": wanted.format})
        try:
            return wanted.parse(await self.send(request))
        except ResponseTypeError as exc:
            if not (repair and exc.is_repairable):
                raise
            error = exc
        return wanted.parse(await self.send(wanted.repair(request, error)))

    async def complete(self, prompt: str, *, suffix: str | None = None, **options: Unpack[Options]) -> LLMResponse:
        """Continue a text. With ``suffix``, write the text between ``prompt`` and ``suffix``."""
        return await self.send(completion_request(prompt, suffix, options))

    async def generate_code(
        self,
        instruction: str,
        *,
        language: str | None = None,
        prefix: str | None = None,
        suffix: str | None = None,
        files: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> LLMResponse:
        """Write code for an instruction, without fences or commentary; ``prefix`` and ``suffix`` are the code around a
        gap.

        ``files`` maps paths to contents that the model should know.
        """
        return await self.send(code_request(instruction, language, prefix, suffix, files, options))

    async def embed(
        self,
        inputs: str | Sequence[str],
        *,
        dimensions: int | None = None,
        input_type: str | None = None,
        **options: Unpack[Options],
    ) -> LLMResponse:
        """Return an embedding of each input, in order, as ``response.embeddings``."""
        return await self.send(embedding_request(inputs, dimensions, input_type, options))

    async def generate_image(
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
        return await self.send(
            image_request(prompt, n, size, quality, output_format, background, images, mask, options)
        )

    async def collaborate(
        self,
        messages: Messages,
        *,
        members: Sequence[str] | int | None = None,
        judge: Judge | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[LLMResponse]:
        """Send a prompt to several models together. Returns the valid responses and, if there are several, a synthesis
        of them at the end (unless ``cross_model.synthesize_responses`` is off). With one model it is a single request.

        ``members``: the models, or how many of them the selector chooses (default 3). ``model`` may name a route, and
        ``policy`` set more options. ``judge`` chooses the response for the strategy ``best_of``: it is called with the
        responses and returns an index, directly or as an awaitable. A member that fails is dropped and logged; raises
        `LLMClientError` if all fail.
        """
        request = collaboration(messages, members, options, self.routes.get(options.get("model", "")))
        return answers(await self.send(request, judge=judge))

    def stream(
        self, messages: Messages, *, response_type: type[Any] | None = None, **options: Unpack[ChatOptions]
    ) -> Stream:
        """Stream the next turn of a conversation: return a stream, which sends the request when it is entered. With
        ``response_type``, ``partials()`` iterates over the value while it arrives, and ``parsed`` is the value at the
        end.
        """
        if response_type is None:
            return self.stream_request(chat_request(messages, options))
        wanted = ResponseType(response_type)
        stream = self.stream_request(chat_request(messages, {**options, "response_format": wanted.format}))
        stream.response_type = wanted
        return stream

    async def run_tools(
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
        """Send a request, run the tools that the model calls, and repeat until it calls none: see `ToolRun`. At most
        ``max_rounds`` requests are sent.

        ``tools`` are functions, decorated with `tool` or not; async functions run in this task, others in threads. At
        most ``parallel`` tools of one turn run at the same time, each for at most ``tool_deadline_s`` seconds. The
        model is told if a tool raises an exception, or if a call names an unknown tool or has invalid arguments.
        ``approve`` is called before each tool call and returns true, false, or a string with the reason for a refusal.
        ``until`` is called with each response; if it returns true, the calls of that response are not run, and the loop
        ends. With ``on_event`` responses are streamed: it is called with their events, and with `ToolStarted` and
        `ToolEnded`. Raises `LLMClientError`. ``deadline_s`` applies to each request; for the whole loop, use a timeout
        around it.
        """
        loop = ToolLoop(as_messages(messages), tools, max_rounds, parallel)
        tell = on_event or (lambda _: None)

        async def run(function: FunctionTool[..., Any], arguments: dict[str, Any]) -> object:
            return await self._run_tool(function, arguments, tool_deadline_s)

        while True:
            request = chat_request(loop.messages, cast("ChatOptions", {**options, "tools": loop.tools}))
            response = await (self.send(request) if on_event is None else self._told(request, tell))
            calls = loop.take_response(response, stop=until is not None and until(response))
            if not calls:
                return loop.ended()
            jobs = [lambda call=call: run_call(loop, call, run, approve, tell, tool_deadline_s) for call in calls]
            loop.answer(await self._run_all(jobs, parallel))

    @abstractmethod
    async def _told(self, request: ChatRequest, tell: Callable[[Any], object]) -> LLMResponse:
        """Return the complete response, after all its events were passed on."""

    @abstractmethod
    async def _run_tool(self, function: FunctionTool[..., Any], arguments: dict[str, Any], seconds: float) -> object:
        """Return the result of a function. Raises the exceptions of the function, and `ToolTooSlow`."""

    @abstractmethod
    async def _run_all(self, jobs: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
        """Return the results in order, running at most ``limit`` jobs at a time. The first exception ends all."""
