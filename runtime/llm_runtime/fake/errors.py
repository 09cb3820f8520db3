"""The vendors' error responses by HTTP status, with the vendors' own texts, types and codes.

The dialects' ``encode_error`` cannot be used here: it encodes the failures of this runtime for clients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import WireResponse
from llm_protocol.model_rules import CHAT, needs_responses, rule_of
from llm_protocol.parameters import COMPATIBLE_RESPONSES
from llm_protocol.requests import AnyRequest, ChatRequest
from llm_protocol.vendor import ErrorShape, Vendor

REQUEST_ID = "req_fake"


class _Word(NamedTuple):
    """The text of the error for a status, and its names in each `ErrorShape`: OpenAI's (type, code), Anthropic's,
    Google's, and those of the flat shape (type, code).
    """

    message: str
    openai: tuple[str, str | None]
    anthropic: str
    google: str
    flat: tuple[str, str]


class _Error(NamedTuple):
    """The contents of an error's body. ``code``: ``None`` for the default code of the shape, empty for no code."""

    status: int
    word: _Word
    message: str
    code: str | None
    param: str | None
    retry_after: float | None


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
    vendor: Vendor,
    status: int,
    message: str | None = None,
    *,
    code: str | None = None,
    param: str | None = None,
    retry_after: float | None = None,
) -> WireResponse:
    """Return the response for a status. ``code`` replaces the default code. ``retry_after`` is in seconds."""
    word = _WORDS.get(status) or _WORDS[400 if status < 500 else 500]
    body = _SHAPES[vendor.error_shape](_Error(status, word, message or word.message, code, param, retry_after))
    headers = [("content-type", "application/json")]
    if retry_after is not None and vendor.fake.says_retry_after:
        headers.append(("retry-after", str(math.ceil(retry_after))))
    return WireResponse(status, tuple(headers), encode_json(body))


def _openai(error: _Error) -> JsonObject:
    type_, usual = error.word.openai
    code = usual if error.code is None else error.code or None
    return {"error": {"message": error.message, "type": type_, "param": error.param, "code": code}}


def _flat(error: _Error) -> JsonObject:
    type_, usual = error.word.flat
    return {"message": error.message, "type": type_, "param": error.param, "code": error.code or usual}


def _anthropic(error: _Error) -> JsonObject:
    details = {"details": {"error_code": error.code}} if error.code else {}
    body: JsonObject = {"type": "error", "error": {"type": error.word.anthropic, "message": error.message, **details}}
    return body | {"request_id": REQUEST_ID}


def _cohere(error: _Error) -> JsonObject:
    return {"id": REQUEST_ID, "message": error.message} | ({"error_type": error.code} if error.code else {})


def _google(error: _Error) -> JsonObject:
    prefix = "type.googleapis.com/google.rpc."
    details: list[JsonObject] = []
    if error.code is not None:
        details.append({"@type": f"{prefix}ErrorInfo", "reason": error.code, "domain": "googleapis.com"})
    if error.retry_after is not None:
        details.append({"@type": f"{prefix}RetryInfo", "retryDelay": f"{error.retry_after:g}s"})
    if error.param is not None:
        violations = [{"field": error.param, "description": error.message}]
        details.append({"@type": f"{prefix}BadRequest", "fieldViolations": violations})
    found: JsonObject = {"code": error.status, "message": error.message, "status": error.word.google}
    return {"error": found | ({"details": details} if details else {})}


_SHAPES: dict[ErrorShape, Callable[[_Error], JsonObject]] = {
    "openai": _openai,
    "flat": _flat,
    "anthropic": _anthropic,
    "google": _google,
    "cohere": _cohere,
}


def key_refused(vendor: Vendor, *, given: bool) -> WireResponse:
    """Return the response to a wrong key or, with ``given=False``, to a missing one."""
    refusal = vendor.fake.key_wrong if given else vendor.fake.key_missing
    return error(vendor, refusal.status, refusal.message, code=refusal.code)


def wrong_api(vendor: Vendor, dialect: str, request: AnyRequest) -> WireResponse | None:
    """Return OpenAI's error if the table of models says that a chat request needs the Responses API; else ``None``."""
    if dialect != CHAT or not vendor.has_two_wires or not isinstance(request, ChatRequest):
        return None
    rule = rule_of(vendor.facts_key, request.model)
    if rule.wire == "responses":
        message = "This model is only supported in v1/responses and not in v1/chat/completions."
        return error(vendor, 404, message, code="", param="model")
    if not needs_responses(request, rule, COMPATIBLE_RESPONSES):
        return None
    message = (
        f"Function tools with reasoning_effort are not supported for {request.model} in /v1/chat/completions. "
        "Please use /v1/responses instead."
    )
    return error(vendor, 400, message, param="reasoning_effort")


def nothing_here(vendor: Vendor, path: str) -> WireResponse:
    """Return the response for an unknown path."""
    return error(vendor, 404, f"There is nothing at {path[:200]}.", code="unknown_url")
