"""The usage of attempts: the vendor's final count, else the larger of its last count and the delivered amount.

A count in the middle of a response is not final: Anthropic begins each stream with one output token. If a stream is
cut off before the final count, the vendor still bills what was delivered.
"""

from __future__ import annotations

import math
from typing import final

import msgspec

from llm_protocol.content import Image
from llm_protocol.estimate import PICTURE_OUTPUT_TOKENS, text_length
from llm_protocol.events import Delta, ItemDone, ReasoningDelta, UsageReported
from llm_protocol.response import Usage


class Delivered(msgspec.Struct):
    """The part of a response that has arrived, in tokens estimated from its length."""

    text: float = 0.0
    """Tokens of text, refusals and the arguments of tool calls."""
    thought: float = 0.0
    """Tokens of reasoning, as far as the vendor showed it."""
    images: int = 0

    def add(self, delta: Delta) -> None:
        """Count a delta of an item."""
        if type(delta) is ReasoningDelta:
            self.thought += text_length(delta.text)
        else:
            self.text += text_length(delta.text)

    def add_item(self, item: ItemDone) -> None:
        """Count a complete item. Its text was counted with its deltas; an image has no text."""
        if isinstance(item.part, Image):
            self.images += 1

    def shown(self, usage: Usage) -> tuple[float, int]:
        """Return the length of the visible text in estimated tokens, and the number of tokens for it in ``usage``, a
        final count.
        """
        hidden = usage.reasoning_tokens
        return self.text + (0.0 if hidden else self.thought), usage.output_tokens - hidden - usage.image_tokens


def booked(
    reported: UsageReported | None,
    delivered: Delivered,
    input_tokens: int,
    ratio: float = 1.0,
    billed_input_tokens: int | None = None,
) -> Usage:
    """Return the usage of an attempt: ``reported`` if that is final, else the larger of it and of the delivered
    amount, marked as an estimate.

    ``input_tokens`` is the estimate for the prompt, for vendors that reported nothing. ``ratio`` is the number of
    this model's tokens per estimated token. ``billed_input_tokens``: how many tokens of the prompt are billed, if
    that differs.
    """
    if reported is not None and reported.final:
        return reported.usage
    counted = Usage() if reported is None else reported.usage
    thoughts = max(counted.reasoning_tokens, math.ceil(delivered.thought * ratio))
    images = max(counted.image_tokens, delivered.images * PICTURE_OUTPUT_TOKENS)
    return msgspec.structs.replace(
        counted,
        input_tokens=counted.input_tokens or input_tokens,
        output_tokens=max(counted.output_tokens, thoughts + images + math.ceil(delivered.text * ratio)),
        reasoning_tokens=thoughts,
        image_tokens=images,
        billed_input_tokens=counted.billed_input_tokens or billed_input_tokens,
        estimated=True,
    )


@final
class Spent:
    """The sum of usage and cost. The cost is ``None`` once a part of it is unknown."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.cost: float | None = 0.0

    def add(self, usage: Usage | None, cost: float | None) -> None:
        """Add the usage of an attempt; nothing if ``usage`` is ``None``."""
        if usage is not None:
            self.usage = usage if self.usage is None else plus(self.usage, usage)
            self.cost = None if cost is None or self.cost is None else self.cost + cost


def plus(one: Usage, other: Usage) -> Usage:
    """Return the sum of two usages."""
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        cache_write_tokens=one.cache_write_tokens + other.cache_write_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
        image_tokens=one.image_tokens + other.image_tokens,
        image_input_tokens=one.image_input_tokens + other.image_input_tokens,
        long_cache_write_tokens=one.long_cache_write_tokens + other.long_cache_write_tokens,
        web_searches=one.web_searches + other.web_searches,
        billed_input_tokens=_billed(
            one.billed_input_tokens, one.input_tokens, other.billed_input_tokens, other.input_tokens
        ),
        billed_output_tokens=_billed(
            one.billed_output_tokens, one.output_tokens, other.billed_output_tokens, other.output_tokens
        ),
        services=tuple(dict.fromkeys((*one.services, *other.services))),
        estimated=one.estimated or other.estimated,
    )


def _billed(one: int | None, counted: int, other: int | None, other_counted: int) -> int | None:
    """Return the billed tokens of both, if one of them is billed by another number than it reports."""
    if one is None and other is None:
        return None
    return (counted if one is None else one) + (other_counted if other is None else other)
