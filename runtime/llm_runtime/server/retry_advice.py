"""Tell clients whether to retry. SDKs retry by default: without advice, three of our attempts become nine calls, and a
wrong provider key delays the error by half a minute.
"""

from __future__ import annotations

import math

from llm_protocol.dialect import WireResponse
from llm_protocol.failures import Failure
from llm_runtime.server.limits import LATER_SECONDS

NO_RETRY = ("x-should-retry", "false")
"""A header that the SDKs of OpenAI and Anthropic obey for all statuses."""

_BUSY = (429, 503)
"""Statuses of conditions that pass by waiting."""


def with_retry_advice(response: WireResponse, failure: Failure, calls: int = 0) -> WireResponse:
    """The error response, with `NO_RETRY` if the client must not retry, which includes every error after more than one
    of our own ``calls``; and with Retry-After if, and only if, waiting helps.
    """
    headers = [(name, value) for name, value in response.headers if name not in (NO_RETRY[0], "retry-after")]
    seconds, rule = failure.told_retry_after, failure.rule
    if rule.client_retry and (seconds is not None or rule.status in _BUSY):
        headers.append(("retry-after", str(LATER_SECONDS if seconds is None else max(0, math.ceil(seconds)))))
    if calls > 1 or not failure.client_retry:
        headers.append(NO_RETRY)
    return response._replace(headers=tuple(headers))
