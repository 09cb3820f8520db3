"""The stage before an attempt: choose the candidate that is available now, and reserve what the attempt needs.

An attempt needs, in this order: a queue that leaves enough time, capacity within the rate limits, a slot of the
provider, enough of the request's budget, a circuit breaker that permits the attempt. The slot and the reservation are
released at the end of the attempt's block, however it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from math import inf
from typing import NamedTuple, final

import msgspec
import trio

from llm_actors.catalog import Candidate
from llm_actors.kernel import CallExpired, KernelError
from llm_actors.limiter import Reservation, reserve
from llm_actors.orchestrator.candidates import CapableCandidates
from llm_actors.orchestrator.load import Reserved, Slot, least_time, waiting_for
from llm_actors.orchestrator.plan import AttemptPlan
from llm_actors.orchestrator.services import AttemptContext, Services
from llm_actors.provider import failure_of
from llm_protocol.errors import LLMClientError, error_for
from llm_protocol.estimate import Estimate
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import PROVIDER_WAIT_SECONDS
from llm_protocol.requests import AnyRequest

USUAL_PRIORITY = 5
"""The default priority of a request."""

LATE_RETRY_SECONDS = 1.0
"""The Retry-After, in seconds, if no capacity became free in time and it is unknown when there will be some."""

RETRY_CAPACITY_SECONDS = 1.0
"""Seconds that a retry waits for capacity while other candidates are available."""


class NotReserved(NamedTuple):
    """The result if no attempt is made now. ``candidate``: the one candidate that was refused; ``None``: no candidate
    had capacity in time.
    """

    failure: Failure
    candidate: Candidate | None = None


@final
class Reserving:
    """The reservations for the attempts of one `AttemptContext`."""

    __slots__ = ("_called", "_capable", "_context", "_services", "_tried")

    def __init__(self, services: Services, context: AttemptContext, capable: CapableCandidates) -> None:
        self._services = services
        self._context = context
        self._capable = capable
        self._tried: Candidate | None = None
        self._called: Candidate | None = None
        """The candidate that was called last."""

    async def claim(self, plan: AttemptPlan[Candidate], request: AnyRequest) -> NotReserved | Reserved:
        """Reserve a call to the plan's first candidate with free capacity, which becomes its current one. Waits for
        capacity and for a slot, at most `wait_s`, and only as long as the call can still succeed. The caller must
        release the result. Raises only `trio.Cancelled` and bugs.
        """
        while True:
            reserved = await self._place(plan, request)
            if isinstance(reserved, NotReserved):
                return reserved
            try:
                is_supported = await self._capable.has(reserved.candidate)
            except BaseException:  # a large request is checked in a thread, where its caller may leave
                reserved.give_back()
                raise
            if is_supported:
                break
            reserved.give_back()
            await self._capable.drop_others(plan)
        now, candidate, others, estimate = trio.current_time(), plan.current, plan.others, reserved.estimate
        barred = self.unpaid(candidate, estimate, is_last=not others) or self._admit(candidate, others, estimate, now)
        if barred is not None:
            reserved.give_back()
            return NotReserved(barred, candidate)
        reserved.use(now)
        return reserved

    async def _place(self, plan: AttemptPlan[Candidate], request: AnyRequest) -> NotReserved | Reserved:
        """Reserve capacity and a slot at the plan's current candidate, which may change during the wait."""
        if (overloaded := self._avoid_queues(plan)) is not None:
            return NotReserved(overloaded)
        estimate = self._services.estimator.estimate(plan.current, request)
        reservation = None
        slot = None if self._is_limited(plan.open) else self._services.loads[plan.current.provider].take_nowait()
        if slot is None:
            try:
                reservation, slot = await self._wait_for_place(plan, estimate)
            except LLMClientError as exc:
                unwanted = _held(exc.failure, plan.open)
                if unwanted is not None:
                    plan.take(unwanted)
                return NotReserved(exc.failure, unwanted)
        return Reserved(plan.current, estimate, reservation, slot)

    async def _wait_for_place(
        self, plan: AttemptPlan[Candidate], estimate: Estimate
    ) -> tuple[Reservation | None, Slot]:
        """Wait for a reservation and for a slot. Raises `LLMClientError`; then nothing is held."""
        with waiting_for(self._services.loads, tuple(dict.fromkeys(each.provider for each in plan.open))):
            reservation = await self._reserve(plan, estimate)
            try:
                return reservation, await self._slot(plan)
            except BaseException:
                if reservation is not None:
                    reservation.leave()
                raise

    def _is_limited(self, candidates: Sequence[Candidate]) -> bool:
        """Return whether the limiter limits one of ``candidates`` or the caller."""
        services, context = self._services, self._context
        if services.limits and any(each.provider in services.limits for each in candidates):
            return True
        return context.request.caller in services.caller_limits or services.accounting.has_budget(context.payer)

    def wait_s(self, candidate: Candidate) -> float:
        """Return for how many seconds a request may wait for the limits and slots of ``candidate``."""
        return self._services.waits.get(candidate.provider, PROVIDER_WAIT_SECONDS)

    # -- queues and slots --------------------------------------------------------------------------------------------

    def _avoid_queues(self, plan: AttemptPlan[Candidate]) -> Failure | None:
        """Move to the first candidate whose queue leaves enough time. If there is none, return why the first was
        refused.
        """
        if not self._services.loads[plan.current.provider].waiting:
            return None
        now = trio.current_time()
        first, left = None, self._context.deadline() - now
        for candidate in (plan.current, *plan.others):
            load = self._services.loads[candidate.provider]
            seconds = load.refused_for(left, self._times(candidate), now)
            if seconds is None:
                plan.take(candidate)
                return None
            first = first or _overloaded(candidate, seconds, load.waiting)
        return first

    def _times(self, candidate: Candidate) -> tuple[float, ...]:
        return self._services.selector.known(candidate).whole.sample

    def _start_by(self, candidate: Candidate) -> float:
        """Return the latest time at which an attempt at ``candidate`` must begin to be complete in time, on Trio's
        clock; the deadline itself if that time has passed or is unknown.
        """
        deadline, least = self._context.deadline(), least_time(self._times(candidate))
        return deadline if least is None or deadline - least <= trio.current_time() else deadline - least

    async def _slot(self, plan: AttemptPlan[Candidate]) -> Slot:
        """Wait for a slot of the current candidate's provider. Raises `LLMClientError` if no slot becomes free in
        time, or within `wait_s`.
        """
        candidate, begun = plan.current, trio.current_time()
        load, wait_s = self._services.loads[candidate.provider], self.wait_s(candidate)
        if (slot := load.take_nowait()) is not None:
            return slot
        start_by, patient_until = self._start_by(candidate), begun + max(0.0, wait_s - plan.waited_s)
        until = min(start_by, patient_until)
        slot = await load.take(until, caller=self._context.request.caller, priority=self._priority)
        plan.waited_s += trio.current_time() - begun
        if slot is not None:
            return slot
        overloaded = _overloaded(candidate, LATE_RETRY_SECONDS, load.waiting)
        if until < start_by:
            message = (
                f"{candidate}: not tried, because none of its slots became free within {wait_s:g} s "
                f"([providers.{candidate.provider}.limits] wait_s)"
            )
            overloaded = msgspec.structs.replace(overloaded, message=message)
        raise error_for(overloaded)

    @property
    def _priority(self) -> int:
        priority = self._context.policy.priority
        return USUAL_PRIORITY if priority is None else priority

    # -- budget and circuit breaker ----------------------------------------------------------------------------------

    def unpaid(self, candidate: Candidate, estimate: Estimate, *, is_last: bool) -> Failure | None:
        """Return why the budget cannot pay ``candidate``; ``None`` if it can, or if there is no budget."""
        budget = self._context.budget
        return None if budget is None else budget.refuses(candidate, estimate, self._context.request, is_last=is_last)

    def _admit(self, candidate: Candidate, others: list[Candidate], estimate: Estimate, now: float) -> Failure | None:
        """Return why ``candidate`` is not called now; ``None`` if it is. A fallback that is usually slower than the
        time left is not called.
        """
        first = self._tried is None
        self._tried = candidate
        within = inf if first else self._context.deadline() - now
        barred = self._services.selector.admit(
            candidate,
            now,
            extra=candidate == self._called,
            within_s=within,
            others=others,
            called=self._called is not None,
            request_type=self._context.request.request_type,
            usage=estimate.usage,
        )
        if barred is None:
            self._called = candidate
        return barred

    # -- the rate limiter --------------------------------------------------------------------------------------------

    async def _reserve(self, plan: AttemptPlan[Candidate], estimate: Estimate) -> Reservation | None:
        """Reserve capacity at one of the plan's candidates, which becomes its current one."""
        if plan.retrying and plan.others:  # a retry is worth no long wait for capacity while others are available
            start_by = min(self._start_by(plan.current), trio.current_time() + RETRY_CAPACITY_SECONDS)
            with suppress(LLMClientError):
                return await self.reserve_at(plan, [plan.current], estimate, start_by)
            plan.take(plan.others[0])
        try:
            reservation = await self.reserve_at(plan, plan.open, estimate, self._start_by(plan.current))
        except LLMClientError as exc:
            unlimited = self._unlimited(plan) if exc.failure.rule.actor_down else None
            if unlimited is None:
                raise
            plan.take(unlimited)
            return None
        if reservation is not None:
            plan.take(next(candidate for candidate in plan.open if candidate.provider == reservation.provider))
        return reservation

    def _unlimited(self, plan: AttemptPlan[Candidate]) -> Candidate | None:
        """Return the first candidate whose provider has no limits; ``None`` if there is none, or if the caller has
        limits or a budget.
        """
        services = self._services
        if self._context.request.caller in services.caller_limits:
            return None
        if services.accounting.has_budget(self._context.payer):
            return None
        return next((each for each in plan.open if each.provider not in services.limits), None)

    async def reserve_at(
        self, plan: AttemptPlan[Candidate], candidates: Sequence[Candidate], estimate: Estimate, start_by: float
    ) -> Reservation | None:
        """Reserve capacity at the provider of the first of ``candidates`` that has any. Returns ``None`` if nothing
        is limited; that costs no actor call.

        Waits until ``start_by``, on Trio's clock, and within `wait_s`. Raises `LLMClientError` if there will be no
        capacity in time. Limit the wait with ``start_by``, not with a cancel scope: the limiter reads the
        deadline of the current scope and makes the lease that long, and with a scope for the wait alone, the lease
        would end before the attempt.
        """
        services, caller = self._services, self._context.request.caller
        models: dict[str, str] = {}
        for candidate in candidates:
            models.setdefault(candidate.provider, candidate.model)
        names = tuple(models)
        if not self._is_limited(candidates):
            return None
        spend = services.accounting.asks(self._context.payer, models, estimate, services.cost_of)
        begun = trio.current_time()
        try:
            return await reserve(
                services.limiter,
                names,
                tokens=estimate.total_tokens,
                caller=caller,
                priority=self._priority,
                waited_s=plan.waited_s,
                models=tuple(models.values()),
                spend=spend,
                deadline=start_by,
            )
        except CallExpired:
            message = f"no capacity at {', '.join(names)} before the request's deadline"
            raise error_for(Failure(kind=FailureKind.DEADLINE, message=message)) from None
        except KernelError as exc:
            raise error_for(failure_of(exc, "limiter")) from exc
        finally:
            plan.waited_s += trio.current_time() - begun


def _held(failure: Failure, candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate that the limiter refused because its deployment is held; ``None`` if there is none."""
    if failure.kind is not FailureKind.RATE_LIMITED:
        return None
    return next((each for each in candidates if each == (failure.provider, failure.model)), None)


def _overloaded(candidate: Candidate, seconds: float, waiting: int) -> Failure:
    return Failure(
        kind=FailureKind.OVERLOADED,
        message=f"{candidate}: not tried, because {waiting} requests wait for it, and after them too little time would "
        "be left before the request's deadline",
        provider=candidate.provider,
        model=candidate.model,
        retry_after=max(LATE_RETRY_SECONDS, seconds),
        limit_owner="provider",
    )
