"""The data of Anthropic's wire: stream events, stop reasons, usage."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.codec.json import WireError
from llm_protocol.content import JsonObject, Refusal
from llm_protocol.response import FinishReason, Usage

NAME = "anthropic"
VERSION = "2026-10-21"
"""The ``anthropic-version`` of every request that does not need `OLD_VERSION`."""

OLD_VERSION = "2023-06-01"
"""The last version that accepts ``temperature``, ``top_p`` and ``top_k`` (on models that support them), documents in
assistant turns, and citations in user turns.
"""

REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "compaction": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}


MESSAGE_FIELDS = frozenset(
    ("id", "type", "role", "model", "content", "stop_reason", "stop_details", "usage", "llm_runtime")
)
REFUSAL_FIELDS = frozenset(("type", "explanation"))
USAGE_FIELDS = frozenset(
    (
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "output_tokens_details",
    )
)
DELTA_FIELDS = frozenset(("type", "delta", "usage", "llm_runtime"))
"""`MESSAGE_FIELDS`, `REFUSAL_FIELDS`, `USAGE_FIELDS` and `DELTA_FIELDS` are the fields that are read of a message, a
refusal's details, usage and ``message_delta``. All other fields are kept for clients of this wire.
"""


class AnthropicDelta(msgspec.Struct):
    """The delta of a block or of the message: the fields of all delta types."""

    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Any = None
    content: Any = None
    encrypted_content: Any = None
    stop_reason: str | None = None
    stop_details: JsonObject | None = None


class AnthropicStreamEvent(msgspec.Struct):
    """Any event of a stream. One struct has the fields of all types, because an unknown type must not be an error."""

    type: str = ""
    index: int | None = None
    delta: AnthropicDelta | None = None
    content_block: JsonObject | None = None
    message: JsonObject | None = None
    usage: JsonObject | None = None
    error: JsonObject | None = None


def reason_of(stop_reason: str | None) -> FinishReason:
    """The finish reason for the vendor's stop reason. No stop reason counts as an ordinary stop."""
    return REASONS.get(stop_reason, FinishReason.UNKNOWN) if stop_reason else FinishReason.STOP


_USUAL = ("", "standard", "global", "not_available")
"""The values of the vendor's service tier that do not change the price."""


def decode_usage(usage: JsonObject) -> Usage:
    """Return the usage. Anthropic's ``input_tokens`` exclude tokens read from or written to the cache; the runtime's
    totals include them.
    """
    cached, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    details, creation = usage.get("output_tokens_details"), usage.get("cache_creation")
    server_tools = usage.get("server_tool_use")
    services = (usage.get(name) for name in ("service_tier", "speed", "inference_geo"))
    return Usage(
        input_tokens=_count(usage, "input_tokens") + cached + written,
        output_tokens=_count(usage, "output_tokens"),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=_count(details, "thinking_tokens") if isinstance(details, dict) else 0,
        long_cache_write_tokens=_count(creation, "ephemeral_1h_input_tokens") if isinstance(creation, dict) else 0,
        web_searches=_count(server_tools, "web_search_requests") if isinstance(server_tools, dict) else 0,
        services=tuple(used for used in services if isinstance(used, str) and used not in _USUAL),
    )


def _count(counts: JsonObject, name: str) -> int:
    value = counts.get(name)
    return max(0, int(value)) if isinstance(value, int | float) else 0


def refusal_of(details: Any) -> Refusal | None:
    """The vendor's explanation of a refusal, from ``stop_details``; ``None`` without one."""
    if isinstance(details, dict) and details.get("type") == "refusal" and isinstance(details.get("explanation"), str):
        return Refusal(details["explanation"])
    return None


def text_of(obj: JsonObject, name: str) -> str:
    """A text field; empty if it is absent or null. Raises `WireError`."""
    value = obj.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # ids, in some servers
    if not isinstance(value, str | None):
        raise WireError(f"{name}: expected a string")
    return value or ""
