"""One member of a strategy with several models: its run log, its budget and its result."""

from __future__ import annotations

import time
from typing import final

import msgspec
import trio

from llm_actors.orchestrator.decision_record import DecisionRecord
from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.budget import RequestBudget
from llm_actors.orchestrator.strategies.member_seats import MemberSeat
from llm_actors.run import RunLog
from llm_protocol.content import JsonObject
from llm_protocol.events import Failed, Finished, MemberDone, MemberFailed
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
