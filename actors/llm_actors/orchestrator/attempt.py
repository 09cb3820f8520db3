"""Asking one candidate once, and writing what came of it into every book, whatever ended it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, final

import trio

from llm_actors.catalog import Allowed, Candidate
from llm_actors.kernel import KernelError
from llm_actors.limiter import Reservation
from llm_actors.orchestrator.decision_record import DecisionRecord
from llm_actors.orchestrator.services import Services
from llm_actors.provider import AttemptResult, Sink, failure_of, generate
from llm_actors.run import RunLog
from llm_actors.selector import Proof, Scope, observe, scope_of
from llm_protocol.estimate import Estimate
from llm_protocol.events import DELTAS, Event, Failed, Started, UsageReported
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import OnBrokenStream, Policy
from llm_protocol.requests import AnyRequest
from llm_protocol.response import Usage

CHARACTERS_PER_TOKEN = 4
"""For the length of what a broken attempt delivered, where the vendor did not count."""

# After these the vendor cannot have done any work that it would bill.
_UNBILLED = frozenset((
    FailureKind.AUTH, FailureKind.QUOTA, FailureKind.RATE_LIMITED, FailureKind.OVERLOADED, FailureKind.TIMEOUT_CONNECT,
    FailureKind.TLS, FailureKind.BAD_REQUEST, FailureKind.MODEL_NOT_FOUND, FailureKind.CONTEXT_LENGTH,
    FailureKind.UNSUPPORTED, FailureKind.QUEUE_FULL, FailureKind.PARKED, FailureKind.SHUTTING_DOWN,
))  # fmt: skip


class Hold(Protocol):
    """What one attempt may spend."""

    def grow(self, characters: int) -> None:
        """So much text has been delivered so far."""
        ...

    def settle(self, usage: Usage | None, cost: float | None) -> None:
        """It has ended, and took this; ``None``: not known."""
        ...


class AttemptBudget(Protocol):
    """What the attempts at one question are paid from, where there is a budget for them."""

    def refuses(self, candidate: Candidate, estimate: Estimate) -> Failure | None:
        """Why an attempt that is expected to take so much cannot be paid; ``None`` if it can."""
        ...

    def hold(self, candidate: Candidate, estimate: Estimate) -> Hold:
        """Put so much aside."""
        ...


class AttemptContext(NamedTuple):
    """One question: what, of whom, how, and where the answer goes. ``allowed``: the models that may have a part
    in it besides the candidates; ``None``: any.
    """

    request: AnyRequest
    candidates: list[Candidate]
    policy: Policy
    on_broken_stream: OnBrokenStream
    stream: bool
    log: RunLog
    until: Callable[[], float]
    """The deadline as it is now: a flight is given more time by whoever joins it with more."""
    record: DecisionRecord
    purse: AttemptBudget | None = None
    allowed: Allowed | None = None

    @property
    def deadline(self) -> float:
        """When there must be an end, on Trio's clock."""
        return self.until()


@final
class Attempt:
    """One attempt. ``request`` may differ from the question's own: it may go on where another attempt broke off."""

    __slots__ = (
        "_ask", "_began", "_estimate", "_first_at", "_hold", "_length", "_reported", "_request", "_room", "_services",
        "_sink", "_usage", "_waited_s", "candidate", "hedge",
    )  # fmt: skip

    def __init__(
        self,
        services: Services,
        ask: AttemptContext,
        candidate: Candidate,
        request: AnyRequest,
        estimate: Estimate,
        *,
        room: Reservation | None,
        waited_s: float = 0.0,
        hedge: bool = False,
    ) -> None:
        self.candidate = candidate
        self._services = services
        self._ask = ask
        self._request = request
        self._estimate = estimate
        self._room = room
        self._hold = ask.purse.hold(candidate, estimate) if ask.purse is not None else None
        self._waited_s = waited_s
        self.hedge = hedge
        self._sink: Sink | None = None
        self._usage: Usage | None = None
        self._reported = ""
        self._began = 0.0
        self._first_at: float | None = None
        self._length = 0

    async def run(self, sink: Sink) -> AttemptResult:
        """Ask, pass the events on to ``sink``, settle. Raises only `trio.Cancelled`, after settling, and bugs."""
        self._sink = sink
        began = self._began = trio.current_time()
        if self._room is not None:
            self._room.sent()
        try:
            with self._ask.record.asking(self.candidate):
                outcome = await self._generate(began)
        except BaseException:
            self._settle(self._cancelled(began), began)
            raise
        self._settle(outcome, began)
        return outcome

    async def _generate(self, began: float) -> AttemptResult:
        services, patch, provider = self._services, self._ask.policy.timeouts, self.candidate.provider
        try:
            return await generate(
                services.providers[provider],
                self._request.to(self.candidate.model),
                stream=self._ask.stream,
                sink=self._take,
                timeouts=patch.over(services.timeouts[provider]) if patch else None,
            )
        except KernelError as exc:
            failure = failure_of(exc, provider).at(
                provider=provider, model=self.candidate.model, partial=self._length > 0
            )
            return AttemptResult(end=Failed(failure=failure), duration_s=trio.current_time() - began)

    def _take(self, event: Event) -> None:
        """Count what an event says was used, and pass it on. Once the attempt is settled, drop it."""
        if self._sink is None:
            # The provider's task was scheduled with data in the same pass as the cancellation of ours. The budget is
            # settled and the run may have its end, so nothing may change any more.
            self._services.meter.drop_late_event()
            return
        if isinstance(event, DELTAS):
            self._length += len(event.text)
            if self._hold is not None:
                self._hold.grow(self._length)
            if self._first_at is None:
                self._first_at = trio.current_time()
                if self._ask.stream and self._services.selector.flows(self.candidate, self, self._first_at):
                    # A stream may take minutes to its end. Whoever waits for this probe need not wait for that.
                    proof = Proof(candidate=self.candidate, began=self._began, at=self._first_at)
                    self._services.observer.cast(proof)
        elif type(event) is UsageReported:
            self._usage = event.usage
        elif type(event) is Started:
            self._reported = event.model
        self._sink(event)

    def _settle(self, outcome: AttemptResult, began: float) -> None:
        """Into the books of limiter, selector and estimator, and into the decision record. None of it waits."""
        self._sink = None
        self._services.selector.stops(self.candidate, self)
        services, candidate = self._services, self.candidate
        failure = outcome.end.failure if isinstance(outcome.end, Failed) else None
        usage = self._usage if failure is None else self._usage or self._probable(failure, unsent=outcome.unsent)
        cost = services.cost(candidate, self._reported, usage) if usage else None
        if failure is None and usage is not None:
            services.estimator.learn(str(candidate), self._estimate, usage)
        if self._hold is not None:
            self._hold.settle(usage, cost)
        if self._room is not None:
            if failure is None:
                self._room.settle(usage, outcome.limits)
            else:
                # The limiter's pause is the whole provider's; a model's own is the selector's.
                wide = scope_of(failure, unsent=outcome.unsent) is Scope.PROVIDER
                hold_s = failure.retry_after if wide else None
                self._room.refund(failure.kind, retry_after=hold_s, limits=outcome.limits, unsent=outcome.unsent)
        observe(
            services.observer,
            candidate,
            outcome,
            began=began,
            stream=self._ask.stream,
            output_tokens=usage.output_tokens if usage else 0,
            cost=cost,
        )
        made = self._ask.record.attempted(
            candidate, outcome, waited_s=self._waited_s, hedge=self.hedge, usage=usage, cost=cost
        )
        services.meter.attempt(made, self._ask.request.caller, stream=self._ask.stream)

    def _probable(self, failure: Failure, *, unsent: bool) -> Usage | None:
        """What a failed attempt probably took, marked as a guess; ``None`` where it cannot have taken anything."""
        if unsent or failure.kind in _UNBILLED:
            return None
        output = -(-self._length // CHARACTERS_PER_TOKEN)
        return Usage(input_tokens=self._estimate.input_tokens, output_tokens=output, estimated=True)

    def _cancelled(self, began: float) -> AttemptResult:
        """Who was cancelled while it wrote was not slow to begin: the first token is told all the same."""
        failure = Failure(kind=FailureKind.CANCELLED, message="cancelled", partial=self._length > 0)
        first = None if self._first_at is None else self._first_at - began
        return AttemptResult(end=Failed(failure=failure), first_token_s=first, duration_s=trio.current_time() - began)
