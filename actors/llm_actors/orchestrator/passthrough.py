"""A passthrough request: it is sent to one provider unchanged, under the same limits and circuit breaker as all
others. It is tried once, counted and logged. Its cost is unknown.

For selection and metrics it is an attempt at the deployment `PASSTHROUGH` of its provider. So problems with the
provider (its key, network or account) affect all requests, and problems with one path do not.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, nullcontext

import msgspec
import trio

from llm_actors.catalog import Candidate
from llm_actors.deployment import AttemptResult
from llm_actors.kernel import KernelError
from llm_actors.limiter import Reservation, reserve
from llm_actors.orchestrator.load import waiting_for
from llm_actors.orchestrator.services import Services
from llm_actors.provider import PassthroughRequest, PassthroughResponse, failure_of, send_passthrough
from llm_actors.selector import observe, pause_after
from llm_protocol.errors import LLMClientError, error_for
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import PROVIDER_WAIT_SECONDS
from llm_protocol.requests import RequestType
from llm_protocol.response import FinishReason

PASSTHROUGH = "passthrough"
"""The name used in place of a model."""

LATE_RETRY_SECONDS = 1.0
"""The Retry-After, in seconds, if no slot became free in time."""

FREE_METHODS = frozenset(("GET", "HEAD"))
"""Methods of requests that cost nothing, so budgets do not refuse them."""

USUAL_PRIORITY = 5

LEASE_SECONDS = 86_400.0
"""Seconds for which a passthrough request counts within the limits if its end is never reported: it has no deadline."""

log = logging.getLogger(__name__)


async def pass_through(
    services: Services, provider: str, message: PassthroughRequest, *, caller: str, request_id: str
) -> PassthroughResponse:
    """Send ``message`` to ``provider``. Waits for capacity, for the vendor and for the client. Raises
    `LLMClientError` if the message is not sent: a budget refuses unknown costs, there was no capacity in time, the
    circuit is open, or the provider is not running. Cancelling this closes the connection to the vendor.
    """
    began, outcome = trio.current_time(), ""
    passed: PassthroughResponse | None = None
    try:
        passed = await _passed(services, provider, message, caller)
        outcome = passed.failure.kind.value if passed.failure is not None else f"{passed.status // 100}xx"
    except LLMClientError as exc:
        outcome = exc.failure.kind.value
        raise
    finally:
        fields = PassthroughFields(
            id=request_id,
            caller=caller,
            provider=provider,
            method=message.method,
            path=message.path.partition("?")[0],
            outcome=outcome or FailureKind.CANCELLED.value,
            upstream_status=passed.status if passed is not None and passed.status else None,
            bytes_back=0 if passed is None else passed.received,
            ms=round(1000 * (trio.current_time() - began), 1),
        )
        _publish(services, fields)
    assert passed is not None, "a request that did not raise must have a result"
    return passed


class PassthroughFields(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The fields of the log line of a passthrough request."""

    id: str
    caller: str = ""
    provider: str
    method: str
    path: str
    """The path without the query."""
    outcome: str
    """The class of the vendor's status, or the kind of a failure."""
    upstream_status: int | None = None
    bytes_back: int = 0
    """Bytes of the response's body."""
    ms: float


def _publish(services: Services, fields: PassthroughFields) -> None:
    """Count the request, write its log line and its row in the ledger, whatever its result."""
    services.metrics.passed_through(fields.provider, fields.outcome, fields.caller)
    log.info(
        "request %s%s: %s %s/%s passed through: %s, %s in %.0f ms, %d bytes back, cost unknown",
        fields.id,
        fields.caller and f" of {fields.caller}",
        fields.method,
        fields.provider,
        fields.path,
        fields.outcome,
        fields.upstream_status or "no response",
        fields.ms,
        fields.bytes_back,
        extra={"fields": fields},
    )
    services.accounting.note_passthrough(
        fields.id, fields.caller, fields.provider, PASSTHROUGH, outcome=fields.outcome, seconds=fields.ms / 1000
    )


async def _passed(services: Services, provider: str, message: PassthroughRequest, caller: str) -> PassthroughResponse:
    load = services.loads.get(provider)
    if load is None:  # it was removed from the configuration while the request arrived
        raise error_for(Failure(kind=FailureKind.MODEL_NOT_FOUND, message=f"there is no provider {provider} any more"))
    if message.method not in FREE_METHODS and (refused := services.accounting.refuses_unpriced(caller)):
        raise error_for(Failure(kind=FailureKind.BUDGET, message=refused))
    candidate = Candidate(provider, PASSTHROUGH)
    with ExitStack() as held:
        with waiting_for(services.loads, (provider,)):
            reservation = await _reserve(services, provider, caller)
            held.enter_context(reservation or nullcontext())
            wait_s = services.waits.get(provider, PROVIDER_WAIT_SECONDS)
            slot = await load.take(trio.current_time() + wait_s, caller=caller, priority=USUAL_PRIORITY)
        if slot is None:
            raise error_for(_no_slot(provider, wait_s))
        held.callback(slot.give_back)
        now = trio.current_time()
        barred = services.selector.admit(candidate, now, others=())  # no other provider has the path
        if barred is not None:
            raise error_for(barred)
        slot.use(now)
        sent = trio.Event()
        passed = PassthroughResponse(failure=Failure(kind=FailureKind.CANCELLED, message="cancelled"))
        try:
            sending = msgspec.structs.replace(message, on_sent=sent.set)
            passed = await send_passthrough(services.providers[provider], sending)
        except KernelError as exc:
            passed = PassthroughResponse(failure=failure_of(exc, provider), unsent=not sent.is_set())
        finally:
            _settle(services, candidate, passed, reservation, began=now, is_sent=sent.is_set())
        return passed


async def _reserve(services: Services, provider: str, caller: str) -> Reservation | None:
    if caller not in services.caller_limits and provider not in services.limits:
        return None
    try:
        return await reserve(
            services.limiter, (provider,), tokens=0, caller=caller, models=(PASSTHROUGH,), lease_s=LEASE_SECONDS
        )
    except KernelError as exc:
        raise error_for(failure_of(exc, "limiter")) from exc


def _no_slot(provider: str, wait_s: float) -> Failure:
    return Failure(
        kind=FailureKind.OVERLOADED,
        message=f"{provider}: not called, because none of its slots became free within {wait_s:g} s "
        f"([providers.{provider}.limits] wait_s)",
        provider=provider,
        retry_after=LATE_RETRY_SECONDS,
        limit_owner="provider",
    )


def _settle(
    services: Services,
    candidate: Candidate,
    passed: PassthroughResponse,
    reservation: Reservation | None,
    *,
    began: float,
    is_sent: bool,
) -> None:
    """Report the result to the limiter and the selector. Does not wait."""
    failure = passed.failure
    if reservation is not None and failure is not None:
        retry_after = failure.retry_after if pause_after(failure) else None
        reservation.refund(failure.kind, retry_after=retry_after, of_model=True, unsent=passed.unsent or not is_sent)
    elif reservation is not None:
        reservation.settle(None)
    end = Finished(reason=FinishReason.STOP) if failure is None else Failed(failure=failure)
    observe(
        services.observer,
        candidate,
        AttemptResult(end=end, duration_s=passed.duration_s, unsent=passed.unsent),
        began=began,
        request_type=RequestType.CHAT,
        stream=False,
    )
