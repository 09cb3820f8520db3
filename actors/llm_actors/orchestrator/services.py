"""What the stages of a request share: the actors and objects of a runtime, and the context of a request's attempts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import random
from typing import NamedTuple, Protocol

import msgspec

from llm_actors.cache import CacheRef, Target
from llm_actors.catalog import Allowed, Candidate, Catalog, CatalogRef
from llm_actors.limiter import LimiterRef
from llm_actors.orchestrator.accounting import Accounting
from llm_actors.orchestrator.attempt_events import AttemptListener
from llm_actors.orchestrator.decision_record import DecisionRecord
from llm_actors.orchestrator.load import ProviderLoad
from llm_actors.orchestrator.metrics import Metrics
from llm_actors.orchestrator.recent_requests import RecentRequests
from llm_actors.orchestrator.strategies.knowledge import Knowledge
from llm_actors.orchestrator.strategies.team import StrategyFunction
from llm_actors.provider import ProviderRef
from llm_actors.provider.spec import ProviderWires
from llm_actors.request_log import RequestLog
from llm_actors.run import RunLog
from llm_actors.selector import CostOf, Selector, SelectorRef, Weights
from llm_protocol.budgets import Payer
from llm_protocol.estimate import Estimate, TokenEstimator
from llm_protocol.failures import Failure
from llm_protocol.lifecycle import is_same_model
from llm_protocol.policy import Attempts, Limits, OnBrokenStream, Policy, Timeouts
from llm_protocol.requests import AnyRequest
from llm_protocol.response import Usage


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The actors and objects of one runtime. ``limits`` contains the providers and ``caller_limits`` the callers with
    limits.

    ``waits``: the seconds that a request may wait for a provider; `PROVIDER_WAIT_SECONDS` for providers that are not
    in it.
    """

    catalog: Catalog
    lister: CatalogRef
    providers: Mapping[str, ProviderRef]
    loads: Mapping[str, ProviderLoad]
    limiter: LimiterRef
    selector: Selector
    observer: SelectorRef
    cache: CacheRef
    caches: frozenset[str]
    """The providers whose responses are cached unless the request says otherwise."""
    flight_wait_s: float | None = None
    """Seconds that a request that is not streamed waits for an equal one of another process. ``None``: no other
    process shares the cache.
    """
    target_of: Callable[[Candidate], Target]
    """Returns a candidate together with everything that its responses depend on."""
    cost_of: CostOf
    has_own_price: Callable[[Candidate], bool] = lambda _: False
    """Returns whether the configuration has a price for a candidate. This price applies even if the vendor reports
    another model."""
    timeouts: Mapping[str, Timeouts]
    limits: Mapping[str, Limits]
    caller_limits: Mapping[str, Limits]
    waits: Mapping[str, float] = msgspec.field(default_factory=dict)
    accepts_prefill: Callable[[Candidate], bool]
    wires: Mapping[str, ProviderWires]
    """The wires of each provider."""
    max_runs: int = 5_000
    """The most runs in progress. One more run is refused."""
    attempts: Attempts = Attempts()
    weights: Weights = Weights()
    strategies: Mapping[str, StrategyFunction] = msgspec.field(default_factory=dict)
    """The strategies that the program adds, by name."""
    synthesize: bool = True
    """Whether several answers are synthesized into one, if neither request nor route says so."""
    run_logs: tuple[RequestLog, ...] = ()
    """The request logs; empty if requests are not logged."""
    accounting: Accounting = msgspec.field(default_factory=Accounting)
    metrics: Metrics = msgspec.field(default_factory=Metrics)
    recent: RecentRequests = msgspec.field(default_factory=RecentRequests)
    knowledge: Knowledge = msgspec.field(default_factory=Knowledge)
    estimator: TokenEstimator = msgspec.field(default_factory=TokenEstimator)
    draw: Callable[[], float] = random
    listener: AttemptListener = msgspec.field(default_factory=AttemptListener)
    """The listener for attempts. By default it does nothing."""

    def cost(self, candidate: Candidate, reported: str, usage: Usage) -> float | None:
        """Return the cost of ``usage`` in US dollars; ``None`` if unknown. If the vendor ``reported`` another model
        than the requested one, and that model has a price, its price applies: vendors redirect requests for retired
        models to other models.
        """
        if not is_same_model(reported, candidate.model) and not self.has_own_price(candidate):
            known = self.cost_of(candidate.provider, reported, usage)
            if known is not None:
                return known
        return self.cost_of(candidate.provider, candidate.model, usage)


class Hold(Protocol):
    """The part of a budget that one attempt may spend."""

    def limit(self, request: AnyRequest) -> AnyRequest:
        """Return the request with the limit for the vendor's output."""
        ...

    def grow(self, tokens: float) -> None:
        """Count the tokens delivered so far, estimated from the length of the text."""
        ...

    def settle(self, usage: Usage | None, cost: float | None) -> None:
        """Replace the reservation by the attempt's ``usage`` and ``cost``; ``None`` means unknown."""
        ...


class AttemptBudget(Protocol):
    """The budget for the attempts of one request, if it has one."""

    def refuses(
        self, candidate: Candidate, estimate: Estimate, request: AnyRequest, *, is_last: bool = True
    ) -> Failure | None:
        """Return why the budget cannot pay an attempt with this estimate; ``None`` if it can. ``is_last``: there is
        no other, possibly cheaper candidate, so less than the estimate is enough.
        """
        ...

    def hold(self, candidate: Candidate, estimate: Estimate, request: AnyRequest) -> Hold:
        """Reserve the attempt's share of the budget. Call this after `refuses`, without a checkpoint in between."""
        ...


NOBODY = Payer("")


class AttemptContext(NamedTuple):
    """The data that the attempts of one request share: the request, its candidates, its options, and the destination
    of its events. ``allowed``: the models that may be used besides the candidates; ``None``: any model.
    """

    request: AnyRequest
    candidates: list[Candidate]
    policy: Policy
    on_broken_stream: OnBrokenStream
    stream: bool
    log: RunLog
    deadline: Callable[[], float]
    """Returns the current deadline, on Trio's clock. It moves when a request with a later deadline joins a shared run.
    """
    record: DecisionRecord
    budget: AttemptBudget | None = None
    allowed: Allowed | None = None
    payer: Payer = NOBODY
    """Who pays, including for the further requests that a strategy makes."""
