"""Decode and encode errors of the chat wire.

`llm_protocol.codec.error_body` finds the error in a body.
"""

from __future__ import annotations

import re
from typing import Any

from llm_protocol.codec.decoding import misread
from llm_protocol.codec.error_body import find_error, plain_text
from llm_protocol.codec.headers import duration, retry_after
from llm_protocol.codec.json import WireError, decode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Headers, WireResponse, refusal
from llm_protocol.events import Failed
from llm_protocol.failures import Failure, FailureKind, kind_of_status
from llm_protocol.secret import error_message

_SPENT = frozenset(
    {
        "insufficient_quota",
        "billing_not_active",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    }
)
"""Values of ``code`` or ``type`` that mean: the account's credit or limits are used up, for all models."""

_KINDS = {
    "invalid_api_key": FailureKind.AUTH,
    "authentication_error": FailureKind.AUTH,
    "permission_error": FailureKind.AUTH,
    "account_deactivated": FailureKind.AUTH,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "slow_down": FailureKind.RATE_LIMITED,
    "request_quota_exceeded": FailureKind.RATE_LIMITED,
    "token_quota_exceeded": FailureKind.RATE_LIMITED,
    "too_many_requests_error": FailureKind.RATE_LIMITED,
    "queue_exceeded": FailureKind.OVERLOADED,
    "overloaded": FailureKind.OVERLOADED,
    "server_is_overloaded": FailureKind.OVERLOADED,
    "service_unavailable_error": FailureKind.OVERLOADED,
    "unavailable_error": FailureKind.OVERLOADED,
    "server_error": FailureKind.SERVER_ERROR,
    "context_length_exceeded": FailureKind.CONTEXT_LENGTH,
    "exceed_context_size_error": FailureKind.CONTEXT_LENGTH,
    "content_filter": FailureKind.CONTENT_FILTER,
    "content_policy_violation": FailureKind.CONTENT_FILTER,
    "moderation_blocked": FailureKind.CONTENT_FILTER,
    "bio_policy": FailureKind.CONTENT_FILTER,
    "misalignment_policy_violation": FailureKind.CONTENT_FILTER,
    "image_content_policy_violation": FailureKind.CONTENT_FILTER,
    "invalid_prompt": FailureKind.CONTENT_FILTER,
    "model_not_found": FailureKind.MODEL_NOT_FOUND,
    "unsupported_parameter": FailureKind.UNSUPPORTED,
    "unsupported_value": FailureKind.UNSUPPORTED,
    "unknown_parameter": FailureKind.UNSUPPORTED,
    "invalid_parameter": FailureKind.UNSUPPORTED,
    "data_residency_mismatch": FailureKind.UNSUPPORTED,
    "wrong_api_format": FailureKind.UNSUPPORTED,  # Cerebras, for unknown fields
    "vector_store_timeout": FailureKind.SERVER_ERROR,
    **dict.fromkeys(
        (
            "empty_image_file",
            "failed_to_download_image",
            "image_file_not_found",
            "image_file_too_large",
            "image_parse_error",
            "image_too_large",
            "image_too_small",
            "invalid_base64_image",
            "invalid_image",
            "invalid_image_format",
            "invalid_image_mode",
            "invalid_image_url",
            "unsupported_image_media_type",
        ),
        FailureKind.BAD_REQUEST,
    ),
}
"""Failure kinds by ``code``; if neither that nor ``param`` decides, by ``type``."""

# Requests that another model or project may accept. These errors have no code.
_UNSUPPORTED_PARAMS = frozenset({"reasoning_effort", "reasoning.effort", "service_tier"})

_TOO_LONG = re.compile(
    r"(?i)context (length|window|size)|maximum context|too many tokens|prompt is too long|reduce the length"
)
_TOO_LARGE = re.compile(r"(?i)request too large")
_NO_MODEL = re.compile(r"(?i)\bmodel\b.{0,200}\b(does not exist|not found|not exist|deprecated|removed)")
_OTHER_ENDPOINT = re.compile(r"(?i)only supported in (/?v1/)?\w+|not supported in the v1/chat/completions")
_NO_MEDIA = re.compile(
    r"(?i)unknown variant .?(image_url|input_audio|file)\b|not support image"
    r"|endpoints found that support image|not a multimodal"
)
"""The refusals of images and the like by DeepSeek, OpenRouter and vLLM."""
_PER_DAY = re.compile(r"(?i)per day|\b[RT]PD\b|daily")
_TRY_AGAIN = re.compile(r"(?i)try again in ([\d.]+(?:ms|s|m|h)(?:[\d.hms]*[hms])?)")


def decode_error(status: int | None, headers: Headers, body: bytes, reset_s: float | None = None) -> Failure:
    """The failure for a response with an error status. ``reset_s``: seconds until the used-up window resets."""
    try:
        value = decode_json(body)
    except WireError:
        value = plain_text(headers, body)
    return failure_of(value, status, headers, reset_s)


def error_in(body: Any) -> bool:
    """Whether a decoded body is an error instead of a response."""
    return find_error(body) is not None


def failure_of(body: Any, status: int | None = None, headers: Headers = (), reset_s: float | None = None) -> Failure:
    """Decode an error body into a failure. ``status`` is ``None`` inside a stream, where the body may contain one.

    These decide, in this order: ``code``, ``param``, ``type``, the status, the message.
    """
    error = find_error(body) or ({"message": body} if isinstance(body, str) else {})
    if status is None:
        status = _own_status(body, error)
    code, param, type_, message = (_text(error.get(name)) for name in ("code", "param", "type", "message"))
    fallback = f"the vendor responded with HTTP {status}" if status else "the vendor ended the stream with an error"
    wait = retry_after(headers)
    if wait is None and message:
        hint = _TRY_AGAIN.search(message)
        wait = duration(hint[1].rstrip(".")) if hint else None
    kind = _kind(status, code, param, type_, message or "")
    if kind is FailureKind.RATE_LIMITED and wait is None:
        wait = reset_s
    account_wide = True if kind is FailureKind.QUOTA and not _SPENT.isdisjoint((code, type_)) else None
    if kind is FailureKind.RATE_LIMITED and wait is None and _PER_DAY.search(message or ""):
        kind, account_wide = FailureKind.QUOTA, False  # each model has its own daily limit
    return Failure(
        kind=kind,
        message=error_message(message, fallback),
        param=param,
        retry_after=wait,
        upstream_status=status,
        upstream_code=code or type_,
        account_wide=account_wide,
    )


def not_understood(body: bytes, exc: WireError) -> Failed:
    """Return the failure for a 2xx body that is not a response: the error in the body, or a failure of kind
    ``protocol``.
    """
    try:
        value = decode_json(body)
    except WireError:
        value = None
    if error_in(value):
        return Failed(failure=failure_of(value))
    return misread(exc)


def _own_status(body: Any, error: JsonObject) -> int | None:
    outer = body.get("status_code") if isinstance(body, dict) else None
    for value in (outer, error.get("code"), error.get("status")):
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _text(value: Any) -> str | None:
    if isinstance(value, str) and value:
        return value[:2_000]
    return str(value) if type(value) is int else None


def _kind(status: int | None, code: str | None, param: str | None, type_: str | None, message: str) -> FailureKind:
    if not _SPENT.isdisjoint((code, type_)):
        return FailureKind.QUOTA
    kind = _KINDS.get(code or "")
    if kind is None and status == 400 and param in _UNSUPPORTED_PARAMS:
        return FailureKind.UNSUPPORTED
    kind = kind or _KINDS.get(type_ or "")
    if kind is FailureKind.RATE_LIMITED and _TOO_LARGE.search(message):
        return FailureKind.CONTEXT_LENGTH  # larger than the tokens of a whole minute: waiting would not help
    if kind is not None:
        return kind
    kind = FailureKind.SERVER_ERROR if status is None else kind_of_status(status)
    if status in (400, 404, 422) and _NO_MEDIA.search(message):
        return FailureKind.UNSUPPORTED
    if status in (400, 404) and _OTHER_ENDPOINT.search(message):
        return FailureKind.UNSUPPORTED
    if kind in (FailureKind.BAD_REQUEST, FailureKind.SERVER_ERROR):
        if _TOO_LONG.search(message):
            return FailureKind.CONTEXT_LENGTH
        if kind is FailureKind.BAD_REQUEST and _NO_MODEL.search(message):
            return FailureKind.MODEL_NOT_FOUND
    return kind


def error_body(failure: Failure) -> JsonObject:
    """The error object, for a body or a stream."""
    rule = failure.rule
    return {"error": {"message": failure.message, "type": rule.type, "param": failure.param, "code": rule.code}}


def encode_error(failure: Failure) -> WireResponse:
    """Status, headers and body. ``x-should-retry: false`` is set unless `Failure.client_retry`."""
    hint = (("x-should-retry", "false"),) if not failure.client_retry else ()
    return refusal(failure, error_body(failure), *hint)
