"""The five request types. Each is a separate struct; the structs have a common base.

A parameter that is ``None`` was not set by the caller and is not sent: the vendor's default applies. `size_of` tells
large requests, which take long to encode, from others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sized
from enum import StrEnum
from functools import lru_cache
from typing import ClassVar, Self, TypeAlias, TypeGuard

import msgspec

from llm_protocol.content import (
    Audio,
    Document,
    HostedTool,
    Image,
    JsonObject,
    Message,
    Part,
    ResponseFormat,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
)
from llm_protocol.policy import Policy

AUTO = "auto"
"""The model name that lets the runtime choose."""


class LLMProvider(StrEnum):
    """The best-known vendors, as an enumeration for ``kind``. `llm_protocol.vendors.VENDORS` has all vendors by
    kind.
    """

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    COHERE = "cohere"
    CEREBRAS = "cerebras"
    OPENAI_COMPATIBLE = "openai_compatible"
    LOCAL = "local"


class RequestType(StrEnum):
    """The kinds of request."""

    COMPLETION = "completion"
    CHAT = "chat"
    EMBEDDING = "embedding"
    IMAGE_GENERATION = "image_generation"
    CODE_GENERATION = "code_generation"


class Parameters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The parameters of a response. ``extra`` holds vendor fields by dialect name, for example ``{"gemini":
    {"safetySettings": […]}}``. They are added to that dialect's request body, and other dialects ignore them.

    ``wire`` is the dialect of the client that sent the request, if one did. The fields in
    ``extra[wire]`` were sent by the client. `llm_protocol.parameters` decides how they are handled for vendors of other
    wires.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    reasoning_budget: int | None = None
    """The most tokens that the model may spend on reasoning, for vendors with budgets instead of efforts."""
    reasoning_summary: str | None = None
    """Ask for readable reasoning: ``"auto"`` | ``"concise"`` | ``"detailed"``, if the vendor offers it."""
    parallel_tool_calls: bool | None = None
    user: str | None = None
    """The end user's id, for the vendor's abuse tracking."""
    lenient: bool | None = None
    """Deprecated. ``True`` has the effect of ``strict = False`` in the request's policy, which is the default."""
    wire: str | None = None
    headers: dict[str, str] = {}
    """Header fields of the client's wire that are part of its request: see `llm_protocol.client_headers`."""
    extra: dict[str, JsonObject] = {}


def says_nothing(parameters: Parameters) -> bool:
    """Whether no parameter is set. ``wire`` does not count."""
    return parameters == _silent(parameters.wire)


@lru_cache(maxsize=16)
def _silent(wire: str | None) -> Parameters:
    return Parameters(wire=wire)


def new_request_id() -> str:
    """A fresh, unguessable request id."""
    return f"req_{os.urandom(16).hex()}"


def new_response_id() -> str:
    """A fresh, unguessable id for the response to a request."""
    return f"resp_{os.urandom(16).hex()}"


class LLMRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="request_type"):
    """The common fields of all requests.

    ``model`` is ``provider/model``, a bare model name, a route's name, or ``"auto"``. ``timestamp`` is seconds since
    the epoch (UTC), for records only: no duration is ever computed from it. ``deadline_s`` is the whole request's time
    limit in seconds. ``caller`` is the name of the caller; cache entries, limits and stored responses never cross
    callers. ``policy`` says how to handle the request, as far as that differs from its route.
    """

    request_type: ClassVar[RequestType]

    request_id: str = msgspec.field(default_factory=new_request_id)
    provider: str | None = None
    model: str = AUTO
    parameters: Parameters = Parameters()
    context: JsonObject = msgspec.field(default_factory=dict)
    metadata: JsonObject = msgspec.field(default_factory=dict)
    timestamp: float = msgspec.field(default_factory=time.time)
    deadline_s: float | None = None
    caller: str = ""
    policy: Policy | None = None
    forwarded: dict[str, str] = msgspec.field(default_factory=dict)
    """Header fields that are forwarded to a provider of the client's wire, and do not affect the response."""
    one_of: int = 1
    """The number of choices, if each choice of a response is a separate request. Each of these requests has its share
    of the budgets. None of them is cached, because equal requests must get different responses.
    """

    def to(self, model: str) -> Self:
        """The same request, with ``model`` (the vendor's name of a model) as its model."""
        return self if model == self.model else msgspec.structs.replace(self, model=model)


class ChatRequest(LLMRequest, frozen=True, kw_only=True, tag="chat"):
    """A conversation, to be continued by one turn. With ``n``, the response has that many choices of the turn, which
    not every vendor supports in one response; see `llm_protocol.response.LLMResponse.choices`.
    """

    request_type: ClassVar[RequestType] = RequestType.CHAT

    messages: tuple[Message, ...]
    tools: tuple[Tool | HostedTool, ...] = ()
    tool_choice: ToolChoice | None = None
    response_format: ResponseFormat | None = None
    n: int = 1


class CompletionRequest(LLMRequest, frozen=True, kw_only=True, tag="completion"):
    """A text to continue. With ``suffix``, the model fills the gap between ``prompt`` and ``suffix``."""

    request_type: ClassVar[RequestType] = RequestType.COMPLETION

    prompt: str
    suffix: str | None = None


EmbeddingInput: TypeAlias = str | tuple[int, ...]
"""A text, or the ids of its tokens, which only the model whose tokenizer made them can read."""


class EmbeddingRequest(LLMRequest, frozen=True, kw_only=True, tag="embedding"):
    """Texts to embed. The response has one embedding per text, in order. ``input_type`` is a hint such as
    ``"search_document"`` or ``"search_query"``.
    """

    request_type: ClassVar[RequestType] = RequestType.EMBEDDING

    inputs: tuple[EmbeddingInput, ...]
    dimensions: int | None = None
    input_type: str | None = None


class ImageRequest(LLMRequest, frozen=True, kw_only=True, tag="image_generation"):
    """A description of images to create. ``size`` is ``"WxH"`` in pixels, or ``"auto"``. With ``images``, it describes
    how to change these images. ``mask`` is an image of the size of the first one; its transparent pixels mark what to
    change.
    """

    request_type: ClassVar[RequestType] = RequestType.IMAGE_GENERATION

    prompt: str
    n: int = 1
    size: str | None = None
    quality: str | None = None
    output_format: str | None = None
    background: str | None = None
    images: tuple[Image, ...] = ()
    mask: Image | None = None


class CodeFile(msgspec.Struct, frozen=True):
    """A file given to the model as context."""

    path: str
    content: str


class CodeRequest(LLMRequest, frozen=True, kw_only=True, tag="code_generation"):
    """An instruction for code, without fences or commentary. ``prefix`` and ``suffix`` are the code around the gap."""

    request_type: ClassVar[RequestType] = RequestType.CODE_GENERATION

    instruction: str
    language: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    files: tuple[CodeFile, ...] = ()


AnyRequest: TypeAlias = ChatRequest | CompletionRequest | EmbeddingRequest | ImageRequest | CodeRequest


def answer_type(request: AnyRequest, *, draws: bool) -> RequestType:
    """Return the request type whose size limit applies to the response. ``draws``: whether the model may answer a
    chat with images.
    """
    draws = draws and isinstance(request, ChatRequest)
    return RequestType.IMAGE_GENERATION if draws else request.request_type


# ---------------------------------------------------------------- size

MESSAGE_BYTES = 500
"""Each message counts as at least this many bytes of text, because encoding it takes as long."""

TOKEN_BYTES = 8


def size_of(request: AnyRequest) -> int:
    """Return the approximate cost of encoding a request, and of keeping it in memory, in bytes."""
    size = 0
    for extra in request.parameters.extra.values():
        size += sum(len(value) for value in extra.values() if _is_long(value))
    match request:
        case ChatRequest():
            for message in request.messages:
                size += MESSAGE_BYTES
                for part in message.content:
                    size += len(part.text) if type(part) is Text else _part_size(part)
        case ImageRequest():
            size += sum(map(_part_size, (*request.images, request.mask) if request.mask else request.images))
        case EmbeddingRequest():
            size += sum(len(each) * (1 if isinstance(each, str) else TOKEN_BYTES) for each in request.inputs)
        case CompletionRequest():
            size += len(request.prompt) + len(request.suffix or "")
        case CodeRequest():
            size += sum(map(len, (request.instruction, request.prefix or "", request.suffix or "")))
            size += sum(len(each.content) for each in request.files)
    return size


def _part_size(part: Part) -> int:
    match part:
        case ToolResult():
            return sum(map(_part_size, part.content))
        case Image():
            return len(part.data or b"")
        case Document() | Audio():
            return len(part.data or part.base64 or getattr(part, "text", None) or "")
        case _:
            return len(getattr(part, "text", ""))


def _is_long(value: object) -> TypeGuard[Sized]:
    return isinstance(value, list | dict | str)
