"""The single path: one answer to one request, however many attempts it takes.

rank -> limiter -> provider -> settle, and after a failure what the plan says. Strategies that ask several models
run one of these for each. Nothing here waits without the run's deadline around it, and each attempt is settled in
the books of limiter and selector whatever ends it.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import inf
from typing import NamedTuple, final

import msgspec
import trio

from llm_actors.catalog import Candidate
from llm_actors.kernel import KernelError
from llm_actors.limiter import Reservation, reserve
from llm_actors.orchestrator.plan import Again, AttemptPlan, Stop
from llm_actors.orchestrator.record import Record
from llm_actors.orchestrator.rescue import Rescue
from llm_actors.orchestrator.services import Services
from llm_actors.provider import Outcome, failure_of, generate
from llm_actors.run import RunLog
from llm_actors.selector import Ranking, observe
from llm_protocol.errors import LLMClientError, error_for
from llm_protocol.estimate import Estimate
from llm_protocol.events import DELTAS, Event, Failed, Finished, UsageReported
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import OnBrokenStream, Policy
from llm_protocol.requests import AnyRequest, ChatRequest, CompletionRequest
from llm_protocol.response import Usage

USUAL_PRIORITY = 5
"""The priority of a request that says none."""

CONVERSATION_CHARACTERS = 1_000
"""How much of a conversation's first message tells it from others, where it has no name."""

CHARACTERS_PER_TOKEN = 4
"""For the length of what a broken attempt delivered, where the vendor did not count."""

# After these the vendor cannot have done any work that it would bill.
_UNBILLED = frozenset((
    FailureKind.AUTH, FailureKind.QUOTA, FailureKind.RATE_LIMITED, FailureKind.OVERLOADED, FailureKind.TIMEOUT_CONNECT,
    FailureKind.TLS, FailureKind.BAD_REQUEST, FailureKind.MODEL_NOT_FOUND, FailureKind.CONTEXT_LENGTH,
    FailureKind.UNSUPPORTED, FailureKind.QUEUE_FULL, FailureKind.PARKED, FailureKind.SHUTTING_DOWN,
))  # fmt: skip


class Ask(NamedTuple):
    """One question: what, of whom, how, and where the answer goes. ``deadline`` is on Trio's clock."""

    request: AnyRequest
    candidates: list[Candidate]
    policy: Policy
    on_broken_stream: OnBrokenStream
    stream: bool
    log: RunLog
    deadline: float
    record: Record


class Ending(NamedTuple):
    """How it ended, and who had the last word; ``None``: nobody was asked."""

    end: Finished | Failed
    candidate: Candidate | None


class _Meter:
    """Passes an attempt's events on, and counts what they say was used."""

    __slots__ = ("_sink", "length", "usage")

    def __init__(self, sink: Rescue) -> None:
        self._sink = sink.sink
        self.usage: Usage | None = None
        self.length = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, DELTAS):
            self.length += len(event.text)
        elif type(event) is UsageReported:
            self.usage = event.usage
        self._sink(event)


@final
class Single:
    """The attempts at one `Ask`. Made, run once, thrown away."""

    def __init__(self, services: Services, ask: Ask) -> None:
        self._services = services
        self._ask = ask
        self._rescue = Rescue(ask.log, ask.on_broken_stream)
        self._tried: Candidate | None = None

    async def answer(self) -> Ending:
        """Attempt until there is an answer or nothing more may be tried. Raises only `trio.Cancelled` and bugs."""
        # Those whose breaker is open come last. They are refused without a call, and waited for if nobody else is left.
        ranked = self._rank().candidates
        plan = AttemptPlan(
            ranked[:1] if self._ask.policy.strategy == "single" else ranked,
            self._ask.policy.attempts or self._services.attempts,
            deadline=self._ask.deadline,
            may_retry=self._may_retry,
            fits=self._has_more_room,
            draw=self._services.draw,
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
            move = plan.after(failure, trio.current_time()) if ending.candidate else Stop("no room in time")
            request = None if isinstance(move, Stop) else self._rescue.resume(self._ask.request)
            if request is None or not self._can_go_on(plan):
                self._ask.record.stopped = move.why if isinstance(move, Stop) else "content had been delivered"
                return self._failed(ending, failure)
            waited = move.after_s if isinstance(move, Again) else 0.0
            await trio.sleep(waited)

    def _rank(self) -> Ranking:
        ask, policy = self._ask, self._ask.policy
        ranking = self._services.selector.rank(
            ask.candidates,
            ask.request.request_type,
            select=policy.select or ("order" if policy.strategy == "fallback" else "score"),
            weights=self._services.weights,
            sticky_key=_conversation(ask.request),
            now=trio.current_time(),
            draw=self._services.draw(),
        )
        ask.record.ranked(ranking.record())
        return ranking

    # -- one attempt -------------------------------------------------------------------------------------------------

    async def _attempt(self, plan: AttemptPlan[Candidate], request: AnyRequest, waited: float) -> Ending:
        """One attempt at whoever of the plan has room first, settled in all books."""
        estimate = self._services.estimator.estimate(str(plan.current), request)
        try:
            room = await self._room(plan, estimate)
        except LLMClientError as exc:
            return Ending(Failed(failure=exc.failure), None)
        with room or nullcontext():
            if (barred := self._admit(plan.current)) is not None:
                self._ask.record.attempted(plan.current, Outcome(end=Failed(failure=barred), duration_s=0.0))
                return Ending(Failed(failure=barred), plan.current)
            return await self._ask_one(plan.current, request, estimate, room, waited)

    def _admit(self, candidate: Candidate) -> Failure | None:
        """Why ``candidate`` is not asked now. A fallback that is usually slower than the time left is not (RTY-07)."""
        now, first = trio.current_time(), self._tried is None
        retry = candidate == self._tried
        self._tried = candidate
        within = inf if first else self._ask.deadline - now
        return self._services.selector.admit(candidate, now, extra=retry, within_s=within)

    async def _room(self, plan: AttemptPlan[Candidate], estimate: Estimate) -> Reservation | None:
        """Room at one of the plan's candidates, which is then its current one. ``None`` where nothing is limited."""
        services, request = self._services, self._ask.request
        names = tuple(dict.fromkeys(candidate.provider for candidate in plan.open))
        if request.caller not in services.caller_limits and services.limits.keys().isdisjoint(names):
            return None
        priority = self._ask.policy.priority
        try:
            room = await reserve(
                services.limiter,
                names,
                tokens=estimate.total_tokens,
                caller=request.caller,
                priority=USUAL_PRIORITY if priority is None else priority,
            )
        except KernelError as exc:
            raise error_for(failure_of(exc, "limiter")) from exc
        plan.take(next(candidate for candidate in plan.open if candidate.provider == room.deployment))
        return room

    async def _ask_one(
        self,
        candidate: Candidate,
        request: AnyRequest,
        estimate: Estimate,
        room: Reservation | None,
        waited: float,
    ) -> Ending:
        meter = _Meter(self._rescue)
        began = trio.current_time()
        outcome: Outcome | None = None
        if room is not None:
            room.sent()
        try:
            outcome = await self._generate(candidate, request, meter)
        finally:
            if outcome is None:  # cancelled: the books are put right all the same
                failure = Failure(kind=FailureKind.CANCELLED, message="cancelled")
                outcome = Outcome(end=Failed(failure=failure), duration_s=trio.current_time() - began)
            self._settle(candidate, outcome, meter, estimate, room, began, waited)
        return Ending(outcome.end, candidate)

    async def _generate(self, candidate: Candidate, request: AnyRequest, meter: _Meter) -> Outcome:
        services, patch = self._services, self._ask.policy.timeouts
        timeouts = patch.over(services.timeouts[candidate.provider]) if patch else None
        began = trio.current_time()
        try:
            return await generate(
                services.providers[candidate.provider],
                request.to(candidate.model),
                stream=self._ask.stream,
                sink=meter,
                timeouts=timeouts,
            )
        except KernelError as exc:
            failure = failure_of(exc, candidate.provider).at(
                provider=candidate.provider, model=candidate.model, partial=meter.length > 0
            )
            return Outcome(end=Failed(failure=failure), duration_s=trio.current_time() - began)

    def _settle(
        self,
        candidate: Candidate,
        outcome: Outcome,
        meter: _Meter,
        estimate: Estimate,
        room: Reservation | None,
        began: float,
        waited: float,
    ) -> None:
        """Write the attempt into every book: limiter, selector, estimator, decision record. None of it waits."""
        services, end = self._services, outcome.end
        failure = end.failure if isinstance(end, Failed) else None
        usage = meter.usage if failure is None else meter.usage or _probable(failure, estimate, meter.length)
        cost = services.cost_of(candidate.provider, candidate.model, usage) if usage else None
        if failure is None and usage is not None:
            services.estimator.learn(str(candidate), estimate, usage)
        if room is not None:
            if failure is None:
                room.settle(usage, outcome.limits)
            else:
                room.refund(failure.kind, retry_after=failure.retry_after, limits=outcome.limits)
        output = usage.output_tokens if usage else 0
        observe(
            services.observer,
            candidate,
            outcome,
            began=began,
            stream=self._ask.stream,
            output_tokens=output,
            cost=cost,
        )
        self._ask.record.attempted(candidate, outcome, waited_s=waited, usage=usage, cost=cost)

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

    def _failed(self, ending: Ending, failure: Failure) -> Ending:
        told = self._ask.record.failure(failure)
        partial = failure.partial and self._rescue.delivered
        return Ending(Failed(failure=msgspec.structs.replace(told, partial=partial)), ending.candidate)


def _probable(failure: Failure, estimate: Estimate, length: int) -> Usage | None:
    """What a failed attempt probably took, where the vendor did not say; ``None`` where it cannot have taken
    anything.
    """
    if failure.kind in _UNBILLED:
        return None
    output = -(-length // CHARACTERS_PER_TOKEN)
    return Usage(input_tokens=estimate.input_tokens, output_tokens=output, estimated=True)


def _conversation(request: AnyRequest) -> str:
    """What makes requests belong together: the conversation named in the metadata, else its beginning."""
    named = request.metadata.get("conversation_id")
    if isinstance(named, str) and named:
        return f"{request.caller}/{named}"
    first = request.messages[0].text if isinstance(request, ChatRequest) and request.messages else ""
    return f"{request.caller}/{first[:CONVERSATION_CHARACTERS]}"
