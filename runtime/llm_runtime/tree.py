"""The supervision tree.

    llm-runtime   one_for_one, 3 restarts in 60 s
     ├─ core      one_for_one
     │   ├─ store, request-log, otel                only if they are configured
     │   ├─ limiter, selector, cache, catalog
     │   ├─ providers                               one supervisor per provider
     │   └─ orchestrator                            nothing works without it: its failure escalates
     ├─ sessions  one child per connection        (the daemon only)
     └─ server    last to start, first to stop    (the daemon only)

Every child of core but the orchestrator has its own small supervisor, which parks the child if it keeps crashing.

Refs are stable across restarts, so no actor needs a restart because of another. What requests experience while an actor
is parked is described in docs/architecture.md, "When a service is not running".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Never, TypeVar, final

import msgspec
import trio

from llm_actors.cache import CacheRef, Target, cache_child
from llm_actors.catalog import Allowed, Candidate, Catalog, CatalogActor, CatalogMessage, CatalogRef, follow
from llm_actors.kernel import (
    ActorMessage,
    Backoff,
    ChildSpec,
    ChildStatus,
    Intensity,
    KernelError,
    MailboxSpec,
    Ref,
    Supervisor,
    task_child,
)
from llm_actors.limiter import LimiterMessage, LimiterRef, change_limits, limiter_child
from llm_actors.orchestrator import (
    Orchestrator,
    OrchestratorMessage,
    OrchestratorRef,
    ProviderLoad,
    Router,
    Services,
    Setup,
)
from llm_actors.orchestrator.accounting import Accounting
from llm_actors.provider import ProviderRef, ProviderSpec
from llm_actors.request_log import REQUEST_LOG_MAILBOX, RequestLog, RequestLogActor, request_log_child
from llm_actors.selector import CostOf, Selector, SelectorRef, Weights, selector_child
from llm_actors.store import StoreRef, StoreThread, store_child
from llm_actors.store.ledger import Ledger
from llm_protocol.budgets import BudgetTable
from llm_protocol.codec.chat_adapter import offered
from llm_protocol.policy import CachePolicy, Limits
from llm_protocol.prices import OwnPrices
from llm_protocol.wires import DIALECTS
from llm_runtime.config import Config, OtelConfig, RequestLogConfig
from llm_runtime.extensions import NO_EXTENSIONS, Extensions
from llm_runtime.providers import Supervised
from llm_runtime.telemetry.spans import NameOf

ROOT_INTENSITY = Intensity(3, 60.0)
"""With more restarts of branches than this within this many seconds, the runtime gives up."""

SUBMISSIONS_WAITING = 1_000
"""The most runs that wait for the orchestrator to accept them. While so many wait, a further run waits to be queued.
``server.max_runs`` limits the number of runs.
"""

BACKOFF = Backoff(cap=1.0)
"""Each restart of a crashed actor comes after at most a second. So callers of an actor wait for a restart at most a
second, unless the actor is parked or its failure escalates.
"""

PROVIDERS = 1_000
"""The most provider actors at a time, including those of former configurations that still finish their work."""

RETIRING = 64
"""The most reloads whose former providers still finish their work. With this many, a further reload is refused."""

RETIRE_SECONDS = 3_600.0
"""Seconds that a run may continue with a replaced configuration before its provider is stopped."""

M = TypeVar("M", bound=ActorMessage)


class Actors(NamedTuple):
    """The actors that all configurations of one runtime share."""

    lister: CatalogRef
    limiter: LimiterRef
    observer: SelectorRef
    cache: CacheRef


@final
class Tree:
    """The actors of one runtime, wired but not started. ``servers`` are branches of the root that start last."""

    def __init__(
        self,
        config: Config,
        providers: Sequence[Supervised],
        cost_of: CostOf,
        *,
        extensions: Extensions = NO_EXTENSIONS,
        servers: Sequence[ChildSpec[Never]] = (),
    ) -> None:
        self._use(providers)
        self._cost_of = cost_of
        self._extensions = extensions
        self._budgets = BudgetTable(config.budgets)  # a reload does not change the budgets
        # If the limiter restarts, it starts with the current content of these two.
        self._limits, self._caller_limits = _limits(config), _caller_limits(config)

        branches: list[Supervisor] = []  # in the order in which they start
        self.store: StoreRef | None = None
        """The actor of the store; ``None`` without `[store]`."""
        self._ledger: Ledger | None = None
        self._store_thread: StoreThread | None = None
        if config.store is not None:
            from llm_actors.store.tier import StoreTier  # SQLite is imported only if there is a store

            file, self._ledger = config.store, Ledger()
            tier = StoreTier(file.path, max_bytes=file.max_bytes, ttl_s=file.ttl_s, owner=self._ledger.owner)
            self._store_thread = StoreThread(tier)
            store, self.store = _parking(store_child(self._store_thread, self._ledger))
            branches.append(store)
        self._run_logs: tuple[RequestLog, ...] = ()
        branches += self._run_log_branches(config)
        limiter, limiter_ref = _parking(self._limiter_child(config))
        self.selector = Selector(cost_of, extensions.orderings)
        selector, selector_ref = _parking(selector_child(self.selector))
        # If the cache is off, requests that ask for it anyway use the memory tier; the file is left alone.
        cache, cache_ref = _parking(
            cache_child(
                config.cache if config.cached else CachePolicy(),
                ttls=_ttls(config),
                store=extensions.cache_store,
                server=config.redis,
            )
        )
        self._provider_actors = Supervisor(
            [each.supervisor.as_child() for each in providers], name="providers", max_children=PROVIDERS
        )
        lister, lister_ref = _parking(
            ChildSpec[CatalogMessage](
                "catalog", lambda _: CatalogActor(self.services.catalog, _listing(self._supervised))
            )
        )
        branches += [limiter, selector, cache, self._provider_actors, lister]
        self._services = tuple(each for each in branches if each is not self._provider_actors)
        self._retired = 0

        orchestrator: ChildSpec[OrchestratorMessage] = ChildSpec(
            "orchestrator",
            lambda _: Orchestrator(self),
            shutdown=config.server.drain_s,
            mailbox=MailboxSpec(SUBMISSIONS_WAITING),
        )
        self._core = Supervisor([*(each.as_child() for each in branches), orchestrator], name="core", backoff=BACKOFF)
        self._actors = Actors(lister_ref, limiter_ref, selector_ref, cache_ref)
        self.setup = self._new_setup(config, None)
        self.orchestrator: OrchestratorRef = self._core.ref(orchestrator)
        self.root = Supervisor([self._core.as_child(), *servers], name="llm-runtime", intensity=ROOT_INTENSITY)

    def _run_log_branches(self, config: Config) -> list[Supervisor]:
        """Return the branches that record ended runs: request log and traces."""
        branches: list[Supervisor] = []
        if config.request_log is not None:
            request_log = RequestLog(config.request_log.keys, config.request_log.routes)
            self._run_logs += (request_log,)
            branches.append(_alone(_request_log_child(config.request_log, request_log)))
        if config.otel is not None:
            waiting = RequestLog(what="the OpenTelemetry export does not take traces")
            self._run_logs += (waiting,)
            branches.append(_alone(_otel_child(config.otel, waiting, self._telemetry_name_of)))
        return branches

    def _limiter_child(self, config: Config) -> ChildSpec[LimiterMessage]:
        return limiter_child(
            self._limits,
            self._caller_limits,
            server=config.redis,
            budgets=config.budgets,
            store=self.store,
            ledger=self._ledger,
        )

    @property
    def services(self) -> Services:
        """The services for new runs."""
        return self.setup.services

    @property
    def supervised(self) -> Mapping[str, Supervised]:
        """The providers of the current configuration, by name."""
        return self._supervised

    def _use(self, providers: Sequence[Supervised]) -> None:
        self._supervised = {each.spec.name: each for each in providers}
        self.dialects = frozenset((*DIALECTS, *(each.spec.dialect.name for each in providers)))
        """The keys that ``Parameters.extra`` may have."""

    def _telemetry_name_of(self, provider: str) -> str:
        """Return OpenTelemetry's name of the provider's vendor; the provider's own name if the provider was removed."""
        found = self._supervised.get(provider)
        if found is None:
            return provider
        return found.spec.vendor.telemetry_name or found.spec.vendor.kind

    # -- reloading -----------------------------------------------------------------------------------------------------

    def tree_name(self, name: str) -> str:
        """Return the tree name of a new actor for the provider ``name``. It differs from ``name`` while an earlier
        actor still has that name.
        """
        taken = {node.name for node in self._provider_actors.nodes()}
        return next(each for each in (name, *(f"{name}~{n}" for n in range(2, len(taken) + 3))) if each not in taken)

    async def close(self) -> None:
        """Close the store's file, after the tree has ended. This is needed if the store's actor was not running."""
        if self._store_thread is not None:
            await self._store_thread.close()

    async def start(self, providers: Sequence[Supervised]) -> None:
        """Start the providers of a new configuration: all of them, or none. Raises `KernelError`."""
        if sum(node.name.startswith("retiring-") for node in self._provider_actors.nodes()) >= RETIRING:
            raise TooManyReloadsError
        started: list[str] = []
        try:
            for each in providers:
                await self._provider_actors.add_child(each.supervisor.as_child())
                started.append(each.supervisor.name)
        except BaseException:
            with trio.CancelScope(shield=True):
                for name in started:
                    await self._provider_actors.remove_child(name)
            raise

    def switch(self, config: Config, providers: Sequence[Supervised]) -> None:
        """Use ``config`` and the started ``providers`` for new runs. Runs in progress keep their setup."""
        former, old = self._supervised, self.setup
        self._use(providers)
        self.setup = self._new_setup(config, old, former)
        _replace(self._limits, _limits(config))
        _replace(self._caller_limits, _caller_limits(config))
        for name, each in self._supervised.items():
            if name in former and former[name] is not each:
                self.selector.circuits.forget(name)

    async def settle(self, former: Mapping[str, Supervised], old: Setup) -> None:
        """Finish a `switch`: stop those of the ``former`` providers that were removed, when the last run with the
        ``old`` setup has ended, and change the actors that keep state, which may take long to respond.
        """
        gone = [each.supervisor.name for name, each in former.items() if self._supervised.get(name) is not each]
        for name in gone:
            self._provider_actors.release_child(name)  # if the actor restarts, the run for which it is kept has ended
        if gone:
            self._retired += 1
            child = task_child(f"retiring-{self._retired}", partial(self._retire, old, gone))
            await self._provider_actors.start_child(child)
        with suppress(KernelError):  # if the limiter is not running, it starts with the current limits
            await change_limits(self._actors.limiter, dict(self._limits), dict(self._caller_limits))
        with suppress(KernelError):
            await follow(self._actors.lister, self.services.catalog, _listing(self._supervised))

    async def _retire(self, old: Setup, gone: Sequence[str], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with trio.move_on_after(RETIRE_SECONDS):
            await old.unused()
        for name in gone:
            await self._provider_actors.remove_child(name)

    def _new_setup(self, config: Config, old: Setup | None, former: Mapping[str, Supervised] | None = None) -> Setup:
        """Return the setup of ``config``. State such as measurements is taken over from ``old``."""
        present = self._supervised
        kept = {name for name, each in present.items() if former is not None and former.get(name) is each}
        catalog, own_prices = Catalog(), OwnPrices(config.prices)
        for name, each in present.items():
            known = each.spec
            if name in kept and old is not None:
                catalog.carry_over(name, old.services.catalog)
            else:
                types = offered(known.dialect.request_types)
                catalog.add(name, known.vendor, types, known.models, known.dialect.rules)
        specs = {name: each.spec for name, each in present.items()}
        loads = {name: ProviderLoad(spec.max_concurrency) for name, spec in specs.items()}
        if old is not None:
            loads |= {name: old.services.loads[name] for name in kept}
        strict = frozenset(name for name, key in config.keys.items() if key.strict)
        services = Services(
            catalog=catalog,
            lister=self._actors.lister,
            providers={name: each.ref for name, each in present.items()},
            loads=loads,
            limiter=self._actors.limiter,
            selector=self.selector,
            observer=self._actors.observer,
            cache=self._actors.cache,
            caches=config.cached,
            flight_wait_s=config.cache.flight_wait_s if config.cache.redis else None,
            target_of=partial(_target_of, specs),
            cost_of=self._cost_of,
            has_own_price=lambda each: own_prices.find(each.provider, each.model) is not None,
            timeouts={name: spec.timeouts for name, spec in specs.items()},
            limits=_limits(config),
            caller_limits=_caller_limits(config),
            waits={name: p.limits.wait_s for name, p in config.enabled.items() if p.limits.wait_s is not None},
            accepts_prefill=catalog.accepts_prefill,
            wires={name: spec.wires for name, spec in specs.items()},
            accounting=Accounting(
                self._ledger,
                self._budgets,
                {name: key.team for name, key in config.keys.items() if key.team},
                config.routes.keys(),
            ),
            run_logs=self._run_logs,
            max_runs=config.server.max_runs,
            attempts=config.attempts,
            weights=_weights(config),
            strategies=self._extensions.strategies,
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

    # -- looking -------------------------------------------------------------------------------------------------------

    def is_serving(self) -> bool:
        """Whether a request could be served: the orchestrator runs, and at least one provider is available."""
        running = any(node.name == "orchestrator" and node.status is ChildStatus.RUNNING for node in self._core.nodes())
        limited = self.services.limits if "limiter" in self.parked_services() else {}
        return running and (
            not self._supervised
            or any(name not in limited and not each.supervisor.parked for name, each in self._supervised.items())
        )

    def parked_services(self) -> tuple[str, ...]:
        """The actors that are parked after repeated crashes."""
        return tuple(each.name for each in self._services if each.parked)

    def wire_of(self, candidate: Candidate) -> str:
        """Describe the wire for chat requests to the candidate, such as "uses the Responses API"; empty if it is the
        usual wire of the provider.
        """
        return self._supervised[candidate.provider].spec.wires.in_words(candidate.model)


class TooManyReloadsError(KernelError):
    """A reload is refused, because too many earlier reloads have not ended yet."""

    def __init__(self) -> None:
        super().__init__(
            "providers", f"requests of {RETIRING} earlier configurations are still in progress; try again later"
        )


def _request_log_child(wanted: RequestLogConfig, log: RequestLog) -> ChildSpec[Never]:
    return request_log_child(
        log,
        wanted.path,
        max_bytes=wanted.max_bytes,
        keep_days=wanted.keep_days,
        redacted=wanted.redact,
    )


def _otel_child(wanted: OtelConfig, waiting: RequestLog, name_of: NameOf) -> ChildSpec[Never]:
    from llm_runtime.telemetry.export import OtelWriter  # the SDK is imported where it is wanted

    writer = OtelWriter(wanted, name_of)
    return ChildSpec("otel", lambda _: RequestLogActor(waiting, writer), mailbox=REQUEST_LOG_MAILBOX)


def _target_of(specs: Mapping[str, ProviderSpec], candidate: Candidate) -> Target:
    known = specs[candidate.provider]
    # The local model's address changes with each start of its process; its responses do not depend on it.
    address, dialect = "" if known.vendor.local else known.endpoint.url, known.dialect
    return Target(candidate.provider, candidate.model, dialect.name, dialect.version, address)


def _limits(config: Config) -> dict[str, Limits]:
    return {name: each.limits for name, each in config.enabled.items() if each.limits.is_limited}


def _caller_limits(config: Config) -> dict[str, Limits]:
    return {name: key.limits for name, key in config.keys.items() if key.limits.is_limited}


def _replace(table: dict[str, Limits], new: Mapping[str, Limits]) -> None:
    table.clear()
    table.update(new)


def _listing(providers: Mapping[str, Supervised]) -> dict[str, ProviderRef]:
    """Return the providers whose models come from their vendor's list."""
    return {name: each.ref for name, each in providers.items() if not each.spec.models}


def _parking(spec: ChildSpec[M]) -> tuple[Supervisor, Ref[M]]:
    """Return an actor under a separate supervisor, so that crashes of the actor affect no other actor."""
    supervisor = Supervisor([spec], name=spec.name, backoff=BACKOFF, park=True)
    return supervisor, supervisor.ref(spec)


def _alone(spec: ChildSpec[Never]) -> Supervisor:
    """Return an actor without a mailbox under a separate supervisor."""
    return Supervisor([spec], name=spec.name, backoff=BACKOFF, park=True)


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
