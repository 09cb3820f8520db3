"""Errors as the vendors say them, by HTTP status: their own words, types and codes, which their SDKs' exceptions show.

(The dialects' ``encode_error`` says *our* failures to a vendor's clients; a fake must say the vendor's own.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import WireResponse
from llm_protocol.requests import LLMProvider

REQUEST_ID = "req_fake"


class _Word(NamedTuple):
    """What a status is called: by OpenAI (type, code), Anthropic, Gemini, Cerebras (type, code)."""

    message: str
    openai: tuple[str, str | None]
    anthropic: str
    gemini: str
    cerebras: tuple[str, str]


_BAD = "invalid_request_error"
_WORDS = {
    400: _Word("The request is wrong.", (_BAD, None), _BAD, "INVALID_ARGUMENT", (_BAD, "invalid_request")),
    401: _Word(
        "Incorrect API key provided.", (_BAD, "invalid_api_key"), "authentication_error", "UNAUTHENTICATED",
        ("invalid_request_error", "wrong_api_key"),
    ),
    402: _Word(
        "Payment is required.", (_BAD, "billing_not_active"), "billing_error", "FAILED_PRECONDITION",
        ("payment_required_error", "payment_required"),
    ),
    403: _Word(
        "This key may not do that.", (_BAD, "permission_denied"), "permission_error", "PERMISSION_DENIED",
        ("permission_error", "permission_denied"),
    ),
    404: _Word(
        "model not found", (_BAD, "model_not_found"), "not_found_error", "NOT_FOUND",
        ("not_found_error", "model_not_found"),
    ),
    413: _Word("The request is too large.", (_BAD, None), "request_too_large", "INVALID_ARGUMENT", (_BAD, "too_large")),
    429: _Word(
        "Rate limit reached.", ("requests", "rate_limit_exceeded"), "rate_limit_error", "RESOURCE_EXHAUSTED",
        ("too_many_requests_error", "request_quota_exceeded"),
    ),
    500: _Word(
        "The server had an error.", ("server_error", "server_error"), "api_error", "INTERNAL",
        ("server_error", "server_error"),
    ),
    503: _Word(
        "The server is overloaded.", ("service_unavailable_error", "server_is_overloaded"), "overloaded_error",
        "UNAVAILABLE", ("too_many_requests_error", "queue_exceeded"),
    ),
    504: _Word("The server took too long.", ("server_error", None), "timeout_error", "DEADLINE_EXCEEDED",
        ("server_error", "timeout"),
    ),
    529: _Word(
        "Overloaded", ("service_unavailable_error", "server_is_overloaded"), "overloaded_error", "UNAVAILABLE",
        ("too_many_requests_error", "queue_exceeded"),
    ),
}  # fmt: skip


def error(
    kind: LLMProvider,
    status: int,
    message: str | None = None,
    *,
    code: str | None = None,
    param: str | None = None,
    retry_after: float | None = None,
) -> WireResponse:
    """The whole answer. ``code`` replaces the usual one; ``retry_after`` is in seconds."""
    word = _WORDS.get(status) or _WORDS[400 if status < 500 else 500]
    said = message or word.message
    headers = [("content-type", "application/json")]
    body: JsonObject
    match kind:
        case LLMProvider.ANTHROPIC:
            details = {"details": {"error_code": code}} if code else {}
            body = {"type": "error", "error": {"type": word.anthropic, "message": said, **details}}
            body["request_id"] = REQUEST_ID
        case LLMProvider.GEMINI:
            body = _google(status, word, said, code, param, retry_after)
        case LLMProvider.COHERE:
            body = {"id": REQUEST_ID, "message": said} | ({"error_type": code} if code else {})
        case LLMProvider.CEREBRAS:
            type_, usual = word.cerebras
            body = {"message": said, "type": type_, "param": param, "code": code or usual}
        case _:
            type_, usual_code = word.openai
            body = {"error": {"message": said, "type": type_, "param": param, "code": code or usual_code}}
    if retry_after is not None and kind is not LLMProvider.GEMINI:
        headers.append(("retry-after", str(math.ceil(retry_after))))
    return WireResponse(status, tuple(headers), encode_json(body))


def _google(
    status: int, word: _Word, message: str, code: str | None, param: str | None, retry_after: float | None
) -> JsonObject:
    prefix = "type.googleapis.com/google.rpc."
    details: list[JsonObject] = []
    if code is not None:
        details.append({"@type": f"{prefix}ErrorInfo", "reason": code, "domain": "googleapis.com"})
    if retry_after is not None:
        details.append({"@type": f"{prefix}RetryInfo", "retryDelay": f"{retry_after:g}s"})
    if param is not None:
        details.append({"@type": f"{prefix}BadRequest", "fieldViolations": [{"field": param, "description": message}]})
    found: JsonObject = {"code": status, "message": message, "status": word.gemini}
    return {"error": found | ({"details": details} if details else {})}


def key_refused(kind: LLMProvider, *, given: bool) -> WireResponse:
    """The answer to a wrong key, or to none. Gemini's are a 400 and a 403, everyone else's a 401."""
    if kind is not LLMProvider.GEMINI:
        return error(kind, 401)
    if not given:
        return error(kind, 403, "Method doesn't allow unregistered callers.")
    return error(kind, 400, "API key not valid. Please pass a valid API key.", code="API_KEY_INVALID")


def nothing_here(kind: LLMProvider, path: str) -> WireResponse:
    """The answer at a path where there is nothing."""
    return error(kind, 404, f"There is nothing at {path[:200]}.", code="unknown_url")
