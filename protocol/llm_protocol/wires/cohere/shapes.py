"""The data of Cohere's wire: stream events, finish reasons, usage as counted and as billed."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.content import JsonObject
from llm_protocol.extra_fields import shape_of
from llm_protocol.response import FinishReason, Usage

NAME = "cohere"

REASONS = {
    "COMPLETE": FinishReason.STOP,
    "STOP_SEQUENCE": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "TOOL_CALL": FinishReason.TOOL_CALLS,
    "ERROR": FinishReason.ERROR,
    "TIMEOUT": FinishReason.ERROR,
}


class CohereContent(msgspec.Struct):
    """A content block, or a piece of one."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class CohereFunction(msgspec.Struct):
    """The name and a piece of the arguments of a call."""

    name: str | None = None
    arguments: str | None = None


class CohereCall(msgspec.Struct):
    """A tool call or a piece of one."""

    id: str | None = None
    function: CohereFunction | None = None


class CohereMessage(msgspec.Struct):
    """The delta of a message."""

    content: CohereContent | list[Any] | None = None
    tool_calls: CohereCall | list[Any] | None = None
    tool_plan: str | None = None
    citations: Any = None


class CohereDelta(msgspec.Struct):
    """The data of an event."""

    message: CohereMessage | None = None
    finish_reason: str | None = None
    usage: JsonObject | None = None
    error: str | None = None
    error_type: str | None = None


class CohereStreamEvent(msgspec.Struct):
    """Any event of a stream. One struct has the fields of all types, because an unknown type must not be an error."""

    type: str
    id: str | None = None
    index: int = 0
    delta: CohereDelta | None = None
    logprobs: Any = None


USAGE_SHAPE = shape_of(
    "cached_tokens",
    billed_units=("input_tokens", "output_tokens"),
    tokens=("input_tokens", "output_tokens", "reasoning_tokens"),
)
ANSWER_FIELDS = frozenset(("id", "message", "finish_reason", "usage", "error", "error_type", "llm_runtime"))
"""The fields that are read of usage and of a complete response. All others are kept for clients of this wire."""


def decode_usage(usage: Any) -> Usage | None:
    """Return the tokens that the model processed; ``None`` if the response does not report them. Cohere bills fewer,
    because it does not bill its own templates.
    """
    if not isinstance(usage, dict):
        return None
    tokens, billed = _object(usage, "tokens"), _object(usage, "billed_units")
    if not tokens and not billed:
        return None
    shown = tokens or billed
    return Usage(
        input_tokens=_count(shown, "input_tokens") or 0,
        output_tokens=_count(shown, "output_tokens") or 0,
        cached_tokens=_count(usage, "cached_tokens") or 0,
        reasoning_tokens=_count(tokens, "reasoning_tokens") or 0,
        billed_input_tokens=_count(billed, "input_tokens"),
        billed_output_tokens=_count(billed, "output_tokens"),
    )


def _object(value: JsonObject, name: str) -> JsonObject:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


def _count(counts: JsonObject, name: str) -> int | None:
    value = counts.get(name)
    return max(0, int(value)) if isinstance(value, int | float) else None
