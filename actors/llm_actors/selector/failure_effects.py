"""Whose fault a failure is, for the breaker and the books: one row for each kind."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from llm_protocol.failures import Failure, FailureKind

LONGEST_PAUSE_SECONDS = 300.0
"""No vendor's Retry-After keeps a candidate out for longer than this; then it is asked again and may repeat itself."""


_FORBIDDEN = 403
_LIMITS = frozenset({FailureKind.RATE_LIMITED, FailureKind.QUOTA})


class Scope(StrEnum):
    """Of what a failure tells: of one model at one provider, or of everything there."""

    DEPLOYMENT = "deployment"
    PROVIDER = "provider"


class FailureEffect(NamedTuple):
    """What a failure of some kind says.

    ``breaks``: it counts towards a circuit breaker. ``scope``: whose, and who is paused (see `scope_of` for the
    exceptions). ``blamed``: it lowers the candidate's success rate. ``pause_s``: how long nobody is asked where the
    vendor did not say how long.
    """

    breaks: bool
    blamed: bool
    pause_s: float = 0.0
    scope: Scope = Scope.DEPLOYMENT


_ILL = FailureEffect(breaks=True, blamed=True)
_NO_FAULT = FailureEffect(breaks=False, blamed=False)
_UNREACHABLE = FailureEffect(breaks=True, blamed=True, scope=Scope.PROVIDER)
_MALFORMED = FailureEffect(breaks=False, blamed=True)

FAILURE_EFFECTS: dict[FailureKind, FailureEffect] = {
    FailureKind.NETWORK: _UNREACHABLE,
    FailureKind.TLS: _UNREACHABLE,
    FailureKind.TIMEOUT_CONNECT: _UNREACHABLE,
    FailureKind.TIMEOUT_FIRST_TOKEN: _ILL,
    FailureKind.TIMEOUT_IDLE: _ILL,
    FailureKind.TIMEOUT_TOTAL: _ILL,
    FailureKind.SERVER_ERROR: _ILL,
    FailureKind.OVERLOADED: _ILL,
    FailureKind.CRASHED: _ILL,
    # One caller's request can make a model write nonsense every time. The service is well, and others must have it.
    FailureKind.PROTOCOL: _MALFORMED,
    FailureKind.TRUNCATED: _MALFORMED,
    FailureKind.INVALID_TOOL_CALL: _MALFORMED,
    # These come from a healthy vendor, or from nobody at all.
    FailureKind.RATE_LIMITED: FailureEffect(breaks=False, blamed=True, pause_s=1.0),
    FailureKind.PARKED: FailureEffect(breaks=False, blamed=True, pause_s=1.0, scope=Scope.PROVIDER),
    FailureKind.QUOTA: FailureEffect(breaks=False, blamed=True, pause_s=30.0, scope=Scope.PROVIDER),
    FailureKind.AUTH: FailureEffect(breaks=False, blamed=True, pause_s=30.0, scope=Scope.PROVIDER),
    FailureKind.MODEL_NOT_FOUND: FailureEffect(breaks=False, blamed=True),
    # The request's fault, the caller's wish, or ours.
    FailureKind.BAD_REQUEST: _NO_FAULT,
    FailureKind.CONTEXT_LENGTH: _NO_FAULT,
    FailureKind.CONTENT_FILTER: _NO_FAULT,
    FailureKind.UNSUPPORTED: _NO_FAULT,
    FailureKind.CANCELLED: _NO_FAULT,
    FailureKind.DEADLINE: _NO_FAULT,
    FailureKind.BUDGET: _NO_FAULT,
    FailureKind.SHUTTING_DOWN: _NO_FAULT,
    FailureKind.QUEUE_FULL: _NO_FAULT,
    FailureKind.OUT_OF_RESOURCES: _NO_FAULT,
    FailureKind.LOG_LIMIT: _NO_FAULT,
    FailureKind.ANSWER_TOO_LARGE: _NO_FAULT,
    FailureKind.INTERNAL: _NO_FAULT,
}


def pause_after(failure: Failure) -> float:
    """Seconds for which nobody in its scope is asked after ``failure``. A vendor that says how long is believed."""
    effect = FAILURE_EFFECTS[failure.kind]
    if not effect.blamed:
        return 0.0
    asked = effect.pause_s if failure.retry_after is None else failure.retry_after
    return min(max(asked, 0.0), LONGEST_PAUSE_SECONDS)


def scope_of(failure: Failure, *, unsent: bool) -> Scope:
    """Of what ``failure`` is evidence. ``unsent``: there was no connection to send the request over."""
    kind = failure.kind
    if kind is FailureKind.NETWORK and not unsent:
        return Scope.DEPLOYMENT  # there was a connection: whatever broke it may be behind this model alone
    if kind is FailureKind.AUTH and failure.upstream_status == _FORBIDDEN:
        return Scope.DEPLOYMENT  # the key is good, but not for this model, which any caller may have named
    if kind in _LIMITS and failure.account_wide is not None:
        return Scope.PROVIDER if failure.account_wide else Scope.DEPLOYMENT
    return FAILURE_EFFECTS[kind].scope
