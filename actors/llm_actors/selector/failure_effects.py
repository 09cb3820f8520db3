"""What one failure means for its deployment and its provider: how long they are paused, and of which it is evidence.

`llm_protocol.failures.RULES` says what its kind means; the failure itself may know better.
"""

from __future__ import annotations

from llm_protocol.failures import AtFault, Failure, FailureKind, Scope

LONGEST_PAUSE_SECONDS = 300.0
"""No vendor's Retry-After keeps a candidate out for longer than this; then it is asked again and may repeat itself."""

_FORBIDDEN = 403


def pause_after(failure: Failure) -> float:
    """Seconds for which nobody in its scope is asked after ``failure``. A vendor that says how long is believed."""
    rule = failure.rule
    if rule.fault is not AtFault.PROVIDER:
        return 0.0
    asked = rule.pause_s if failure.retry_after is None else failure.retry_after
    return min(max(asked, 0.0), LONGEST_PAUSE_SECONDS)


def scope_of(failure: Failure, *, unsent: bool) -> Scope:
    """Of what ``failure`` is evidence. ``unsent``: there was no connection to send the request over."""
    kind, rule = failure.kind, failure.rule
    if kind is FailureKind.NETWORK and not unsent:
        return Scope.DEPLOYMENT  # there was a connection: whatever broke it may be behind this model alone
    if kind is FailureKind.AUTH and failure.upstream_status == _FORBIDDEN:
        return Scope.DEPLOYMENT  # the key is good, but not for this model, which any caller may have named
    if rule.limit_owner == "provider" and failure.account_wide is not None:
        return Scope.PROVIDER if failure.account_wide else Scope.DEPLOYMENT
    return rule.scope
