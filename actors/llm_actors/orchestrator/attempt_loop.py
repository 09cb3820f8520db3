"""The attempts of one request: rank, reserve, attempt, and after a failure follow the plan.

Strategies with several models run one loop for each model. Every wait in this module ends at the run's deadline.
"""

from __future__ import annotations

from typing import final

import msgspec
import trio

from llm_actors.catalog import Candidate
from llm_actors.orchestrator.attempt import Attempt, shown_to
from llm_actors.orchestrator.candidates import CapableCandidates, ranked
from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.hedge import HedgeClaim, hedged
from llm_actors.orchestrator.plan import Again, AttemptPlan, Move, Stop
from llm_actors.orchestrator.reserve import NotReserved, Reserving
from llm_actors.orchestrator.services import AttemptContext, Services
from llm_actors.orchestrator.stream_recovery import StreamRecovery
from llm_actors.provider import AttemptResult
from llm_actors.selector import Ranking
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import Attempts
from llm_protocol.requests import AnyRequest, CompletionRequest

WHOSE_KEY = "(The provider refused the API key that this runtime is configured with.)"
"""Added to the message of a failure because of a refused key. Vendors write "your API key", and callers would take that
for the key that they sent to the runtime.
"""


@final
class AttemptLoop:
    """The attempts of one `AttemptContext`. Create one per context, and call `answer` once."""

    __slots__ = ("_called", "_capable", "_context", "_first", "_rescue", "_reserving", "_services", "_speaker")

    def __init__(self, services: Services, context: AttemptContext) -> None:
        self._services = services
        self._context = context
        # Candidates with an open circuit come last. They are refused without a call, and waited for if no other is
        # left.
        self._capable = CapableCandidates(services, context, self._rank().candidates)
        self._reserving = Reserving(services, context, self._capable)
        self._rescue = StreamRecovery(context.log, context.on_broken_stream)
        self._speaker: Candidate | None = None
        """The candidate whose content the followers have received."""
        self._called = False
        """Whether the latest attempt made a call."""
        self._first: Candidate | None = None
        """The candidate that was tried first."""

    async def answer(self) -> RunResult:
        """Make attempts until there is a response or no further attempt is allowed. Raises only `trio.Cancelled` and
        bugs.
        """
        candidates = await self._capable.from_first()
        if not candidates:
            return RunResult(Failed(failure=self._capable.refusal()), None)
        plan = AttemptPlan(
            candidates[:1] if self._context.policy.strategy == "single" else candidates,
            self._attempts(),
            deadline=self._context.deadline(),
            may_retry=self._may_retry,
            fits=self._has_more_room,
            draw=self._services.draw,
            wait_s=self._reserving.wait_s,
        )
        request: AnyRequest | None = self._context.request
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
            await self._capable.drop_others(plan)
            move = self._move(plan, ending, failure)
            request = None if isinstance(move, Stop) else self._rescue.resume(self._context.request)
            if request is None or not self._can_go_on(plan):
                self._context.record.stopped = self._why_stopped(move, request)
                return self._failed(ending, failure)
            same = plan.current == ending.candidate  # do not wait for a candidate that cannot continue a text
            waited = move.after_s if isinstance(move, Again) and same else 0.0
            await trio.sleep(waited)

    def _attempts(self) -> Attempts:
        patch, usual = self._context.policy.attempts, self._services.attempts
        return patch.over(usual) if patch else usual

    def _move(self, plan: AttemptPlan[Candidate], ending: RunResult, failure: Failure) -> Move:
        if ending.candidate is None:
            return Stop("no candidate had capacity in time")
        plan.deadline = self._context.deadline()
        return plan.after(failure, trio.current_time(), called=self._called)

    def _rank(self) -> Ranking:
        context, services = self._context, self._services
        ranking = ranked(services, context.request, context.candidates, context.policy, draw=services.draw())
        context.record.ranked(ranking)
        return ranking

    # -- one attempt -------------------------------------------------------------------------------------------------

    async def _attempt(self, plan: AttemptPlan[Candidate], request: AnyRequest, waited: float) -> RunResult:
        """Make one attempt at the first available candidate of the plan, and settle it."""
        if self._context.policy.hedge:
            await self._capable.drop_others(plan)
        claim = await self._reserving.claim(plan, request)
        if isinstance(claim, NotReserved):
            return self._not_called(claim, waited)
        with claim:
            self._called = True
            self._first = self._first or claim.candidate
            if claim.candidate != self._first:
                request = shown_to(claim.candidate, request, self._services)
            prepared = self._capable.take_prepared(claim.candidate) if request is self._context.request else None
            attempt = Attempt(self._services, self._context, claim, request, waited_s=waited, prepared=prepared)
            if (delay := self._hedge_delay(plan)) is None:
                return RunResult((await attempt.run(self._rescue)).end, claim.candidate)
            return await self._hedged(plan, attempt, request, delay)

    def _not_called(self, why: NotReserved, waited: float) -> RunResult:
        """Return the result of an attempt that made no call."""
        if why.candidate is not None:
            self._called = False
            refused = AttemptResult(end=Failed(failure=why.failure), duration_s=0.0)
            self._context.record.attempted(why.candidate, refused, called=False, waited_s=waited)
        return RunResult(Failed(failure=why.failure), why.candidate)

    def _hedge_delay(self, plan: AttemptPlan[Candidate]) -> float | None:
        """Return the seconds after which a second candidate is tried as well; ``None``: never."""
        if not self._context.policy.hedge or not plan.others or self._rescue.continuing:
            return None
        stream, request_type = self._context.stream, self._context.request.request_type
        now = trio.current_time()
        return self._services.selector.hedge_after(plan.current, now, stream=stream, request_type=request_type)

    async def _hedged(
        self, plan: AttemptPlan[Candidate], attempt: Attempt, request: AnyRequest, delay_s: float
    ) -> RunResult:
        with HedgeClaim(self._services, self._reserving, plan, attempt.candidate, request) as second:
            raced = await hedged(attempt, delay_s, second, self._rescue, deadline=self._context.deadline())
        plan.take(raced.winner.candidate)
        if raced.failed_too is not None:
            plan.drop_unless(lambda each: each != raced.failed_too)
        return RunResult(raced.outcome.end, raced.winner.candidate)

    # -- between attempts --------------------------------------------------------------------------------------------

    def _may_retry(self, candidate: Candidate) -> bool:
        return self._services.selector.may_retry(candidate, trio.current_time())

    def _has_more_room(self, small: Candidate, other: Candidate) -> bool:
        """Return whether ``other`` may accept a prompt that is too long for ``small``: also if one of the context
        windows is unknown.
        """
        catalog = self._services.catalog
        have, offers = catalog.context_window(small), catalog.context_window(other)
        return have is None or offers is None or offers > have

    def _can_go_on(self, plan: AttemptPlan[Candidate]) -> bool:
        """Return whether a candidate is left that supports the next attempt, and remove the others from the plan."""
        if not self._rescue.needs_prefill or isinstance(self._context.request, CompletionRequest):
            return True
        return plan.drop_unless(self._services.accepts_prefill)

    def _failed(self, ending: RunResult, failure: Failure) -> RunResult:
        shown, partial = self._context.record.failure(failure), self._rescue.delivered
        if shown.kind is FailureKind.MODEL_NOT_FOUND and ending.candidate is not None:
            near = self._services.catalog.near(ending.candidate)
            shown = msgspec.structs.replace(shown, message=shown.message + near)
        if shown.kind is FailureKind.AUTH:
            shown = msgspec.structs.replace(shown, message=f"{shown.message} {WHOSE_KEY}")
        who = self._speaker if partial else ending.candidate
        return RunResult(Failed(failure=msgspec.structs.replace(shown, partial=partial)), who)

    @staticmethod
    def _why_stopped(move: Move, request: AnyRequest | None) -> str:
        if isinstance(move, Stop):
            return move.why
        return "content had been delivered" if request is None else "no candidate is left that can continue a text"
