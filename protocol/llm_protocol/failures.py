"""All kinds of failures, and one table with the consequences of each kind.

Only a vendor's dialect knows what a status and a body *mean*: its ``decode_error`` returns the kind, starting from
`kind_of_status`. Only `RULES` knows what a kind *implies*, such as whether to retry. ``docs/failures.md`` is
generated from it.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Literal, NamedTuple, TypeAlias

import msgspec


class FailureKind(StrEnum):
    """The kind of a failure."""

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
    INTERRUPTED = "interrupted"


class Step(StrEnum):
    """The next step after an attempt that failed before any token was delivered."""

    RETRY = "retry"
    """The same provider may be tried again after a wait, or another at once."""
    NEXT = "next"
    """The same candidate is not tried again; another candidate may succeed."""
    STOP = "stop"
    """No other attempt can help, or none is allowed."""


class AtFault(StrEnum):
    """Who is at fault for a failure."""

    PROVIDER = "provider"
    """The vendor or the network. The failure lowers the success rate of the deployment."""
    REQUEST = "request"
    """The request: it asks for something impossible or not allowed."""
    CALLER = "caller"
    """The caller: it cancelled, or its time or money is used up."""
    RUNTIME = "runtime"
    """This runtime: a limit, a bug, or its shutdown."""


class Scope(StrEnum):
    """The scope of a failure: one model at one provider, or the whole provider."""

    DEPLOYMENT = "deployment"
    PROVIDER = "provider"


class Settlement(Enum):
    """The charge for a reserved request. The values are written to Redis."""

    REFUNDED = "unsent"
    """The request never reached the vendor: everything is refunded."""
    REFUNDED_TOKENS = "refused"
    """The vendor refused the request: it counts as a request, and its tokens are refunded."""
    CHARGED = "spent"
    """The request was answered, or may have been processed. It counts, with the tokens it used, or with the estimate
    if these are unknown.
    """


LimitOwner: TypeAlias = Literal["caller", "provider", "server"]
"""The limit owner: whose limit refused a request. It is the caller (``[keys.X.limits]``), a provider
(``[providers.X.limits]``, or a limit of the vendor itself), or this server.
"""


class FailureRule(NamedTuple):
    """The consequences of a kind of failure. A failure's own fields take precedence (see `Failure`)."""

    step: Step
    status: int
    """The HTTP status."""
    code: str
    """``code`` of the error object."""
    type: str
    """``type`` of the error object."""
    meaning: str
    """A short description of the kind, for logs and documentation."""
    fault: AtFault
    settlement: Settlement
    """What the limiter charges for a request that was sent. It refunds nothing unless it is certain that the vendor did
    no work.
    """
    client_retry: bool
    """Whether a client may send the same request again by itself, after ``retry-after`` if there is one. False if a
    retry cannot help, if only a person can solve the problem, and if the work may already be done and billed.
    """
    breaks: bool = False
    """Whether the failure counts towards the circuit breaker of its `scope`."""
    scope: Scope = Scope.DEPLOYMENT
    """The scope of the circuit breaker and of a pause."""
    pause_s: float = 0.0
    """Seconds for which nothing in the scope is called, if the vendor did not say how long."""
    needs_operator: bool = False
    """Whether only a person can solve the problem (a key, an account). The duration of a pause is then a guess."""
    limit_owner: LimitOwner | None = None
    """The limit owner, if the kind is about a limit."""
    of_parameters: bool = False
    """Whether a parameter of the request may be the cause, so that an attempt without it may succeed."""
    actor_down: bool = False
    """Whether the actor that was called is not available."""
    advice: str = ""
    """Advice for the operator, shown by ``llm-runtime check``. ``{entry}`` is replaced by the provider's table."""

    @property
    def billed(self) -> bool:
        """Whether the vendor may bill a request that was sent and ended in this way."""
        return self.settlement is Settlement.CHARGED

    @property
    def client_error(self) -> bool:
        """Whether the client's request or its caller is at fault, and not a limit, or the runtime's account or key."""
        return self.status < 500 and self.limit_owner is None and not self.needs_operator

    @property
    def unreached(self) -> bool:
        """Whether the kind means that the provider cannot be reached."""
        return self.breaks and self.scope is Scope.PROVIDER


_SERVER = "server_error"
_REQUEST = "invalid_request_error"
_REFUNDED, _TOKENS, _CHARGED = Settlement.REFUNDED, Settlement.REFUNDED_TOKENS, Settlement.CHARGED
_CHECK_ADDRESS = "is base_url the address of the vendor's API, such as https://host/v1?"
_CHECK_REACH = "is base_url right, and can the server be reached from this machine?"
_LATER = "try again later"

# One row for each kind. No other table is keyed by kinds: tests/protocol/test_failures.py looks for one.
# fmt: off
RULES: dict[FailureKind, FailureRule] = {
    # 424, not 401: it is the runtime's key that the vendor refused, not the caller's. And not 502: clients that look at
    # the status alone repeat that for minutes. LiteLLM goes by the type, so aider repeats a server_error for a minute.
    # docs/decisions/0011-serving-stock-clients.md
    FailureKind.AUTH: FailureRule(
        Step.NEXT, 424, "provider_auth", _REQUEST, "the vendor refused the configured key", AtFault.PROVIDER, _TOKENS,
        client_retry=False, scope=Scope.PROVIDER, pause_s=30.0, needs_operator=True,
        advice="check {entry}.api_key: it must refer to a key that is valid for this address"),
    FailureKind.RATE_LIMITED: FailureRule(
        Step.RETRY, 429, "rate_limit_exceeded", "rate_limit_error", "too many requests or tokens for now",
        AtFault.PROVIDER, _TOKENS, client_retry=True, pause_s=1.0, limit_owner="provider", advice=_LATER),
    FailureKind.QUOTA: FailureRule(
        Step.NEXT, 429, "insufficient_quota", "insufficient_quota",
        "the provider's account has used up its quota or credit", AtFault.PROVIDER, _TOKENS, client_retry=False,
        scope=Scope.PROVIDER, pause_s=30.0, needs_operator=True, limit_owner="provider",
        advice="check the account's quota and billing at the vendor"),
    FailureKind.OVERLOADED: FailureRule(
        Step.RETRY, 503, "overloaded", _SERVER, "the vendor is overloaded, or too many requests wait for it",
        AtFault.PROVIDER, _TOKENS, client_retry=True, breaks=True, advice=_LATER),
    FailureKind.SERVER_ERROR: FailureRule(
        Step.RETRY, 502, "server_error", _SERVER, "the vendor reported an internal error", AtFault.PROVIDER, _CHARGED,
        client_retry=True, breaks=True, advice=_LATER),
    FailureKind.TIMEOUT_CONNECT: FailureRule(
        Step.RETRY, 504, "connect_timeout", _SERVER, "no connection in time", AtFault.PROVIDER, _REFUNDED,
        client_retry=True, breaks=True, scope=Scope.PROVIDER, advice=_CHECK_REACH),
    # After these timeouts a deployment is not tried again: the vendor may still be working on the request, and bill it.
    FailureKind.TIMEOUT_FIRST_TOKEN: FailureRule(
        Step.NEXT, 504, "first_token_timeout", _SERVER, "connected, but no first token in time", AtFault.PROVIDER,
        _CHARGED, client_retry=False, breaks=True),
    FailureKind.TIMEOUT_IDLE: FailureRule(
        Step.NEXT, 504, "idle_timeout", _SERVER, "the stream was silent for too long", AtFault.PROVIDER, _CHARGED,
        client_retry=False, breaks=True),
    FailureKind.TIMEOUT_TOTAL: FailureRule(
        Step.NEXT, 504, "total_timeout", _SERVER, "the attempt took too long", AtFault.PROVIDER, _CHARGED,
        client_retry=False, breaks=True, advice=_CHECK_ADDRESS),
    FailureKind.NETWORK: FailureRule(
        Step.RETRY, 502, "network_error", _SERVER, "the connection failed or broke", AtFault.PROVIDER, _CHARGED,
        client_retry=True, breaks=True, scope=Scope.PROVIDER, advice=_CHECK_REACH),
    FailureKind.TLS: FailureRule(
        Step.NEXT, 502, "tls_error", _SERVER, "the vendor's certificate is not trusted", AtFault.PROVIDER, _REFUNDED,
        client_retry=False, breaks=True, scope=Scope.PROVIDER,
        advice="if the certificate is self-signed, set {entry}.ca_file to its file; if the server has no TLS, "
        "use http in base_url"),
    # One caller's request can make a model write nonsense every time, although the deployment is healthy, so malformed
    # responses do not open a circuit.
    FailureKind.PROTOCOL: FailureRule(
        Step.RETRY, 502, "bad_gateway", _SERVER, "the vendor's response could not be understood", AtFault.PROVIDER,
        _CHARGED, client_retry=True, advice=_CHECK_ADDRESS),
    FailureKind.TRUNCATED: FailureRule(
        Step.RETRY, 502, "stream_truncated", _SERVER, "the response ended without the vendor's end marker",
        AtFault.PROVIDER, _CHARGED, client_retry=True),
    FailureKind.INVALID_TOOL_CALL: FailureRule(
        Step.NEXT, 502, "invalid_tool_call", _SERVER, "the model wrote an invalid tool call", AtFault.PROVIDER,
        _CHARGED, client_retry=False, advice=_CHECK_ADDRESS),
    # The vendor has made the response and bills it; another attempt would be billed again.
    FailureKind.ANSWER_TOO_LARGE: FailureRule(
        Step.STOP, 502, "answer_too_large", _SERVER, "the vendor's response is larger than a limit allows",
        AtFault.RUNTIME, _CHARGED, client_retry=False, advice=_CHECK_ADDRESS),
    FailureKind.BAD_REQUEST: FailureRule(
        Step.STOP, 400, "invalid_request", _REQUEST, "the request is not valid", AtFault.REQUEST, _TOKENS,
        client_retry=False, of_parameters=True, advice=_CHECK_ADDRESS),
    FailureKind.MODEL_NOT_FOUND: FailureRule(
        Step.NEXT, 404, "model_not_found", _REQUEST, "there is no such model", AtFault.PROVIDER, _TOKENS,
        client_retry=False, advice=_CHECK_ADDRESS),
    FailureKind.CONTEXT_LENGTH: FailureRule(
        Step.NEXT, 400, "context_length_exceeded", _REQUEST, "the prompt is too long for the model", AtFault.REQUEST,
        _TOKENS, client_retry=False),
    FailureKind.CONTENT_FILTER: FailureRule(
        Step.STOP, 400, "content_filter", _REQUEST, "the vendor's safety filter stopped the request", AtFault.REQUEST,
        _CHARGED, client_retry=False),
    FailureKind.UNSUPPORTED: FailureRule(
        Step.NEXT, 400, "unsupported_parameter", _REQUEST, "the vendor or model does not support the request",
        AtFault.REQUEST, _TOKENS, client_retry=False, of_parameters=True),
    FailureKind.CANCELLED: FailureRule(
        Step.STOP, 499, "cancelled", _REQUEST, "the caller cancelled the request", AtFault.CALLER, _CHARGED,
        client_retry=False),
    # Nothing else is tried here, but the client may ask another replica, or this one when it is back. A request that
    # was sent before the end came may have been worked on.
    FailureKind.SHUTTING_DOWN: FailureRule(
        Step.STOP, 503, "shutting_down", _SERVER, "the runtime is shutting down", AtFault.RUNTIME, _CHARGED,
        client_retry=True),
    FailureKind.QUEUE_FULL: FailureRule(
        Step.NEXT, 429, "queue_full", "rate_limit_error", "too many requests are waiting in this runtime",
        AtFault.RUNTIME, _REFUNDED, client_retry=True, limit_owner="server"),
    FailureKind.OUT_OF_RESOURCES: FailureRule(
        Step.RETRY, 503, "out_of_resources", _SERVER, "no file descriptor, port or memory for another connection",
        AtFault.RUNTIME, _REFUNDED, client_retry=True),
    FailureKind.LOG_LIMIT: FailureRule(
        Step.STOP, 502, "log_limit", _SERVER, "the response is larger than log_limit_mb", AtFault.RUNTIME, _CHARGED,
        client_retry=False),
    FailureKind.BUDGET: FailureRule(
        Step.STOP, 402, "budget_exceeded", _REQUEST, "no budget is left for the request", AtFault.CALLER,
        _CHARGED, client_retry=False),
    FailureKind.DEADLINE: FailureRule(
        Step.STOP, 504, "deadline_exceeded", _SERVER, "the request's deadline passed", AtFault.CALLER, _CHARGED,
        client_retry=False),
    FailureKind.PARKED: FailureRule(
        Step.NEXT, 503, "provider_unavailable", _SERVER, "the provider is parked after repeated crashes",
        AtFault.PROVIDER, _REFUNDED, client_retry=True, scope=Scope.PROVIDER, pause_s=1.0, actor_down=True),
    FailureKind.CRASHED: FailureRule(
        Step.RETRY, 500, "server_error", _SERVER, "the actor that did the work crashed", AtFault.PROVIDER, _CHARGED,
        client_retry=True, breaks=True, actor_down=True),
    FailureKind.INTERNAL: FailureRule(
        Step.STOP, 500, "server_error", _SERVER, "a bug in the runtime", AtFault.RUNTIME, _CHARGED, client_retry=False),
    # Found in the store's file at the next start: the client decides whether the received part is enough.
    FailureKind.INTERRUPTED: FailureRule(
        Step.STOP, 500, "interrupted", _SERVER, "the runtime ended while producing a stored response", AtFault.RUNTIME,
        _CHARGED, client_retry=False),
}
# fmt: on

_STATUS_KINDS = {
    400: FailureKind.BAD_REQUEST,
    401: FailureKind.AUTH,
    402: FailureKind.QUOTA,
    403: FailureKind.AUTH,
    404: FailureKind.MODEL_NOT_FOUND,
    408: FailureKind.SERVER_ERROR,
    409: FailureKind.OVERLOADED,
    413: FailureKind.CONTEXT_LENGTH,
    424: FailureKind.AUTH,  # of a runtime like this one
    425: FailureKind.OVERLOADED,
    429: FailureKind.RATE_LIMITED,
    499: FailureKind.SERVER_ERROR,
    503: FailureKind.OVERLOADED,
    504: FailureKind.SERVER_ERROR,
    529: FailureKind.OVERLOADED,
}


def kind_of_status(status: int) -> FailureKind:
    """Return the kind for a status alone. A dialect also uses the body."""
    if status in _STATUS_KINDS:
        return _STATUS_KINDS[status]
    if status >= 500:
        return FailureKind.SERVER_ERROR
    return FailureKind.BAD_REQUEST if status >= 400 else FailureKind.PROTOCOL


MAX_RETRY_AFTER_SECONDS = 3_600.0
"""The longest Retry-After for clients, in seconds, because some clients sleep for any time that they are given."""

MESSAGE_LIMIT = 2_000
"""The most characters of a vendor's error text that are kept."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One failure. ``message`` is readable text and never contains a key or a prompt.

    ``retry_after`` is in seconds. ``partial``: whether tokens had been delivered before. ``param`` names the field at
    fault. ``upstream_status`` and ``upstream_code`` come from the vendor and are only recorded. ``account_wide``: true
    if the limit that was reached belongs to the account, for all its models; false if it belongs to this model;
    ``None`` if the vendor does not say. ``should_retry``: whether another attempt at the same provider may help, if the
    vendor says so (`x-should-retry`).
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
    """The limit owner, if it differs from the one that the kind implies; see `limited_by`."""

    @property
    def limited_by(self) -> LimitOwner | None:
        """The limit owner; ``None`` if no limit refused the request."""
        return self.limit_owner or self.rule.limit_owner

    @property
    def rule(self) -> FailureRule:
        """The consequences of this failure's kind."""
        return RULES[self.kind]

    @property
    def step(self) -> Step:
        """The next step: by the vendor's advice about a retry if there is one, else by the kind of the failure."""
        usual = self.rule.step
        if self.should_retry is None:
            return usual
        if self.should_retry:
            return Step.RETRY
        return Step.NEXT if usual is Step.RETRY else usual

    @property
    def billed(self) -> bool:
        """Whether the vendor may bill a request without a response. It does not if it sent an error status. After a
        timeout or a broken connection it may, because the work may have been done.
        """
        refused = self.upstream_status is not None and self.upstream_status >= 400
        return not refused and self.rule.billed

    @property
    def client_retry(self) -> bool:
        """Whether a client may retry by itself: never after part of the response was delivered."""
        return self.rule.client_retry and not self.partial

    @property
    def told_retry_after(self) -> float | None:
        """The ``retry_after`` that clients receive: at most `MAX_RETRY_AFTER_SECONDS`; ``None`` without one."""
        return None if self.retry_after is None else min(self.retry_after, MAX_RETRY_AFTER_SECONDS)

    def at(self, *, provider: str, model: str, partial: bool) -> Failure:
        """Return the failure with its provider and model. ``partial``: whether tokens had been delivered before it."""
        return msgspec.structs.replace(self, provider=provider, model=self.model or model, partial=partial)
