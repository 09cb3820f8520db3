"""A complete response, its usage and its finish reason."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import NamedTuple

import msgspec

from llm_protocol.adjustments import Adjustment
from llm_protocol.content import Image, JsonObject, Message, Part, Reasoning, Refusal, ToolCall
from llm_protocol.embedding import Embedding
from llm_protocol.requests import new_response_id


class FinishReason(StrEnum):
    """Why the model stopped: one set for all vendors. The vendor's own reason is kept in ``raw_finish_reason``."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    UNKNOWN = "unknown"
    """The vendor gave a reason that is not known here."""
    ERROR = "error"


class TokenCount(NamedTuple):
    """The number of tokens of a prompt: counted by its vendor, or ``estimated`` by the runtime."""

    tokens: int
    estimated: bool


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts. ``input_tokens`` and ``output_tokens`` are totals: they include cached, cache-written and
    reasoning tokens.

    ``image_tokens`` are the output tokens of images, and ``image_input_tokens`` the input tokens of images; some
    vendors price these separately. ``long_cache_write_tokens`` were written to be cached for longer than usual (an
    hour at Anthropic, twelve at OpenAI). ``web_searches`` counts the vendor's own searches, which cost extra.
    ``services`` are the service tiers that the vendor says it used, if their prices differ, in the vendor's words.
    ``estimated``: the vendor gave no final counts, so these are the runtime's estimate. ``billed_*`` are set only if
    a vendor bills other counts than it reports.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    image_tokens: int = 0
    image_input_tokens: int = 0
    long_cache_write_tokens: int = 0
    web_searches: int = 0
    services: tuple[str, ...] = ()
    billed_input_tokens: int | None = None
    billed_output_tokens: int | None = None
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


MOST_TOKENS = 100_000_000
"""The largest plausible token count: the longest contexts have ten million tokens."""


def is_plausible(usage: Usage) -> bool:
    """Whether all counts are plausible. Limits, budgets and costs must not depend on an impossible count."""
    counts = (
        usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens,
        usage.image_tokens, usage.web_searches, usage.billed_input_tokens or 0, usage.billed_output_tokens or 0,
    )  # fmt: skip
    return min(counts) >= 0 and max(counts) <= MOST_TOKENS


class LLMResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One complete response; with ``finish_reason`` ``None``, the part received before the response broke off.

    ``content`` is the text alone; ``output`` has every part in order. ``provider`` is the provider that responded,
    ``model`` the model name that the vendor reports, ``upstream_id`` the vendor's id of the response. ``cost`` is in US
    dollars; ``None`` if the price is unknown. ``timestamp`` is the end of the response in seconds since the epoch;
    ``processing_time_ms`` comes from the monotonic clock. ``decision`` is the decision record: candidates, attempts,
    cache. If several models were asked, ``usage`` and ``cost`` are the sums over all of them.
    """

    request_id: str
    provider: str
    model: str
    response_id: str = msgspec.field(default_factory=new_response_id)
    content: str = ""
    output: tuple[Part, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    usage: Usage | None = None
    cost: float | None = None
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    upstream_id: str | None = None
    metadata: JsonObject = msgspec.field(default_factory=dict)
    timestamp: float = msgspec.field(default_factory=time.time)
    processing_time_ms: float = 0.0
    decision: JsonObject = msgspec.field(default_factory=dict)
    extra: dict[str, dict[str, JsonObject]] = msgspec.field(default_factory=dict)
    """Fields that only one dialect knows, by dialect and by their place in the response: see
    `llm_protocol.extra_fields`.
    """
    adjusted: tuple[Adjustment, ...] = ()
    """The changes that were made to the request for this provider."""
    members: tuple[LLMResponse, ...] = ()
    """The members' answers, if a strategy combined or chose them."""
    choices: tuple[LLMResponse, ...] = ()
    """The choices after the first, if several were requested. This response is the first choice, with the usage and
    the cost of all.
    """

    @property
    def message(self) -> Message:
        """Return the response as a message for the next request, with tool calls, reasoning and signatures."""
        extra = {dialect: fields["message"] for dialect, fields in self.extra.items() if "message" in fields}
        return Message("assistant", self.output, extra=extra or None)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the model."""
        return tuple(part for part in self.output if isinstance(part, ToolCall))

    @property
    def reasoning(self) -> str:
        """The readable reasoning, joined."""
        return "".join(part.text for part in self.output if isinstance(part, Reasoning))

    @property
    def refusal(self) -> str:
        """The model's refusal, empty if there is none."""
        return "".join(part.text for part in self.output if isinstance(part, Refusal))

    @property
    def images(self) -> tuple[Image, ...]:
        """The images in the response."""
        return tuple(part for part in self.output if isinstance(part, Image))
