"""The methods of a runtime that make requests, as `Runtime` (Trio) and `llm_runtime.aio.Runtime` have them alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar, Unpack

from llm_actors.run import Judge
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
from llm_runtime.ensemble import answers, collaboration
from llm_runtime.options import ChatOptions, Messages, Options, as_messages, split

Stream = TypeVar("Stream")


def chat_request(messages: Messages, options: ChatOptions) -> ChatRequest:
    """A chat. Raises `BadRequestError`, as all of these do."""
    return ChatRequest(messages=as_messages(messages), **split(options))


def completion_request(prompt: str, suffix: str | None, options: Options) -> CompletionRequest:
    """A text to continue."""
    return CompletionRequest(prompt=prompt, suffix=suffix, **split(options))


def code_request(
    instruction: str,
    language: str | None,
    prefix: str | None,
    suffix: str | None,
    files: Mapping[str, str] | None,
    options: Options,
) -> CodeRequest:
    """Code to write."""
    context = tuple(CodeFile(path, content) for path, content in (files or {}).items())
    return CodeRequest(
        instruction=instruction, language=language, prefix=prefix, suffix=suffix, files=context, **split(options)
    )


def embedding_request(
    inputs: str | Sequence[str], dimensions: int | None, input_type: str | None, options: Options
) -> EmbeddingRequest:
    """Texts to embed."""
    texts = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    return EmbeddingRequest(inputs=texts, dimensions=dimensions, input_type=input_type, **split(options))


def image_request(
    prompt: str,
    n: int,
    size: str | None,
    quality: str | None,
    output_format: str | None,
    background: str | None,
    options: Options,
) -> ImageRequest:
    """Images to make."""
    return ImageRequest(
        prompt=prompt,
        n=n,
        size=size,
        quality=quality,
        output_format=output_format,
        background=background,
        **split(options),
    )


class RequestMethods(ABC, Generic[Stream]):
    """Every request ends with a whole answer or with one `LLMClientError`, by its deadline (``deadline_s``, 600 s by
    default). Cancelling a call, or leaving a stream, cancels everything below it, down to the vendor's connection.
    """

    @property
    @abstractmethod
    def routes(self) -> Mapping[str, Policy]:
        """The configured routes, by name."""

    @abstractmethod
    async def send(self, request: AnyRequest, *, judge: Judge | None = None) -> LLMResponse:
        """The whole answer to ``request``. Raises `LLMClientError`."""

    @abstractmethod
    def stream_request(self, request: AnyRequest) -> Stream:
        """Any request's answer, as it is made."""

    async def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> LLMResponse:
        """The next turn of a conversation, as a whole."""
        return await self.send(chat_request(messages, options))

    async def complete(self, prompt: str, *, suffix: str | None = None, **options: Unpack[Options]) -> LLMResponse:
        """A text continued; with ``suffix``, the gap before it filled."""
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
        """Code for an instruction, without fences or talk; ``prefix`` and ``suffix`` are the code around a gap to fill.

        ``files`` maps paths to contents the model should know of.
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
        """A vector for each input, in order, as ``response.embeddings``."""
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
        **options: Unpack[Options],
    ) -> LLMResponse:
        """``n`` pictures of a description, as ``response.images``. ``size`` is ``"WxH"`` or ``"auto"``."""
        return await self.send(image_request(prompt, n, size, quality, output_format, background, options))

    async def collaborate(
        self,
        messages: Messages,
        *,
        members: Sequence[str] | int | None = None,
        judge: Judge | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[LLMResponse]:
        """Ask several models at once. Returns the valid answers, and behind them one made of them all if there are more
        than one (unless ``cross_model.synthesize_responses`` is off). With one model it is a single request.

        ``members``: which models, or how many the selector chooses (3). ``model`` may name a route, ``policy`` say
        more, ``judge`` choose for the strategy ``best_of``: it is given the answers and returns an index, at once or
        awaited. Who fails is dropped and logged; raises `LLMClientError` when nobody answers.
        """
        request = collaboration(messages, members, options, self.routes.get(options.get("model", "")))
        return answers(await self.send(request, judge=judge))

    def stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> Stream:
        """The next turn of a conversation, as it is made."""
        return self.stream_request(chat_request(messages, options))
