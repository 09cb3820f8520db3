"""The models that work on one request: called concurrently in one cancel scope, each with its own run log and budget.

All strategies consist of two operations: `Ensemble.gather` calls the members and returns when enough have answered,
and `Ensemble.consult` calls one model with their answers. Both have time limits: members get a share of the time
until the request's deadline, so that time is left for the following steps.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf
from typing import TypeAlias, final

import msgspec
import trio

from llm_actors.catalog import Candidate
from llm_actors.kernel.errors import exception_site
from llm_actors.orchestrator.attempt_loop import AttemptLoop
from llm_actors.orchestrator.decision_record import DecisionRecord, EnsembleRecord, about
from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.services import AttemptContext, Services
from llm_actors.orchestrator.spending import Spent
from llm_actors.orchestrator.strategies.budget import RequestBudget
from llm_actors.orchestrator.strategies.context import shared, with_context
from llm_actors.orchestrator.strategies.knowledge import Piece
from llm_actors.orchestrator.strategies.member_seats import MemberSeat, MemberSeats, samples, seats, varied
from llm_actors.orchestrator.strategies.members import (
    LOG_SHARE,
    Member,
    MemberEvents,
    refuse_unpaid,
    why_overrun,
    why_stopped,
)
from llm_actors.run import LogLimitExceeded, Run, RunLog
from llm_protocol.content import JsonObject
from llm_protocol.events import CONTENT, Event, Failed, Finished, UsageReported
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import unfold
from llm_protocol.policy import OnBrokenStream
from llm_protocol.requests import AnyRequest
from llm_protocol.response import LLMResponse

MEMBERS_SHARE = 0.7
"""The members' share of the remaining time, if a model works on their answers afterwards."""

LAST_SHARE = 0.95
"""The last step's share of the remaining time. The rest is for delivering the result."""

Enough: TypeAlias = Callable[[Sequence[Member]], bool]
"""Whether these answers, in the order of arrival, are enough."""

log = logging.getLogger(__name__)


@final
class Ensemble:
    """The ensemble of one request. Created for one strategy and used once."""

    def __init__(self, services: Services, context: AttemptContext, run: Run) -> None:
        policy = context.policy
        self.services = services
        self.context = context
        self.run = run
        self.policy = policy
        self.ledger = RequestBudget(services.cost_of, policy.max_cost, policy.max_tokens)
        self.members: list[Member] = []
        self.notes: JsonObject = {}
        """Additional entries of the decision record."""
        self._accepted: list[Member] = []
        self._ids: Counter[str] = Counter()
        self._consulted: list[DecisionRecord] = []
        """The records of models that were consulted about the answers, if these are not in the request's own record."""
        self._member_events = MemberEvents(run.log, on=bool(policy.stream_members))
        self._spare: list[MemberSeat] = []
        self._conversation = _conversation(context) if policy.share_knowledge else ""

    # -- members -----------------------------------------------------------------------------------------------------

    def seats(self) -> list[MemberSeat]:
        """The members to call."""
        return self._take(seats(self.services, self.context))

    def samples(self, count: int) -> list[MemberSeat]:
        """Return ``count`` seats for the same request, for one model or for several in turn."""
        return self._take(samples(self.services, self.context, count))

    def _take(self, found: MemberSeats) -> list[MemberSeat]:
        self._spare = found.spare if self.policy.refill else []
        if found.ranking is not None:
            self.notes["selection"] = found.ranking.record()
        return found.taken

    def member(self, seat: MemberSeat, *, round_: int = 0, request: AnyRequest | None = None) -> Member:
        """Make a member for ``seat`` and add it to `members`; it is not called yet. ``request`` is used instead of the
        caller's request, but with the member's own id.
        """
        base = self.briefed(seat.model) if request is None else request
        mine = msgspec.structs.replace(
            base,
            request_id=self._sub_id(seat),
            parameters=varied(base.parameters, seat.nth),
            policy=None,
            forwarded={},  # with one idempotency key all samples would be the same
        )
        member = Member(
            seat,
            mine,
            self.ledger,
            plain=base.parameters,
            deadline=trio.current_time() + (self.policy.member_deadline_s or float("inf")),
            log_bytes=int(self.run.log.limit_bytes * LOG_SHARE),
            round_=round_,
        )
        self.members.append(member)
        return member

    def briefed(self, member: str) -> AnyRequest:
        """Return the caller's request with ``member``'s part of the context, and with the earlier answers of the
        conversation.
        """
        context = self.context
        pieces = self.services.knowledge.of(context.request.caller, self._conversation) if self._conversation else ()
        return with_context(context.request, shared(context.request.context, self.policy.share_context, member), pieces)

    def until(self, share: float) -> float:
        """Return the time (Trio's clock) at which this share of the remaining time is over."""
        now = trio.current_time()
        return now + share * (self.context.deadline() - now)

    async def gather(
        self, members: list[Member], enough: Enough | None = None, *, share: float = MEMBERS_SHARE, later: int = 0
    ) -> list[Member]:
        """Call all members concurrently. Returns those that answered, in the given order.

        Waits until all have ended, or ``grace_s`` after ``enough`` have answered (the quorum), or for ``share`` of
        the remaining time. Members that are not ready then are cancelled, including their connections. If the policy
        allows it, a member that fails is replaced by another model, which is added to ``members``. ``later``: the
        number of calls that will follow.
        """
        refuse_unpaid(members, self.ledger, self.services.estimator, later)
        enough = enough or self._quorum(len(members))
        answered: list[Member] = []
        satisfied = False
        until = self.until(share)
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = until

            def start(member: Member) -> None:
                nursery.start_soon(self._live, member, ended, lambda: why_stopped(satisfied, until))

            def ended(member: Member) -> None:
                nonlocal satisfied
                if member.response is not None:
                    answered.append(member)
                    if not satisfied and enough(answered):
                        satisfied = True
                        nursery.cancel_scope.deadline = min(until, trio.current_time() + (self.policy.grace_s or 0.0))
                elif self._spare and member.round == 0 and not satisfied:
                    members.append(self.member(self._spare.pop(0)))
                    start(members[-1])

            for member in tuple(members):
                start(member)
        self.ledger.waiting.clear()
        self.ledger.later = 0
        return [member for member in members if member.response is not None]

    def _quorum(self, count: int) -> Enough:
        wanted = min(self.policy.quorum or count, count)
        return lambda answers: len(answers) >= wanted

    async def _live(self, member: Member, ended: Callable[[Member], None], why_cut: Callable[[], Failure]) -> None:
        self._member_events.started(member)
        try:
            with member.scope, self._member_events.passing_on(member):
                member.take(await self._answer(member))
        except Exception as exc:  # a bug of ours ends this member, not the others
            log.error("member %s crashed: %s", member.request.request_id, exception_site(exc))  # noqa: TRY400
            member.fail(Failure(kind=FailureKind.INTERNAL, message="the runtime failed while it handled this request"))
        finally:
            member.fail(why_overrun(member, self.policy.member_deadline_s) or why_cut())
            self._report(member)
        ended(member)

    async def _answer(self, member: Member) -> RunResult:
        if member.seat.failure is not None:
            return RunResult(Failed(failure=member.seat.failure), None)
        if member.refused is not None:
            return RunResult(Failed(failure=member.refused), None)
        ending = await AttemptLoop(self.services, self._member_context(member)).answer()
        plain = member.plain
        failure = ending.end.failure if isinstance(ending.end, Failed) else None
        # Some models refuse a temperature; they are called once more without what the ensemble set.
        if failure is not None and failure.rule.of_parameters and plain != member.request.parameters:
            member.request = msgspec.structs.replace(member.request, parameters=plain)
            ending = await AttemptLoop(self.services, self._member_context(member)).answer()
        return ending

    def _member_context(self, member: Member) -> AttemptContext:
        mode = (
            self.context.on_broken_stream if self._member_events.on else "buffer"
        )  # what nobody sees can always be restarted
        return self.context._replace(
            request=member.request,
            candidates=member.seat.candidates,
            policy=msgspec.structs.replace(self.policy, strategy=None),
            on_broken_stream="error" if mode == "restart" else mode,
            stream=self.run.stream or self._member_events.on or self.ledger.bounded,
            log=member.log,
            deadline=lambda: min(self.context.deadline(), member.scope.deadline),
            record=member.record,
            budget=member.budget,
        )

    def _report(self, member: Member) -> None:
        self._member_events.ended(member)
        if (failure := member.failure) is not None and failure.kind is not FailureKind.CANCELLED:
            request_id = member.request.request_id
            log.warning("request %s: %s did not respond: %s", request_id, member.name, failure.kind.value)

    def _sub_id(self, seat: MemberSeat) -> str:
        """Return the member's id: ``<id>_<provider>``, and a number if one provider is called again."""
        provider = seat.candidates[0].provider if seat.candidates else seat.model.partition("/")[0]
        self._ids[provider] += 1
        nth = self._ids[provider]
        return f"{self.context.request.request_id}_{provider}" + (f"_{nth}" if nth > 1 else "")

    # -- one model about the others' answers, or instead of them ------------------------------------------------------

    async def consult(
        self,
        request: AnyRequest,
        candidates: list[Candidate],
        *,
        into: RunLog,
        record: DecisionRecord,
        share: float | None = LAST_SHARE,
        mode: OnBrokenStream = "buffer",
        alone: bool = False,
    ) -> RunResult:
        """Call one model and write its answer into the log ``into``. Always ends, at the latest after ``share`` of the
        remaining time, or with the request if ``share`` is ``None``. Raises only `trio.Cancelled` and bugs. ``alone``:
        keep the policy's strategy, of which `single` allows only the first candidate.
        """
        began = trio.current_time()
        scope = trio.CancelScope(deadline=inf if share is None else self.until(share))
        budget = self.ledger.budget(scope.cancel)
        self.ledger.later = int(bool(self.policy.hedge) and len(candidates) > 1)  # a hedge needs a share as well
        whole = into is self.run.log
        if not whole:
            self._consulted.append(record)
        context = self.context._replace(
            request=request,
            candidates=candidates,
            policy=self.policy if alone else msgspec.structs.replace(self.policy, strategy=None),
            on_broken_stream=mode,
            stream=(whole and self.run.stream) or self.ledger.bounded,
            log=into,
            deadline=lambda: min(self.context.deadline(), scope.deadline),
            record=record,
            budget=budget,
        )
        ending: RunResult | None = None
        before = len(into)
        with scope:
            ending = await AttemptLoop(self.services, context).answer()
        if ending is not None:
            return ending
        partial = any(isinstance(event, CONTENT) for event in into.read(before))
        if budget.overran:
            failure = Failure(kind=FailureKind.BUDGET, message="the request's budget is used up", partial=partial)
        else:
            seconds = trio.current_time() - began
            words = f"{candidates[0]}: no complete response within {seconds:.1f} s, its part of the request's time"
            failure = Failure(kind=FailureKind.TIMEOUT_TOTAL, message=words, partial=partial)
        return RunResult(Failed(failure=failure), candidates[0])

    async def alone(self, seat: MemberSeat | None = None) -> RunResult:
        """Return an ordinary streamed response: from the request's own candidates, or from ``seat`` if only one
        member is available.
        """
        if seat is not None and seat.failure is not None:
            return RunResult(Failed(failure=seat.failure), None)
        candidates = seat.candidates if seat else self.context.candidates
        request = self.briefed(seat.model if seat else str(candidates[0]))
        return await self.consult(
            request,
            candidates,
            into=self.run.log,
            record=self.context.record,
            share=None,  # a request with a later deadline may join the flight
            mode=self.context.on_broken_stream,
            alone=seat is None,
        )

    # -- the end -----------------------------------------------------------------------------------------------------

    def play(self, member: Member, answer: LLMResponse | None = None) -> RunResult:
        """Use the member's answer as the response, or ``answer``, which was derived from it."""
        answer = answer or member.answer
        assert answer.finish_reason is not None, "a complete answer must have a finish reason"
        end = Finished(reason=answer.finish_reason, raw_reason=answer.raw_finish_reason)
        return self.deliver(unfold(answer), end, member)

    def deliver(self, events: Iterable[Event], end: Finished, like: Member) -> RunResult:
        """Use these events as the response, as if from the model of ``like``. Usage events and end events among them
        are left out.
        """
        try:
            for event in events:
                if not isinstance(event, Finished | UsageReported):
                    self.run.log.append(event)
        except LogLimitExceeded:
            message = "the response exceeds the run log's limit ([server] log_limit_mb)"
            failure = Failure(kind=FailureKind.LOG_LIMIT, message=message, partial=True)
            return RunResult(Failed(failure=failure), self.who(like))
        return RunResult(end, self.who(like))

    def who(self, member: Member) -> Candidate:
        """Return the candidate that gave the member's answer."""
        answered = member.answer.provider
        return next(each for each in member.seat.candidates if each.provider == answered)

    def failed(self, members: Sequence[Member]) -> RunResult:
        """Return the result if no member answered: the most frequent failure, with the results of all."""
        failures = [member.failure for member in members if member.failure is not None]
        kind, _ = Counter(failure.kind for failure in failures).most_common(1)[0]
        like = next(failure for failure in failures if failure.kind is kind)
        each = "; ".join(about(member.name, member.failure.message) for member in members if member.failure)
        message = f"none of {len(failures)} members answered: {each}" if len(failures) > 1 else like.message
        return RunResult(Failed(failure=msgspec.structs.replace(like, message=message, partial=False)), None)

    def accept(self, members: Sequence[Member]) -> None:
        """Record that the response is made from the answers of ``members``."""
        self._accepted = list(members)
        for member in members:
            member.contributed = True

    def close(self, ending: RunResult | None) -> None:
        """Report the usage of a complete response, and store the answers for later requests of the conversation. A
        failed response already contains its usage.
        """
        if ending is None or not isinstance(ending.end, Finished):
            return
        total = self.context.record.spent()
        if total.usage is not None:
            with suppress(LogLimitExceeded):
                self.run.log.append(UsageReported(total.usage))
        if self._conversation:
            pieces = [Piece(member.name, member.text) for member in self._accepted] or [self._piece(ending)]
            self.services.knowledge.keep(self.context.request.caller, self._conversation, pieces)

    def so_far(self) -> EnsembleRecord:
        """Return the result so far, without what is in the request's own record."""
        records = [member.record for member in self.members] + self._consulted
        spent = Spent()
        for each in records:
            took = each.spent()
            spent.add(took.usage, took.cost)
        members: JsonObject = {"members": [member.to_json() for member in self.members]} if self.members else {}
        return EnsembleRecord(
            spent=spent,
            members=tuple(member.answer for member in self._accepted),
            attempts=sum(each.attempts for each in records),
            extra=members | self.notes,
        )

    def _piece(self, ending: RunResult) -> Piece:
        return Piece(str(ending.candidate), self.run.folded().content)


def _conversation(context: AttemptContext) -> str:
    named = context.request.metadata.get("conversation_id")
    return named if isinstance(named, str) else ""
