"""Strategies that a program adds: a function gets a `Team`, and its result becomes the run's response.

An error of the function fails its request, not the runtime.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, final

import msgspec
import trio

from llm_actors.kernel.errors import exception_site
from llm_actors.orchestrator.ending import RunResult
from llm_actors.orchestrator.strategies.ensemble import LAST_SHARE, Ensemble
from llm_actors.orchestrator.strategies.member_seats import named, seat_for
from llm_actors.orchestrator.strategies.members import Member
from llm_actors.orchestrator.strategies.prompts import about
from llm_actors.orchestrator.strategies.synthesis import respond
from llm_actors.orchestrator.strategies.team import StrategyFunction, Team
from llm_protocol.content import JsonObject
from llm_protocol.errors import LLMClientError, error_for
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import MAX_MEMBERS
from llm_protocol.requests import AnyRequest
from llm_protocol.response import LLMResponse

MAX_CALLS: Final = 64
"""The most calls that a strategy may make for one request."""

log = logging.getLogger(__name__)


async def carry_out(strategy: StrategyFunction, name: str, ensemble: Ensemble) -> RunResult:
    """Call the program's function. Raises only `trio.Cancelled`."""
    calls = TeamCalls(ensemble, name)
    candidates = tuple(map(str, ensemble.context.candidates))
    team = Team(calls, request=ensemble.context.request, policy=ensemble.policy, candidates=candidates)
    try:
        return calls.result_of(await strategy(team))
    except LLMClientError as exc:
        return calls.failed(exc.failure)
    except Exception as exc:  # raised by the program; its text may contain anything
        log.error("the strategy %s failed: %s", name, exception_site(exc))  # noqa: TRY400
        return calls.broken(f"raised {type(exc).__name__}")


@final
class TeamCalls:
    """One request's calls for a strategy of the program: the `TeamWork` behind its team."""

    def __init__(self, ensemble: Ensemble, name: str) -> None:
        self._ensemble = ensemble
        self._name = name
        self._members: dict[str, Member] = {}
        """The members that answered, under the ids of their requests. A response has the same id as its request."""
        self._calls = 0
        self._rounds = 0
        self._is_streaming = False
        self._streamed: tuple[RunResult, LLMResponse | None] | None = None
        """The end of the stream that has delivered a token, and its response if that is complete."""
        self._notes: JsonObject = {}

    async def ask(
        self,
        models: Sequence[str] | None,
        request: AnyRequest | None,
        *,
        enough: int | None,
        seconds: float | None,
        later: int,
    ) -> list[LLMResponse]:
        """See `Team.ask`."""
        ensemble = self._ensemble
        if isinstance(models, str):  # type checkers let it pass as a sequence of texts
            models = (models,)
        if models is not None and not 0 < len(models) <= MAX_MEMBERS:
            raise ValueError(f"models must contain 1 to {MAX_MEMBERS} models, not {len(models)}")
        taken = (
            ensemble.seats()
            if models is None
            else named(ensemble.services.catalog, ensemble.context.request, ensemble.context.allowed, models)
        )
        self._count(len(taken))
        members = [ensemble.member(seat, round_=self._rounds, request=request) for seat in taken]
        self._rounds += 1
        wanted = min(enough or len(members), len(members))
        left = ensemble.context.deadline() - trio.current_time()
        share = LAST_SHARE if seconds is None else min(LAST_SHARE, seconds / max(left, 1e-9))
        answered = await ensemble.gather(members, lambda answers: len(answers) >= wanted, share=share, later=later)
        if not answered:
            end = ensemble.failed(members).end
            assert isinstance(end, Failed), "nobody answered"
            raise error_for(end.failure)
        self._members |= {member.request.request_id: member for member in answered}
        return [member.answer for member in answered]

    async def stream(self, model: str, request: AnyRequest | None) -> LLMResponse:
        """See `Team.stream`."""
        ensemble = self._ensemble
        if self._is_streaming or self._streamed is not None:
            raise RuntimeError("a strategy can stream only one response")
        self._count(1)
        seat = seat_for(ensemble.services, ensemble.context, model)
        if seat.failure is not None:
            raise error_for(seat.failure)
        self._is_streaming = True
        try:
            result = await ensemble.consult(
                ensemble.briefed(model) if request is None else request,
                seat.candidates,
                into=ensemble.run.log,
                record=ensemble.context.record,
                mode=ensemble.context.on_broken_stream if ensemble.run.stream else "buffer",
            )
        except BaseException:
            if ensemble.run.has_content:  # the function gave up on it, but what was delivered cannot be taken back
                failure = Failure(kind=FailureKind.CANCELLED, message="the strategy stopped its stream", partial=True)
                self._streamed = RunResult(Failed(failure=failure), None), None
            raise
        finally:
            self._is_streaming = False
        if isinstance(result.end, Failed):
            if result.end.failure.partial:
                self._streamed = result, None
            raise error_for(result.end.failure)
        response = _whole(ensemble, result)
        self._streamed = result, response
        return response

    def _count(self, calls: int) -> None:
        self._calls += calls
        if self._calls > MAX_CALLS:
            raise RuntimeError(f"a strategy may make at most {MAX_CALLS} calls for one request")

    def about(self, answers: Sequence[LLMResponse], template: str) -> AnyRequest:
        """See `Team.about`."""
        if "{answers}" not in template:
            raise ValueError("template must contain {answers}, the place where the answers are inserted")
        return about(self._ensemble.context.request, template, [answer.content for answer in answers])

    def note(self, name: str, value: object) -> None:
        """See `Team.note`."""
        self._notes = {**self._notes, name: msgspec.json.decode(msgspec.json.encode(value))}
        self._ensemble.notes["notes"] = self._notes

    # -- the end -----------------------------------------------------------------------------------------------------

    def failed(self, failure: Failure) -> RunResult:
        """Return the end of a request that fails with ``failure``. If the strategy's stream has broken, return the
        failure of the stream instead.
        """
        if self._streamed is not None and isinstance(self._streamed[0].end, Failed):
            return self._streamed[0]
        return RunResult(Failed(failure=msgspec.structs.replace(failure, partial=self._streamed is not None)), None)

    def broken(self, what: str) -> RunResult:
        """Return the failure of the request because the function did ``what``."""
        return self.failed(Failure(kind=FailureKind.INTERNAL, message=f"the strategy {self._name} {what}"))

    def result_of(self, answer: object) -> RunResult:
        """Return the end of the run for the function's result."""
        if self._streamed is not None:
            result, response = self._streamed
            if isinstance(result.end, Failed) or answer is response:
                return result
            return self.broken("streamed one response and returned another")
        if isinstance(answer, LLMResponse):
            return self._played(answer)
        if isinstance(answer, str) and answer and self._members:
            return self._said(answer)
        what = f"a value of type {type(answer).__name__}"
        if isinstance(answer, str):
            what = "a text, although no model had answered" if answer else "an empty text"
        return self.broken(f"returned {what}: return a response of the team, or a text about its answers")

    def _played(self, answer: LLMResponse) -> RunResult:
        member = self._members.get(answer.request_id)
        if member is None or answer.finish_reason is None:
            return self.broken("returned a response that is not a complete response of its team")
        self._ensemble.accept([member])
        return self._ensemble.play(member, answer)

    def _said(self, text: str) -> RunResult:
        members = list(self._members.values())
        self._ensemble.accept(members)
        return respond(self._ensemble, text, members[0])


def _whole(ensemble: Ensemble, result: RunResult) -> LLMResponse:
    assert isinstance(result.end, Finished), "the result must be a success"
    assert result.candidate is not None, "a success must have a candidate"
    fold = ensemble.run.fold()
    fold.add(result.end)
    return fold.response(
        request_id=ensemble.run.request.request_id,
        response_id=ensemble.run.response_id,
        provider=result.candidate.provider,
        model=result.candidate.model,
        processing_time_ms=ensemble.run.elapsed_ms,
    )
