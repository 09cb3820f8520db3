"""A complete response, its usage and its finish reason."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from typing import NamedTuple

import msgspec

from llm_protocol.adjustments import Adjustment
from llm_protocol.content import Image, JsonObject, Message, Part, Reasoning, Refusal, ToolCall
from llm_protocol.embedding import Embedding


class FinishReason(StrEnum):
    """Why the model stopped, on one set for all vendors. The vendor's own word is kept beside it."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    UNKNOWN = "unknown"
    """The vendor gave a reason that we do not know; ``raw_finish_reason`` has it."""
    ERROR = "error"


class TokenCount(NamedTuple):
    """The tokens of a prompt: by its vendor's own count, or ``estimated`` by us."""

    tokens: int
    estimated: bool


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens. ``input_tokens`` and ``output_tokens`` are totals: cached, cache-written and reasoning tokens are
    inside them.

    ``image_tokens`` are those of the output that are images, ``image_input_tokens`` those of the input, which some
    vendors price apart; ``long_cache_write_tokens`` those written to be cached for longer than usual (an hour at
    Anthropic, twelve at OpenAI). ``web_searches`` are the vendor's own, which cost apart. ``services`` are the ways of
    service that the vendor says it used and prices otherwise, in its words.
    ``estimated`` marks numbers that are ours because the vendor gave no final ones. ``billed_*`` are set only where a
    vendor bills other numbers than it counts.
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
"""A count above this is no count: the longest contexts have ten million tokens."""


def is_plausible(usage: Usage) -> bool:
    """Whether all counts can be true. Limits, budgets and costs must not depend on one that cannot."""
    counts = (
        usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens,
        usage.image_tokens, usage.web_searches, usage.billed_input_tokens or 0, usage.billed_output_tokens or 0,
    )  # fmt: skip
    return min(counts) >= 0 and max(counts) <= MOST_TOKENS


def new_response_id() -> str:
    """A fresh, unguessable response id."""
    return f"resp_{os.urandom(16).hex()}"


class LLMResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One complete response; with ``finish_reason`` ``None``, the part received before it broke off.

    ``content`` is the text alone; ``output`` has every part in order. ``provider`` is the one that answered,
    ``model`` the model it says it used, ``upstream_id`` the vendor's id. ``cost`` is in US dollars, ``None`` where
    the price is unknown. ``timestamp`` is seconds since the epoch at the end of the response; ``processing_time_ms``
    comes from the monotonic clock. ``decision`` records how the response came to be: candidates, attempts, cache. Where
    several models were asked, ``usage`` and ``cost`` are those of all of them together.
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
    """Fields that only one dialect knows, by dialect and where they stood: see `llm_protocol.extra_fields`."""
    adjusted: tuple[Adjustment, ...] = ()
    """The changes to the request that the provider needed."""
    members: tuple[LLMResponse, ...] = ()
    """The members' responses, if an ensemble produced this one."""
    choices: tuple[LLMResponse, ...] = ()
    """The choices after the first, where several were asked for: this response is the first, with the usage and the
    cost of all.
    """

    @property
    def message(self) -> Message:
        """The response as a message of the next request, with tool calls, reasoning and signatures."""
        extra = {dialect: fields["message"] for dialect, fields in self.extra.items() if "message" in fields}
        return Message("assistant", self.output, extra=extra or None)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls the model asks for."""
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
        """The images."""
        return tuple(part for part in self.output if isinstance(part, Image))
