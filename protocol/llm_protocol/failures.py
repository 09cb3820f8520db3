"""Everything that can go wrong, as one closed set of kinds and one table of what each permits.

What a vendor's status and body *mean* is known only to its dialect (``decode_error``), which answers with a kind;
`kind_of_status` is where it begins.
What a kind *permits* is known only to `RULES`. ``docs/failures.md`` is generated from it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias

import msgspec


class FailureKind(StrEnum):
    """What went wrong."""

    AUTH = "auth"
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_FIRST_TOKEN = "timeout_first_token"
    TIMEOUT_IDLE = "timeout_idle"
    TIMEOUT_TOTAL = "timeout_total"
    NETWORK = "network"
    TLS = "tls"
    PROTOCOL = "protocol"
    TRUNCATED = "truncated"
    INVALID_TOOL_CALL = "invalid_tool_call"
    ANSWER_TOO_LARGE = "answer_too_large"
    BAD_REQUEST = "bad_request"
    MODEL_NOT_FOUND = "model_not_found"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    UNSUPPORTED = "unsupported"
    CANCELLED = "cancelled"
    SHUTTING_DOWN = "shutting_down"
    QUEUE_FULL = "queue_full"
    OUT_OF_RESOURCES = "out_of_resources"
    LOG_LIMIT = "log_limit"
    BUDGET = "budget"
    DEADLINE = "deadline"
    PARKED = "parked"
    CRASHED = "crashed"
    INTERNAL = "internal"


class Step(StrEnum):
    """What may follow an attempt that failed before any token was delivered."""

    RETRY = "retry"
    """The same provider may be tried again after a wait, or another at once."""
    NEXT = "next"
    """Not here again; another candidate may do better."""
    STOP = "stop"
    """No other attempt can help, or none is allowed."""


class FailureRule(NamedTuple):
    """What a kind permits and how it is told: HTTP status, the ``code`` and ``type`` of the error object, and in
    words.
    """

    step: Step
    status: int
    code: str
    type: str
    meaning: str


_SERVER = "server_error"
_REQUEST = "invalid_request_error"

RULES: dict[FailureKind, FailureRule] = {
    # 502, not 401: it is the runtime's key that the vendor refused, not the caller's.
    FailureKind.AUTH: FailureRule(Step.NEXT, 502, "provider_auth", _SERVER, "the vendor refused the configured key"),
    FailureKind.RATE_LIMITED: FailureRule(
        Step.RETRY, 429, "rate_limit_exceeded", "rate_limit_error", "too many requests or tokens for now"
    ),
    FailureKind.QUOTA: FailureRule(
        Step.NEXT, 429, "insufficient_quota", "insufficient_quota", "the account's quota or budget is used up"
    ),
    FailureKind.OVERLOADED: FailureRule(
        Step.RETRY, 503, "overloaded", _SERVER, "the vendor says it is overloaded, or too many wait for it"
    ),
    FailureKind.SERVER_ERROR: FailureRule(
        Step.RETRY, 502, "server_error", _SERVER, "the vendor had an error of its own"
    ),
    FailureKind.TIMEOUT_CONNECT: FailureRule(Step.RETRY, 504, "connect_timeout", _SERVER, "no connection in time"),
    # A route that stays silent is not asked again: the work may be running, and billed, behind the silence.
    FailureKind.TIMEOUT_FIRST_TOKEN: FailureRule(
        Step.NEXT, 504, "first_token_timeout", _SERVER, "connected, but no first token in time"
    ),
    FailureKind.TIMEOUT_IDLE: FailureRule(Step.NEXT, 504, "idle_timeout", _SERVER, "the stream went silent"),
    FailureKind.TIMEOUT_TOTAL: FailureRule(Step.NEXT, 504, "total_timeout", _SERVER, "the attempt took too long"),
    FailureKind.NETWORK: FailureRule(Step.RETRY, 502, "network_error", _SERVER, "the connection failed or broke"),
    FailureKind.TLS: FailureRule(Step.NEXT, 502, "tls_error", _SERVER, "the vendor's certificate is not trusted"),
    FailureKind.PROTOCOL: FailureRule(
        Step.RETRY, 502, "bad_gateway", _SERVER, "the vendor's answer could not be understood"
    ),
    FailureKind.TRUNCATED: FailureRule(
        Step.RETRY, 502, "stream_truncated", _SERVER, "the answer ended without the vendor's end marker"
    ),
    FailureKind.INVALID_TOOL_CALL: FailureRule(
        Step.NEXT, 502, "invalid_tool_call", _SERVER, "the model wrote a tool call that is not valid"
    ),
    # The vendor has made the answer and bills it; another attempt would be billed again.
    FailureKind.ANSWER_TOO_LARGE: FailureRule(
        Step.STOP, 502, "answer_too_large", _SERVER, "the vendor's answer is larger than a limit allows"
    ),
    FailureKind.BAD_REQUEST: FailureRule(Step.STOP, 400, "invalid_request", _REQUEST, "the request is wrong"),
    FailureKind.MODEL_NOT_FOUND: FailureRule(Step.NEXT, 404, "model_not_found", _REQUEST, "there is no such model"),
    FailureKind.CONTEXT_LENGTH: FailureRule(
        Step.NEXT, 400, "context_length_exceeded", _REQUEST, "the prompt is too long for the model"
    ),
    FailureKind.CONTENT_FILTER: FailureRule(
        Step.STOP, 400, "content_filter", _REQUEST, "the vendor's safety filter refused"
    ),
    FailureKind.UNSUPPORTED: FailureRule(
        Step.NEXT, 400, "unsupported_parameter", _REQUEST, "the vendor or model cannot do what was asked"
    ),
    FailureKind.CANCELLED: FailureRule(Step.STOP, 499, "cancelled", _REQUEST, "the caller cancelled"),
    FailureKind.SHUTTING_DOWN: FailureRule(Step.STOP, 503, "shutting_down", _SERVER, "the runtime is shutting down"),
    FailureKind.QUEUE_FULL: FailureRule(Step.NEXT, 429, "queue_full", "rate_limit_error", "the waiting line is full"),
    FailureKind.OUT_OF_RESOURCES: FailureRule(
        Step.RETRY, 503, "out_of_resources", _SERVER, "no file descriptor, port or memory for another connection"
    ),
    FailureKind.LOG_LIMIT: FailureRule(Step.STOP, 502, "log_limit", _SERVER, "the answer outgrew the run log's limit"),
    FailureKind.BUDGET: FailureRule(Step.STOP, 402, "budget_exceeded", _REQUEST, "the request's budget is used up"),
    FailureKind.DEADLINE: FailureRule(Step.STOP, 504, "deadline_exceeded", _SERVER, "the request's deadline passed"),
    FailureKind.PARKED: FailureRule(
        Step.NEXT,
        503,
        "provider_unavailable",
        _SERVER,
        "the provider is out of service after repeated crashes",
    ),
    FailureKind.CRASHED: FailureRule(Step.RETRY, 500, "server_error", _SERVER, "the actor doing the work crashed"),
    FailureKind.INTERNAL: FailureRule(Step.STOP, 500, "server_error", _SERVER, "a bug in the runtime"),
}

_STATUS_KINDS = {
    400: FailureKind.BAD_REQUEST,
    401: FailureKind.AUTH,
    402: FailureKind.QUOTA,
    403: FailureKind.AUTH,
    404: FailureKind.MODEL_NOT_FOUND,
    408: FailureKind.SERVER_ERROR,
    409: FailureKind.OVERLOADED,
    413: FailureKind.CONTEXT_LENGTH,
    425: FailureKind.OVERLOADED,
    429: FailureKind.RATE_LIMITED,
    499: FailureKind.SERVER_ERROR,
    503: FailureKind.OVERLOADED,
    504: FailureKind.SERVER_ERROR,
    529: FailureKind.OVERLOADED,
}


def kind_of_status(status: int) -> FailureKind:
    """What a status alone says; a dialect knows more from the body."""
    if status in _STATUS_KINDS:
        return _STATUS_KINDS[status]
    if status >= 500:
        return FailureKind.SERVER_ERROR
    return FailureKind.BAD_REQUEST if status >= 400 else FailureKind.PROTOCOL


LimitOwner: TypeAlias = Literal["caller", "provider", "server"]
"""Whose limit a request ran into: its caller's (``[keys.X.limits]``), a provider's (``[providers.X.limits]``, or one
that the vendor itself has), or this server's own bounds."""

_LIMIT_OWNERS: dict[FailureKind, LimitOwner] = {
    FailureKind.RATE_LIMITED: "provider",
    FailureKind.QUOTA: "provider",
    FailureKind.QUEUE_FULL: "server",
}

MAX_RETRY_AFTER_SECONDS = 3_600.0
"""A client is never told to stay away for longer, whatever a vendor says: some sleep for as long as they are told."""

MESSAGE_LIMIT = 2_000
"""Characters of a vendor's error text that are kept."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One failure. ``message`` is for people and never holds a key or a prompt.

    ``retry_after`` is in seconds. ``partial`` says that tokens had been delivered before. ``param`` names the field
    at fault. ``upstream_status`` and ``upstream_code`` are the vendor's, for the record. ``account_wide``: whether
    the limit that was hit is the account's, for all its models, or this model's, where the vendor says so.
    ``should_retry``: whether another attempt at the same place may help, where the vendor says so (`x-should-retry`).
    """

    kind: FailureKind
    message: str
    provider: str | None = None
    model: str | None = None
    param: str | None = None
    retry_after: float | None = None
    partial: bool = False
    upstream_status: int | None = None
    upstream_code: str | None = None
    account_wide: bool | None = None
    should_retry: bool | None = None
    limit_owner: LimitOwner | None = None
    """Whose limit refused, where that is not what the kind implies; see `limited_by`."""

    @property
    def limited_by(self) -> LimitOwner | None:
        """Whose limit refused; ``None`` where it was none."""
        return self.limit_owner or _LIMIT_OWNERS.get(self.kind)

    @property
    def rule(self) -> FailureRule:
        """What this failure's kind permits."""
        return RULES[self.kind]

    @property
    def step(self) -> Step:
        """What may follow: what the vendor said about trying again, else what the kind permits."""
        usual = self.rule.step
        if self.should_retry is None:
            return usual
        if self.should_retry:
            return Step.RETRY
        return Step.NEXT if usual is Step.RETRY else usual

    @property
    def told_retry_after(self) -> float | None:
        """``retry_after`` as a client is told it: at most `MAX_RETRY_AFTER_SECONDS`."""
        return None if self.retry_after is None else min(self.retry_after, MAX_RETRY_AFTER_SECONDS)

    def at(self, *, provider: str, model: str, partial: bool) -> Failure:
        """The same failure with where it happened, and whether tokens had been delivered by then."""
        return msgspec.structs.replace(self, provider=provider, model=self.model or model, partial=partial)
