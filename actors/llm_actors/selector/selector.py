"""The selector: which candidate to try first, and whether it is available.

One object holds the measurements, circuits and budgets of all deployments. Everything here is synchronous and runs in
one thread. So the orchestrator calls it directly, without sending a message: `rank` reads, and `admit`, `may_retry` and
`may_hedge` make claims. The results of attempts arrive one at a time, through the selector's actor. Measurements and
breakers are frozen values that are replaced as a whole. If the actor crashes on an observation, they stay as they were
before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import inf
from typing import cast, final

from llm_actors.deployment import Candidate
from llm_actors.selector.attempts import CallBudget, InFlight, hedge_budget, retry_budget
from llm_actors.selector.breaker import CircuitState
from llm_actors.selector.circuits import Circuits, Transition
from llm_actors.selector.exploration import Exploration, ExplorationStatistics, Rival
from llm_actors.selector.orderings import ORDERS, OrderingFunction, OrderingInputs, by_own
from llm_actors.selector.performance import (
    LEAST_FOR_HEDGE,
    LEAST_FOR_MEDIAN,
    Key,
    Observed,
    Performance,
    StreamBegan,
)
from llm_actors.selector.ranking import RankedCandidate, Ranking
from llm_actors.selector.score import (
    AT_BEST,
    NOT_JUDGED,
    TYPICAL_USAGE,
    CostOf,
    Figures,
    Weights,
    excess,
    expected_cost,
    normalised,
)
from llm_protocol.errors import ModelNotFoundError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import Select
from llm_protocol.requests import RequestType
from llm_protocol.response import Usage

MAX_REMEMBERED = 1_024
"""The most pairs of candidate and type of request whose measurements are kept; the least recently used is dropped. The
number is bounded because callers can name any model.
"""

_MEASURED: frozenset[str] = frozenset({"score", "fastest"})
_UNKNOWN = Performance()
_DEFAULT_WEIGHTS = Weights()


@final
class Selector:
    """Everything that is known about the candidates. ``now`` is always in seconds on one monotonic clock."""

    def __init__(self, cost_of: CostOf, orderings: Mapping[str, OrderingFunction] | None = None) -> None:
        """``orderings``: the orderings that a program adds, by name."""
        self._cost_of = cost_of
        self._own_orderings = orderings or {}
        self._performance: dict[Key, Performance] = {}
        self._exploration = Exploration()
        self._in_flight = InFlight()
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
        select: Select | str = "score",
        weights: Weights = _DEFAULT_WEIGHTS,
        sticky_key: str = "",
        shares: Mapping[Candidate, float] | None = None,
        usage: Usage | None = None,
        explore: bool = True,
    ) -> Ranking:
        """Return ``candidates`` in the order to try.

        ``draw``, in [0, 1), makes the random choices. ``usage`` is the expected usage of the request; by
        default, the typical usage of its type. Candidates that are unavailable come last. If measurements decide the
        order, a limited part of the requests explores: a candidate other than the best comes first, and is recorded as
        explored. Without ``explore``, this only reads. Raises `ModelNotFoundError` if there are no candidates.
        """
        if not candidates:
            raise ModelNotFoundError("there are no candidates to choose from")
        usage = usage or TYPICAL_USAGE[request_type]
        choices = self._judge(candidates, request_type, weights, usage, now)
        ready = [choice for choice in choices if choice.unavailable is None]
        ready = self._ordered(ready, select, OrderingInputs(draw, sticky_key, shares or {}))
        if select in _MEASURED and len(ready) > 1:
            if ready[0].figures.latency_s is None:
                ready = self._spread(ready, request_type, now, claim=explore)
            elif explore:
                ready = self._explore(ready, request_type, select, weights, now)
        ready = [
            each._replace(reason=f"{each.reason}; tries whether the deployment has recovered") if each.probe else each
            for each in ready
        ]
        unavailable = [each._replace(reason=each.unavailable.why) for each in choices if each.unavailable is not None]
        unavailable.sort(key=_last_resort)
        return Ranking(select=select, weights=weights, choices=(*ready, *unavailable), usage=usage)

    def rank_only(self, candidate: Candidate, *, now: float, select: Select | str = "score") -> Ranking:
        """Return what `rank` returns for a single candidate. It is faster, because no measurements are needed."""
        unavailable = self.circuits.unavailable(candidate, now)
        reason = "the only candidate" if unavailable is None else unavailable.why
        choice = RankedCandidate(candidate, reason, 0.0, NOT_JUDGED, AT_BEST, unavailable)
        return Ranking(select=select, weights=_DEFAULT_WEIGHTS, choices=(choice,), is_judged=False)

    def hedge_after(
        self, candidate: Candidate, now: float, *, stream: bool, request_type: RequestType = RequestType.CHAT
    ) -> float | None:
        """Return after how many seconds a response is late: the measured p95, or ``None`` if too few were measured."""
        return self.known(candidate, request_type).percentile(95, now, stream=stream, least=LEAST_FOR_HEDGE)

    def known(self, candidate: Candidate, request_type: RequestType = RequestType.CHAT) -> Performance:
        """Return the measurements of ``candidate`` for one type of request."""
        return self._performance.get((candidate, request_type), _UNKNOWN)

    def exploration(self) -> ExplorationStatistics:
        """Return the cost of exploration since the start."""
        return self._exploration.statistics()

    # Claiming

    def admit(
        self,
        candidate: Candidate,
        now: float,
        *,
        extra: bool = False,
        within_s: float = inf,
        others: Sequence[Candidate] | None = None,
        called: bool = False,
        request_type: RequestType = RequestType.CHAT,
        usage: Usage | None = None,
    ) -> Failure | None:
        """Claim an attempt at ``candidate`` now. On ``None``, make the attempt and report its end with `observe`.

        Otherwise this returns a failure, and the attempt must not be made. If a breaker is half-open, the attempt
        becomes its probe. ``extra``: the attempt is a retry or hedge that `may_retry` or `may_hedge` has allowed; it
        does not add to those budgets. ``within_s``: refuse a candidate whose usual response takes longer; pass the rest
        of the deadline for fallbacks. ``others``: the other candidates of the request, if known. ``called``:
        whether the request has already made a call (see `Circuits.unavailable`). ``usage``: the expected usage
        of the attempt, which determines when it is late.
        """
        unavailable = self.circuits.unavailable(candidate, now)
        if unavailable is not None and others is not None and self._none_ready(others, now):
            unavailable = self.circuits.unavailable(candidate, now, alone=True, untried=not called)
        if unavailable is not None:
            return unavailable.failure(candidate)
        if within_s < inf and (usual := self._usual_s(candidate, request_type, now)) is not None and usual > within_s:
            return _too_slow(candidate, usual, within_s)
        self.circuits.admit(candidate, now)
        key = candidate, request_type
        self._in_flight.begun(key, now, self.known(*key).latency_s(usage or TYPICAL_USAGE[request_type]))
        if not extra:
            self._retries.of(candidate).count(now)
            self._hedges.of(candidate).count(now)
        return None

    def _none_ready(self, candidates: Sequence[Candidate], now: float) -> bool:
        return all(self.circuits.unavailable(each, now) is not None for each in candidates)

    def may_retry(self, candidate: Candidate, now: float) -> bool:
        """Take one retry from the deployment's budget. Return False if none is left."""
        return self._retries.of(candidate).spend(now)

    def may_hedge(self, candidate: Candidate, now: float) -> bool:
        """Take one hedge from the deployment's hedge budget and retry budget. Return False if one of them has none
        left.
        """
        hedges = self._hedges.of(candidate)
        return hedges.room(now) >= 1 and self._retries.of(candidate).spend(now) and hedges.spend(now)

    def stream_began(
        self,
        candidate: Candidate,
        attempt: Hashable,
        now: float,
        *,
        began: float,
        request_type: RequestType = RequestType.CHAT,
    ) -> bool:
        """Record that ``attempt``, which began at ``began``, has begun to deliver a stream. Call `stream_ended` later.

        Return whether the attempt is a probe: then send the actor a `StreamBegan`.
        """
        self._in_flight.delivers((candidate, request_type), began)
        self.circuits.stream_began(candidate, attempt, now)
        return self.circuits.is_probe(candidate, now)

    def stream_ended(self, candidate: Candidate, attempt: Hashable) -> None:
        """Record that the stream of ``attempt`` has ended. Does nothing if none had begun."""
        self.circuits.stream_ended(candidate, attempt)

    # Writing: only by the actor

    def confirm_recovery(self, proof: StreamBegan) -> list[Transition]:
        """Close the half-open breakers whose probe has begun to deliver a stream. Return the changes."""
        return self._forgive_recovered(self.circuits.confirm_recovery(proof.candidate, began=proof.began, now=proof.at))

    def observe(self, seen: Observed, draw: float) -> list[Transition]:
        """Record the result of an attempt. Return the changes of breakers."""
        transitions, key = self.circuits.observe(seen, draw), seen.key
        self._in_flight.ended(key, seen.began, answered=seen.failure is None or seen.failure.partial)
        performance = self._performance.get(key, _UNKNOWN).plus(seen)
        self._performance.pop(key, None)
        self._performance[key] = performance
        if len(self._performance) > MAX_REMEMBERED:
            del self._performance[next(iter(self._performance))]
        return self._forgive_recovered(transitions)

    def _forgive_recovered(self, transitions: list[Transition]) -> list[Transition]:
        for transition in transitions:
            if transition.breaker.state is CircuitState.CLOSED:
                self._forgive(transition.of)
        return transitions

    def restart(self, now: float) -> None:
        """Continue after a crash of the actor. Observations may be missing, so open breakers become half-open and the
        next request is a probe.
        """
        self.circuits.restart(now)

    def _forgive(self, of: Candidate | str) -> None:
        """Forget the failures of a candidate or provider that has recovered: they would keep it at the end of the
        order.
        """
        for key, performance in self._performance.items():
            if of in (key[0], key[0].provider):
                self._performance[key] = performance.forgiven()

    # Ranking

    def _ordered(self, ready: list[RankedCandidate], select: str, inputs: OrderingInputs) -> list[RankedCandidate]:
        if (own := self._own_orderings.get(select)) is not None:
            return by_own(select, own, ready, inputs)
        return ORDERS[cast("Select", select)](ready, inputs)

    def _judge(
        self,
        candidates: Sequence[Candidate],
        request_type: RequestType,
        weights: Weights,
        usage: Usage,
        now: float,
    ) -> list[RankedCandidate]:
        figures = [self._figures(candidate, request_type, usage, now) for candidate in candidates]
        choices: list[RankedCandidate] = []
        for candidate, figure, terms in zip(candidates, figures, normalised(figures), strict=True):
            unavailable = self.circuits.unavailable(candidate, now)
            probe = unavailable is None and self.circuits.is_probe(candidate, now)
            # A candidate that is due for a probe is ranked as if it were healthy. Its failures would keep it last
            # forever.
            fair = terms._replace(unavailability=0.0) if probe else terms
            choices.append(RankedCandidate(candidate, "", fair.score(weights), figure, fair, unavailable, probe))
        return choices

    def _figures(self, candidate: Candidate, request_type: RequestType, usage: Usage, now: float) -> Figures:
        known = self.known(candidate, request_type)
        cost = expected_cost(self._cost_of, candidate, known, usage, now)
        latency = self._in_flight.latency_s((candidate, request_type), known, usage, now)
        return Figures(latency, cost, known.availability(now))

    def _usual_s(self, candidate: Candidate, request_type: RequestType, now: float) -> float | None:
        return self.known(candidate, request_type).percentile(50, now, stream=False, least=LEAST_FOR_MEDIAN)

    def _explore(
        self,
        ready: list[RankedCandidate],
        request_type: RequestType,
        select: str,
        weights: Weights,
        now: float,
    ) -> list[RankedCandidate]:
        """Return ``ready`` with a candidate other than the best in front, if its exploration is due."""
        best, *others = ready
        key = best.candidate, request_type
        rivals = [
            Rival(
                (other.candidate, request_type),
                self.known(other.candidate, request_type),
                excess(other.figures, best.figures, other.score, best.score, select),
                select == "fastest" or other.terms.at_best().score(weights) < best.score,
            )
            for other in others
        ]
        place = self._exploration.next(key, rivals, now)
        if place is None:
            return ready
        heard = rivals[place].known.seen_at
        why = "never tried" if heard == -inf else f"last measured {now - heard:.0f} s ago"
        explored = others.pop(place)
        return [explored._replace(reason=f"explored: {why}"), best, *others]

    def _spread(
        self, ready: list[RankedCandidate], request_type: RequestType, now: float, *, claim: bool
    ) -> list[RankedCandidate]:
        """Return ``ready`` with the unmeasured candidate in front that has the fewest attempts in progress; of several,
        the best. ``claim``: count it as chosen for a request.
        """
        unmeasured = [place for place, each in enumerate(ready) if each.figures.latency_s is None]
        place = min(unmeasured, key=lambda place: self._in_flight.count((ready[place].candidate, request_type), now))
        front = ready[place]._replace(
            reason=f"not measured yet, and has the fewest attempts in progress; then {ready[place].reason}"
        )
        if claim:
            self._in_flight.choose((front.candidate, request_type), now)
        return [front, *ready[:place], *ready[place + 1 :]]


@final
class _Budgets:
    """One budget for each deployment; the least recently used is dropped."""

    def __init__(self, make: Callable[[], CallBudget]) -> None:
        self._make = make
        self._budgets: OrderedDict[Candidate, CallBudget] = OrderedDict()

    def of(self, candidate: Candidate) -> CallBudget:
        """Return the budget of ``candidate``."""
        found = self._budgets.get(candidate)
        if found is None:
            found = self._budgets[candidate] = self._make()
            if len(self._budgets) > MAX_REMEMBERED:
                self._budgets.popitem(last=False)
        self._budgets.move_to_end(candidate)
        return found


def _last_resort(choice: RankedCandidate) -> tuple[bool, float]:
    """Sort key of unavailable candidates: first those paused because of another model, which may still respond; then by
    the time until they are available.
    """
    assert choice.unavailable is not None
    return not choice.unavailable.by_another, choice.unavailable.seconds


def _too_slow(candidate: Candidate, usual: float, within_s: float) -> Failure:
    why = f"it usually takes {usual:.1f} s and {max(0.0, within_s):.1f} s are left"
    return Failure(
        kind=FailureKind.TIMEOUT_TOTAL,
        message=f"{candidate}: not tried, because {why}",
        provider=candidate.provider,
        model=candidate.model,
    )
