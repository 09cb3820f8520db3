"""The selector: decides which candidate a request goes to, from measurements, circuit breakers and retry budgets.

ranking = selector.rank(candidates, request.request_type, now=now, draw=random.random(), select="score")
for candidate in ranking.candidates:
    failure = selector.admit(candidate, now)        # None: make the attempt, then report it with `observe`
"""

from llm_actors.selector.actor import (
    SelectorActor,
    SelectorMessage,
    SelectorRef,
    observe,
    selector_child,
)
from llm_actors.selector.breaker import CircuitBreaker, CircuitState, pause_after, scope_of
from llm_actors.selector.circuits import Circuits, Transition
from llm_actors.selector.exploration import ExplorationStatistics
from llm_actors.selector.orderings import OrderingFunction, OrderingInputs
from llm_actors.selector.performance import Observed, Performance, StreamBegan
from llm_actors.selector.ranking import RankedCandidate, Ranking, Unavailable
from llm_actors.selector.score import CostOf, Figures, Terms, Weights
from llm_actors.selector.selector import Selector

__all__ = [
    "CircuitBreaker",
    "CircuitState",
    "Circuits",
    "CostOf",
    "ExplorationStatistics",
    "Figures",
    "Observed",
    "OrderingFunction",
    "OrderingInputs",
    "Performance",
    "RankedCandidate",
    "Ranking",
    "Selector",
    "SelectorActor",
    "SelectorMessage",
    "SelectorRef",
    "StreamBegan",
    "Terms",
    "Transition",
    "Unavailable",
    "Weights",
    "observe",
    "pause_after",
    "scope_of",
    "selector_child",
]
