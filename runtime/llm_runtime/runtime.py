"""The runtime, as a program uses it: a tree of actors behind a few async functions."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from random import getrandbits
from typing import TYPE_CHECKING, Never, TypeAlias, final
from urllib.parse import urlsplit

import msgspec
import trio

from llm_actors.cache import CacheStore
from llm_actors.cache import snapshot as cache_snapshot
from llm_actors.catalog import refresh
from llm_actors.kernel import ChildSpec, KernelError, TreeNode, running
from llm_actors.limiter import snapshot as limiter_snapshot
from llm_actors.orchestrator import RecentRequest, StrategyFunction, accept, gives_choices, pass_through, ranked
from llm_actors.provider import PassthroughRequest, PassthroughResponse, count_tokens
from llm_actors.run import Judge, Run
from llm_actors.selector import OrderingFunction, Ranking
from llm_actors.store import StoreRef
from llm_protocol.dialect import ModelInfo
from llm_protocol.errors import CrashedError, LLMClientError, ModelNotFoundError, ShuttingDownError
from llm_protocol.own_prices import OwnPrices
from llm_protocol.policy import OwnNames, Policy
from llm_protocol.requests import (
    AUTO,
    AnyRequest,
    ChatRequest,
    RequestType,
    answer_type,
)
from llm_protocol.response import TokenCount, Usage
from llm_protocol.trace_context import TRACEPARENT, TraceContext, trace_context
from llm_protocol.vendor import Vendor
from llm_runtime.config import Config
from llm_runtime.config.errors import under
from llm_runtime.config.naming import check_policy
from llm_runtime.config.vendors import installed_vendors, with_vendors
from llm_runtime.extensions import NO_EXTENSIONS, Extensions
from llm_runtime.hooks import Hooks, Middleware, Observer, hooked
from llm_runtime.options import checked
from llm_runtime.providers import provider_spec, supervised
from llm_runtime.tree import Tree
from llm_runtime.trio_requests import TrioRequests

if TYPE_CHECKING:
    from llm_runtime.metrics import MetricsSnapshot
    from llm_runtime.statistics import Statistics

UNPRICED_SAID = 1_000
"""Models without a known price that are logged, once each."""

COUNT_SECONDS = 10.0
"""How long to wait for a vendor's token count; after that, tokens are estimated."""

SETTLE_SECONDS = 10.0
"""How long after a reload the limiter and the catalog are waited for; one that is away follows when it is back."""

ConfigSource: TypeAlias = "Config | str | os.PathLike[str] | None"
"""A configuration, or the path of its file; ``None`` uses the providers found in the environment."""

log = logging.getLogger(__name__)


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload changed: the names of providers."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@final
class Runtime(TrioRequests):
    """One running system. Made by `open_runtime`; all its methods need the Trio run it was opened in.

    Every request ends with a complete response or with one `LLMClientError`, by its deadline (``deadline_s``, default
    600 s). Cancelling a call, or leaving a stream, cancels everything below it, including the vendor's connection.
    """

    def __init__(
        self,
        config: Config,
        *,
        extensions: Extensions = NO_EXTENSIONS,
        servers: Callable[[Runtime], Sequence[ChildSpec[Never]]] = lambda _: (),
    ) -> None:
        self.config = config
        specs = [provider_spec(name, provider, config.vendors) for name, provider in config.enabled.items()]
        providers = [supervised(spec) for spec in specs]
        self._vendors = {spec.name: spec.vendor for spec in specs}
        self._former_vendors: dict[str, Vendor] = {}
        self._own_prices = OwnPrices(config.prices) if config.prices else None
        self._reloading = trio.Lock()
        self._listeners: list[Callable[[Config], None]] = []
        self._own_names = extensions.names
        self._tree = Tree(config, providers, self._cost_of, extensions=extensions, servers=servers(self))
        self._unpriced: set[str] = set()
        self._open = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runtime]:
        """Start the tree, and stop it after the block: new requests are refused, running ones have ``drain_s`` to
        finish.
        """
        async with running(self._tree.root):
            self._open = True
            try:
                yield self
            finally:
                self._open = False

    # -- asking ------------------------------------------------------------------------------------------------------

    @property
    def routes(self) -> Mapping[str, Policy]:
        """The configured routes, by name."""
        return self.config.routes

    async def submit(
        self,
        request: AnyRequest,
        *,
        stream: bool,
        background: bool = False,
        judge: Judge | None = None,
        since: float | None = None,
        response_id: str | None = None,
    ) -> Run:
        """Submit a request and return its run. Returns when the request is accepted; raises `LLMClientError` if it is
        not.

        The run is cancelled when its last follower leaves, unless it is a ``background`` run. Its deadline counts from
        ``since`` (Trio's clock; default: now), including the time before it is accepted. ``response_id`` is the id of
        its response; without it, the run generates one. A cancellation point; where nothing has to be waited for,
        other tasks do not get their turn.
        """
        if not self._open:
            raise ShuttingDownError("the runtime is not running")
        request = checked(request, self._tree.dialects, self._own_names)
        trace: TraceContext | None = None
        if self.config.otel is not None:
            trace = trace_context(request.forwarded.get(TRACEPARENT), getrandbits)
            forwarded = request.forwarded | {TRACEPARENT: trace.traceparent}
            request = msgspec.structs.replace(request, forwarded=forwarded)
        started_at = trio.current_time() if since is None else since
        deadline_s = self.deadline_s(request)

        async def attempt() -> Run:
            run = Run(
                request,
                stream=stream,
                background=background,
                response_id=response_id,
                judge=judge,
                log_limit_bytes=self._log_limit_bytes(request),
                started_at=started_at,
                deadline_s=deadline_s,
            )
            run.trace = trace
            await accept(self._tree.orchestrator, run)
            return run

        try:
            return await attempt()
        except CrashedError:  # it expired before it was accepted, so nothing was done for it yet
            return await attempt()

    def _log_limit_bytes(self, request: AnyRequest) -> int:
        """The size limit of its run log. Images arrive in one piece, so it allows for the largest that a provider may
        send.
        """
        configured = self.config.server.log_limit_bytes
        kind = answer_type(request, draws=self._tree.catalog.may_draw(request.model))
        if kind is not RequestType.IMAGE_GENERATION:
            return configured
        return max([configured, *(each.max_answer_mb.bytes_for(kind) for each in self.config.enabled.values())])

    def deadline_s(self, request: AnyRequest) -> float:
        """The deadline of ``request`` in seconds: its own, its policy's, its route's, or the default."""
        return self._tree.router.deadline_s(request)

    # -- reloading ---------------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> Reloaded:
        """Go on as ``config`` says: providers, keys, limits, routes, prices, attempts, selection. Its ``server``,
        ``cache``, ``redis``, ``store`` and ``budgets`` are left aside: those of the start hold until the next one.

        All or nothing: it raises `ConfigError`, or `KernelError` for a provider that does not start, and the present
        configuration holds on. Requests that run end on what they began with; a provider that is no more is stopped
        after the last of them. Of providers that stay the same everything is kept: connections, circuits, what was used
        of limits. Waits for a reload that is under way.
        """
        async with self._reloading:
            if not self._open:
                raise ShuttingDownError("the runtime is not running")
            for name, route in config.routes.items():
                with under("routes", name):
                    check_policy(route, self._own_names)
            former, old = self._tree.supervised, self._tree.setup
            specs = [provider_spec(name, provider, config.vendors) for name, provider in config.enabled.items()]
            kept = {spec.name for spec in specs if spec.name in former and _is_same(spec.name, self.config, config)}
            fresh = [supervised(each, name=self._tree.tree_name(each.name)) for each in specs if each.name not in kept]
            await self._tree.start(fresh)
            # From here to `settle` nothing waits: what runs now sees either all of the old or all of the new.
            new = {each.spec.name: each for each in fresh}
            self._former_vendors |= self._vendors
            self._vendors = {spec.name: spec.vendor for spec in specs}
            self._own_prices = OwnPrices(config.prices) if config.prices else None
            was = self.config
            self.config = msgspec.structs.replace(
                config,
                server=was.server,
                cache=was.cache,
                redis=was.redis,
                store=was.store,
                budgets=was.budgets,
                request_log=was.request_log,
                otel=was.otel,
            )
            self._tree.switch(self.config, [new.get(spec.name) or former[spec.name] for spec in specs])
            for listener in self._listeners:
                listener(config)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SETTLE_SECONDS):
                await self._tree.settle(former, old)
            return Reloaded(
                added=tuple(name for name in new if name not in former),
                changed=tuple(name for name in new if name in former),
                removed=tuple(name for name in former if name not in self._vendors),
            )

    def on_reload(self, listener: Callable[[Config], None]) -> None:
        """Have ``listener`` called with each configuration that is taken over, in the same moment. It must not wait."""
        self._listeners.append(listener)

    def forget(self, conversation: str | None = None, *, caller: str = "") -> int:
        """Forget what was stored of a conversation (``share_knowledge``), or of all conversations of the caller.
        Returns how many entries were removed.
        """
        return self._tree.services.knowledge.forget(caller, conversation)

    async def pass_through(
        self, provider: str, message: PassthroughRequest, *, caller: str, request_id: str
    ) -> PassthroughResponse:
        """Send a request to ``provider`` as it is; see `llm_actors.orchestrator.pass_through`. Raises
        `LLMClientError`.
        """
        if not self._open:
            raise ShuttingDownError("the runtime is not running")
        return await pass_through(self._tree.services, provider, message, caller=caller, request_id=request_id)

    def upstream_base(self, provider: str) -> str | None:
        """The path of a provider's base URL; ``None`` for a provider that does not exist or is disabled."""
        found = self.config.enabled.get(provider)
        return None if found is None else urlsplit(found.base_url or "").path

    def _hook(self, hooks: Hooks | None) -> None:
        """Have ``hooks`` called from now on."""
        self._hooks = hooks
        if hooks is not None and hooks.observers is not None:
            self._tree.services.listener.tell = hooks.observers.tell

    # -- looking -----------------------------------------------------------------------------------------------------

    async def models(self) -> dict[str, list[str]]:
        """The models of each provider, listed again if the configuration names none.

        A provider that cannot be listed keeps its previous list, at first an empty one, and is logged; the others are
        not affected. If the catalog is parked, all keep their lists.
        """
        if not self._open:
            raise ShuttingDownError("the runtime is not running")
        with suppress(KernelError):
            await refresh(self._tree.services.lister)
        return self._tree.catalog.models()

    def model_list(self, caller: str = "") -> list[ModelInfo]:
        """The models known now; ids have the form ``provider/model``. Does not wait. With ``caller``, only those it may
        use.
        """
        return self._tree.router.infos(caller)

    def route_names(self, caller: str = "") -> list[str]:
        """The configured routes; with ``caller``, those it may use. A route's name is used in place of a model's."""
        return self._tree.router.route_names(caller)

    async def count_tokens(self, request: AnyRequest) -> TokenCount:
        """The number of tokens of the prompt of ``request``, for the model that would be tried first.

        Waits at most `COUNT_SECONDS` for the vendor's count. If the vendor has no such endpoint, or it fails, the
        tokens are estimated. Raises `LLMClientError` for an unknown model.
        """
        try:
            routed = self._tree.router.route(request)
        except ModelNotFoundError:
            await self.models()
            routed = self._tree.router.route(request)
        services = self._tree.services
        ranking = ranked(services, request, routed.candidates, routed.policy, draw=1.0, asked=False)
        candidate = ranking.candidates[0]
        with trio.move_on_after(COUNT_SECONDS), suppress(LLMClientError, KernelError):
            counted = await count_tokens(services.providers[candidate.provider], request.to(candidate.model))
            if counted is not None:
                return TokenCount(counted, estimated=False)
        return TokenCount(services.estimator.estimate(str(candidate), request).input_tokens, estimated=True)

    async def gives_choices(self, request: AnyRequest) -> bool:
        """Whether every candidate can give all choices of ``request`` in one response; see
        `llm_actors.orchestrator.gives_choices`.
        """
        return await gives_choices(self._tree.services, self._tree.router, request)

    async def explain(self, model: str = AUTO, *, caller: str = "") -> Ranking:
        """The candidates for a chat with ``model``, in order, and why: see `Ranking.lines`.

        Waits, as a request would, for models that were never listed. Raises `LLMClientError` for an unknown model.
        """
        request = ChatRequest(model=model, messages=(), caller=caller)
        try:
            routed = self._tree.router.route(request)
        except ModelNotFoundError:
            await self.models()
            routed = self._tree.router.route(request)
        chance = 1.0  # the caller may use none of them
        ranking = ranked(self._tree.services, request, routed.candidates, routed.policy, draw=chance, asked=False)
        endings = [(candidate, self._tree.catalog.ending(candidate)) for candidate in ranking.candidates]
        warnings = tuple(f"{candidate} {words}" for candidate, words in endings if words)
        notes = tuple(f"{each} {words}" for each in ranking.candidates if (words := self._tree.wire_of(each)))
        return msgspec.structs.replace(ranking, warnings=warnings, notes=notes)

    def is_ready(self) -> bool:
        """Whether requests are accepted, and at least one provider can be used."""
        return self._open and self._tree.is_serving()

    @property
    def store(self) -> StoreRef | None:
        """The actor that keeps what outlives the process, for a server; ``None`` without ``[store]``."""
        return self._tree.store

    def parked_services(self) -> Sequence[str]:
        """The parts among limiter, selector, cache and catalog that are parked after repeated crashes."""
        return self._tree.parked_services()

    def tree(self) -> TreeNode:
        """The live tree: status, restarts, uptime, last crash and mailbox of every actor."""
        return self._tree.root.tree()

    def refused(self, code: str, *, is_limit: bool = False) -> None:
        """Count a request that the server refused for its own reasons, for `metrics`. ``is_limit``: because of one of
        its limits.
        """
        self._tree.services.metrics.refuse_in_server(code, is_limit=is_limit)

    async def metrics(self) -> bytes:
        """Counters and gauges in Prometheus' text format. Waits for no actor; omits the actors that do not run."""
        from llm_runtime.metrics import exposition

        await trio.lowlevel.checkpoint()
        return exposition(self._moment())

    async def statistics(self, caller: str | None = None) -> Statistics:
        """The same as one value for programs; see `Statistics`. With ``caller`` it has only that caller's usage and
        cost. Waits for no actor, as `metrics`.
        """
        from llm_runtime.statistics import only_of, statistics

        await trio.lowlevel.checkpoint()
        found = statistics(self._moment(), self.config)
        return found if caller is None else only_of(caller, found)

    def recent_requests(self, caller: str | None = None) -> list[RecentRequest]:
        """The requests that ended last, of everyone or of ``caller``, the last one first."""
        return self._tree.services.recent.latest(caller)

    def _moment(self) -> MetricsSnapshot:
        from llm_runtime.metrics import MetricsSnapshot

        services, now = self._tree.services, trio.current_time()
        limiter, cache = limiter_snapshot(services.limiter), cache_snapshot(services.cache)
        known = services.selector.circuits
        breakers = {name: known.provider(name, now).state for name in self._vendors}
        circuits = {(each.provider, each.model): state for each, state in known.not_closed(now)}
        explored = services.selector.exploration()
        return MetricsSnapshot(services.metrics, self.tree(), breakers, circuits, limiter, cache, explored)

    def _cost_of(self, provider: str, model: str, usage: Usage) -> float | None:
        from llm_protocol.prices import cost_of

        if self._own_prices is not None and (own := self._own_prices.find(provider, model)) is not None:
            return own.cost(usage)
        vendor = self._vendors.get(provider) or self._former_vendors[provider]
        if vendor.free:
            return 0.0
        cost = cost_of(vendor.facts_key, model, usage)
        if cost is None:
            self._say_unpriced(f"{provider}/{model}")
        return cost

    def _say_unpriced(self, model: str) -> None:
        if model not in self._unpriced and len(self._unpriced) < UNPRICED_SAID:
            self._unpriced.add(model)
            log.info("the price of %s is unknown: its responses have no cost", model)


def _is_same(name: str, old: Config, new: Config) -> bool:
    """Whether the provider is the same in both, the places its keys come from included."""
    was, now = old.providers[name], new.providers[name]
    sources = [[key.source for key in (each.api_key, each.proxy_auth) if key is not None] for each in (was, now)]
    return was == now and sources[0] == sources[1] and old.vendors[was.kind] is new.vendors[now.kind]


@asynccontextmanager
async def open_runtime(
    config: ConfigSource = None,
    *,
    vendors: Sequence[Vendor] = (),
    observers: Sequence[Observer] = (),
    middleware: Sequence[Middleware] = (),
    strategies: Mapping[str, StrategyFunction] | None = None,
    orderings: Mapping[str, OrderingFunction] | None = None,
    cache_store: CacheStore | None = None,
) -> AsyncIterator[Runtime]:
    """Run the system around a block of a Trio program.

    ``config`` is a `Config`, the path of a TOML file, or ``None``: then the providers are those whose usual key is in
    the environment, and the local model if it is installed. ``vendors`` are added to those of `llm_protocol.vendors`
    and, if the configuration is read here, to those of installed packages (entry points in the group
    ``llm_runtime.vendors``). ``strategies`` and ``orderings`` are used by the names that policies and routes give them,
    ``cache_store`` in place of ``cache.path``; see docs/how-to/extend.md. Raises `ConfigError`; a `Config` made in
    Python is checked as a file is.

    Leaving the block gives running requests ``server.drain_s`` to finish; cancelling it ends them at once. An
    exception of the block propagates unchanged; a runtime that gives up cancels the block and raises `GaveUp` in an
    exception group. Two runtimes in one process share nothing.
    """
    _require_trio()
    extensions = Extensions(strategies or {}, orderings or {}, cache_store).checked()
    if isinstance(config, Config):
        from llm_runtime.config.checking import checked_config  # what reads files, which others have read by now

        config = msgspec.structs.replace(config, vendors=with_vendors(config.vendors, vendors))
        config = checked_config(config, extensions.names)
    else:
        config = await trio.to_thread.run_sync(_configured, config, vendors, extensions.names)
    async with Runtime(config, extensions=extensions).running() as runtime, hooked(observers, middleware) as hooks:
        runtime._hook(hooks)
        yield runtime


def _require_trio() -> None:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        where = "on asyncio, use llm_runtime.aio.open_runtime; without an event loop, llm_runtime.sync.open_runtime"
        raise RuntimeError(f"llm_runtime.open_runtime runs on Trio; {where}") from None


def _configured(
    file: str | os.PathLike[str] | None,
    vendors: Sequence[Vendor],
    own: OwnNames,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    from llm_runtime.config import discover, load
    from llm_runtime.local_model import is_installed

    known, local = with_vendors(installed_vendors(), vendors), is_installed()
    if file is None:
        return discover(environ, local=local, vendors=known)
    return load(file, environ, local=local, vendors=known, own=own)
