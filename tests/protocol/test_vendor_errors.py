"""What each documented error of each vendor means, with where it is documented.

Bodies are short: the fields are the vendor's, and the words as far as they matter.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from llm_protocol.dialect import WireResponse
from llm_protocol.failures import FailureKind, Step
from llm_protocol.requests import LLMProvider
from llm_protocol.vendors import VENDORS

OPENAI_CODES = "developers.openai.com/docs/guides/error-codes"
OPENAI_SDK = "openai 3.57.0, types/beta/beta_response_error.py"
PIPECAT = "github.com/pipecat-ai/pipecat/issues/4043"
OBSERVED = "seen in answers; no page of the vendor lists it"
OPENAI_LIMITS = "help.openai.com/en/articles/6614457"
CLAUDE_ERRORS = "platform.claude.com/docs/en/api/errors"
GEMINI_ERRORS = "ai.google.dev/gemini-api/docs/generate-content/api-errors"
COHERE_ERRORS = "docs.cohere.com/errors-reference"
CLAUDE_SDK = "anthropic 2.14.0, types/shared"
CEREBRAS_ERRORS = "inference-docs.cerebras.ai/support/error"

OPENAI, ANTHROPIC, GEMINI = LLMProvider.OPENAI, LLMProvider.ANTHROPIC, LLMProvider.GEMINI
COHERE, CEREBRAS = LLMProvider.COHERE, LLMProvider.CEREBRAS

BAD, UNSUPPORTED, QUOTA = FailureKind.BAD_REQUEST, FailureKind.UNSUPPORTED, FailureKind.QUOTA
RATE, AUTH, LONG = FailureKind.RATE_LIMITED, FailureKind.AUTH, FailureKind.CONTEXT_LENGTH
FILTER, GONE, BUSY, BROKEN = (
    FailureKind.CONTENT_FILTER,
    FailureKind.MODEL_NOT_FOUND,
    FailureKind.OVERLOADED,
    FailureKind.SERVER_ERROR,
)


class Row(NamedTuple):
    vendor: LLMProvider
    status: int
    body: Any
    kind: FailureKind
    source: str


def openai(
    message: str = "m", *, code: str | None = None, param: str | None = None, kind: str = "invalid_request_error"
) -> Any:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def claude(kind: str, message: str = "m", **details: str) -> Any:
    error = {"type": kind, "message": message} | ({"details": details} if details else {})
    return {"type": "error", "error": error}


def google(code: int, status: str, message: str = "m", *details: Any) -> Any:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def cerebras(message: str, kind: str, code: str, param: str = "quota") -> Any:
    return {"message": message, "type": kind, "param": param, "code": code}


_TOOLS = "Function tools with reasoning_effort are not supported for gpt-5.6-terra in /v1/chat/completions."
_RESPONSES_ONLY = "This model is only supported in v1/responses and not in v1/chat/completions."
_NOT_CHAT = "This is not a chat model and thus not supported in the v1/chat/completions endpoint."
_DAY = "Rate limit reached for gpt-6-luna in organization o on requests per day (RPD): Limit 200, Used 200."
_UNKNOWN = "body.store: property 'body.store' is unsupported"
_REMOVED = "invalid request: parameter 'connectors' was removed from the Chat API on September 15 2025."
_FOREIGN = "unknown field: parameter 'strict' is not a valid field."
_BOUND = "messages.1.content.0: Invalid `signature` in `thinking` block. It is bound to a different conversation."
_RAG = "invalid request: response_format is not supported with RAG."
CLAUDE_THINKING = "platform.claude.com/docs/build-with-claude/preserved-thinking/fix-bound-to-a-different-conversation"
_NO_IMAGE = "Failed to deserialize the JSON body into the target type: messages[7]: unknown variant `image_url`, expected `text` at line 1 column 114708"  # noqa: E501
_PLACE = "User location is not supported for the API use."

ROWS = [
    Row(OPENAI, 400, openai(_TOOLS, param="reasoning_effort"), UNSUPPORTED, PIPECAT),
    Row(OPENAI, 400, openai("Invalid service_tier argument", param="service_tier"), UNSUPPORTED, OPENAI_CODES),
    Row(OPENAI, 400, openai(code="invalid_parameter", param="x"), UNSUPPORTED, OBSERVED),
    Row(OPENAI, 400, openai(code="data_residency_mismatch"), UNSUPPORTED, OPENAI_SDK),
    Row(OPENAI, 400, openai(code="unsupported_parameter", param="max_tokens"), UNSUPPORTED, OBSERVED),
    Row(OPENAI, 400, openai(code="unsupported_value", param="temperature"), UNSUPPORTED, OBSERVED),
    Row(OPENAI, 404, openai(_RESPONSES_ONLY, param="model"), UNSUPPORTED, "github.com/n8n-io/n8n/issues/18352"),
    Row(OPENAI, 404, openai(_NOT_CHAT, param="model"), UNSUPPORTED, "github.com/micz/ThunderAI/issues/570"),
    *(
        Row(OPENAI, 429, openai(code=code, kind=type_), QUOTA, OPENAI_LIMITS)
        for code in (
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
        )
        for type_ in ("insufficient_quota", "rate_limit_error", "invalid_request_error")
    ),
    Row(OPENAI, 429, openai(code="insufficient_quota", kind="insufficient_quota"), QUOTA, OPENAI_CODES),
    Row(OPENAI, 400, openai(code="bio_policy"), FILTER, OPENAI_SDK),
    Row(OPENAI, 400, openai(code="misalignment_policy_violation"), FILTER, OPENAI_SDK),
    Row(OPENAI, 400, openai(_NO_IMAGE, code="invalid_request_error"), UNSUPPORTED, "github.com/vercel/ai/issues/9179"),
    Row(OPENAI, 404, openai("No endpoints found that support image input"), UNSUPPORTED, "openrouter.ai"),
    Row(OPENAI, 400, openai("m is not a multimodal model"), UNSUPPORTED, "github.com/vllm-project/vllm"),
    Row(OPENAI, 400, openai(code="image_content_policy_violation"), FILTER, OPENAI_SDK),
    Row(OPENAI, 400, openai(code="content_policy_violation"), FILTER, OBSERVED),
    *(
        Row(OPENAI, 400, openai(code=code), BAD, OPENAI_SDK)
        for code in (
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
        )
    ),
    Row(OPENAI, 500, openai(code="vector_store_timeout", kind="server_error"), BROKEN, OPENAI_SDK),
    Row(OPENAI, 401, openai("IP not authorized"), AUTH, OPENAI_CODES),
    Row(OPENAI, 400, openai(code="context_length_exceeded", param="messages"), LONG, OPENAI_SDK),
    Row(
        OPENAI,
        400,
        openai("Missing parameter.", code="missing_required_parameter"),
        BAD,
        OPENAI_SDK,
    ),
    Row(OPENAI, 401, openai(code="invalid_api_key"), AUTH, OPENAI_CODES),
    Row(OPENAI, 403, openai(code="unsupported_country_region_territory"), AUTH, OPENAI_CODES),
    Row(OPENAI, 404, openai(code="model_not_found"), GONE, OBSERVED),
    Row(OPENAI, 413, openai(), LONG, OPENAI_CODES),
    Row(OPENAI, 429, openai(code="rate_limit_exceeded", kind="requests"), RATE, OPENAI_CODES),
    Row(OPENAI, 429, openai(_DAY, code="rate_limit_exceeded", kind="requests"), QUOTA, OPENAI_CODES),
    Row(OPENAI, 429, openai(f"{_DAY} Please try again in 7m12s.", code="rate_limit_exceeded"), RATE, OPENAI_CODES),
    Row(OPENAI, 503, openai(code="slow_down", kind="service_unavailable_error"), RATE, OPENAI_CODES),
    Row(OPENAI, 503, openai(code="server_is_overloaded", kind="service_unavailable_error"), BUSY, OPENAI_CODES),
    Row(OPENAI, 500, openai(kind="server_error"), BROKEN, OPENAI_CODES),
    Row(ANTHROPIC, 400, claude("invalid_request_error"), BAD, CLAUDE_ERRORS),
    Row(ANTHROPIC, 401, claude("authentication_error"), AUTH, CLAUDE_ERRORS),
    Row(ANTHROPIC, 402, claude("billing_error"), QUOTA, CLAUDE_ERRORS),
    Row(ANTHROPIC, 403, claude("permission_error"), AUTH, CLAUDE_ERRORS),
    Row(ANTHROPIC, 404, claude("not_found_error", "model: claude-x"), GONE, CLAUDE_ERRORS),
    Row(ANTHROPIC, 413, claude("request_too_large"), LONG, CLAUDE_ERRORS),
    Row(ANTHROPIC, 413, {}, LONG, CLAUDE_ERRORS),
    Row(ANTHROPIC, 429, claude("rate_limit_error"), RATE, CLAUDE_ERRORS),
    Row(ANTHROPIC, 429, claude("rate_limit_error", error_code="enforced_spend_limit_reached"), QUOTA, CLAUDE_ERRORS),
    *(
        Row(ANTHROPIC, 429, claude("rate_limit_error", error_code=code), QUOTA, CLAUDE_SDK)
        for code in (
            "contract_spend_limit_reached",
            "linked_organization_spend_limit_reached",
            "linked_organization_billing_unavailable",
            "user_profile_not_billable",
        )
    ),
    Row(ANTHROPIC, 403, claude("permission_error", error_code="organization_on_hold"), AUTH, CLAUDE_SDK),
    Row(ANTHROPIC, 400, claude("invalid_request_error", error_code="unsupported_region"), AUTH, CLAUDE_SDK),
    Row(ANTHROPIC, 400, claude("invalid_request_error", error_code="region_not_supported"), AUTH, CLAUDE_SDK),
    Row(
        ANTHROPIC,
        400,
        claude("invalid_request_error", error_code="request_body_too_large_after_decoding"),
        LONG,
        CLAUDE_SDK,
    ),
    Row(ANTHROPIC, 409, claude("conflict_error"), BAD, CLAUDE_SDK),
    Row(ANTHROPIC, 400, claude("invalid_request_error", _BOUND), UNSUPPORTED, CLAUDE_THINKING),
    Row(ANTHROPIC, 500, claude("api_error"), BROKEN, CLAUDE_ERRORS),
    Row(ANTHROPIC, 504, claude("timeout_error"), BROKEN, CLAUDE_ERRORS),
    Row(ANTHROPIC, 529, claude("overloaded_error"), BUSY, CLAUDE_ERRORS),
    Row(GEMINI, 402, google(402, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), QUOTA, GEMINI_ERRORS),
    Row(GEMINI, 402, google(402, "RESOURCE_EXHAUSTED"), QUOTA, GEMINI_ERRORS),
    Row(GEMINI, 400, google(400, "FAILED_PRECONDITION", _PLACE), AUTH, GEMINI_ERRORS),
    Row(GEMINI, 400, google(400, "FAILED_PRECONDITION", "Please enable billing."), QUOTA, GEMINI_ERRORS),
    Row(GEMINI, 400, google(400, "INVALID_ARGUMENT"), BAD, GEMINI_ERRORS),
    Row(GEMINI, 400, google(400, "INVALID_ARGUMENT", "m", {"reason": "API_KEY_INVALID"}), AUTH, GEMINI_ERRORS),
    Row(GEMINI, 403, google(403, "PERMISSION_DENIED"), AUTH, GEMINI_ERRORS),
    Row(GEMINI, 404, google(404, "NOT_FOUND", "models/x is not found"), GONE, GEMINI_ERRORS),
    Row(GEMINI, 413, google(413, "INVALID_ARGUMENT", "Request payload size exceeds the limit."), LONG, GEMINI_ERRORS),
    Row(GEMINI, 429, google(429, "RESOURCE_EXHAUSTED"), RATE, GEMINI_ERRORS),
    Row(GEMINI, 500, google(500, "INTERNAL"), BROKEN, GEMINI_ERRORS),
    Row(GEMINI, 503, google(503, "UNAVAILABLE"), BUSY, GEMINI_ERRORS),
    Row(GEMINI, 504, google(504, "DEADLINE_EXCEEDED"), BROKEN, GEMINI_ERRORS),
    Row(COHERE, 400, {"message": _REMOVED}, UNSUPPORTED, "github.com/oracle/apex/issues/107"),
    Row(COHERE, 422, {"message": _FOREIGN}, UNSUPPORTED, "github.com/OpenRouterTeam/openrouter-examples/issues/71"),
    Row(COHERE, 400, {"message": "invalid request: message must be at least 1 token long"}, BAD, COHERE_ERRORS),
    Row(COHERE, 400, {"message": "too many tokens: size limit exceeded by 11326 tokens."}, LONG, COHERE_ERRORS),
    Row(
        COHERE,
        400,
        {"message": _RAG},
        UNSUPPORTED,
        COHERE_ERRORS,
    ),
    Row(COHERE, 401, {"message": "invalid api token"}, AUTH, COHERE_ERRORS),
    Row(COHERE, 402, {"message": "Please add or update your payment method"}, QUOTA, COHERE_ERRORS),
    Row(COHERE, 404, {"message": "model 'x' not found"}, GONE, COHERE_ERRORS),
    Row(COHERE, 413, {"message": "m"}, LONG, COHERE_ERRORS),
    Row(COHERE, 429, {"message": "Trial key, limited to 10 API calls / minute."}, RATE, COHERE_ERRORS),
    Row(COHERE, 429, {"message": "Trial key, limited to 1000 API calls / month."}, QUOTA, COHERE_ERRORS),
    Row(COHERE, 498, {"message": "token is invalid"}, AUTH, COHERE_ERRORS),
    Row(COHERE, 500, {"message": "m"}, BROKEN, COHERE_ERRORS),
    Row(COHERE, 503, {"message": "m"}, BUSY, COHERE_ERRORS),
    Row(
        CEREBRAS,
        400,
        cerebras(_UNKNOWN, "invalid_request_error", "wrong_api_format", "validation_error"),
        UNSUPPORTED,
        "github.com/Alishahryar1/free-claude-code/issues/1136",
    ),
    Row(
        CEREBRAS,
        429,
        cerebras("Tokens per day limit exceeded - too many tokens.", "too_many_tokens_error", "token_quota_exceeded"),
        QUOTA,
        CEREBRAS_ERRORS,
    ),
    Row(
        CEREBRAS,
        429,
        cerebras("Tokens per minute limit exceeded.", "too_many_tokens_error", "token_quota_exceeded"),
        RATE,
        CEREBRAS_ERRORS,
    ),
    Row(
        CEREBRAS,
        429,
        cerebras("high traffic", "t", "queue_exceeded", "queue"),
        BUSY,
        CEREBRAS_ERRORS,
    ),
    Row(
        CEREBRAS,
        401,
        cerebras("Wrong API Key", "t", "wrong_api_key", "api_key"),
        AUTH,
        CEREBRAS_ERRORS,
    ),
    Row(CEREBRAS, 403, {}, AUTH, CEREBRAS_ERRORS),
    Row(CEREBRAS, 422, {}, BAD, CEREBRAS_ERRORS),
    Row(CEREBRAS, 402, {"message": "Payment required"}, QUOTA, CEREBRAS_ERRORS),
    Row(CEREBRAS, 404, cerebras("Model x does not exist", "not_found_error", "model_not_found"), GONE, CEREBRAS_ERRORS),
    Row(CEREBRAS, 413, {}, LONG, CEREBRAS_ERRORS),
    Row(CEREBRAS, 500, {}, BROKEN, CEREBRAS_ERRORS),
    Row(CEREBRAS, 503, {}, BUSY, CEREBRAS_ERRORS),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row.vendor}-{row.status}" for number, row in enumerate(ROWS)])
def test_a_documented_error_has_its_kind(row: Row) -> None:
    failure = VENDORS[row.vendor].client().decode_error(WireResponse(row.status, (), json.dumps(row.body).encode()))
    assert (failure.kind, failure.upstream_status) == (row.kind, row.status), f"{failure.message} ({row.source})"


def test_what_another_candidate_may_take_goes_on_to_it() -> None:
    """And the error says which field was at fault."""
    body = json.dumps(openai(_TOOLS, param="reasoning_effort")).encode()
    failure = VENDORS[OPENAI].client().decode_error(WireResponse(400, (), body))
    assert (failure.rule.step, failure.param) == (Step.NEXT, "reasoning_effort")


def test_a_days_limit_whose_end_is_known_is_waited_for_and_otherwise_is_that_models_alone() -> None:
    body = json.dumps(openai(_DAY, code="rate_limit_exceeded")).encode()
    told = VENDORS[OPENAI].client().decode_error(WireResponse(429, (("retry-after", "400"),), body))
    assert (told.kind, told.retry_after) == (RATE, 400.0)
    untold = VENDORS[OPENAI].client().decode_error(WireResponse(429, (), body))
    assert (untold.kind, untold.retry_after, untold.account_wide) == (QUOTA, None, False)
