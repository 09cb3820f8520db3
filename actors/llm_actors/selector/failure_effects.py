"""The effects of a failure: for how long no requests are sent, and whether the breaker of the deployment or of the
provider counts it.

`llm_protocol.failures.RULES` lists the effects of each kind of failure. The failure itself may say more, for example
with a Retry-After.
"""

from __future__ import annotations

from llm_protocol.failures import AtFault, Failure, FailureKind, Scope

LONGEST_PAUSE_SECONDS = 300.0
"""The longest pause, in seconds, that a Retry-After causes. Then the vendor is tried again, and may ask to wait
again."""

_FORBIDDEN = 403


def pause_after(failure: Failure) -> float:
    """Return for how many seconds nothing in the scope of ``failure`` is called. The vendor's Retry-After is used."""
    rule = failure.rule
    if rule.fault is not AtFault.PROVIDER:
        return 0.0
    pause = rule.pause_s if failure.retry_after is None else failure.retry_after
    return min(max(pause, 0.0), LONGEST_PAUSE_SECONDS)


def scope_of(failure: Failure, *, unsent: bool) -> Scope:
    """Return what ``failure`` is evidence against: its deployment or its provider. ``unsent``: the attempt could not
    connect.
    """
    kind, rule = failure.kind, failure.rule
    if kind is FailureKind.NETWORK and not unsent:
        return Scope.DEPLOYMENT  # the connection worked, so the problem may be this model's alone
    if kind is FailureKind.AUTH and failure.upstream_status == _FORBIDDEN:
        return Scope.DEPLOYMENT  # the key works, but not for this model, which is one that a caller may have named
    if rule.limit_owner == "provider" and failure.account_wide is not None:
        return Scope.PROVIDER if failure.account_wide else Scope.DEPLOYMENT
    return rule.scope
