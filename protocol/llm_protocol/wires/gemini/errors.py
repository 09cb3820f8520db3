"""Decode and encode errors in Google's format: ``{"error": {code, message, status, details[]}}``.

Two points are unusual. A rejected key has status 400, and only ``details[].reason`` identifies it. Google puts the
waiting time into a ``RetryInfo`` instead of Retry-After. A ``QuotaFailure`` says whether waiting helps at all: a
quota per day does not recover within minutes.
"""

from __future__ import annotations

import re
from typing import Any

from llm_protocol.codec.error_body import find_error
from llm_protocol.codec.headers import duration, retry_after
from llm_protocol.codec.json import WireError, decode_json, encode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Headers, WireResponse
from llm_protocol.failures import RULES, Failure, FailureKind, kind_of_status
from llm_protocol.secret import error_message

_STATUS_KINDS = {
    "UNAUTHENTICATED": FailureKind.AUTH,
    "PERMISSION_DENIED": FailureKind.AUTH,
    "NOT_FOUND": FailureKind.MODEL_NOT_FOUND,
    "RESOURCE_EXHAUSTED": FailureKind.RATE_LIMITED,
    "UNAVAILABLE": FailureKind.OVERLOADED,
    "DEADLINE_EXCEEDED": FailureKind.SERVER_ERROR,
    "CANCELLED": FailureKind.SERVER_ERROR,  # cancelled by the vendor: a request that we cancel gets no response
    "ABORTED": FailureKind.SERVER_ERROR,
    "INTERNAL": FailureKind.SERVER_ERROR,
    "UNKNOWN": FailureKind.SERVER_ERROR,
    "DATA_LOSS": FailureKind.SERVER_ERROR,
    "UNIMPLEMENTED": FailureKind.UNSUPPORTED,
    "INVALID_ARGUMENT": FailureKind.BAD_REQUEST,
    "OUT_OF_RANGE": FailureKind.BAD_REQUEST,
}

_TYPE = "type.googleapis.com/google.rpc."
_DOMAIN = "llm-runtime"
_OWN_REASONS = {rule.code.upper(): kind for kind, rule in reversed(RULES.items())}
"""The kinds that another llm-runtime names in its ``ErrorInfo``. If several kinds share a code, the first of them."""

_STATUS_FIRST = frozenset({402, 413})
"""HTTP statuses that are more specific than the ``status`` word in the body. For used-up prepaid credit, for example,
the word is RESOURCE_EXHAUSTED.
"""

_WRONG_PLACE = re.compile(r"user location is not supported", re.IGNORECASE)
_KEY_REASONS = re.compile(r"API_?KEY|CREDENTIALS|ACCESS_TOKEN|SERVICE_DISABLED|CONSUMER_(SUSPENDED|INVALID)")
_USED_UP = re.compile(r"per ?day|per ?month|daily|monthly|spend|credits|\blimit: 0\b", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"(input|prompt|context).{0,40}(token count|length|tokens).{0,60}(exceed|too long|maximum|larger than)"
    r"|exceeds the maximum number of tokens|(input|prompt|context) is too long",
    re.IGNORECASE,
)
_NOT_HERE = re.compile(r"not supported|unsupported|not enabled|does not support|not available in your", re.IGNORECASE)
_OTHER_THING = re.compile(r"cached ?content|\bfiles?\b|operation", re.IGNORECASE)
_RETRY_IN = re.compile(r"retry in ([0-9.]+(?:ms|s))")


def decode_error(response: WireResponse) -> Failure:
    """The failure for a response with an error status."""
    try:
        body = decode_json(response.body)
    except WireError:
        body = None
    return failure_of(response.status, body, response.headers)


def failure_of(status: int | None, body: Any, headers: Headers = ()) -> Failure:
    """Decode an error body into a failure. ``status`` is the HTTP status, or ``None`` inside a stream that began with a
    200.
    """
    error = find_error(body) or {}
    code = error.get("code")
    status = status or (code if isinstance(code, int) and 100 <= code < 1000 else 500)
    word = str(error.get("status") or "")
    details = _listed([error], "details")
    text = error.get("message")
    message = text if isinstance(text, str) else ""
    kind = _kind(status, word, message, details)
    return Failure(
        kind=kind,
        message=error_message(message, f"Gemini responded with status {status}"),
        param=_param(details) if kind is FailureKind.BAD_REQUEST else None,
        retry_after=None if kind is FailureKind.QUOTA else _wait(message, details, headers),
        upstream_status=status,
        upstream_code=error_message(word, "") or None,
        account_wide=_account_wide(details),
    )


def _wait(message: str, details: list[JsonObject], headers: Headers) -> float | None:
    wait = _retry_after(message, details)
    return retry_after(headers) if wait is None else wait


def _kind(status: int, word: str, message: str, details: list[JsonObject]) -> FailureKind:
    for detail in details:
        reason = str(detail.get("reason") or "")
        if detail.get("domain") == _DOMAIN and reason in _OWN_REASONS:
            return _OWN_REASONS[reason]
    kind = kind_of_status(status) if status in _STATUS_FIRST else _STATUS_KINDS.get(word) or kind_of_status(status)
    if any(_KEY_REASONS.search(str(detail.get("reason") or "")) for detail in details) or "API key" in message:
        return FailureKind.AUTH
    if word == "FAILED_PRECONDITION" and _WRONG_PLACE.search(message):
        return FailureKind.AUTH  # the vendor refuses all requests from this location, whatever the model
    if word == "FAILED_PRECONDITION":
        return FailureKind.QUOTA if "billing" in message else FailureKind.UNSUPPORTED
    if kind is FailureKind.RATE_LIMITED:
        return FailureKind.QUOTA if _used_up(message, details) else kind
    if kind is FailureKind.MODEL_NOT_FOUND and _OTHER_THING.search(message):
        return FailureKind.BAD_REQUEST
    if kind is FailureKind.BAD_REQUEST:
        if _TOO_LONG.search(message):
            return FailureKind.CONTEXT_LENGTH
        return FailureKind.UNSUPPORTED if _NOT_HERE.search(message) else kind
    return kind


def _used_up(message: str, details: list[JsonObject]) -> bool:
    """Whether the limit does not recover within a reasonable time."""
    limits = " ".join(str(violation.get("quotaId") or "") for violation in _listed(details, "violations"))
    return _USED_UP.search(f"{limits} {message}") is not None


def _account_wide(details: list[JsonObject]) -> bool | None:
    """Whether a limit applies to the project, that is, to all models; ``None`` if no quota is named."""
    limits = [str(violation["quotaId"]) for violation in _listed(details, "violations") if violation.get("quotaId")]
    return any("PerModel" not in limit for limit in limits) if limits else None


def _listed(details: list[JsonObject], name: str) -> list[JsonObject]:
    lists = (detail.get(name) for detail in details)
    return [item for items in lists if isinstance(items, list) for item in items if isinstance(item, dict)]


def _retry_after(message: str, details: list[JsonObject]) -> float | None:
    for detail in details:
        delay = detail.get("retryDelay")
        if isinstance(delay, str):
            return duration(delay)
    match = _RETRY_IN.search(message)
    return duration(match[1]) if match else None


def _param(details: list[JsonObject]) -> str | None:
    fields = (violation.get("field") for violation in _listed(details, "fieldViolations"))
    return next((field[:200] for field in fields if isinstance(field, str) and field), None)


# ---------------------------------------------------------------- writing

_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    424: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error_object(failure: Failure) -> JsonObject:
    """Return the body of an error response for ``failure``: ``{"error": …}``."""
    code = failure.rule.status
    details: list[JsonObject] = [
        {"@type": f"{_TYPE}ErrorInfo", "reason": failure.rule.code.upper(), "domain": _DOMAIN},
    ]
    if failure.told_retry_after is not None:
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{failure.told_retry_after:.9g}s"})
    if failure.kind is FailureKind.QUOTA:
        violation = {"subject": _DOMAIN, "description": "the quota is exhausted", "quotaId": "QuotaPerDay"}
        details.append({"@type": f"{_TYPE}QuotaFailure", "violations": [violation]})
    if failure.param is not None:
        violation = {"field": failure.param, "description": failure.message}
        details.append({"@type": f"{_TYPE}BadRequest", "fieldViolations": [violation]})
    word = _WORDS.get(code, "INTERNAL" if code >= 500 else "INVALID_ARGUMENT")
    return {"error": {"code": code, "message": failure.message, "status": word, "details": details}}


def encode_error(failure: Failure) -> WireResponse:
    """The whole HTTP response for ``failure``."""
    headers = (("content-type", "application/json; charset=UTF-8"),)
    return WireResponse(failure.rule.status, headers, encode_json(error_object(failure)))
