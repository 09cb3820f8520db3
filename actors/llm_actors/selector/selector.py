"""The selector: which candidate to ask first, and whether it may be asked. The `ModelSelector` of this runtime.

One object with the books, the circuits and the budgets of all deployments. Everything here is
synchronous and happens in one thread, so that the orchestrator reads it (`rank`) and makes its claims (`admit`,
`may_retry`, `may_hedge`) without a message. What attempts showed comes in one at a time, through the selector's
actor. Books and breakers are frozen values that are replaced as a whole: there is no moment at which half of one is
written, so a crash of the actor leaves them as they were before the observation it crashed on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import inf
from typing import final

from llm_actors.catalog import Candidate
from llm_actors.selector.breaker import CircuitState
from llm_actors.selector.budget import CallBudget, hedge_budget, retry_budget
from llm_actors.selector.circuits import Circuits, Transition
from llm_actors.selector.cost import CostOf, expected_cost
from llm_actors.selector.orderings import ORDERS, OrderingInputs
from llm_actors.selector.performance import (
    LEAST_FOR_HEDGE,
    LEAST_FOR_MEDIAN,
    Observed,
    Performance,
    Proof,
)
from llm_actors.selector.ranking import RankedCandidate, Ranking
from llm_actors.selector.score import Figures, Weights, normalised
from llm_protocol.errors import ModelNotFoundError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import Select
from llm_protocol.requests import RequestType
from llm_protocol.response import Usage

MAX_BOOKS = 1_024
"""Candidates that are remembered; the one that was not heard of for longest makes room. Callers may name any model."""

EXPLORED_SHARE = 0.05
"""The share of requests that go to a candidate of which little is known, where measurements decide the order."""

EXPLORED_AFTER_SECONDS = 30.0
"""A candidate that was not heard of for so long is worth exploring."""

_MEASURED: frozenset[Select] = frozenset({"score", "fastest"})
_UNKNOWN = Performance()
_DEFAULT_WEIGHTS = Weights()


@final
class Selector:
    """Everything that is known of the candidates. ``now`` is always on the one monotonic clock, in seconds."""

    def __init__(self, cost_of: CostOf) -> None:
        self._cost_of = cost_of
        self._books: dict[Candidate, Performance] = {}
        self.circuits = Circuits()
        self._retries = _Budgets(retry_budget)
        self._hedges = _Budgets(hedge_budget)

    # Reading

    def rank(
        self,
        candidates: Sequence[Candidate],
        request_type: RequestType,
        *,
        now: float,
        draw: float,
        select: Select = "score",
        weights: Weights = _DEFAULT_WEIGHTS,
        sticky_key: str = "",
        shares: Mapping[Candidate, float] | None = None,
        usage: Usage | None = None,
    ) -> Ranking:
        """Put ``candidates`` in the order to try. Reads only: nothing is claimed.

        ``draw`` in [0, 1) decides what is left to chance. ``usage`` is what the request is expected to use. Those
        that are barred come last. Raises `ModelNotFoundError` when there are no candidates.
        """
        if not candidates:
            raise ModelNotFoundError("there is no candidate to choose from")
        choices = self._judge(candidates, request_type, weights, usage, now)
        ready = [choice for choice in choices if choice.barred is None]
        ready = ORDERS[select](ready, OrderingInputs(draw, sticky_key, shares or {}))
        if select in _MEASURED and draw < EXPLORED_SHARE:
            ready = self._explore(ready, draw / EXPLORED_SHARE, now)
        ready = [
            each._replace(reason=f"{each.reason}; a probe of the recovery") if each.probe else each for each in ready
        ]
        barred = [each._replace(reason=each.barred.why) for each in choices if each.barred is not None]
        barred.sort(key=_last_resort)
        return Ranking(select=select, weights=weights, choices=(*ready, *barred))

    def hedge_after(self, candidate: Candidate, now: float, *, stream: bool) -> float | None:
        """Seconds after which an answer is late, the observed p95; ``None`` where too little is known to say."""
        return self.known(candidate).percentile(95, now, stream=stream, least=LEAST_FOR_HEDGE)

    def known(self, candidate: Candidate) -> Performance:
        """The books of ``candidate``."""
        return self._books.get(candidate, _UNKNOWN)

    # Claiming

    def admit(
        self,
        candidate: Candidate,
        now: float,
        *,
        extra: bool = False,
        within_s: float = inf,
        others: Sequence[Candidate] | None = None,
        asked: bool = False,
    ) -> Failure | None:
        """Ask for leave to make an attempt at ``candidate`` now. ``None``: go ahead, and let `observe` know its end.

        Otherwise the failure to go on with; nobody is asked. In a half-open breaker this claims the probe. ``extra``:
        a retry or hedge, which was paid for with `may_retry` or `may_hedge` and does not itself earn any. A candidate
        whose usual answer takes longer than ``within_s`` is refused: pass what is left of the deadline for fallbacks.
        ``others`` are those whom the request may ask instead, if that is known, and ``asked`` is whether it has asked
        anybody: see `Circuits.unavailable`.
        """
        barred = self.circuits.unavailable(candidate, now)
        if barred is not None and others is not None and self._none_ready(others, now):
            barred = self.circuits.unavailable(candidate, now, alone=True, sole=not asked)
        if barred is not None:
            return barred.failure(candidate)
        if within_s < inf and (usual := self._usual_s(candidate, now)) is not None and usual > within_s:
            return _too_slow(candidate, usual, within_s)
        self.circuits.admit(candidate, now)
        if not extra:
            self._retries.of(candidate).count(now)
            self._hedges.of(candidate).count(now)
        return None

    def _none_ready(self, candidates: Sequence[Candidate], now: float) -> bool:
        return all(self.circuits.unavailable(each, now) is not None for each in candidates)

    def may_retry(self, candidate: Candidate, now: float) -> bool:
        """Spend one retry of the deployment's budget; False if there is none left."""
        return self._retries.of(candidate).spend(now)

    def may_hedge(self, candidate: Candidate, now: float) -> bool:
        """Spend one hedge of the deployment's budgets; False if there is none left."""
        hedges = self._hedges.of(candidate)
        return hedges.room(now) >= 1 and self._retries.of(candidate).spend(now) and hedges.spend(now)

    def flows(self, candidate: Candidate, attempt: Hashable, now: float) -> bool:
        """The stream of ``attempt`` has begun to deliver: whether that is `Proof` of anything. `stops` must follow."""
        self.circuits.flows(candidate, attempt, now)
        return self.circuits.is_probe(candidate, now)

    def stops(self, candidate: Candidate, attempt: Hashable) -> None:
        """Whatever ``attempt`` delivered, it has ended."""
        self.circuits.stops(candidate, attempt)

    # Writing: the actor's alone

    def prove(self, proof: Proof) -> list[Transition]:
        """Take in that a probe delivers. Returns the breakers that were closed."""
        return self._forgiving(self.circuits.proved(proof.candidate, began=proof.began, now=proof.at))

    def observe(self, seen: Observed, draw: float) -> list[Transition]:
        """Take in how an attempt went. Returns the breakers that came into another state."""
        transitions = self.circuits.observe(seen, draw)
        book = self.known(seen.candidate).plus(seen)
        self._books.pop(seen.candidate, None)
        self._books[seen.candidate] = book
        if len(self._books) > MAX_BOOKS:
            del self._books[next(iter(self._books))]
        return self._forgiving(transitions)

    def _forgiving(self, transitions: list[Transition]) -> list[Transition]:
        for transition in transitions:
            if transition.breaker.state is CircuitState.CLOSED:
                self._forgive(transition.of)
        return transitions

    def restart(self, now: float) -> None:
        """Go on after a crash. Nobody saw what happened meanwhile, so an open breaker is half-open: one probe tells."""
        self.circuits.restart(now)

    def _forgive(self, of: Candidate | str) -> None:
        """The trouble is over. Held against it any longer, it would keep what has recovered from being used."""
        for candidate, book in self._books.items():
            if of in (candidate, candidate.provider):
                self._books[candidate] = book.forgiven()

    # Judging

    def _judge(
        self,
        candidates: Sequence[Candidate],
        request_type: RequestType,
        weights: Weights,
        usage: Usage | None,
        now: float,
    ) -> list[RankedCandidate]:
        figures = [self._figures(candidate, request_type, usage, now) for candidate in candidates]
        choices: list[RankedCandidate] = []
        for candidate, figure, terms in zip(candidates, figures, normalised(figures), strict=True):
            barred = self.circuits.unavailable(candidate, now)
            probe = barred is None and self.circuits.is_probe(candidate, now)
            # A probe stands where the candidate would stand if it were well; its failures would keep it last for ever.
            fair = terms._replace(unavailability=0.0) if probe else terms
            choices.append(RankedCandidate(candidate, "", fair.score(weights), figure, fair, barred, probe))
        return choices

    def _figures(self, candidate: Candidate, request_type: RequestType, usage: Usage | None, now: float) -> Figures:
        known = self.known(candidate)
        cost = expected_cost(self._cost_of, candidate, known, request_type, usage)
        return Figures(known.latency_s, cost, known.availability(now))

    def _usual_s(self, candidate: Candidate, now: float) -> float | None:
        return self.known(candidate).percentile(50, now, stream=False, least=LEAST_FOR_MEDIAN)

    def _explore(self, ready: list[RankedCandidate], draw: float, now: float) -> list[RankedCandidate]:
        """With the candidate that was not heard of for longest in front; ``draw`` chooses among those never tried."""
        heard = [self.known(each.candidate).seen_at for each in ready]
        oldest = min(heard, default=now)
        if now - oldest <= EXPLORED_AFTER_SECONDS:
            return ready
        places = [place for place, at in enumerate(heard) if at == oldest]
        place = places[int(draw * len(places))]
        why = "never tried" if oldest == -inf else f"not heard of for {now - oldest:.0f} s"
        explored = ready[place]._replace(reason=f"explored: {why}")
        return [explored, *ready[:place], *ready[place + 1 :]]


@final
class _Budgets:
    """One budget for each deployment; the one that was not used for longest makes room."""

    def __init__(self, make: Callable[[], CallBudget]) -> None:
        self._make = make
        self._budgets: OrderedDict[Candidate, CallBudget] = OrderedDict()

    def of(self, candidate: Candidate) -> CallBudget:
        """The budget of ``candidate``."""
        found = self._budgets.get(candidate)
        if found is None:
            found = self._budgets[candidate] = self._make()
            if len(self._budgets) > MAX_BOOKS:
                self._budgets.popitem(last=False)
        self._budgets.move_to_end(candidate)
        return found


def _last_resort(choice: RankedCandidate) -> tuple[bool, float]:
    """Those first who are paused for what another did: they may yet answer. Then who is back first."""
    assert choice.barred is not None
    return not choice.barred.by_another, choice.barred.seconds


def _too_slow(candidate: Candidate, usual: float, within_s: float) -> Failure:
    why = f"it usually takes {usual:.1f} s and {max(0.0, within_s):.1f} s are left"
    return Failure(
        kind=FailureKind.TIMEOUT_TOTAL,
        message=f"{candidate}: not asked, because {why}",
        provider=candidate.provider,
        model=candidate.model,
    )
