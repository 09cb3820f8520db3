"""The decision record: how a response was produced. It is part of every response.

It shows the candidates and the reasons for their order, every attempt with its cost, and the effect of the cache. It
contains names, numbers and kinds of failures, never a prompt or a key.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, NamedTuple, TypeAlias, final

import msgspec
import trio

from llm_actors.catalog import Candidate
from llm_actors.orchestrator.spending import Spent
from llm_actors.provider import AttemptResult
from llm_actors.selector import Ranking
from llm_protocol.content import JsonObject
from llm_protocol.events import Failed
from llm_protocol.failures import Failure, FailureKind, LimitOwner
from llm_protocol.response import LLMResponse, Usage

CacheOutcome: TypeAlias = Literal["off", "miss", "hit", "coalesced"]


class AttemptRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt. Times are in milliseconds. ``usage`` of a failed attempt is often an estimate, and
    marked as such.
    """

    provider: str
    model: str
    outcome: str
    called: bool = msgspec.field(default=True, name="asked")
    """False if no call was made: the circuit is open, the candidate is too slow for the time left, a budget cannot pay
    the attempt, or the attempt was cancelled before its request was sent.
    """
    began_at: float = 0.0
    """The beginning by the wall clock, in seconds since the epoch."""
    duration_ms: float
    waited_ms: float = 0.0
    first_token_ms: float | None = None
    hedge: bool = False
    wire: str = ""
    """The name of the wire that was used."""
    resent: bool = False
    """True if the attempt took two calls, because a reused connection was closed before the first call got a
    response.
    """
    max_output_tokens: int | None = None
    """The lower output limit that a budget has set in place of the request's own, in tokens."""
    usage: Usage | None = None
    cost: float | None = None
    error: str | None = None


class EnsembleRecord(NamedTuple):
    """The result of a strategy with several models: its spending, the accepted responses, the number of attempts, and
    its part of the decision record.
    """

    spent: Spent
    members: tuple[LLMResponse, ...]
    attempts: int
    extra: JsonObject


@final
class UnderWay:
    """Adds an unfinished attempt and its current usage to the ``record`` of its request until the end of the block."""

    __slots__ = ("_began", "_candidate", "_record", "_spent")

    def __init__(
        self,
        record: DecisionRecord,
        candidate: Candidate,
        began: float,
        spent: Callable[[], tuple[Usage | None, float | None]],
    ) -> None:
        self._record = record
        self._candidate = candidate
        self._began = began
        self._spent = spent

    def __enter__(self) -> None:
        self._record.under_way.append(self)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._record.under_way.remove(self)

    def record(self, now: float) -> AttemptRecord:
        """Return the record of the attempt at ``now``."""
        usage, cost = self._spent()
        return AttemptRecord(
            provider=self._candidate.provider,
            model=self._candidate.model,
            outcome="unfinished",
            began_at=_began_at(now - self._began),
            duration_ms=_ms(now - self._began),
            usage=usage,
            cost=cost,
        )


@final
class DecisionRecord:
    """Collects the decision record of one request."""

    __slots__ = (
        "_attempts",
        "_passed_over",
        "_ranking",
        "_strategy",
        "budgets",
        "cache",
        "ensemble",
        "limited_by",
        "stopped",
        "under_way",
    )

    def __init__(self, strategy: str, passed_over: Mapping[str, FailureKind] | None = None) -> None:
        self._strategy = strategy
        self._passed_over = passed_over
        self._ranking: Ranking | None = None
        self._attempts: list[AttemptRecord] = []
        self.under_way: list[UnderWay] = []
        """The unfinished attempts. Only `UnderWay` changes this list."""
        self.cache: CacheOutcome = "off"
        self.stopped: str | None = None
        """Why no further attempt was made, if the last one failed."""
        self.budgets = ""
        """The budgets that have exceeded their soft limit, and the used fraction of each."""
        self.limited_by: LimitOwner | None = None
        """The owner of the limit that refused the request, if one did."""
        self.ensemble: Callable[[], EnsembleRecord] | None = None
        """Returns the current result, if the strategy uses several models."""

    def ranked(self, ranking: Ranking) -> None:
        """Add the candidates, their order, and the reasons."""
        self._ranking = ranking

    def pass_over(self, candidate: Candidate, why: Failure) -> None:
        """Add a candidate that was skipped because it does not support the request."""
        self._passed_over = {**(self._passed_over or {}), str(candidate): why.kind}

    def attempted(
        self,
        candidate: Candidate,
        outcome: AttemptResult,
        *,
        called: bool = True,
        waited_s: float = 0.0,
        hedge: bool = False,
        max_output_tokens: int | None = None,
        usage: Usage | None = None,
        cost: float | None = None,
    ) -> AttemptRecord:
        """Add an attempt that has ended or, if ``called`` is False, was not made."""
        end, first = outcome.end, outcome.first_token_s
        made = AttemptRecord(
            provider=candidate.provider,
            model=candidate.model,
            outcome=end.failure.kind.value if isinstance(end, Failed) else "ok",
            called=called,
            began_at=_began_at(outcome.duration_s),
            duration_ms=_ms(outcome.duration_s),
            waited_ms=_ms(waited_s),
            first_token_ms=None if first is None else _ms(first),
            hedge=hedge,
            wire=outcome.wire,
            resent=outcome.resent,
            max_output_tokens=max_output_tokens,
            usage=usage,
            cost=cost,
            error=end.failure.message if isinstance(end, Failed) else None,
        )
        self._attempts.append(made)
        return made

    @property
    def attempts(self) -> int:
        """The number of attempts, counted as the calls that vendors see."""
        others = self.ensemble().attempts if self.ensemble else 0
        return others + sum(1 for one in self._attempts if one.called) + len(self.under_way)

    @property
    def ended(self) -> int:
        """The number of the request's own attempts that have ended."""
        return sum(1 for one in self._attempts if one.called)

    def failure(self, last: Failure) -> Failure:
        """Return the failure to report: ``last``, with the results of all attempts in its message."""
        self.limited_by = last.limited_by
        each = self.tried()
        message = {0: "no candidate could be called: ", 1: "the only attempt failed: "}
        before = message.get(self.attempts, f"all {self.attempts} attempts failed: ") if len(self._attempts) > 1 else ""
        return msgspec.structs.replace(last, message=before + each) if each else last

    def tried(self) -> str:
        """Return the results of the attempts, as text."""
        times = Counter(about(f"{one.provider}/{one.model}", one.error or one.outcome) for one in self._all())
        return "; ".join(message if count == 1 else f"{message} ({count} times)" for message, count in times.items())

    def _all(self) -> list[AttemptRecord]:
        if not self.under_way:
            return self._attempts
        now = trio.current_time()
        return self._attempts + [each.record(now) for each in self.under_way]

    def spent(self) -> Spent:
        """Return the usage and cost of all attempts, including those that failed, lost a race or are unfinished."""
        total = Spent()
        for one in self._all():
            total.add(one.usage, one.cost)
        if self.ensemble is not None:
            others = self.ensemble().spent
            total.add(others.usage, others.cost)
        return total

    def to_json(self, spent: Spent | None = None) -> JsonObject:
        """Return the record as JSON values. Pass the result of `spent` if it was just computed."""
        found: JsonObject = {"strategy": self._strategy, "cache": self.cache}
        if self._passed_over:
            found["passed_over"] = {name: kind.value for name, kind in self._passed_over.items()}
        if self._ranking is not None:
            found |= self._ranking.record()
        found["attempts"] = msgspec.to_builtins(self._all())
        if self.stopped is not None:
            found["stopped"] = self.stopped
        if self.budgets:
            found["budgets"] = self.budgets
        if self.limited_by is not None:
            found["limit_owner"] = self.limited_by
        if self.ensemble is not None:
            found |= self.ensemble().extra | {"calls": self.attempts}
        spent = spent or self.spent()
        found["spent"] = {"usage": msgspec.to_builtins(spent.usage or Usage()), "cost": spent.cost}
        return found


def calls_in(decision: JsonObject) -> list[JsonObject]:
    """Return the attempts of a decision record, without those for which nothing was sent."""
    return [each for each in decision.get("attempts", ()) if each.get("asked", True)]


def count_calls(decision: JsonObject) -> int:
    """Return the number of attempts in a decision record, as `calls_in` counts them, including those of members."""
    calls = decision.get("calls")
    return len(calls_in(decision)) if calls is None else int(calls)


def about(who: str, message: str) -> str:
    """Return ``message``, prefixed once with the name of the provider ``who``."""
    provider = who.partition("/")[0]
    return f"{who}: {message.removeprefix(f'{who}: ').removeprefix(f'{provider}: ')}"


def _began_at(seconds: float) -> float:
    return round(time.time() - seconds, 3)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
