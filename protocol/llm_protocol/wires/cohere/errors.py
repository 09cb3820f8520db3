"""Decode and encode errors of Cohere's wire. A body has a message, and rarely a type."""

from __future__ import annotations

import re

from llm_protocol.codec.error_body import find_error
from llm_protocol.codec.headers import int_header, retry_after, wall_clock
from llm_protocol.codec.json import WireError, decode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Headers, RateLimits, WireResponse, refusal
from llm_protocol.failures import RULES, Failure, FailureKind, kind_of_status
from llm_protocol.secret import error_message

_KINDS_OF_TYPE = {
    "TOO_MANY_TOKENS": FailureKind.CONTEXT_LENGTH,
    "INVALID_TOOL_GENERATION": FailureKind.INVALID_TOOL_CALL,
}
_KINDS_OF_STATUS = {498: FailureKind.AUTH, 501: FailureKind.UNSUPPORTED}
_OUR_CODES = {rule.code: kind for kind, rule in reversed(RULES.items())}

_BAD_REQUEST_SENTENCES = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"too many tokens|context (length|window)|maximum context|size limit exceeded", FailureKind.CONTEXT_LENGTH),
        (
            r"not supported|does not support|unsupported|unknown field|was removed from|not a valid field",
            FailureKind.UNSUPPORTED,
        ),
        (r"blocked (input|output)|safety", FailureKind.CONTENT_FILTER),
    )
)
_QUOTA = re.compile(r"/ ?month|per month|monthly|billing|payment|spend", re.IGNORECASE)
_MODEL = re.compile(r"\bmodel\b", re.IGNORECASE)


def decode_error(response: WireResponse) -> Failure:
    """The failure for a response with an error status."""
    try:
        body = find_error(decode_json(response.body)) or {}
    except WireError:
        body = {}
    text, type_ = body.get("message"), body.get("error_type")
    text = text if isinstance(text, str) else ""
    type_ = type_ if isinstance(type_, str) else None
    return Failure(
        kind=_kind(response.status, type_, text),
        message=error_message(text, f"Cohere responded with status {response.status}"),
        retry_after=_wait(response.headers) if response.status >= 400 else None,
        upstream_status=response.status,
        upstream_code=type_,
    )


def in_stream_failure(error: str | None, type_: str | None, reason: str) -> Failure:
    """The failure for a response that ends with an error."""
    kind = _KINDS_OF_TYPE.get(type_ or "") or _OUR_CODES.get(type_ or "", FailureKind.SERVER_ERROR)
    message = error_message(error, f"Cohere ended the response with {reason}")
    return Failure(kind=kind, message=message, upstream_code=type_ or reason)


def _kind(status: int, type_: str | None, text: str) -> FailureKind:
    if type_ in _KINDS_OF_TYPE:
        return _KINDS_OF_TYPE[type_]
    if type_ in _OUR_CODES:
        return _OUR_CODES[type_]  # the upstream is another llm-runtime
    kind = _KINDS_OF_STATUS.get(status) or kind_of_status(status)
    if kind == FailureKind.RATE_LIMITED and _QUOTA.search(text):
        return FailureKind.QUOTA
    if kind == FailureKind.BAD_REQUEST:
        return next((found for pattern, found in _BAD_REQUEST_SENTENCES if pattern.search(text)), kind)
    if kind == FailureKind.MODEL_NOT_FOUND and text and not _MODEL.search(text):
        return FailureKind.BAD_REQUEST
    return kind


def _wait(headers: Headers) -> float | None:
    wait = retry_after(headers)
    reset = int_header(headers, "x-ratelimit-reset") if wait is None else None
    return wait if reset is None else max(0.0, reset - wall_clock(headers))


def rate_limits(headers: Headers) -> RateLimits | None:
    """Return the limits with the calls that are left in the current minute. Cohere reports them for trial keys only;
    for other keys this is ``None``.
    """
    limit = int_header(headers, "x-trial-endpoint-call-limit")
    left = int_header(headers, "x-trial-endpoint-call-remaining")
    if limit is None and left is None:
        return None
    return RateLimits(requests_limit=limit, requests_remaining=left)


def error_object(failure: Failure) -> JsonObject:
    """The body of an error response."""
    return {"message": failure.message, "error_type": failure.rule.code}


def encode_error(failure: Failure) -> WireResponse:
    """Status, headers and body that Cohere's SDK understands."""
    return refusal(failure, error_object(failure))
