"""The supervision tree.

    llm-runtime   one_for_one, 3 restarts in 60 s
     ├─ core      one_for_one
     │   ├─ store, limiter, selector, cache, catalog   a small supervisor each, which parks it if it keeps crashing
     │   ├─ providers              one small supervisor per provider, which does the same
     │   └─ orchestrator           nothing works without it: its failure escalates
     ├─ sessions  one child per connection        (the daemon only)
     └─ door      last to start, first to stop    (the daemon only)

Refs are stable across restarts, so no actor needs a restart because of another. What requests experience while an actor
is parked is described in docs/architecture.md, "When a service is away".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Never, TypeVar, final

from llm_actors.cache import Target, cache_child
from llm_actors.catalog import Allowed, Candidate, Catalog, CatalogActor, CatalogMessage
from llm_actors.kernel import (
    ActorMessage,
    Backoff,
    ChildSpec,
    ChildStatus,
    Intensity,
    MailboxSpec,
    Ref,
    Supervisor,
)
from llm_actors.limiter import limiter_child
from llm_actors.orchestrator import Orchestrator, OrchestratorMessage, OrchestratorRef, ProviderLoad, Router, Services
from llm_actors.orchestrator.accounting import Accounting
from llm_actors.provider import Prepared, adapted_to
from llm_actors.request_log import RequestLog, request_log_child
from llm_actors.selector import CostOf, Selector, Weights, selector_child
from llm_actors.store import StoreRef, store_child
from llm_actors.store.ledger import Ledger
from llm_protocol.budgets import BudgetTable
from llm_protocol.codec.chat_adapter import offered
from llm_protocol.own_prices import OwnPrices
from llm_protocol.policy import CachePolicy
from llm_protocol.requests import AnyRequest
from llm_protocol.wires import DIALECTS
from llm_runtime.config import Config
from llm_runtime.providers import Supervised

ROOT_INTENSITY = Intensity(3, 60.0)
"""With more restarts of a whole branch than this, the runtime gives up."""

SUBMISSIONS_WAITING = 1_000
"""Runs that wait to be accepted. A further one waits to be queued: the number of runs is limited by
``server.max_runs``.
"""

BACKOFF = Backoff(cap=1.0)
"""A crashed actor is restarted within a second, or parked, or its failure escalates. Its callers wait no longer than
that.
"""

M = TypeVar("M", bound=ActorMessage)


@final
class Tree:
    """The actors of one runtime, wired but not started. ``doors`` are branches of the root that start last."""

    def __init__(
        self,
        config: Config,
        providers: Sequence[Supervised],
        cost_of: CostOf,
        *,
        doors: Sequence[ChildSpec[Never]] = (),
    ) -> None:
        self._providers = {each.spec.name: each.spec for each in providers}
        self._supervisors = {each.spec.name: each.supervisor for each in providers}
        self.dialects = frozenset((*DIALECTS, *(each.spec.dialect.name for each in providers)))
        """The keys that ``Parameters.extra`` may have."""
        self.catalog = _catalog(providers)
        self.selector = Selector(cost_of)
        own_prices = OwnPrices(config.prices)
        limits = {name: p.limits for name, p in config.enabled.items() if p.limits.is_limited}
        caller_limits = {name: key.limits for name, key in config.keys.items() if key.limits.is_limited}
        self.store: StoreRef | None = None
        """What outlives the process; the first to start and the last to stop. ``None``: nothing does."""
        store: Supervisor | None = None
        ledger: Ledger | None = None
        if config.store is not None:
            file, ledger = config.store, Ledger()
            store, self.store = _parking(
                store_child(file.path, max_bytes=file.max_bytes, ttl_s=file.ttl_s, ledger=ledger)
            )
        limiter, limiter_ref = _parking(
            limiter_child(
                limits, caller_limits, server=config.redis, budgets=config.budgets, store=self.store, ledger=ledger
            )
        )
        waits = {name: p.limits.wait_s for name, p in config.enabled.items() if p.limits.wait_s is not None}
        selector, selector_ref = _parking(selector_child(self.selector))
        # If the cache is off, requests that ask for it anyway use the memory tier; the file is left alone.
        cache, cache_ref = _parking(cache_child(config.cache if config.cached else CachePolicy(), ttls=_ttls(config)))
        provider_actors = Supervisor([each.supervisor.as_child() for each in providers], name="providers")
        lister, lister_ref = _parking(_lister(self.catalog, providers))
        orchestrator: ChildSpec[OrchestratorMessage] = ChildSpec(
            "orchestrator",
            lambda _: Orchestrator(self.services, self.router),
            shutdown=config.server.drain_s,
            mailbox=MailboxSpec(SUBMISSIONS_WAITING),
        )
        self._services: tuple[Supervisor, ...] = (limiter, selector, cache, lister)
        branches: tuple[Supervisor, ...] = (limiter, selector, cache, provider_actors, lister)
        request_log: RequestLog | None = None
        if config.request_log is not None:
            wanted = config.request_log
            request_log = RequestLog(wanted.keys, wanted.routes)
            writer = _alone(
                request_log_child(
                    request_log,
                    wanted.path,
                    max_bytes=int(wanted.max_mb * 1_000_000),
                    keep_days=wanted.keep_days,
                    redacted=wanted.redact,
                )
            )
            self._services = (writer, *self._services)
            branches = (writer, *branches)
        if store is not None:
            self._services = (store, *self._services)
            branches = (store, *branches)
        core = self._core = Supervisor(
            [*(each.as_child() for each in branches), orchestrator], name="core", backoff=BACKOFF
        )
        strict = frozenset(name for name, key in config.keys.items() if key.strict)
        self.router = Router(self.catalog, config.routes, allowed=_allowed(config), strict=strict)
        self.services = Services(
            catalog=self.catalog,
            lister=lister_ref,
            providers={each.spec.name: each.ref for each in providers},
            loads={each.spec.name: ProviderLoad(each.spec.max_concurrency) for each in providers},
            limiter=limiter_ref,
            selector=self.selector,
            observer=selector_ref,
            cache=cache_ref,
            caches=config.cached,
            target_of=self._target_of,
            cost_of=cost_of,
            has_own_price=lambda each: own_prices.find(each.provider, each.model) is not None,
            timeouts={each.spec.name: each.spec.timeouts for each in providers},
            limits=limits,
            caller_limits=caller_limits,
            waits=waits,
            accepts_prefill=self.catalog.accepts_prefill,
            adapt=self._adapt,
            accounting=Accounting(
                ledger,
                BudgetTable(config.budgets),
                {name: key.team for name, key in config.keys.items() if key.team},
                config.routes.keys(),
            ),
            request_log=request_log,
            max_runs=config.server.max_runs,
            attempts=config.attempts,
            weights=_weights(config),
            synthesize=config.cross_model.synthesize_responses,
        )
        self.orchestrator: OrchestratorRef = core.ref(orchestrator)
        self.root = Supervisor([core.as_child(), *doors], name="llm-runtime", intensity=ROOT_INTENSITY)

    def is_serving(self) -> bool:
        """Whether a request could be served: the orchestrator runs, and at least one provider is available."""
        running = any(node.name == "orchestrator" and node.status is ChildStatus.RUNNING for node in self._core.nodes())
        limited = self.services.limits if "limiter" in self.parked_services() else {}
        return running and (
            not self._supervisors
            or any(name not in limited and not each.parked for name, each in self._supervisors.items())
        )

    def parked_services(self) -> tuple[str, ...]:
        """The actors that are parked after repeated crashes."""
        return tuple(each.name for each in self._services if each.parked)

    def _adapt(self, candidate: Candidate, request: AnyRequest) -> Prepared:
        return adapted_to(self._providers[candidate.provider].wires, request)

    def wire_of(self, candidate: Candidate) -> str:
        """Which wire chats with the candidate take, in words; empty where there is no choice."""
        return self._providers[candidate.provider].wires.in_words(candidate.model)

    def _target_of(self, candidate: Candidate) -> Target:
        known = self._providers[candidate.provider]
        # The local model's address changes with each start of its process; its responses do not depend on it.
        address = "" if known.vendor.local else f"{known.endpoint.origin}{known.endpoint.base}"
        return Target(candidate.provider, candidate.model, known.dialect.name, known.dialect.version, address)


def _parking(spec: ChildSpec[M]) -> tuple[Supervisor, Ref[M]]:
    """An actor under a supervisor of its own, so that its crashes affect no other."""
    supervisor = Supervisor([spec], name=spec.name, backoff=BACKOFF, park=True)
    return supervisor, supervisor.ref(spec)


def _alone(spec: ChildSpec[Never]) -> Supervisor:
    """The same for one that is sent nothing."""
    return Supervisor([spec], name=spec.name, backoff=BACKOFF, park=True)


def _catalog(providers: Sequence[Supervised]) -> Catalog:
    catalog = Catalog()
    for each in providers:
        known = each.spec
        catalog.add(known.name, known.vendor, offered(known.dialect.request_types), known.models, known.dialect.rules)
    return catalog


def _lister(catalog: Catalog, providers: Sequence[Supervised]) -> ChildSpec[CatalogMessage]:
    asked = {each.spec.name: each.ref for each in providers if not each.spec.models}
    return ChildSpec("catalog", lambda _: CatalogActor(catalog, asked))


def _allowed(config: Config) -> dict[str, Allowed]:
    return {
        name: Allowed(key.models, config.providers, config.routes)
        for name, key in config.keys.items()
        if key.models is not None
    }


def _ttls(config: Config) -> dict[str, float]:
    return {name: each.cache.ttl_s for name, each in config.enabled.items() if each.cache.ttl_s is not None}


def _weights(config: Config) -> Weights:
    given = config.selection
    return Weights(performance=given.performance_weight, cost=given.cost_weight, availability=given.availability_weight)
