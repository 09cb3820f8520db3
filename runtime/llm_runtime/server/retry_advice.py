"""What a client is told about asking again. Its SDK retries by itself, so that without a word three of our attempts
become nine calls, and a wrong key of ours costs it half a minute.
"""

from __future__ import annotations

import math

from llm_protocol.dialect import WireResponse
from llm_protocol.failures import Failure
from llm_runtime.server.limits import LATER_SECONDS

NO_RETRY = ("x-should-retry", "false")
"""OpenAI's and Anthropic's SDKs obey it, whatever the status."""

_BUSY = (429, 503)
"""Statuses of what passes by waiting alone."""


def with_retry_advice(response: WireResponse, failure: Failure, calls: int = 0) -> WireResponse:
    """The error answer with `NO_RETRY` where a client must not ask again by itself, which is also so after more than
    one of our own ``calls``, and with Retry-After where, and only where, waiting helps.
    """
    headers = [(name, value) for name, value in response.headers if name not in (NO_RETRY[0], "retry-after")]
    seconds, rule = failure.told_retry_after, failure.rule
    if rule.client_retry and (seconds is not None or rule.status in _BUSY):
        headers.append(("retry-after", str(LATER_SECONDS if seconds is None else max(0, math.ceil(seconds)))))
    if calls > 1 or not failure.client_retry:
        headers.append(NO_RETRY)
    return response._replace(headers=tuple(headers))
