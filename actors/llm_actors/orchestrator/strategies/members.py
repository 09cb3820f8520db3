"""One member of a strategy with several models: its run log, its budget, its result, and why it did not answer.

`MemberEvents` copies the members' own streams into the run's log while the members write, if its followers asked for
them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import final

import msgspec
import trio

from llm_actors.orchestrator.decision_record import DecisionRecord
from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.budget import MemberBudget, RequestBudget, Share, too_little
from llm_actors.orchestrator.strategies.member_seats import MemberSeat
from llm_actors.run import LogLimitExceeded, RunLog, weigh
from llm_protocol.content import JsonObject
from llm_protocol.estimate import TokenEstimator
from llm_protocol.events import (
    Failed,
    Finished,
    MemberDelta,
    MemberDone,
    MemberEvent,
    MemberFailed,
    MemberStarted,
    TextDelta,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import Fold
from llm_protocol.requests import AnyRequest, Parameters
from llm_protocol.response import FinishReason, LLMResponse

_ANSWERS = frozenset((FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS, FinishReason.UNKNOWN))


@final
class Member:
    """One member, called once. Afterwards it has a ``response`` or a ``failure``, never both."""

    def __init__(
        self,
        seat: MemberSeat,
        request: AnyRequest,
        ledger: RequestBudget,
        *,
        plain: Parameters,
        deadline: float,
        log_bytes: int,
        round_: int = 0,
    ) -> None:
        self.seat = seat
        self.name = seat.name
        self.request = request
        self.plain = plain
        """The request's parameters before they were varied for the member."""
        self.round = round_
        self.log = RunLog(limit_bytes=log_bytes)
        self.record = DecisionRecord("single")
        self.scope = trio.CancelScope(deadline=deadline)
        self.budget = ledger.budget(self.scope.cancel)
        self.contributed = False
        self.response: LLMResponse | None = None
        self.failure: Failure | None = None
        self.refused: Failure | None = None
        """Why the member is not called at all."""
        self._began = trio.current_time()
        self._began_at = round(time.time(), 3)
        self.ended_at = self._began

    @property
    def text(self) -> str:
        """The text of its answer; empty if there is none."""
        return self.response.content if self.response else ""

    @property
    def answer(self) -> LLMResponse:
        """The response of the member, which must exist."""
        assert self.response is not None, f"{self.name} must have answered"
        return self.response

    def take(self, ending: RunResult) -> None:
        """Record that the member has ended by itself."""
        if isinstance(ending.end, Failed):
            self.fail(ending.end.failure)
            return
        fold = Fold().add_all(self.log.events)
        fold.add(ending.end)
        if (bad := _unusable(ending.end, fold)) is not None:
            self.fail(bad)
            return
        assert ending.candidate is not None, "a success must have a candidate"
        self.ended_at = trio.current_time()
        response = fold.response(
            request_id=self.request.request_id,
            response_id=f"resp_{self.request.request_id}",
            provider=ending.candidate.provider,
            model=ending.candidate.model,
            processing_time_ms=self._elapsed_ms,
            cost=self.budget.spent.cost,
        )
        self.response = msgspec.structs.replace(response, usage=self.budget.spent.usage)

    def fail(self, failure: Failure) -> None:
        """End the member with a failure. Does nothing if it has ended already."""
        if self.response is None and self.failure is None:
            self.failure = failure
            self.ended_at = trio.current_time()

    @property
    def _elapsed_ms(self) -> float:
        return round((self.ended_at - self._began) * 1000, 3)

    def last_word(self) -> MemberDone | MemberFailed:
        """The event for followers that says how the member ended."""
        if self.failure is not None:
            return MemberFailed(member=self.name, failure=self.failure)
        reason, spent = self.answer.finish_reason, self.budget.spent
        return MemberDone(member=self.name, finish_reason=reason, usage=spent.usage, cost=spent.cost)

    def to_json(self) -> JsonObject:
        """Return the member's entry in the decision record."""
        spent, attempts = self.budget.spent, self.record.to_json()["attempts"]
        who = self.response or (self.seat.candidates[0] if self.seat.candidates else None)
        found: JsonObject = {
            "member": self.name,
            "request_id": self.request.request_id,
            "round": self.round,
            "provider": who.provider if who else "",
            "model": who.model if who else self.seat.model,
            "outcome": "ok" if self.failure is None else self.failure.kind.value,
            "contributed": self.contributed,
            "began_at": self._began_at,
            "duration_ms": self._elapsed_ms,
            "usage": None if spent.usage is None else msgspec.to_builtins(spent.usage),
            "cost": spent.cost,
            "attempts": attempts,
        }
        if self.failure is not None:
            found["error"] = self.failure.message
        return found


def _unusable(end: Finished, fold: Fold) -> Failure | None:
    """Why a complete response cannot be used."""
    if end.reason not in _ANSWERS:
        kind = FailureKind.CONTENT_FILTER if end.reason is FinishReason.CONTENT_FILTER else FailureKind.SERVER_ERROR
        return Failure(kind=kind, message=f"the model ended its response with {end.raw_reason or end.reason.value}")
    if not fold.parts() and not fold.vectors:
        return Failure(kind=FailureKind.PROTOCOL, message="the model's response is empty")
    return None


LOG_SHARE = 0.5
"""The share of a run's log for the members' streams. It is also the size limit of each member's own log."""


@final
class MemberEvents:
    """Reports the members' events to the followers of ``log``, if ``on``."""

    def __init__(self, log: RunLog, *, on: bool) -> None:
        self.on = on
        self._log = log

    def started(self, member: Member) -> None:
        """Report that a member was called."""
        self._emit(MemberStarted(member=member.name, request_id=member.request.request_id, round=member.round))

    def ended(self, member: Member) -> None:
        """Report that a member has ended."""
        self._emit(member.last_word())

    def _emit(self, event: MemberEvent) -> None:
        if self.on:
            with suppress(LogLimitExceeded):
                self._log.append(event)

    @contextmanager
    def passing_on(self, member: Member) -> Iterator[None]:
        """During the block, pass on the events of a member."""

        def pass_on() -> None:
            for event in follower.take():
                if isinstance(event, TextDelta):
                    self._append(MemberDelta(member.name, event.text))

        if not self.on:
            yield
            return
        with member.log.follow(wake=pass_on) as follower:
            yield

    def _append(self, event: MemberDelta) -> None:
        """Append an event. Raises `LogLimitExceeded` if less than `LOG_SHARE` of the log would be left for the
        response. That ends the member that writes too much.
        """
        if self._log.size + weigh(event) > self._log.limit_bytes * LOG_SHARE:
            raise LogLimitExceeded
        self._log.append(event)


def refuse_unpaid(members: Sequence[Member], ledger: RequestBudget, estimator: TokenEstimator, later: int) -> None:
    """If there is a budget, refuse the last members that it cannot pay. ``later``: the number of calls that will
    follow.
    """
    if not ledger.bounded:
        return
    expected: dict[MemberBudget, Share] = {}
    for member in members:
        if member.seat.candidates:
            first = member.seat.candidates[0]
            expected[member.budget] = ledger.expected(first, estimator.estimate(first, member.request))
    out = set(ledger.admit(expected, later))
    for member in members:
        if member.budget in out:
            left = Share(max(0.0, ledger.unplanned.tokens), max(0.0, ledger.unplanned.cost))
            needed = expected[member.budget].tokens
            member.refused = too_little(member.seat.candidates[0], needed, left, ledger)


def why_overrun(member: Member, deadline_s: float | None) -> Failure | None:
    """Return why the member did not finish, if its own budget or its own time limit of ``deadline_s`` stopped it; else
    ``None``.
    """
    if member.budget.overran:
        return Failure(kind=FailureKind.BUDGET, message="stopped: the request's budget is used up")
    if trio.current_time() >= member.scope.deadline:
        words = f"no complete response within {deadline_s:g} s (member_deadline_s)"
        return Failure(kind=FailureKind.TIMEOUT_TOTAL, message=words)
    return None


def why_stopped(satisfied: bool, until: float) -> Failure:
    """Return why a member was stopped from outside: enough others had answered (``satisfied``), the time limit
    ``until``, or a cancellation.
    """
    if satisfied:
        return Failure(kind=FailureKind.CANCELLED, message="stopped: enough other members had responded")
    if trio.current_time() >= until:
        return Failure(kind=FailureKind.DEADLINE, message="no response within the members' part of the request's time")
    return Failure(kind=FailureKind.CANCELLED, message="the request was cancelled")
