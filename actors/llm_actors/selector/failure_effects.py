"""The effects of a failure on its deployment and provider: how long they pause, and whose circuit breaker counts it.

`llm_protocol.failures.RULES` has the effects of each kind; the failure itself may have more precise information.
"""

from __future__ import annotations

from llm_protocol.failures import AtFault, Failure, FailureKind, Scope

LONGEST_PAUSE_SECONDS = 300.0
"""The longest Retry-After that excludes a candidate; after it the vendor is tried again and may repeat itself."""

_FORBIDDEN = 403


def pause_after(failure: Failure) -> float:
    """Seconds for which nothing in its scope is called after ``failure``. A vendor's own Retry-After is used."""
    rule = failure.rule
    if rule.fault is not AtFault.PROVIDER:
        return 0.0
    pause = rule.pause_s if failure.retry_after is None else failure.retry_after
    return min(max(pause, 0.0), LONGEST_PAUSE_SECONDS)


def scope_of(failure: Failure, *, unsent: bool) -> Scope:
    """The scope of which ``failure`` is evidence. ``unsent``: there was no connection to send the request over."""
    kind, rule = failure.kind, failure.rule
    if kind is FailureKind.NETWORK and not unsent:
        return Scope.DEPLOYMENT  # there was a connection: the fault may concern this model alone
    if kind is FailureKind.AUTH and failure.upstream_status == _FORBIDDEN:
        return Scope.DEPLOYMENT  # the key is valid, but not for this model, which any caller may have named
    if rule.limit_owner == "provider" and failure.account_wide is not None:
        return Scope.PROVIDER if failure.account_wide else Scope.DEPLOYMENT
    return rule.scope
