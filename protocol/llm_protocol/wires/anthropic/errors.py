"""Decode and encode errors of Anthropic's wire.

The type of the error object decides, then its ``error_code``. The vendor reports a prompt that is too long, an empty
account and refused output all as ``invalid_request_error``; for these the message text decides.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llm_protocol.codec.error_body import find_error
from llm_protocol.codec.headers import header, int_header, retry_after, seconds_until
from llm_protocol.codec.json import WireError, decode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Headers, RateLimits, WireResponse, refusal
from llm_protocol.failures import RULES, Failure, FailureKind, kind_of_status
from llm_protocol.secret import error_message

_KINDS = {
    "invalid_request_error": FailureKind.BAD_REQUEST,
    "authentication_error": FailureKind.AUTH,
    "permission_error": FailureKind.AUTH,
    "billing_error": FailureKind.QUOTA,
    "not_found_error": FailureKind.MODEL_NOT_FOUND,
    "request_too_large": FailureKind.CONTEXT_LENGTH,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "api_error": FailureKind.SERVER_ERROR,
    "timeout_error": FailureKind.SERVER_ERROR,
    "overloaded_error": FailureKind.OVERLOADED,
    "conflict_error": FailureKind.BAD_REQUEST,
    "memory_path_conflict_error": FailureKind.BAD_REQUEST,
    "memory_precondition_failed_error": FailureKind.BAD_REQUEST,
}

_SPENT = frozenset(
    {
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "user_profile_not_billable",
    }
)
_CODES = {
    "organization_on_hold": FailureKind.AUTH,
    "region_not_supported": FailureKind.AUTH,
    "unsupported_region": FailureKind.AUTH,
    "request_body_too_large_after_decoding": FailureKind.CONTEXT_LENGTH,
}
_OUR_CODES = {rule.code: kind for kind, rule in reversed(RULES.items())}

_MONEY = re.compile(r"credit balance|usage limits?|spend(ing)? limit|billing", re.IGNORECASE)
_SENTENCES = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"prompt is too long|exceeds? (the )?context (limit|window)|input is too long", FailureKind.CONTEXT_LENGTH),
        (_MONEY.pattern, FailureKind.QUOTA),
        (r"content filter(ing)? policy|blocked by content", FailureKind.CONTENT_FILTER),
        (
            r"extra inputs are not permitted|(is|are) not supported|does not support|is deprecated for"
            # Thoughts of another model or account, or thoughts in a conversation that has changed since.
            r"|invalid `?signature`? in `?thinking`? block|bound to a different",
            FailureKind.UNSUPPORTED,
        ),
    )
)
_ONE_MODEL = re.compile(r"\bmodel: ?\S")
_PARAM = re.compile(r"^`?([a-z_][\w.]{0,63})`?(?=:| is\b| are\b)")


def failure_of(error: Any, *, status: int | None, headers: Headers = ()) -> Failure:
    """The failure for an error object. ``status`` is the response's status, ``None`` inside a stream."""
    error = error if isinstance(error, dict) else {}
    type_, text = error.get("type"), error.get("message")
    text = text if isinstance(text, str) else None
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    code, type_ = code if isinstance(code, str) else None, type_ if isinstance(type_, str) else None
    kind = _kind(type_ or "", code, text or "", status)
    if kind == FailureKind.RATE_LIMITED and header(headers, "x-should-retry") == "false":
        kind = FailureKind.QUOTA  # a limit that waiting does not lift
    param = _PARAM.match(text or "")
    named = param is not None and RULES[kind].of_parameters
    return Failure(
        kind=kind,
        message=error_message(
            text, f"Anthropic responded with status {status}" if status else "Anthropic returned an error"
        ),
        param=param[1] if param is not None and named else None,
        # On a good response the header means something else.
        retry_after=retry_after(headers) if status is not None and status >= 400 else None,
        upstream_status=status,
        upstream_code=code or type_,
        account_wide=_account_wide(kind, type_, code, text or ""),
    )


def _account_wide(kind: FailureKind, type_: str | None, code: str | None, text: str) -> bool | None:
    """Whether a limit applies to the account, that is, to all models. ``None`` if the error is not about a limit or
    the vendor does not say.
    """
    if kind not in (FailureKind.RATE_LIMITED, FailureKind.QUOTA):
        return None
    if code in _SPENT or type_ == "billing_error" or (kind is FailureKind.QUOTA and _MONEY.search(text)):
        return True
    return False if _ONE_MODEL.search(text) else None


def _kind(type_: str, code: str | None, text: str, status: int | None) -> FailureKind:
    if code in _SPENT:
        return FailureKind.QUOTA
    if code in _CODES:
        return _CODES[code]
    if code in _OUR_CODES:
        return _OUR_CODES[code]  # the upstream is another llm-runtime
    kind = _KINDS.get(type_)
    if kind is None:
        kind = kind_of_status(status) if status is not None else FailureKind.SERVER_ERROR
    if kind == FailureKind.BAD_REQUEST:
        return next((found for pattern, found in _SENTENCES if pattern.search(text)), kind)
    if kind == FailureKind.MODEL_NOT_FOUND and type_ and not text.startswith("model"):
        return FailureKind.BAD_REQUEST  # something else was not found: a file or the path
    return kind


def decode_error(response: WireResponse) -> Failure:
    """The failure for a response with an error status."""
    try:
        body = decode_json(response.body)
    except WireError:
        body = None
    return failure_of(find_error(body), status=response.status, headers=response.headers)


# ---------------------------------------------------------------- limits


def rate_limits(headers: Headers) -> RateLimits | None:
    """Return the remaining limits of the model that responded; ``None`` if no header reports one. Without a common
    token limit, the limit for input tokens is used.
    """
    prefix = "anthropic-ratelimit-"
    tokens = next((name for name in ("tokens", "input-tokens") if header(headers, f"{prefix}{name}-limit")), "tokens")
    found = RateLimits(
        requests_limit=int_header(headers, f"{prefix}requests-limit"),
        requests_remaining=int_header(headers, f"{prefix}requests-remaining"),
        requests_reset_s=seconds_until(header(headers, f"{prefix}requests-reset"), headers),
        tokens_limit=int_header(headers, f"{prefix}{tokens}-limit"),
        tokens_remaining=int_header(headers, f"{prefix}{tokens}-remaining"),
        tokens_reset_s=seconds_until(header(headers, f"{prefix}{tokens}-reset"), headers),
    )
    return None if found == RateLimits() else msgspec.structs.replace(found, per_model=True)


# ---------------------------------------------------------------- encoding

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    424: "api_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_object(failure: Failure) -> JsonObject:
    """Return the body of an error response, which is also the data of an ``error`` event."""
    rule = failure.rule
    error = {
        "type": _TYPES.get(rule.status, "invalid_request_error" if rule.status < 500 else "api_error"),
        "message": failure.message,
        "details": {"error_code": rule.code},
    }
    return {"type": "error", "error": error, "request_id": None}


def encode_error(failure: Failure) -> WireResponse:
    """Status, headers and body that Anthropic's SDK understands. If a retry cannot help, the headers forbid it."""
    hint = () if failure.client_retry else (("x-should-retry", "false"),)
    return refusal(failure, error_object(failure), *hint)
