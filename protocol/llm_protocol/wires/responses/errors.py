"""Decode and encode failures inside a response. For errors of whole requests see ``openai_chat.errors``."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.content import JsonObject
from llm_protocol.failures import AtFault, Failure, FailureKind
from llm_protocol.response import FinishReason
from llm_protocol.wires.openai_chat.errors import failure_of
from llm_protocol.wires.responses.shapes import OTHER_INCOMPLETE, ResponseEnding

TOO_MANY_REQUESTS = 429


def read_failure_in(value: Any) -> Failure:
    """Decode an error inside a 2xx response, wrapped or flat, into a failure. Only the body decides, because the status
    is a success.
    """
    failure = failure_of(value)
    if failure.kind is not FailureKind.SERVER_ERROR:
        return failure
    error = value.get("error") if isinstance(value, dict) else None
    type_ = error.get("type") if isinstance(error, dict) else None
    kind = _kind_of(failure.upstream_code or "", type_)
    return failure if kind is None else msgspec.structs.replace(failure, kind=kind)


def _kind_of(code: str, type_: Any) -> FailureKind | None:
    """Return the kind for error codes that only the Responses API has."""
    if "policy" in code or code == "invalid_prompt":
        return FailureKind.CONTENT_FILTER
    if code.startswith("invalid_") or "image" in code or type_ == "invalid_request_error":
        return FailureKind.BAD_REQUEST
    return None


_OWN_CODES = frozenset((
    "data_residency_mismatch", "bio_policy", "misalignment_policy_violation", "vector_store_timeout", "invalid_image",
    "invalid_image_format", "invalid_base64_image", "invalid_image_url", "image_too_large", "image_too_small",
    "image_parse_error", "image_content_policy_violation", "invalid_image_mode", "image_file_too_large",
    "unsupported_image_media_type", "empty_image_file", "failed_to_download_image", "image_file_not_found",
))  # fmt: skip
"""The vendor's codes of a failed response that are more specific than the three general codes of `code_of`. Clients
know no other codes.
"""


def code_of(failure: Failure) -> str:
    """Return the ``error.code`` of a failed response: one of a fixed list. The runtime's own code is under
    ``llm_runtime``.
    """
    if failure.upstream_code in _OWN_CODES:
        return failure.upstream_code or ""
    if failure.rule.status == TOO_MANY_REQUESTS:
        return "rate_limit_exceeded"
    is_the_requests = failure.rule.fault is AtFault.REQUEST
    return "invalid_prompt" if is_the_requests else "server_error"


def ending_of(
    reason: FinishReason | None, failure: Failure | None, *, refused: bool, raw: str | None = None
) -> ResponseEnding:
    """How a response ends, decided from its reason or failure. A refusal in the model's own words is a complete
    response.

    ``raw`` is the provider's own finish reason.
    """
    if failure is not None:
        return _failed(failure)
    if raw in OTHER_INCOMPLETE:
        return ResponseEnding("response.incomplete", "incomplete", {"reason": raw})
    if reason is FinishReason.LENGTH:
        return ResponseEnding("response.incomplete", "incomplete", {"reason": "max_output_tokens"})
    if reason is FinishReason.CONTENT_FILTER and not refused:
        return ResponseEnding("response.incomplete", "incomplete", {"reason": "content_filter"})
    if reason in (None, FinishReason.ERROR):
        error = {"code": "server_error", "message": "the model ended its response with an error"}
        return ResponseEnding("response.failed", "failed", error=error)
    return ResponseEnding("response.completed", "completed")


def _failed(failure: Failure) -> ResponseEnding:
    if failure.kind is FailureKind.CANCELLED:
        own: JsonObject = {"incomplete_reason": "cancelled"}
        return ResponseEnding("response.incomplete", "cancelled", own=own)
    if failure.kind is FailureKind.INTERRUPTED:
        return ResponseEnding("response.incomplete", "incomplete", own={"incomplete_reason": "interrupted"})
    message = message_with_wait(failure)
    own = {"error": {"kind": failure.kind, "code": failure.rule.code, "message": message}}
    return ResponseEnding("response.failed", "failed", error={"code": code_of(failure), "message": message}, own=own)


def message_with_wait(failure: Failure) -> str:
    """The message of a failure. Clients parse the waiting time from exactly this phrase."""
    if failure.told_retry_after is None or "try again in" in failure.message:
        return failure.message
    return f"{failure.message.rstrip('. ')}. Please try again in {failure.told_retry_after:.3g}s."
