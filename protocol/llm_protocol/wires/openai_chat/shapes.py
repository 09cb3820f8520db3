"""The data of the chat wire: the types of its responses, finish reasons, usage.

Responses are decoded into typed structs for speed; anything that does not fit is decoded again, by `lenient`.
One set of structs reads whole responses, chat chunks and legacy completions: a whole response's ``message`` has a
delta's fields, and a legacy choice has ``text``.

Fields that servers add to this wire are kept, and sent to clients of the same wire unchanged. ``message`` holds those
of a message or delta, ``choice`` those of the choice around it, ``body`` those of the whole chunk. A vendor's own
format of reasoning is kept with the reasoning instead.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.codec.json import JsonDecoder
from llm_protocol.content import JsonObject, Reasoning
from llm_protocol.extra_fields import shape_of
from llm_protocol.response import FinishReason, Usage

REST = "llm_runtime rest"
"""The name under which `lenient.take_extras` keeps the unknown fields of a call."""


class ChatFunction(msgspec.Struct):
    """The name and a piece of the arguments of a call."""

    name: str | None = None
    arguments: str | None = None


class ChatCustom(msgspec.Struct):
    """The name and a piece of the input of a call of a custom tool."""

    name: str | None = None
    input: str | None = None


class Google(msgspec.Struct):
    """Data that Gemini's compatible endpoint has to receive back."""

    thought_signature: str | None = None


class ExtraContent(msgspec.Struct):
    """The field ``extra_content`` of a call: what Gemini adds to OpenAI's form."""

    google: Google | None = None


class ChatCall(msgspec.Struct, forbid_unknown_fields=True):
    """A tool call or a piece of one. ``rest`` contains its other fields, as for `ChatDelta`."""

    index: int | None = None
    id: str | None = None
    type: Any = None
    function: ChatFunction | None = None
    custom: ChatCustom | None = None
    extra_content: ExtraContent | None = None
    rest: Any = msgspec.field(default=None, name=REST)

    @property
    def is_none(self) -> bool:
        """Whether this piece has none of the fields that belong to a call."""
        present = (self.index, self.id, self.function, self.custom, self.extra_content)
        return all(each is None for each in present)

    @property
    def name(self) -> str:
        """The tool's name, if this piece has it."""
        tool = self.function or self.custom
        return (tool.name if tool else None) or ""

    @property
    def text(self) -> str:
        """The piece of the arguments, or of the input."""
        if self.function:
            return self.function.arguments or ""
        return (self.custom.input if self.custom else None) or ""

    @property
    def signature(self) -> str | None:
        """The vendor's signature of the call; ``None`` without one."""
        extra = self.extra_content
        return extra.google.thought_signature if extra and extra.google else None


def signed(call: JsonObject, signature: str | None) -> JsonObject:
    """Put ``signature`` into ``call``, at the place where `ChatCall.signature` finds it, and return ``call``."""
    if signature is not None:
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


class ImageUrl(msgspec.Struct):
    """The URL of an image."""

    url: str


class ImagePart(msgspec.Struct):
    """An image in a response, as some gateways send it."""

    image_url: ImageUrl


class ChatDelta(msgspec.Struct, forbid_unknown_fields=True):
    """A message, or a delta of one. An unknown field makes the strict decoding fail, as does a field that is
    declared as ``None`` and has a value. The tolerant decoding keeps such fields: see `lenient.take_extras`.
    """

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ChatCall] | None = None
    function_call: ChatFunction | None = None
    images: list[ImagePart] | None = None
    reasoning_details: None = None
    annotations: None = None
    audio: None = None


class ChatChoice(msgspec.Struct, forbid_unknown_fields=True):
    """One of several choices. Other fields are kept, as for `ChatDelta`."""

    index: int | None = None
    delta: ChatDelta | None = None
    message: ChatDelta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: None = None
    stop_reason: None = None
    matched_stop: None = None
    token_ids: None = None


class CacheWriteDetails(msgspec.Struct):
    """Tokens that were written to the cache, by lifetime."""

    ttl_12h_tokens: int | None = None


class InputDetails(msgspec.Struct):
    """Details of the input tokens."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: CacheWriteDetails | None = None
    image_tokens: int | None = None


class OutputDetails(msgspec.Struct):
    """Details of the output tokens."""

    reasoning_tokens: int | None = None


class ChatWireUsage(msgspec.Struct):
    """Token counts. Responses of the images endpoint use the Responses wire's names, such as ``input_tokens``."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: InputDetails | None = None
    input_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


class ChatChunk(msgspec.Struct):
    """A whole response or a streamed chunk. Without ``choices`` it may be an error."""

    id: str | None = None
    model: str | None = None
    choices: list[ChatChoice] | None = None
    usage: ChatWireUsage | None = None
    service_tier: Any = None
    error: Any = None
    citations: None = None
    search_results: None = None


CHUNKS = JsonDecoder(ChatChunk)

FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "STOP": FinishReason.STOP,
    "COMPLETE": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "MAX_TOKENS": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "max_output_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "tool_call": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "sensitive": FinishReason.CONTENT_FILTER,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.CONTENT_FILTER,
    "error": FinishReason.ERROR,
    "abort": FinishReason.ERROR,
    "cancelled": FinishReason.ERROR,
    "time_limit": FinishReason.ERROR,
    "insufficient_system_resource": FinishReason.ERROR,
    "network_error": FinishReason.ERROR,
}
"""The finish reasons of OpenAI, and of servers that use other values on its wire."""

KEEP_ALIVES = frozenset(("", "null", "{}", "ping", '"ping"'))
"""The data of events that have no content and only keep the connection open."""


def read_usage(usage: ChatWireUsage) -> Usage:
    """The canonical usage."""
    inside = usage.prompt_tokens_details or usage.input_tokens_details or InputDetails()
    outside = usage.completion_tokens_details or OutputDetails()
    given, made = usage.prompt_tokens or usage.input_tokens or 0, usage.completion_tokens or usage.output_tokens or 0
    if usage.total_tokens == given + made + (outside.reasoning_tokens or 0):
        made += outside.reasoning_tokens or 0  # xAI counts the two apart
    return Usage(
        input_tokens=given,
        output_tokens=made,
        cached_tokens=inside.cached_tokens or 0,
        cache_write_tokens=inside.cache_write_tokens or 0,
        long_cache_write_tokens=long_writes(inside),
        reasoning_tokens=outside.reasoning_tokens or 0,
        image_input_tokens=inside.image_tokens or 0,
    )


def long_writes(details: InputDetails | None) -> int:
    """Return the tokens that were written to a cache with a longer lifetime, which cost more."""
    written = details and details.cache_write_tokens_details
    return (written and written.ttl_12h_tokens) or 0


def service_of(tier: object) -> tuple[str, ...]:
    """The service tier, if it is not the default tier."""
    return (tier,) if isinstance(tier, str) and tier not in ("", "auto", "default", "standard") else ()


def usage_body(usage: Usage) -> JsonObject:
    """The usage in the wire's format."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


WIRE = "openai_chat"
"""The dialect under which fields of this wire are kept, whichever vendor sent them."""

DETAILS = "reasoning_details"
"""The field for reasoning in vendors' own forms at OpenRouter: signed, encrypted, summarised."""

USAGE_SHAPE = shape_of(
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    prompt_tokens_details=("cached_tokens", "cache_write_tokens"),
    completion_tokens_details=("reasoning_tokens",),
)
"""The usage fields that the encoder writes itself. All others are kept."""

BODY_FIELDS = ("citations", "search_results")
"""Fields of the chunk itself that are content: Perplexity's sources. All other fields of a chunk describe the
server.
"""

HEAD_FIELDS = frozenset(
    (
        *BODY_FIELDS,
        "id",
        "object",
        "created",
        "model",
        "choices",
        "usage",
        "error",
        "data",
        "obfuscation",
        "llm_runtime",
    )
)
"""Fields of the chunk or response that are read, have no meaning, or were reported already. All others are kept."""


def text_of_details(details: Any) -> str:
    """Return the readable text in ``details``."""
    items = [item for item in details if isinstance(item, dict)] if isinstance(details, list) else []
    texts = [item.get("text") or item.get("summary") for item in items]
    return "".join(text for text in texts if isinstance(text, str))


def with_details(part: Reasoning, details: list[Any]) -> Reasoning:
    """Return the reasoning with ``details``, its vendor's own form, as ``extra``."""
    return msgspec.structs.replace(part, extra={WIRE: {DETAILS: details}}) if details else part


def details_of(part: Reasoning) -> list[Any]:
    """Return the details that `with_details` added."""
    found = part.extra.get(WIRE, {}).get(DETAILS) if part.extra else None
    return found if isinstance(found, list) else []
