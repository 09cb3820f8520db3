"""Build the setup for new runs from a configuration: services and router."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from llm_actors.cache import CacheRef, Target
from llm_actors.catalog import Allowed, Candidate, Catalog, CatalogRef
from llm_actors.limiter import LimiterRef
from llm_actors.orchestrator import ProviderLoad, Router, Services, Setup
from llm_actors.orchestrator.accounting import Accounting
from llm_actors.provider import ProviderSpec
from llm_actors.request_log import RequestLog
from llm_actors.selector import CostOf, Selector, SelectorRef, Weights
from llm_actors.store.ledger import Ledger
from llm_protocol.budgets import BudgetTable
from llm_protocol.codec.chat_adapter import offered
from llm_protocol.policy import Limits
from llm_protocol.prices import OwnPrices
from llm_runtime.config import Config
from llm_runtime.extensions import Extensions
from llm_runtime.providers import Supervised


class Shared(NamedTuple):
    """What the setups of all configurations of one runtime share."""

    lister: CatalogRef
    limiter: LimiterRef
    observer: SelectorRef
    cache: CacheRef
    selector: Selector
    cost_of: CostOf
    ledger: Ledger | None
    budgets: BudgetTable
    run_logs: tuple[RequestLog, ...]
    extensions: Extensions


def new_setup(
    config: Config,
    providers: Mapping[str, Supervised],
    shared: Shared,
    old: Setup | None = None,
    kept: Collection[str] = (),
) -> Setup:
    """Return the setup of ``config``, whose ``providers`` are running. State such as measurements is taken over from
    ``old``. ``kept`` are the names of the providers that have not changed since then.
    """
    catalog, own_prices = Catalog(), OwnPrices(config.prices)
    for name, each in providers.items():
        known = each.spec
        if name in kept and old is not None:
            catalog.carry_over(name, old.services.catalog)
        else:
            types = offered(known.dialect.request_types)
            catalog.add(name, known.vendor, types, known.models, known.dialect.rules)
    specs = {name: each.spec for name, each in providers.items()}
    loads = {name: ProviderLoad(spec.max_concurrency) for name, spec in specs.items()}
    if old is not None:
        loads |= {name: old.services.loads[name] for name in kept}
    strict = frozenset(name for name, key in config.keys.items() if key.strict)
    services = Services(
        catalog=catalog,
        lister=shared.lister,
        providers={name: each.ref for name, each in providers.items()},
        loads=loads,
        limiter=shared.limiter,
        selector=shared.selector,
        observer=shared.observer,
        cache=shared.cache,
        caches=config.cached,
        flight_wait_s=config.cache.flight_wait_s if config.cache.redis else None,
        target_of=partial(_target_of, specs),
        cost_of=shared.cost_of,
        has_own_price=lambda each: own_prices.find(each.provider, each.model) is not None,
        timeouts={name: spec.timeouts for name, spec in specs.items()},
        limits=limits_of(config),
        caller_limits=caller_limits_of(config),
        waits={name: p.limits.wait_s for name, p in config.enabled.items() if p.limits.wait_s is not None},
        accepts_prefill=catalog.accepts_prefill,
        wires={name: spec.wires for name, spec in specs.items()},
        accounting=Accounting(
            shared.ledger,
            shared.budgets,
            {name: key.team for name, key in config.keys.items() if key.team},
            config.routes.keys(),
        ),
        run_logs=shared.run_logs,
        max_runs=config.server.max_runs,
        attempts=config.attempts,
        weights=_weights(config),
        strategies=shared.extensions.strategies,
        synthesize=config.cross_model.synthesize_responses,
    )
    if old is not None:
        was = old.services
        services = msgspec.structs.replace(
            services,
            metrics=was.metrics,
            knowledge=was.knowledge,
            estimator=was.estimator,
            recent=was.recent,
            draw=was.draw,
        )
    return Setup(services, Router(catalog, config.routes, allowed=_allowed(config), strict=strict))


def _target_of(specs: Mapping[str, ProviderSpec], candidate: Candidate) -> Target:
    known = specs[candidate.provider]
    # The local model's address changes with each start of its process; its responses do not depend on it.
    address, dialect = "" if known.vendor.local else known.endpoint.url, known.dialect
    return Target(candidate.provider, candidate.model, dialect.name, dialect.version, address)


def limits_of(config: Config) -> dict[str, Limits]:
    """Return the limits of the providers that have any."""
    return {name: each.limits for name, each in config.enabled.items() if each.limits.is_limited}


def caller_limits_of(config: Config) -> dict[str, Limits]:
    """Return the limits of the callers that have any."""
    return {name: key.limits for name, key in config.keys.items() if key.limits.is_limited}


def _allowed(config: Config) -> dict[str, Allowed]:
    return {
        name: Allowed(key.models, config.providers, config.routes)
        for name, key in config.keys.items()
        if key.models is not None
    }


def _weights(config: Config) -> Weights:
    given = config.selection
    return Weights(performance=given.performance_weight, cost=given.cost_weight, availability=given.availability_weight)
