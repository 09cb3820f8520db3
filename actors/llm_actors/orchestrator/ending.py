"""The end of a run: folds its events into a response and closes its log. Only this module does that.

A log is closed once. Later events are dropped and counted (`RunLog.on_late`).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from llm_actors.catalog import Candidate
from llm_actors.orchestrator.decision_record import CacheOutcome, DecisionRecord
from llm_actors.orchestrator.services import Services
from llm_actors.run import LogLimitExceeded, Run
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import unfold
from llm_protocol.response import LLMResponse


class RunResult(NamedTuple):
    """The result of all attempts: their end, and the candidate of the last attempt; ``None`` without attempts."""

    end: Finished | Failed
    candidate: Candidate | None


def fold(services: Services, run: Run, result: RunResult, record: DecisionRecord) -> Finished | Failed:
    """Return the end of ``run``, with the response into which the events of its log are folded."""
    end, who = result
    folded = run.fold()
    folded.add(end)
    spent = record.spent()
    cost = spent.cost
    is_settled = folded.usage is spent.usage  # only one attempt has used anything
    if isinstance(end, Finished) and record.ensemble is None and not is_settled and who is not None:
        # about the response, as its usage is
        cost = spent.cost if folded.usage is None else services.cost(who, folded.started.model, folded.usage)
    response = folded.response(
        request_id=run.request.request_id,
        response_id=run.response_id,
        provider=who.provider if who else "",
        model=folded.started.model or (who.model if who else run.request.model),
        processing_time_ms=run.elapsed_ms,
        cost=cost,
        decision=record.to_json(spent),
        members=record.ensemble().members if record.ensemble else (),
    )
    if isinstance(end, Failed):
        response = msgspec.structs.replace(response, usage=spent.usage)
    return with_response(end, response)


def with_response(end: Finished | Failed, response: LLMResponse | None) -> Finished | Failed:
    """Return ``end`` with ``response`` in place of its own response."""
    return msgspec.structs.replace(end, response=response)


def close(run: Run, end: Finished | Failed) -> None:
    """Close the run's log with ``end``. A success must have a response."""
    if isinstance(end, Failed):
        run.fail(end.failure, end.response)
    else:
        assert isinstance(end.response, LLMResponse), "a run that succeeded must have a response"
        run.finish(end, end.response)


def close_early(run: Run, record: DecisionRecord) -> None:
    """Close the log of a run that was stopped, with its attempts and their usage."""
    spent = record.spent()
    run.close(record.to_json(), record.tried(), usage=spent.usage, cost=spent.cost)


def replay(run: Run, response: LLMResponse, cache: CacheOutcome = "hit") -> None:
    """Write a complete response, such as a cached one, into the run's log, and close the log. The run fails if the
    response is larger than the log's limit, which may have been lowered since the response was stored.
    """
    decision = {"attempts": [], **response.decision, "cache": cache}
    try:
        for event in unfold(msgspec.structs.replace(response, decision=decision, response_id=run.response_id)):
            if isinstance(event, Finished):
                close(run, event)
            else:
                run.log.append(event)
    except LogLimitExceeded:
        message = "the cached response exceeds the run log's limit ([server] log_limit_mb)"
        run.fail(Failure(kind=FailureKind.LOG_LIMIT, message=message, partial=run.has_content))
