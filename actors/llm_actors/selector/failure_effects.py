"""Whose fault a failure is, for the breaker and the books: one row for each kind."""

from __future__ import annotations

from typing import NamedTuple

from llm_protocol.failures import Failure, FailureKind

LONGEST_PAUSE_SECONDS = 300.0
"""No vendor's Retry-After keeps a candidate out for longer than this; then it is asked again and may repeat itself."""


class FailureEffect(NamedTuple):
    """What a failure of some kind says.

    ``breaks``: the provider is ill; it counts towards its breaker. ``blamed``: it lowers the candidate's success
    rate. ``pause_s``: how long the candidate is not asked where the vendor did not say how long.
    """

    breaks: bool
    blamed: bool
    pause_s: float = 0.0


_ILL = FailureEffect(breaks=True, blamed=True)
_NO_FAULT = FailureEffect(breaks=False, blamed=False)

VERDICTS: dict[FailureKind, FailureEffect] = {
    FailureKind.NETWORK: _ILL,
    FailureKind.TLS: _ILL,
    FailureKind.TIMEOUT_CONNECT: _ILL,
    FailureKind.TIMEOUT_FIRST_TOKEN: _ILL,
    FailureKind.TIMEOUT_IDLE: _ILL,
    FailureKind.TIMEOUT_TOTAL: _ILL,
    FailureKind.SERVER_ERROR: _ILL,
    FailureKind.OVERLOADED: _ILL,
    FailureKind.PROTOCOL: _ILL,
    FailureKind.TRUNCATED: _ILL,
    FailureKind.INVALID_TOOL_CALL: FailureEffect(breaks=False, blamed=True),
    FailureKind.CRASHED: _ILL,
    # These come from a healthy vendor, or from nobody at all. They are the candidate's and not the provider's: most
    # limits and permissions are per model, and one caller's forbidden model must not take away everybody's others.
    FailureKind.RATE_LIMITED: FailureEffect(breaks=False, blamed=True, pause_s=1.0),
    FailureKind.PARKED: FailureEffect(breaks=False, blamed=True, pause_s=1.0),
    FailureKind.QUOTA: FailureEffect(breaks=False, blamed=True, pause_s=30.0),
    FailureKind.AUTH: FailureEffect(breaks=False, blamed=True, pause_s=30.0),
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
    FailureKind.LOG_LIMIT: _NO_FAULT,
    FailureKind.ANSWER_TOO_LARGE: _NO_FAULT,
    FailureKind.INTERNAL: _NO_FAULT,
}


def pause_after(failure: Failure) -> float:
    """Seconds for which the candidate is not asked after ``failure``. A vendor that says how long is believed."""
    verdict = VERDICTS[failure.kind]
    if not verdict.blamed:
        return 0.0
    asked = verdict.pause_s if failure.retry_after is None else failure.retry_after
    return min(max(asked, 0.0), LONGEST_PAUSE_SECONDS)
