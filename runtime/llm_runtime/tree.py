"""The supervision tree.

    llm-runtime   one_for_one, 3 restarts in 60 s
     ├─ core      one_for_one
     │   ├─ limiter, selector, cache   what they know is handed over on restart, conservatively
     │   ├─ providers              one small supervisor per provider
     │   ├─ catalog
     │   └─ orchestrator
     ├─ sessions  one child per connection        (the daemon only)
     └─ door      last in, first out              (the daemon only)

Refs are stable across restarts, so that nobody needs a neighbour's restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Never, final

from llm_actors.cache import Target, cache_child
from llm_actors.catalog import Allowed, Candidate, Catalog, CatalogActor, CatalogMessage
from llm_actors.kernel import ChildSpec, Intensity, MailboxSpec, Overflow, Supervisor
from llm_actors.limiter import limiter_child
from llm_actors.orchestrator import Orchestrator, OrchestratorMessage, OrchestratorRef, Router, Services
from llm_actors.selector import CostOf, Selector, Weights, selector_child
from llm_protocol.dialects import accepts_prefill
from llm_protocol.emulation import offered
from llm_protocol.policy import CachePolicy, Limits
from llm_protocol.requests import LLMProvider
from llm_runtime.config import Config
from llm_runtime.providers import Supervised

ROOT_INTENSITY = Intensity(3, 60.0)
"""More restarts of a whole branch than this and the runtime gives up."""

SUBMISSIONS_WAITING = 1_000
"""Runs that wait to be taken on; one more is refused."""

_NO_LIMITS = Limits()


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
        self.catalog = _catalog(providers)
        self.selector = Selector(cost_of)
        limits = {name: p.limits for name, p in config.enabled.items() if p.limits != _NO_LIMITS}
        caller_limits = {name: key.limits for name, key in config.keys.items() if key.limits != _NO_LIMITS}
        limiter = limiter_child(limits, caller_limits, server=config.redis)
        selector = selector_child(self.selector)
        # Where the cache is off, requests that want it all the same have the memory tier; the file is left alone.
        cache = cache_child(config.cache if config.cached else CachePolicy(), ttls=_ttls(config))
        provider_actors = Supervisor([each.supervisor.as_child() for each in providers], name="providers")
        lister = _lister(self.catalog, providers)
        orchestrator: ChildSpec[OrchestratorMessage] = ChildSpec(
            "orchestrator",
            lambda _: Orchestrator(self.services, self.router),
            shutdown=config.server.drain_s,
            mailbox=MailboxSpec(SUBMISSIONS_WAITING, Overflow.REFUSE),
        )
        core = Supervisor([limiter, selector, cache, provider_actors.as_child(), lister, orchestrator], name="core")
        self.router = Router(self.catalog, config.routes, allowed=_allowed(config))
        self.services = Services(
            catalog=self.catalog,
            lister=core.ref(lister),
            providers={each.spec.name: each.ref for each in providers},
            limiter=core.ref(limiter),
            selector=self.selector,
            observer=core.ref(selector),
            cache=core.ref(cache),
            caches=config.cached,
            target_of=self._target_of,
            cost_of=cost_of,
            timeouts={each.spec.name: each.spec.timeouts for each in providers},
            limits=limits,
            caller_limits=caller_limits,
            accepts_prefill=self._accepts_prefill,
            max_runs=config.server.max_runs,
            attempts=config.attempts,
            weights=_weights(config),
            synthesize=config.cross_model.synthesize_responses,
        )
        self.orchestrator: OrchestratorRef = core.ref(orchestrator)
        self.root = Supervisor([core.as_child(), *doors], name="llm-runtime", intensity=ROOT_INTENSITY)

    def _accepts_prefill(self, candidate: Candidate) -> bool:
        return accepts_prefill(self._providers[candidate.provider].kind, candidate.model)

    def _target_of(self, candidate: Candidate) -> Target:
        known = self._providers[candidate.provider]
        # The local model moves with each start of its process; what it answers does not depend on where it is.
        address = "" if known.kind is LLMProvider.LOCAL else f"{known.endpoint.origin}{known.endpoint.base}"
        return Target(candidate.provider, candidate.model, known.dialect.name, known.dialect.version, address)


def _catalog(providers: Sequence[Supervised]) -> Catalog:
    catalog = Catalog()
    for each in providers:
        known = each.spec
        catalog.add(known.name, known.kind, offered(known.dialect.request_types), known.models)
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
