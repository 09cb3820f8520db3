"""The requests that ended most recently, with caller, deployment and duration, to be shown to operators. Prompts are
not kept.
"""

from __future__ import annotations

import time
from collections import deque
from typing import final

import msgspec

from llm_actors.orchestrator.log_line import LogFields
from llm_actors.run import Run
from llm_protocol.content import JsonObject

KEPT = 200
"""The number of requests that are kept."""

SHOWN_CALLS = 32
"""The most attempts of one request that are shown. A strategy can make more."""


class RecentCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt, or one member of a strategy. Times are in milliseconds, the cost in US dollars."""

    deployment: str
    outcome: str
    ms: float
    waited_ms: float = 0.0
    """Milliseconds that the attempt waited before it began: for a limit, or after an earlier attempt."""
    first_token_ms: float | None = None
    called: bool = msgspec.field(default=True, name="asked")
    """False if nothing was sent."""
    hedge: bool = False
    """Whether the attempt was a hedge, started while a slow attempt continued."""
    member: bool = False
    cost: float | None = None


class RecentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that has ended. ``ended_at``: seconds since the epoch; ``calls`` are its attempts, in the order in
    which they ended.
    """

    request: LogFields
    ended_at: float
    calls: list[RecentCall]


@final
class RecentRequests:
    """The decision records of the `KEPT` requests that ended most recently."""

    def __init__(self) -> None:
        self._ended: deque[tuple[LogFields, float, JsonObject]] = deque(maxlen=KEPT)

    def add(self, run: Run, fields: LogFields) -> None:
        """Add a ``run`` that has ended. ``fields`` are the fields of its log line."""
        end = run.log.end
        if end is not None and end.response is not None:
            self._ended.append((fields, time.time(), end.response.decision))

    def latest(self, caller: str | None) -> list[RecentRequest]:
        """Return the requests of ``caller`` or of all callers, the latest first."""
        return [
            RecentRequest(request=fields, ended_at=ended_at, calls=_calls(decision))
            for fields, ended_at, decision in reversed(self._ended)
            if caller is None or fields.caller == caller
        ]


def _calls(decision: JsonObject) -> list[RecentCall]:
    """Return the attempts in a decision record, without their errors: a vendor's message may quote the prompt."""
    own = [_call(each, f"{each['provider']}/{each['model']}") for each in decision.get("attempts", ())]
    members = [_call(each, each["member"], member=True) for each in decision.get("members", ())]
    return (members + own)[:SHOWN_CALLS]


def _call(attempt: JsonObject, deployment: str, *, member: bool = False) -> RecentCall:
    return RecentCall(
        deployment=deployment,
        outcome=attempt["outcome"],
        ms=attempt["duration_ms"],
        waited_ms=attempt.get("waited_ms", 0.0),
        first_token_ms=attempt.get("first_token_ms"),
        called=attempt.get("asked", True),
        hedge=attempt.get("hedge", False),
        member=member,
        cost=attempt.get("cost"),
    )
