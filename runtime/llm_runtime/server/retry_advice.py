"""Tell clients whether to retry. SDKs retry by default. Without advice, three attempts of this daemon become nine, and
the error about a wrong provider key arrives half a minute late.
"""

from __future__ import annotations

import math

from llm_protocol.dialect import WireResponse
from llm_protocol.failures import Failure
from llm_runtime.server.limits import LATER_SECONDS

NO_RETRY = ("x-should-retry", "false")
"""A header that the SDKs of OpenAI and Anthropic obey for all statuses."""

_BUSY = (429, 503)
"""Statuses of temporary conditions."""


def with_retry_advice(response: WireResponse, failure: Failure, calls: int = 0) -> WireResponse:
    """Return the error response with advice. It has `NO_RETRY` if the client must not retry, and after more than one
    ``calls``, the attempts made by this daemon. It has Retry-After only if waiting helps.
    """
    headers = [(name, value) for name, value in response.headers if name not in (NO_RETRY[0], "retry-after")]
    seconds, rule = failure.told_retry_after, failure.rule
    if rule.client_retry and (seconds is not None or rule.status in _BUSY):
        headers.append(("retry-after", str(LATER_SECONDS if seconds is None else max(0, math.ceil(seconds)))))
    if calls > 1 or not failure.client_retry:
        headers.append(NO_RETRY)
    return response._replace(headers=tuple(headers))
