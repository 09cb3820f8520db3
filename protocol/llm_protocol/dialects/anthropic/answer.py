"""Anthropic's whole answers as events; its words for why an answer ended, and its way of counting."""

from __future__ import annotations

from typing import Any

from llm_protocol.content import JsonObject, Opaque, Part, Refusal, ToolCall
from llm_protocol.dialects.anthropic.blocks import decode_answer_block
from llm_protocol.dialects.anthropic.errors import failure_of
from llm_protocol.events import Event, Failed, Finished, Started, UsageReported
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import item_events
from llm_protocol.response import FinishReason, Usage
from llm_protocol.wire import WireError, decode_object

REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}


def decode_message(body: bytes) -> list[Event]:
    """The events of a whole answer."""
    try:
        message = decode_object(body)
        if message.get("type") == "error":
            return [Failed(failure=failure_of(message.get("error"), status=None))]
        return _message_events(message)
    except WireError as exc:
        failure = Failure(kind=FailureKind.PROTOCOL, message=f"the answer could not be understood: {exc}")
        return [Failed(failure=failure)]


def _message_events(message: JsonObject) -> list[Event]:
    content, stop_reason = message.get("content"), message.get("stop_reason")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise WireError("content: expected a list of content blocks")
    if not isinstance(stop_reason, str | None):
        raise WireError("stop_reason: expected a text")
    parts = [decode_answer_block(block) for block in content]
    refusal = refusal_of(message.get("stop_details"))
    if refusal is not None:
        parts.append(refusal)
    events: list[Event] = [Started(model=text_of(message, "model"), upstream_id=text_of(message, "id") or None)]
    for at, part in enumerate(parts):
        item = list(item_events(at, part))
        cut = REASONS.get(stop_reason or "") == FinishReason.LENGTH and at == len(parts) - 1
        events += item[:1] if cut and _is_call(part) else item
    if isinstance(message.get("usage"), dict):
        events.append(UsageReported(decode_usage(message["usage"])))
    events.append(finished(stop_reason))
    return events


def _is_call(part: Part) -> bool:
    return isinstance(part, ToolCall) or (isinstance(part, Opaque) and "input" in part.value)


def finished(stop_reason: str | None) -> Finished:
    """The end with the vendor's word for why; words that are not known count as an ordinary stop."""
    return Finished(reason=REASONS.get(stop_reason or "", FinishReason.STOP), raw_reason=stop_reason)


def decode_usage(usage: JsonObject) -> Usage:
    """Anthropic's ``input_tokens`` leave out what was read from or written to the cache; our totals do not."""
    cached, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    details = usage.get("output_tokens_details")
    return Usage(
        input_tokens=_count(usage, "input_tokens") + cached + written,
        output_tokens=_count(usage, "output_tokens"),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=_count(details, "thinking_tokens") if isinstance(details, dict) else 0,
    )


def _count(counts: JsonObject, name: str) -> int:
    value = counts.get(name)
    return max(0, int(value)) if isinstance(value, int | float) else 0


def refusal_of(details: Any) -> Refusal | None:
    """The vendor's words for why it refused, out of ``stop_details``."""
    if isinstance(details, dict) and details.get("type") == "refusal" and isinstance(details.get("explanation"), str):
        return Refusal(details["explanation"])
    return None


def text_of(obj: JsonObject, name: str) -> str:
    """A text field; empty if it is absent or null. Raises `WireError`."""
    value = obj.get(name)
    if not isinstance(value, str | None):
        raise WireError(f"{name}: expected a text")
    return value or ""
