"""Cohere's whole chat answers as events; its words for why an answer ended, and its two ways of counting."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.content import JsonObject, ToolCall
from llm_protocol.dialects.cohere.errors import in_stream_failure
from llm_protocol.dialects.cohere.parts import decode_assistant, text_of
from llm_protocol.events import Event, Failed, Finished, Started, UsageReported
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import item_events
from llm_protocol.response import FinishReason, Usage
from llm_protocol.wire import WireError, decode_object

REASONS = {
    "COMPLETE": FinishReason.STOP,
    "STOP_SEQUENCE": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "TOOL_CALL": FinishReason.TOOL_CALLS,
    "ERROR": FinishReason.ERROR,
    "TIMEOUT": FinishReason.ERROR,
}


def decode_chat(body: bytes) -> list[Event]:
    """The events of a whole answer."""
    try:
        return _chat_events(decode_object(body))
    except WireError as exc:
        failure = Failure(kind=FailureKind.PROTOCOL, message=f"the answer could not be understood: {exc}")
        return [Failed(failure=failure)]


def _chat_events(answer: JsonObject) -> list[Event]:
    message, raw = answer.get("message"), answer.get("finish_reason")
    if not isinstance(message, dict) or not isinstance(raw, str | None):
        raise WireError("message: expected an object, with a finish_reason beside it")
    reason = REASONS.get(raw or "", FinishReason.STOP)
    parts = decode_assistant(message, "message")
    events: list[Event] = [Started(upstream_id=text_of(answer, "id", "") or None)]
    for at, part in enumerate(parts):
        item = list(item_events(at, part))
        cut = reason == FinishReason.LENGTH and at == len(parts) - 1 and isinstance(part, ToolCall)
        events += item[:1] if cut else item
    usage = decode_usage(answer.get("usage"))
    if usage is not None:
        events.append(UsageReported(usage))
    if reason == FinishReason.ERROR:
        error, type_ = text_of(answer, "error", ""), text_of(answer, "error_type", "")
        failure = in_stream_failure(error or None, type_ or None, raw or "")
        return [*events, Failed(failure=msgspec.structs.replace(failure, partial=bool(parts)))]
    return [*events, Finished(reason=reason, raw_reason=raw)]


def decode_usage(usage: Any) -> Usage | None:
    """Tokens as the model saw them, beside those that are billed: Cohere does not bill its own templates."""
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
