"""The supervision tree.

    llm-runtime   one_for_one, 3 restarts in 60 s
     ├─ core      one_for_one
     │   ├─ store, request-log, otel                only if they are configured
     │   ├─ limiter, selector, cache
     │   ├─ providers                               one supervisor per provider
     │   ├─ catalog
     │   └─ orchestrator                            nothing works without it: its failure escalates
     ├─ sessions  one child per connection        (the daemon only)
     └─ server    last to start, first to stop    (the daemon only)

Every service, and every provider, has its own small supervisor, which parks it if it keeps crashing.

Refs are stable across restarts, so no actor needs a restart because of another. What requests experience while an actor
is parked is described in docs/architecture.md, "When a service is not running".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Never, TypeVar, final

import trio

from llm_actors.cache import cache_child
from llm_actors.catalog import Candidate, CatalogActor, CatalogMessage, follow
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
from llm_actors.limiter import LimiterMessage, change_limits, limiter_child
from llm_actors.orchestrator import (
    Orchestrator,
    OrchestratorMessage,
    OrchestratorRef,
    Services,
    Setup,
)
from llm_actors.provider import ProviderRef
from llm_actors.request_log import REQUEST_LOG_MAILBOX, RequestLog, RequestLogActor, request_log_child
from llm_actors.selector import CostOf, Selector, selector_child
from llm_actors.store import StoreRef, StoreThread, store_child
from llm_actors.store.ledger import Ledger
from llm_protocol.budgets import BudgetTable
from llm_protocol.policy import CachePolicy, Limits
from llm_protocol.wires import DIALECTS
from llm_runtime.config import Config, OtelConfig, RequestLogConfig
from llm_runtime.extensions import NO_EXTENSIONS, Extensions
from llm_runtime.providers import Supervised
from llm_runtime.run_setup import Shared, caller_limits_of, limits_of, new_setup
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
        # If the limiter restarts, it starts with the current content of these two.
        self._limits, self._caller_limits = limits_of(config), caller_limits_of(config)

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
        self._shared = Shared(
            lister=lister_ref,
            limiter=limiter_ref,
            observer=selector_ref,
            cache=cache_ref,
            selector=self.selector,
            cost_of=cost_of,
            ledger=self._ledger,
            budgets=BudgetTable(config.budgets),  # a reload does not change the budgets
            run_logs=self._run_logs,
            extensions=extensions,
        )
        self.setup = new_setup(config, self._supervised, self._shared)
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
        kept = {name for name, each in self._supervised.items() if former.get(name) is each}
        self.setup = new_setup(config, self._supervised, self._shared, old, kept)
        _replace(self._limits, limits_of(config))
        _replace(self._caller_limits, caller_limits_of(config))
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
            await change_limits(self._shared.limiter, dict(self._limits), dict(self._caller_limits))
        with suppress(KernelError):
            await follow(self._shared.lister, self.services.catalog, _listing(self._supervised))

    async def _retire(self, old: Setup, gone: Sequence[str], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with trio.move_on_after(RETIRE_SECONDS):
            await old.unused()
        for name in gone:
            await self._provider_actors.remove_child(name)

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


def _ttls(config: Config) -> dict[str, float]:
    return {name: each.cache.ttl_s for name, each in config.enabled.items() if each.cache.ttl_s is not None}
