"""What an error on this wire means, and how ours are said on it.

Where in a body the error is: `llm_protocol.codec.error_body`.
"""

from __future__ import annotations

import re
from typing import Any

from llm_protocol.codec.decoding import misread
from llm_protocol.codec.error_body import find_error
from llm_protocol.codec.headers import retry_after
from llm_protocol.codec.json import WireError, decode_json
from llm_protocol.codec.times import duration
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Headers, WireResponse, refusal
from llm_protocol.events import Failed
from llm_protocol.failures import Failure, FailureKind, Step, kind_of_status
from llm_protocol.redact import error_message

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
"""The account's money or its limits are used up, for all models; as ``code`` or as ``type``."""

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
    "invalid_prompt": FailureKind.CONTENT_FILTER,
    "model_not_found": FailureKind.MODEL_NOT_FOUND,
    "unsupported_parameter": FailureKind.UNSUPPORTED,
    "unsupported_value": FailureKind.UNSUPPORTED,
    "unknown_parameter": FailureKind.UNSUPPORTED,
}
"""By ``code``, and where that says nothing, by ``type``."""

_TOO_LONG = re.compile(
    r"(?i)context (length|window|size)|maximum context|too many tokens|prompt is too long|reduce the length"
)
_TOO_LARGE = re.compile(r"(?i)request too large")
_NO_MODEL = re.compile(r"(?i)\bmodel\b.{0,200}\b(does not exist|not found|not exist|deprecated|removed)")
_TRY_AGAIN = re.compile(r"(?i)try again in ([\d.]+(?:ms|s|m|h)(?:[\d.hms]*[hms])?)")


def decode_error(status: int | None, headers: Headers, body: bytes) -> Failure:
    """What an answer that is not 2xx means."""
    try:
        value = decode_json(body)
    except WireError:
        value = None
    return failure_of(value, status, headers)


def error_in(body: Any) -> bool:
    """Whether a decoded body that should have been an answer is an error instead."""
    return find_error(body) is not None


def failure_of(body: Any, status: int | None = None, headers: Headers = ()) -> Failure:
    """What a decoded error body means; ``status`` is None inside a stream, where the body may name its own."""
    error = find_error(body) or ({"message": body} if isinstance(body, str) else {})
    if status is None:
        status = _own_status(body, error)
    code, type_, message = (_text(error.get(name)) for name in ("code", "type", "message"))
    fallback = f"the vendor answered with HTTP {status}" if status else "the vendor broke off with an error"
    wait = retry_after(headers)
    if wait is None and message:
        hint = _TRY_AGAIN.search(message)
        wait = duration(hint[1].rstrip(".")) if hint else None
    return Failure(
        kind=_kind(status, code, type_, message or ""),
        message=error_message(message, fallback),
        param=_text(error.get("param")),
        retry_after=wait,
        upstream_status=status,
        upstream_code=code or type_,
        account_wide=None if _SPENT.isdisjoint((code, type_)) else True,
    )


def not_understood(body: bytes, exc: WireError) -> Failed:
    """The end of an answer whose 2xx body is none: the error that it tells, or ours."""
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


def _kind(status: int | None, code: str | None, type_: str | None, message: str) -> FailureKind:
    if not _SPENT.isdisjoint((code, type_)):
        return FailureKind.QUOTA
    kind = next((_KINDS[word] for word in (code, type_) if word in _KINDS), None)
    if kind is FailureKind.RATE_LIMITED and _TOO_LARGE.search(message):
        return FailureKind.CONTEXT_LENGTH  # larger than a whole minute's tokens: waiting would not help
    if kind is not None:
        return kind
    kind = FailureKind.SERVER_ERROR if status is None else kind_of_status(status)
    if kind in (FailureKind.BAD_REQUEST, FailureKind.SERVER_ERROR):
        if _TOO_LONG.search(message):
            return FailureKind.CONTEXT_LENGTH
        if kind is FailureKind.BAD_REQUEST and _NO_MODEL.search(message):
            return FailureKind.MODEL_NOT_FOUND
    return kind


def error_body(failure: Failure) -> JsonObject:
    """The error object, as in a body and as in a stream."""
    rule = failure.rule
    return {"error": {"message": failure.message, "type": rule.type, "param": failure.param, "code": rule.code}}


def encode_error(failure: Failure) -> WireResponse:
    """Status, headers and body. A client must not repeat what was half delivered or cannot succeed."""
    hint = (("x-should-retry", "false"),) if failure.partial or failure.rule.step is Step.STOP else ()
    return refusal(failure, error_body(failure), *hint)
