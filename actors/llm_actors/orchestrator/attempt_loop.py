"""The single path: one answer to one request, however many attempts it takes.

rank -> limiter -> provider -> settle, and after a failure what the plan says. Strategies that ask several models
run one of these for each. Nothing here waits without the run's deadline around it, and each attempt is settled in
the books of limiter and selector whatever ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from math import inf
from typing import NamedTuple, final

import msgspec
import trio

from llm_actors.catalog import Candidate
from llm_actors.kernel import KernelError
from llm_actors.limiter import Reservation, reserve
from llm_actors.limiter.overload import least_time
from llm_actors.orchestrator.attempt import Attempt, AttemptContext
from llm_actors.orchestrator.hedge import hedged
from llm_actors.orchestrator.load import Slot, waiting_for
from llm_actors.orchestrator.plan import Again, AttemptPlan, Move, Stop
from llm_actors.orchestrator.ranked import ranked
from llm_actors.orchestrator.services import Services
from llm_actors.orchestrator.stream_recovery import StreamRecovery
from llm_actors.provider import AttemptResult, failure_of
from llm_actors.selector import Ranking
from llm_protocol.errors import LLMClientError, error_for
from llm_protocol.estimate import Estimate
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import PROVIDER_WAIT_SECONDS, Attempts
from llm_protocol.requests import AnyRequest, CompletionRequest

USUAL_PRIORITY = 5
"""The priority of a request that says none."""

LATE_RETRY_SECONDS = 1.0
"""When to come back after a wait in vain: nobody has counted, but something will have moved."""

RETRY_ROOM_SECONDS = 1.0
"""How long a retry waits for room while others are at hand."""

HEDGE_ROOM_SECONDS = 0.05
"""How long a hedge waits for room; it is no help if it comes late."""


class RunResult(NamedTuple):
    """How it ended, and who had the last word; ``None``: nobody was asked."""

    end: Finished | Failed
    candidate: Candidate | None


@final
class AttemptLoop:
    """The attempts at one `AttemptContext`. Made, run once, thrown away."""

    __slots__ = ("_ask", "_asked", "_called", "_rescue", "_services", "_speaker", "_tried")

    def __init__(self, services: Services, ask: AttemptContext) -> None:
        self._services = services
        self._ask = ask
        self._rescue = StreamRecovery(ask.log, ask.on_broken_stream)
        self._tried: Candidate | None = None
        self._called: Candidate | None = None
        """Who was asked last."""
        self._speaker: Candidate | None = None
        """Whose content the followers have."""
        self._asked = False
        """Whether the latest attempt came to a call."""

    async def answer(self) -> RunResult:
        """Attempt until there is an answer or nothing more may be tried. Raises only `trio.Cancelled` and bugs."""
        # Those whose breaker is open come last. They are refused without a call, and waited for if nobody else is left.
        ranked = self._rank().candidates
        plan = AttemptPlan(
            ranked[:1] if self._ask.policy.strategy == "single" else ranked,
            self._attempts(),
            deadline=self._ask.deadline,
            may_retry=self._may_retry,
            fits=self._has_more_room,
            draw=self._services.draw,
            wait_s=self._wait_s,
        )
        request: AnyRequest | None = self._ask.request
        waited = 0.0
        while True:
            assert request is not None
            ending = await self._attempt(plan, request, waited)
            if isinstance(ending.end, Finished):
                self._rescue.commit()
                return ending
            failure = ending.end.failure
            if failure.partial:
                self._speaker = ending.candidate
            move = self._move(plan, ending, failure)
            request = None if isinstance(move, Stop) else self._rescue.resume(self._ask.request)
            if request is None or not self._can_go_on(plan):
                self._ask.record.stopped = self._why_stopped(move, request)
                return self._failed(ending, failure)
            same = plan.current == ending.candidate  # who cannot go on with a text is not waited for
            waited = move.after_s if isinstance(move, Again) and same else 0.0
            await trio.sleep(waited)

    def _attempts(self) -> Attempts:
        patch, usual = self._ask.policy.attempts, self._services.attempts
        return patch.over(usual) if patch else usual

    def _move(self, plan: AttemptPlan[Candidate], ending: RunResult, failure: Failure) -> Move:
        if ending.candidate is None:
            return Stop("no room in time")
        plan.deadline = self._ask.deadline
        return plan.after(failure, trio.current_time(), asked=self._asked)

    def _rank(self) -> Ranking:
        ask, services = self._ask, self._services
        ranking = ranked(services, ask.request, ask.candidates, ask.policy, draw=services.draw())
        ask.record.ranked(ranking)
        return ranking

    # -- one attempt -------------------------------------------------------------------------------------------------

    async def _attempt(self, plan: AttemptPlan[Candidate], request: AnyRequest, waited: float) -> RunResult:
        """One attempt at whoever of the plan has room first, settled in all books."""
        loads = self._services.loads
        if (overloaded := self._avoid_queues(plan)) is not None:
            return RunResult(Failed(failure=overloaded), None)
        estimate = self._services.estimator.estimate(str(plan.current), request)
        with ExitStack() as held:
            try:
                with waiting_for(loads, tuple(dict.fromkeys(each.provider for each in plan.open))):
                    room = await self._room(plan, estimate)
                    held.enter_context(room or nullcontext())
                    slot = held.enter_context(await self._slot(plan))
            except LLMClientError as exc:
                unwanted = _held(exc.failure, plan.open)
                if unwanted is None:
                    return RunResult(Failed(failure=exc.failure), None)
                plan.take(unwanted)
                return self._barred(unwanted, exc.failure, waited)
            candidate = plan.current
            barred = self._unpaid(candidate, estimate, is_last=not plan.others) or self._admit(
                candidate, plan.others, estimate
            )
            if barred is not None:
                return self._barred(candidate, barred, waited)
            slot.use()
            self._asked = True
            asking = Attempt(self._services, self._ask, candidate, request, estimate, room=room, waited_s=waited)
            if (delay := self._hedge_delay(plan)) is None:
                return RunResult((await asking.run(self._rescue.sink)).end, candidate)
            return await self._hedged(plan, asking, request, delay)

    def _barred(self, candidate: Candidate, why: Failure, waited: float) -> RunResult:
        """The result of an attempt that came to no call."""
        self._asked = False
        refused = AttemptResult(end=Failed(failure=why), duration_s=0.0)
        self._ask.record.attempted(candidate, refused, asked=False, waited_s=waited)
        return RunResult(Failed(failure=why), candidate)

    def _avoid_queues(self, plan: AttemptPlan[Candidate]) -> Failure | None:
        """Take the first candidate whose queue leaves time enough. If there is none, why the first was not taken."""
        now, first = trio.current_time(), None
        left = self._ask.deadline - now
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
        """When an attempt at ``candidate`` must begin to have a chance; the deadline itself if it has none any more."""
        deadline, least = self._ask.deadline, least_time(self._times(candidate))
        return deadline if least is None or deadline - least <= trio.current_time() else deadline - least

    async def _slot(self, plan: AttemptPlan[Candidate]) -> Slot:
        """One of the slots of the current candidate's provider. Raises `LLMClientError` when there is none in time, or
        within `wait_s`.
        """
        candidate, begun = plan.current, trio.current_time()
        load, wait_s = self._services.loads[candidate.provider], self._wait_s(candidate)
        if (slot := load.take_nowait()) is not None:
            return slot
        start_by, patient_until = self._start_by(candidate), begun + max(0.0, wait_s - plan.waited_s)
        until = min(start_by, patient_until)
        slot = await load.take(until, caller=self._ask.request.caller, priority=self._priority)
        plan.waited_s += trio.current_time() - begun
        if slot is not None:
            return slot
        overloaded = _overloaded(candidate, LATE_RETRY_SECONDS, load.waiting)
        if until < start_by:
            message = f"{candidate}: not asked, because none of its slots was free within {wait_s:g} s (wait_s)"
            overloaded = msgspec.structs.replace(overloaded, message=message)
        raise error_for(overloaded)

    @property
    def _priority(self) -> int:
        priority = self._ask.policy.priority
        return USUAL_PRIORITY if priority is None else priority

    def _unpaid(self, candidate: Candidate, estimate: Estimate, *, is_last: bool) -> Failure | None:
        """Why ``candidate`` cannot be paid, if there is a budget."""
        purse = self._ask.purse
        return None if purse is None else purse.refuses(candidate, estimate, self._ask.request, is_last=is_last)

    def _admit(self, candidate: Candidate, others: list[Candidate], estimate: Estimate) -> Failure | None:
        """Why ``candidate`` is not asked now. A fallback that is usually slower than the time left is not (RTY-07)."""
        now, first = trio.current_time(), self._tried is None
        self._tried = candidate
        within = inf if first else self._ask.deadline - now
        barred = self._services.selector.admit(
            candidate,
            now,
            extra=candidate == self._called,
            within_s=within,
            others=others,
            asked=self._called is not None,
            request_type=self._ask.request.request_type,
            usage=estimate.usage,
        )
        if barred is None:
            self._called = candidate
        return barred

    async def _room(self, plan: AttemptPlan[Candidate], estimate: Estimate) -> Reservation | None:
        """Room at one of the plan's candidates, which is then its current one."""
        if plan.retrying and plan.others:  # a retry is worth no long wait for room while others are at hand
            with trio.move_on_after(RETRY_ROOM_SECONDS), suppress(LLMClientError):
                return await self._reserve(plan, [plan.current], estimate, self._start_by(plan.current))
            plan.take(plan.others[0])
        try:
            room = await self._reserve(plan, plan.open, estimate, self._start_by(plan.current))
        except LLMClientError as exc:
            unlimited = self._unlimited(plan) if exc.failure.rule.actor_down else None
            if unlimited is None:
                raise
            plan.take(unlimited)
            return None
        if room is not None:
            plan.take(next(candidate for candidate in plan.open if candidate.provider == room.provider))
        return room

    def _unlimited(self, plan: AttemptPlan[Candidate]) -> Candidate | None:
        """Who may be asked without the limiter."""
        services = self._services
        if self._ask.request.caller in services.caller_limits:
            return None
        return next((each for each in plan.open if each.provider not in services.limits), None)

    async def _reserve(
        self, plan: AttemptPlan[Candidate], candidates: Sequence[Candidate], estimate: Estimate, start_by: float
    ) -> Reservation | None:
        """Room at the provider of the first of ``candidates`` that has it; ``None`` where nothing is limited, which
        costs no call.

        Waits until ``start_by``, on Trio's clock, and within `wait_s`. Raises `LLMClientError` when there will be no
        room in time.
        """
        services, caller = self._services, self._ask.request.caller
        models: dict[str, str] = {}
        for candidate in candidates:
            models.setdefault(candidate.provider, candidate.model)
        names = tuple(models)
        if caller not in services.caller_limits and services.limits.keys().isdisjoint(names):
            return None
        begun = trio.current_time()
        try:
            with trio.CancelScope(deadline=start_by):
                return await reserve(
                    services.limiter,
                    names,
                    tokens=estimate.total_tokens,
                    caller=caller,
                    priority=self._priority,
                    waited_s=plan.waited_s,
                    models=tuple(models.values()),
                )
        except KernelError as exc:
            raise error_for(failure_of(exc, "limiter")) from exc
        finally:
            plan.waited_s += trio.current_time() - begun
        raise error_for(Failure(kind=FailureKind.DEADLINE, message=f"no room at {', '.join(names)} in time"))

    def _wait_s(self, candidate: Candidate) -> float:
        return self._services.waits.get(candidate.provider, PROVIDER_WAIT_SECONDS)

    # -- hedging -----------------------------------------------------------------------------------------------------

    def _hedge_delay(self, plan: AttemptPlan[Candidate]) -> float | None:
        """After how many seconds a second candidate is asked as well; ``None``: not at all."""
        if not self._ask.policy.hedge or not plan.others or self._rescue.continuing:
            return None
        stream, request_type = self._ask.stream, self._ask.request.request_type
        now = trio.current_time()
        return self._services.selector.hedge_after(plan.current, now, stream=stream, request_type=request_type)

    async def _hedged(
        self, plan: AttemptPlan[Candidate], asking: Attempt, request: AnyRequest, delay_s: float
    ) -> RunResult:
        other, selector = plan.others[0], self._services.selector
        estimate = self._services.estimator.estimate(str(other), request)
        room: Reservation | None = None
        with ExitStack() as rooms:

            async def find_room() -> bool:
                nonlocal room
                with trio.move_on_after(HEDGE_ROOM_SECONDS), suppress(LLMClientError):
                    room = await self._reserve(plan, [other], estimate, self._ask.deadline)
                    rooms.enter_context(room or nullcontext())
                    return True
                return False

            def second() -> Attempt | None:
                now = trio.current_time()
                unpaid = self._unpaid(other, estimate, is_last=False)
                if unpaid is not None or not selector.may_hedge(asking.candidate, now):
                    return None
                slot = self._services.loads[other.provider].take_nowait()
                if slot is None:  # whoever waits for one is asked for the first time
                    return None
                rooms.enter_context(slot)
                barred = selector.admit(other, now, extra=True, request_type=request.request_type, usage=estimate.usage)
                if barred is not None:
                    return None
                slot.use()
                return Attempt(self._services, self._ask, other, request, estimate, room=room, hedge=True)

            raced = await hedged(asking, delay_s, find_room, rooms.close, second, self._rescue.sink)
        plan.take(raced.winner.candidate)
        if raced.failed_too is not None:
            plan.drop_unless(lambda each: each != raced.failed_too)
        return RunResult(raced.outcome.end, raced.winner.candidate)

    # -- between attempts --------------------------------------------------------------------------------------------

    def _may_retry(self, candidate: Candidate) -> bool:
        return self._services.selector.may_retry(candidate, trio.current_time())

    def _has_more_room(self, small: Candidate, other: Candidate) -> bool:
        """Whether ``other`` may take a prompt too long for ``small``. An unknown window is worth a try."""
        catalog = self._services.catalog
        have, offers = catalog.context_window(small), catalog.context_window(other)
        return have is None or offers is None or offers > have

    def _can_go_on(self, plan: AttemptPlan[Candidate]) -> bool:
        """Whether somebody is left who can do what the next attempt needs."""
        if not self._rescue.continuing or isinstance(self._ask.request, CompletionRequest):
            return True
        return plan.drop_unless(self._services.accepts_prefill)

    def _failed(self, ending: RunResult, failure: Failure) -> RunResult:
        told, partial = self._ask.record.failure(failure), self._rescue.delivered
        who = self._speaker if partial else ending.candidate
        return RunResult(Failed(failure=msgspec.structs.replace(told, partial=partial)), who)

    @staticmethod
    def _why_stopped(move: Move, request: AnyRequest | None) -> str:
        if isinstance(move, Stop):
            return move.why
        return "content had been delivered" if request is None else "nobody is left who can go on with a text"


def _held(failure: Failure, candidates: Sequence[Candidate]) -> Candidate | None:
    """Which of ``candidates`` the limiter refused because its vendor wants nothing for that model; ``None``: none."""
    if failure.kind is not FailureKind.RATE_LIMITED:
        return None
    return next((each for each in candidates if each == (failure.provider, failure.model)), None)


def _overloaded(candidate: Candidate, seconds: float, waiting: int) -> Failure:
    return Failure(
        kind=FailureKind.OVERLOADED,
        message=f"{candidate}: not asked, because its queue of {waiting} would leave too little time",
        provider=candidate.provider,
        model=candidate.model,
        retry_after=max(LATE_RETRY_SECONDS, seconds),
        limit_owner="provider",
    )
