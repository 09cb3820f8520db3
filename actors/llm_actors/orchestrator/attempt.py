"""One attempt at one candidate. However it ends, its result is settled with the limiter, the budget, the selector
and the estimator.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol, final

import msgspec
import trio

from llm_actors.catalog import Candidate
from llm_actors.kernel import KernelError
from llm_actors.orchestrator.attempt_events import AttemptEnded, AttemptStarted
from llm_actors.orchestrator.decision_record import AttemptRecord, UnderWay
from llm_actors.orchestrator.load import Reserved
from llm_actors.orchestrator.services import AttemptContext, Services
from llm_actors.orchestrator.spending import Delivered, booked
from llm_actors.provider import AttemptResult, Generate, Prepared, Sink, failure_of
from llm_actors.run import LogLimitExceeded
from llm_actors.selector import StreamBegan, observe, pause_after, scope_of
from llm_actors.store.ledger import LedgerEntry
from llm_protocol.adjustments import Adjustment
from llm_protocol.estimate import ASCII_PER_TOKEN
from llm_protocol.events import DELTAS, Event, Failed, ItemDone, Started, TextDelta, UsageReported
from llm_protocol.failures import Failure, FailureKind, Scope
from llm_protocol.model_rules import without_thinking
from llm_protocol.parameters.requested import name_of
from llm_protocol.requests import AnyRequest, EmbeddingRequest, ImageRequest
from llm_protocol.response import Usage


def shown_to(candidate: Candidate, request: AnyRequest, services: Services) -> AnyRequest:
    """Return the request as it is sent to a candidate after the first: without the reasoning of another model, if the
    candidate refuses such reasoning.
    """
    return request if services.catalog.accepts_foreign_reasoning(candidate) else without_thinking(request)


class EventSink(Protocol):
    """Takes the events of an attempt."""

    direct: Sink | None
    """Takes the next event instead of `sink`, if nothing has to be decided about it. Read it for each event."""

    def sink(self, event: Event) -> None:
        """Take the next event. Raises `LogLimitExceeded`."""
        ...


@final
class Attempt:
    """One attempt. ``request`` may differ from the caller's request: it may continue a response where another attempt
    broke off. ``prepared`` is the request adapted to the candidate, if it was adapted before.
    """

    __slots__ = (
        "_began",
        "_claim",
        "_context",
        "_delivered",
        "_estimate",
        "_first_at",
        "_has_begun",
        "_has_told_limit",
        "_hold",
        "_into",
        "_is_sent",
        "_lowered_to",
        "_prepared",
        "_question",
        "_reported_model",
        "_reported_usage",
        "_request",
        "_reservation",
        "_services",
        "_waited_s",
        "candidate",
        "hedge",
        "usage",
    )  # fmt: skip

    def __init__(
        self,
        services: Services,
        context: AttemptContext,
        claim: Reserved,
        request: AnyRequest,
        *,
        waited_s: float = 0.0,
        hedge: bool = False,
        prepared: Prepared | None = None,
    ) -> None:
        candidate, estimate, reservation = claim.candidate, claim.estimate, claim.reservation
        self.candidate = candidate
        self._claim = claim
        self._question = request
        self._services = services
        self._context = context
        self._request = request
        self._estimate = estimate
        self._reservation = reservation
        self._hold = context.budget.hold(candidate, estimate, request) if context.budget is not None else None
        self._lowered_to: int | None = None
        """The most tokens that the vendor may write, if a budget allows fewer than the request does."""
        if self._hold is not None:
            self._request = self._hold.limit(request)
            allowed = _most_tokens(self._request)
            self._lowered_to = None if allowed == _most_tokens(request) else allowed
        self._prepared = prepared if self._request is request else None
        if reservation is not None and reservation.warning:
            context.record.budgets = reservation.warning
        self._waited_s = waited_s
        self.hedge = hedge
        self._into: EventSink | None = None
        self._reported_usage: UsageReported | None = None
        self._reported_model = ""
        self._began = 0.0
        self._first_at: float | None = None
        self._delivered = Delivered()
        self._is_sent = False
        self._has_told_limit = False
        self._has_begun = False
        """Whether any content has arrived."""
        self.usage: Usage | None = None
        """The usage of the attempt once it has ended; ``None`` if it used nothing."""

    def hedge_with(self, claim: Reserved) -> Attempt:
        """Return another attempt at the same request, with the permission ``claim``, to be made concurrently."""
        question = shown_to(claim.candidate, self._question, self._services)
        return Attempt(self._services, self._context, claim, question, hedge=True)

    async def run(self, into: EventSink) -> AttemptResult:
        """Make the call, pass the events to ``into``, and settle the result. Raises only `trio.Cancelled` and bugs,
        both after the settlement.
        """
        self._into = into
        began = self._began = trio.current_time()
        if (tell := self._services.listener.tell) is not None:
            who = self.candidate
            tell(AttemptStarted(request_id=self._request.request_id, provider=who.provider, model=who.model))
        try:
            with UnderWay(self._context.record, self.candidate, began, self._spent):
                outcome = await self._generate(began)
        except BaseException:
            self._settle(self._cancelled(began), began)
            raise
        self._settle(outcome, began)
        return outcome

    async def _generate(self, began: float) -> AttemptResult:
        services, patch, provider = self._services, self._context.policy.timeouts, self.candidate.provider
        prepared, self._prepared = self._prepared, None
        try:
            return await services.providers[provider].call(
                Generate(
                    request=self._request.to(self.candidate.model),
                    stream=self._context.stream,
                    sink=self._take,
                    timeouts=patch.over(services.timeouts[provider]) if patch else None,
                    on_sent=self._sent,
                    prepared=prepared,
                )
            )
        except KernelError as exc:
            failure = failure_of(exc, provider).at(
                provider=provider, model=self.candidate.model, partial=self._first_at is not None
            )
            return AttemptResult(end=Failed(failure=failure), duration_s=trio.current_time() - began)

    def _sent(self) -> None:
        """Note that the request is being sent: from now on the vendor may work on it."""
        self._is_sent = True
        if self._reservation is not None:
            self._reservation.sent()

    def _take(self, event: Event) -> None:
        """Count the usage that an event reports, and forward the event. Events after the settlement are dropped."""
        if (into := self._into) is None:
            # The provider's task may have been scheduled with data in the same pass in which ours was cancelled. The
            # budget is settled and the run may have ended, so nothing may change any more.
            self._services.metrics.drop_late_event()
            return
        self._has_begun = True
        if isinstance(event, DELTAS):
            if type(event) is TextDelta and event.text.isascii():  # as most deltas: without the calls
                self._delivered.text += len(event.text) / ASCII_PER_TOKEN
            else:
                self._delivered.add(event)
            if self._hold is not None:
                self._hold.grow(self._delivered.text + self._delivered.thought)
            if self._first_at is None:
                self._note_first()
        elif type(event) is UsageReported:
            self._reported_usage = event
        elif type(event) is Started:
            self._reported_model = event.model
        elif type(event) is ItemDone:
            self._delivered.add_item(event)
        if self._lowered_to is not None and not self._has_told_limit and (adjusted := self._lowered()) is not None:
            self._has_told_limit = True
            if type(event) is Started:
                event = msgspec.structs.replace(event, adjusted=(*event.adjusted, adjusted))
            else:  # for a vendor that does not announce the start
                into.sink(Started(provider=self.candidate.provider, adjusted=(adjusted,)))
        (into.direct or into.sink)(event)

    def _note_first(self) -> None:
        """Note that the first content has arrived, and report that to the selector if the attempt is streamed."""
        first = self._first_at = trio.current_time()
        if self._context.stream and self._services.selector.stream_began(
            self.candidate, self, first, began=self._began, request_type=self._request.request_type
        ):
            # A stream may take minutes to its end, but requests that wait for this probe need only its first token.
            self._services.observer.cast(StreamBegan(candidate=self.candidate, began=self._began, at=first))

    def _settle(self, outcome: AttemptResult, began: float) -> None:
        """Report the result to limiter, selector and estimator, and add it to the decision record. Release the slot: a
        hedge may continue for minutes. Does not wait.
        """
        self._services.selector.stream_ended(self.candidate, self)
        services, candidate = self._services, self.candidate
        failure = outcome.end.failure if isinstance(outcome.end, Failed) else None
        self._is_sent = self._is_sent and not outcome.unsent  # a kept connection was dead, and there was no other
        usage, cost = self._spent(failure)
        self.usage = usage
        if failure is None and usage is not None:
            self._learn(usage)
        self._into = None
        if self._hold is not None:
            self._hold.settle(usage, cost)
        cancelled = failure is not None and failure.kind is FailureKind.CANCELLED
        # An attempt that reached the deadline without a connection failed; one that another response made unnecessary
        # was never made.
        never_left = cancelled and not self._is_sent and trio.current_time() < self._context.deadline()
        made = self._context.record.attempted(
            candidate,
            outcome,
            called=not never_left,
            waited_s=self._waited_s,
            hedge=self.hedge,
            max_output_tokens=self._lowered_to,
            usage=usage,
            cost=cost,
        )
        self._end_reservation(outcome, failure, usage, self._entry(made, never_left=never_left))
        self._claim.give_back()
        observe(
            services.observer,
            candidate,
            outcome,
            request_type=self._request.request_type,
            began=began,
            stream=self._context.stream,
            usage=usage,
            cost=cost,
        )
        if services.listener.tell is not None:
            services.listener.tell(
                AttemptEnded(
                    request_id=self._request.request_id,
                    provider=candidate.provider,
                    model=candidate.model,
                    outcome=made.outcome,
                    duration_s=outcome.duration_s,
                    usage=usage,
                    cost=cost,
                )
            )
        if not never_left:
            services.metrics.attempt(made, self._context.request.caller, stream=self._context.stream)

    def _end_reservation(
        self, outcome: AttemptResult, failure: Failure | None, usage: Usage | None, entry: LedgerEntry | None
    ) -> None:
        """Settle or refund the limiter's reservation, if there is one."""
        if self._reservation is None:
            return
        if failure is None:
            self._reservation.settle(usage, outcome.limits, entry=entry)
            return
        self._reservation.refund(
            failure.kind,
            retry_after=failure.retry_after if pause_after(failure) else None,
            of_model=scope_of(failure, unsent=outcome.unsent) is Scope.DEPLOYMENT,
            limits=outcome.limits,
            unsent=outcome.unsent or not self._is_sent,
            entry=entry,
        )

    def _entry(self, made: AttemptRecord, *, never_left: bool) -> LedgerEntry | None:
        """Return the ledger row that the limiter must write, if budgets pay. Otherwise write the row here and return
        ``None``.
        """
        accounting, is_budgeted = (
            self._services.accounting,
            self._reservation is not None and self._reservation.is_budgeted,
        )
        if never_left or not (is_budgeted or accounting.writes):
            return None
        entry = accounting.entry(self._context.payer, self.candidate, made)
        if is_budgeted:
            return entry
        accounting.record(entry)
        return None

    def _lowered(self) -> Adjustment | None:
        """Return the adjustment to report if a budget has lowered a limit that the client had set."""
        lowered, named = self._lowered_to, _most_tokens(self._question)
        if lowered is None or named is None or isinstance(self._question, EmbeddingRequest | ImageRequest):
            return None
        return Adjustment(name_of("max_output_tokens", self._question.parameters.wire), "translated", lowered)

    def _spent(self, failure: Failure | None = None) -> tuple[Usage | None, float | None]:
        """Return the current usage, and its cost in US dollars. ``failure``: the attempt's failure, if any."""
        if not self._is_sent or (failure is not None and not self._has_begun and not failure.billed):
            return None, None
        services, who = self._services, self.candidate
        ratio, billed = services.estimator.output_ratio(who), services.estimator.billed_input(who, self._estimate)
        usage = booked(self._reported_usage, self._delivered, self._estimate.input_tokens, ratio, billed)
        return usage, services.cost(self.candidate, self._reported_model, usage)

    def _learn(self, usage: Usage) -> None:
        """Improve the estimates of prompts and responses with the usage of a complete response. If ``usage`` is
        itself an estimate, report it to the followers instead.
        """
        estimator, who = self._services.estimator, self.candidate
        if usage.estimated:
            if self._into is not None:
                with suppress(LogLimitExceeded):
                    self._into.sink(UsageReported(usage))
            return
        estimator.learn(who, self._estimate, usage)
        estimator.learn_output(who, *self._delivered.shown(usage))

    def _cancelled(self, began: float) -> AttemptResult:
        """Return the result of a cancelled attempt. If it was cancelled during its output, its first token was not
        late, so the time of the first token is reported.
        """
        failure = Failure(kind=FailureKind.CANCELLED, message="cancelled", partial=self._first_at is not None)
        first = None if self._first_at is None else self._first_at - began
        return AttemptResult(end=Failed(failure=failure), first_token_s=first, duration_s=trio.current_time() - began)


def _most_tokens(request: AnyRequest) -> int | None:
    return None if isinstance(request, EmbeddingRequest | ImageRequest) else request.parameters.max_output_tokens
